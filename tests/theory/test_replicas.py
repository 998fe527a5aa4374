"""Replicas are local entropy (Deep Relaxation, section 4.3): averages, gradients, reductions.

Given their centre, Elastic-SGD's replicas sample the measure that Entropy-SGD's inner loop samples
around x, so by ergodicity (22) an average over replicas does for an average over time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix


@pytest.fixture(autouse=True)
def x64():
    """Optimisers are used, and checked here, in single precision."""
    with jax.enable_x64(False):
        yield


def around_a_fixed_centre(grad, x, gamma, temperature, step_size, p, steps, burn_in, seed):
    """Mean over time and p replicas of Elastic-SGD whose centre stays at x, for every chain.

    A centre that is never renewed is the x of the local entropy, and gradient noise of size
    sqrt(2 T/eta) turns SGD into Langevin dynamics. `x` and the result have shape (chains, ...).
    """
    tx = entropix.elastic_sgd(step_size, gamma, "r", momentum=None, period=10**6)
    update = jax.vmap(tx.update, axis_name="r")
    y = jnp.broadcast_to(x, (p, *x.shape))
    size = np.sqrt(2 * temperature / step_size)

    def step(carry, key):
        y, state = carry
        grads = grad(y) + size * jax.random.normal(key, y.shape, y.dtype)
        updates, state = update(grads, state, y)
        return (y + updates, state), None

    def measured(carry, key):
        carry, total = carry
        carry, _ = step(carry, key)
        return (carry, total + carry[0].mean(axis=0)), None

    @jax.jit
    def run(y):
        early, late = jnp.split(jax.random.split(jax.random.key(seed), burn_in + steps), [burn_in])
        carry, _ = jax.lax.scan(step, (y, jax.vmap(tx.init)(y)), early)
        (_, total), _ = jax.lax.scan(measured, (carry, jnp.zeros_like(x)), late)
        return total / steps

    return np.asarray(run(y), np.float64)


def inner_loop(grad, x, gamma, temperature, step_size, memory, seed):
    """<y> of `local_entropy`, which remembers about `memory` steps of a run 15 times as long."""
    relaxation = entropix.local_entropy(
        gamma, num_steps=15 * memory, step_size=step_size, averaging=1 - 1 / memory,
        temperature=temperature, key=seed, output="displacement",
    )  # fmt: skip
    fn = entropix.relaxed_grad(relaxation, lambda y, i: grad(y))
    displacement, _ = jax.jit(fn)(x, relaxation.init(x))
    return np.asarray(x, np.float64) - np.asarray(displacement, np.float64)


def mean_and_error(samples):
    """Mean over independent chains (the first axis), and its standard error."""
    return samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(len(samples))


class TestQuadratic:
    """Lemma 4: mean over replicas = mean over time = mu, where directions are coupled."""

    Q = np.asarray([[2.0, 0.6, -0.3], [0.6, 1.0, 0.4], [-0.3, 0.4, -0.2]])
    linear = np.asarray([0.5, -1.0, 0.8])
    x, gamma, temperature, step_size = np.asarray([1.2, -0.4, 0.7]), 0.8, 0.3, 0.1

    def test_three_averages_agree(self, measured):
        grad = lambda y: self.linear + y @ self.Q  # noqa: E731
        start = jnp.broadcast_to(jnp.asarray(self.x, jnp.float32), (400, 3))
        setting = self.gamma, self.temperature, self.step_size
        replicas = around_a_fixed_centre(
            grad, start, *setting, p=4, steps=1000, burn_in=200, seed=0
        )
        time = inner_loop(grad, start, *setting, memory=1000, seed=1)
        curvature = self.Q + np.eye(3) / self.gamma
        mu = self.x - np.linalg.solve(curvature, self.linear + self.Q @ self.x)
        (over_replicas, error_r), (over_time, error_t) = map(mean_and_error, (replicas, time))
        measured(
            "(22)",
            f"quadratic in 3-D: over replicas {over_replicas[0]:.4f} ({error_r[0]:.4f}), over "
            f"time {over_time[0]:.4f} ({error_t[0]:.4f}) for Lemma 4's {mu[0]:.4f}",
            "4 s.e.",
        )
        # Euler-Maruyama has no bias here: the chain is linear.
        assert np.abs((over_replicas - mu) / error_r).max() < 4
        assert np.abs((over_time - mu) / error_t).max() < 4
        assert np.abs((over_replicas - over_time) / np.hypot(error_r, error_t)).max() < 4
        # Power: neither x itself nor a diagonal Q would pass.
        diagonal = self.x - (self.linear + self.Q @ self.x) / np.diag(curvature)
        for wrong in (self.x, diagonal):
            assert np.abs((wrong - mu) / np.maximum(error_r, error_t)).max() > 20


class TestStationaryMeasure:
    """(20)-(22) for a quadratic loss, whose replicas are Gaussian chains with known moments."""

    q, p_linear, gamma, eta, temperature, p = 1.5, 0.8, 0.5, 0.2, 0.3, 4
    chains, burn_in, steps = 300, 300, 1500

    def trajectories(self, start, period):
        """Replicas under SGD with gradient noise of Langevin size, shape (steps, chains, p)."""
        tx = entropix.elastic_sgd(self.eta, self.gamma, "r", momentum=None, period=period)
        update = jax.vmap(jax.vmap(tx.update, axis_name="r"))
        size = np.sqrt(2 * self.temperature / self.eta)
        x = jnp.full((self.chains, self.p), start)

        def step(carry, key):
            x, state = carry
            grads = self.q * x + self.p_linear + size * jax.random.normal(key, x.shape)
            updates, state = update(grads, state, x)
            return (x + updates, state), x + updates

        keys = jax.random.split(jax.random.key(0), self.burn_in + self.steps)
        _, x = jax.jit(lambda c: jax.lax.scan(step, c, keys))((x, jax.vmap(jax.vmap(tx.init))(x)))
        return np.asarray(x, np.float64)[self.burn_in :]

    def variance(self, curvature):
        return self.temperature / (curvature * (1 - self.eta * curvature / 2))

    def assert_mean(self, samples, truth):
        """`samples` of shape (steps, chains): the chains' means are independent."""
        mean, error = mean_and_error(samples.mean(axis=0))
        assert abs(mean - truth) < 4 * error
        assert error < 0.02 * max(1.0, abs(truth))
        return f"{mean:.4f} ({error:.4f}) for {truth:.4f}"

    def test_replicas_around_a_fixed_centre_sample_lemma_4(self, measured):
        # A centre that is never renewed is the x of the local entropy: the average over replicas
        # and time estimates its mu, in the place of Entropy-SGD's time average.
        centre = 1.2
        x = self.trajectories(centre, period=10**6)
        a = self.q + 1 / self.gamma
        mu = centre - (self.p_linear + self.q * centre) / a
        mean = self.assert_mean(x.mean(axis=2), mu)
        variance = self.assert_mean(((x - mu) ** 2).mean(axis=2), self.variance(a))
        measured("(22)", f"fixed centre: mean {mean}, variance {variance}", "4 s.e.")

    def test_coupled_replicas_centre_on_the_minimiser(self):
        # Mean and deviations are independent modes: the pull acts on the deviations alone.
        x = self.trajectories(0.7, period=1)
        centre = x.mean(axis=2)
        minimiser = -self.p_linear / self.q
        self.assert_mean(centre, minimiser)
        self.assert_mean((centre - minimiser) ** 2, self.variance(self.q) / self.p)
        spread = ((x - centre[:, :, None]) ** 2).mean(axis=2)
        expected = self.variance(self.q + 1 / self.gamma) * (self.p - 1) / self.p
        self.assert_mean(spread, expected)


class TestDoubleWell:
    """A tilted double well: replicas, time average and Cole-Hopf give the same gradient."""

    gamma, temperature, step_size = 1.5, 0.3, 0.01
    points = np.asarray([-1.1, -0.3, 0.2, 0.9])
    chains = 1024

    def loss(self, y):
        return (y**2 - 1) ** 2 / 4 + 0.2 * y

    def grad(self, y):
        return y * (y**2 - 1) + 0.2

    def cole_hopf(self, temperature=temperature, sign=1):
        """(x - <y>)/gamma by quadrature of Lemma 1's measure, at all points."""
        y = np.linspace(-6, 6, 20_001)
        x = self.points[:, None]
        energy = (self.loss(sign * y) + (x - y) ** 2 / (2 * self.gamma)) / temperature
        weight = np.exp(-(energy - energy.min(axis=1, keepdims=True)))
        return ((x - y) / self.gamma * weight).sum(axis=1) / weight.sum(axis=1)

    def euler_maruyama(self):
        """The same for the chain with this step size, from its transition kernel."""
        y = np.linspace(-3.5, 3.5, 701)
        slopes = []
        for x in self.points:
            drift = y - self.step_size * (self.grad(y) + (y - x) / self.gamma)
            gap = y[None, :] - drift[:, None]
            kernel = np.exp(-(gap**2) / (4 * self.step_size * self.temperature))
            kernel /= kernel.sum(axis=1, keepdims=True)
            balance = kernel.T - np.eye(len(y))
            balance[-1] = 1  # the measure's mass, in the place of one redundant equation
            measure = np.linalg.solve(balance, np.eye(len(y))[-1])
            slopes.append((x - measure @ y) / self.gamma)
        return np.asarray(slopes)

    def test_the_bias_of_the_step_size_is_of_first_order(self):
        # The kernel itself is checked by the law of its limit: half the step, half the bias.
        biases = []
        for step_size in (0.02, 0.01):
            half = TestDoubleWell()
            half.step_size = step_size
            biases.append(half.euler_maruyama() - self.cole_hopf())
        np.testing.assert_allclose(biases[0] / biases[1], 2, rtol=0.1)

    def test_three_gradients_agree(self, measured):
        start = jnp.broadcast_to(jnp.asarray(self.points, jnp.float32), (self.chains, 4))
        setting = self.gamma, self.temperature, self.step_size
        replicas = around_a_fixed_centre(
            self.grad, start, *setting, p=4, steps=1000, burn_in=1500, seed=2
        )
        time = inner_loop(self.grad, start, *setting, memory=1000, seed=3)
        slopes = [mean_and_error((self.points - y) / self.gamma) for y in (replicas, time)]
        exact, bias = self.cole_hopf(), self.euler_maruyama() - self.cole_hopf()
        replicas, time = (f"{slope[0]:.4f} ({error[0]:.4f})" for slope, error in slopes)
        measured(
            "(22)",
            f"double well: over replicas {replicas}, over time {time} for {exact[0]:.4f}",
            "4 s.e.",
        )
        for slope, error in slopes:
            assert np.abs(bias / error).max() < 1
            assert np.abs((slope - exact) / error).max() < 4
            # Power: T off by 2 (the paper's own convention), or the mirrored well.
            assert np.abs((self.cole_hopf(2 * self.temperature) - exact) / error).max() > 10
            assert np.abs((self.cole_hopf(sign=-1) - exact) / error).max() > 10
        (over_replicas, error_r), (over_time, error_t) = slopes
        assert np.abs((over_replicas - over_time) / np.hypot(error_r, error_t)).max() < 4


def walk(tx, p, steps, fused=True):
    """Identical replicas on the same mini-batches; all of them after `steps` steps.

    Everything runs under the same vmap, because XLA may round a scalar's gradient differently
    inside a vector; what is compared is the optimisers. For the same reason `fused` says whether
    the compiler may fuse operations, and so leave out the rounding between a product and a sum.
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=23) * 10.0 ** rng.integers(-3, 3, size=23), jnp.float32)
    batches = jnp.asarray(rng.normal(size=(7, 23)), jnp.float32)
    x = jnp.broadcast_to(x, (p, 23))
    state = jax.vmap(tx.init)(x)

    @functools.partial(jax.vmap, in_axes=(0, 0, None), axis_name="r")
    def step(x, state, count):
        grad_fn = lambda x, i: jnp.sin(2 * x) + 0.1 * x + batches[(count + i) % 7]  # noqa: E731
        updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
        return optax.apply_updates(x, updates), state

    @functools.partial(
        jax.jit, compiler_options={} if fused else {"xla_disable_hlo_passes": "fusion"}
    )
    def run(*carry):
        return jax.lax.fori_loop(0, steps, lambda count, carry: step(*carry, count), carry)[0]

    return np.asarray(run(x, state))


class TestIdenticalReplicas:
    """Identity 6 over many steps: replicas that agree are the method without a coupling."""

    @pytest.mark.parametrize("p", [1, 2, 3, 5, 8])
    def test_elastic_sgd_is_sgd_to_the_bit(self, p):
        elastic = walk(entropix.elastic_sgd(0.05, 0.01, "r"), p, steps=1000)
        np.testing.assert_array_equal(elastic, walk(entropix.sgd(0.05), p, steps=1000))
        assert np.isfinite(elastic).all()

    @pytest.mark.parametrize("p", [1, 2, 3, 5, 8])
    @pytest.mark.parametrize("output", ["gradient", "displacement"])
    def test_parle_is_entropy_sgd_to_the_bit(self, p, output):
        options = {"num_steps": 5, "step_size": 0.05, "temperature": 0, "output": output}
        parle = entropix.parle(0.5, 0.7, 0.01, "r", **options)
        alone = entropix.entropy_sgd(0.5, 0.7, **options)
        np.testing.assert_array_equal(
            walk(parle, p, 200, fused=False), walk(alone, p, 200, fused=False)
        )
        # Where it may fuse, the compiler takes one of two products into the next sum, and another
        # one if a force of zero stands between: the last bit is then the compiler's.
        np.testing.assert_allclose(walk(parle, p, 200), walk(alone, p, 200), rtol=1e-5)

    @pytest.mark.parametrize("p", [1, 2, 3, 5, 8])
    def test_a_stale_centre_pulls_even_replicas_that_agree(self, p):
        # With period > 1 there is no reduction to SGD, not even for one replica: on the steps
        # between, the pull is towards where the replicas were. They still stay together.
        elastic = walk(entropix.elastic_sgd(0.05, 1.0, "r", period=3), p, steps=300)
        np.testing.assert_array_equal(elastic, np.broadcast_to(elastic[:1], elastic.shape))
        one = walk(entropix.elastic_sgd(0.05, 1.0, "r", period=3), 1, steps=300)
        np.testing.assert_allclose(elastic[:1], one, rtol=1e-4)
        sgd = walk(entropix.sgd(0.05), p, steps=300)
        assert np.abs(elastic - sgd).max() > 1e-2
