"""Local energy, sharpness and local entropy: closed forms, quadrature, and rates of intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from entropix import landscape

ONE = jnp.zeros(1)  # a single batch without content


def rough(x, batch):
    """In 1-D, not convex: between its minima the curvature is about -8."""
    return jnp.sum(jnp.cos(3 * x) + x**2 / 2)


class TestLocalEnergy:
    def test_intervals_cover_the_closed_form(self, quadratic, coverage):
        f = quadratic(np.linspace(-1, 4, 30))
        x = jnp.asarray(np.random.default_rng(1).normal(size=30), jnp.float32)
        run = lambda key: landscape.local_energy(  # noqa: E731
            f.loss, x, 0.3, f.batches, key, num_samples=32
        )
        found = jax.lax.map(run, jax.random.split(jax.random.key(0), 400))
        truth = 0.3**2 / 2 * np.sum(np.asarray(x) ** 2 * np.diag(f.Q))
        assert 0.9 < coverage(found, truth, degrees=15) < 0.99

    def test_pairs_cancel_what_is_odd(self):
        value, error = landscape.local_energy(
            lambda x, batch: 7 * jnp.sum(x), jnp.ones(5), 0.5, ONE, 0
        )
        assert abs(float(value)) < 1e-5
        assert float(error) < 1e-5

    def test_half_the_relative_trace_at_small_sigma(self, x64, classifier):
        net = classifier(jnp.float64)
        hessian = landscape.hessian(net.loss, net.params, net.batches)
        trace, trace_error = landscape.trace(
            landscape.relative(hessian, net.params), net.params, 0, 400
        )
        value, error = landscape.local_energy(
            net.loss, net.params, 0.01, net.batches, 1, num_samples=400
        )
        bound = 4 * np.hypot(error / (0.01**2 / 2), trace_error) + 0.01 * abs(trace)
        assert abs(value / (0.01**2 / 2) - trace) < bound

    def test_several_figures_at_once(self, classifier):
        net = classifier()

        def figures(params, batch):
            wrong = jnp.argmax(net.outputs(params, batch), axis=-1) != batch[1]
            return {"loss": net.loss(params, batch), "error": jnp.mean(wrong)}

        together = landscape.local_energy(figures, net.params, 0.2, net.batches, 0)
        alone = landscape.local_energy(net.loss, net.params, 0.2, net.batches, 0)
        np.testing.assert_allclose(together.value["loss"], alone.value, rtol=1e-6)
        assert set(together.standard_error) == {"loss", "error"}

    def test_no_noise_no_rise(self, quadratic):
        f = quadratic([1.0, 2.0])
        found = landscape.local_energy(f.loss, jnp.ones(2), 0.0, f.batches, 0)
        assert (float(found.value), float(found.standard_error)) == (0, 0)

    def test_narrow_parameters_feel_noise_below_their_rounding(self):
        x = jnp.full(2000, 2.0, jnp.bfloat16)  # bfloat16 resolves 1/128 of a weight
        value, error = landscape.local_energy(
            lambda x, batch: jnp.sum(x**2) / 2, x, 1e-3, ONE, 0, num_samples=16
        )
        assert abs(value - 1e-6 * 4 * 2000 / 2) < 5 * error


def largest_rise(Q, g, rho):
    """max g.u + u.Qu/2 over |u| <= rho, by the multiplier of the trust region."""
    values, vectors = np.linalg.eigh(Q)
    g = vectors.T @ g
    length = lambda m: np.linalg.norm(g / (m - values))  # noqa: E731
    least = max(values[-1], 0)
    if values[-1] < 0 and length(1e-12) < rho:
        m = 0.0  # the top lies inside
    else:
        m = optimize.brentq(lambda m: length(m) - rho, least + 1e-9, least + 1e6)
    u = g / (m - values)
    return g @ u + u @ (values * u) / 2


class TestSharpness:
    @pytest.mark.parametrize("adaptive", [False, True])
    @pytest.mark.parametrize("ends", [(0.1, 4.0), (-6.0, 3.0), (-5.0, -1.0)])
    @pytest.mark.parametrize("rho", [0.05, 2.0])
    def test_of_a_quadratic(self, quadratic, ends, rho, adaptive):
        f = quadratic(np.linspace(*ends, 8))
        x = np.random.default_rng(2).normal(size=8)
        D = np.diag(np.abs(x)) if adaptive else np.eye(8)
        truth = largest_rise(D @ f.Q @ D, D @ (f.p + f.Q @ x), rho)
        found = landscape.sharpness(
            f.loss, jnp.asarray(x, jnp.float32), rho, f.batches, adaptive, num_steps=60
        )
        assert truth * 0.98 <= found <= truth * (1 + 1e-4) + 1e-5

    @pytest.mark.parametrize("dimensions", [1, 20])
    def test_at_a_minimum_it_is_the_largest_curvature(self, dimensions):
        curvature = jnp.linspace(1, 5, dimensions) if dimensions > 1 else jnp.asarray([5.0])
        loss = lambda x, batch: jnp.sum(curvature * x**2) / 2  # noqa: E731
        found = landscape.sharpness(loss, jnp.zeros(dimensions), 0.2, ONE)
        assert 0.95 * 0.1 < found <= 0.1 * (1 + 1e-5)

    def test_its_first_step_is_sams(self, classifier):
        net = classifier()
        gradient = jax.grad(net.mean_loss)(net.params)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
        sam = jax.tree.map(lambda x, g: x + 0.1 * g / norm, net.params, gradient)
        found = landscape.sharpness(net.loss, net.params, 0.1, net.batches)
        assert found >= net.mean_loss(sam) - net.mean_loss(net.params) - 1e-6
        assert landscape.sharpness(net.loss, net.params, 0.0, net.batches) == 0

    @pytest.mark.parametrize("adaptive", [False, True])
    def test_its_derivative_at_0_is_the_gradients_norm(self, classifier, adaptive):
        net = classifier()
        gradient = jax.grad(net.mean_loss)(net.params)
        parts = jax.tree.map(lambda g, x: jnp.abs(x) * g if adaptive else g, gradient, net.params)
        rise = lambda rho: landscape.sharpness(  # noqa: E731
            net.loss, net.params, rho, net.batches, adaptive
        )
        np.testing.assert_allclose(jax.grad(rise)(0.0), optax.tree.norm(parts), rtol=1e-5)

    def test_its_derivative_at_a_minimum(self):
        curvature = jnp.asarray([1.0, 5.0])
        rise = lambda rho: landscape.sharpness(  # noqa: E731
            lambda x, batch: jnp.sum(curvature * x**2) / 2, jnp.zeros(2), rho, ONE
        )
        np.testing.assert_allclose(jax.grad(rise)(0.2), 5 * 0.2, rtol=1e-4)

    def test_a_flat_loss(self):
        assert landscape.sharpness(lambda x, batch: 0 * jnp.sum(x), jnp.ones(3), 1.0, ONE) == 0


def closed_form(f, x, gamma, temperature):
    """Lemma 4: f_gamma(x) - f(x) of a quadratic."""
    g = f.p + f.Q @ x
    pulled = f.Q + np.eye(len(x)) / gamma
    _, log_det = np.linalg.slogdet(gamma * pulled)
    return -g @ np.linalg.solve(pulled, g) / 2 + temperature / 2 * log_det


class TestLocalEntropyOfQuadratics:
    @pytest.mark.parametrize("temperature", [0.0, 0.2])
    def test_intervals_cover_lemma_4(self, quadratic, coverage, temperature):
        f = quadratic(np.linspace(-0.5, 6, 40))
        x = np.random.default_rng(3).normal(size=40)
        run = lambda key: landscape.local_entropy(  # noqa: E731
            f.loss, jnp.asarray(x, jnp.float32), 0.8, temperature, f.batches, key, num_steps=30
        )
        value, error = jax.lax.map(run, jax.random.split(jax.random.key(0), 300))
        truth = closed_form(f, x, 0.8, temperature)
        if temperature:
            assert 0.9 < coverage((value, error), truth, degrees=7) < 0.99
        else:
            np.testing.assert_allclose(value, truth, rtol=1e-4)
            assert np.all(error == 0)

    def test_example_13(self):
        c, gamma, temperature, n = 3.0, 0.5, 0.1, 6
        loss = lambda x, batch: c * jnp.sum(x**2) / 2  # noqa: E731
        found = landscape.local_entropy(loss, jnp.ones(n), gamma, temperature, ONE, 0)
        relaxed = n / (2 * (gamma + 1 / c)) + n * temperature / 2 * np.log(1 + c * gamma)
        assert float(found.value) == pytest.approx(relaxed - c * n / 2, rel=1e-4)

    def test_at_a_critical_point_the_slope_has_no_part(self):
        loss = lambda x, batch: jnp.sum(x**2)  # noqa: E731
        found = landscape.local_entropy(loss, jnp.zeros(4), 1.0, 0.5, ONE, 0)
        assert float(found.value) == pytest.approx(0.5 / 2 * 4 * np.log(3), rel=1e-5)

    @pytest.mark.parametrize("size", [1e-17, 1e-21, 1e-30, 1e-37])
    def test_near_a_critical_point_too(self, size):
        """The square of the gradient is zero in single precision, and was divided by."""
        c, gamma, temperature = np.asarray([1.0, 2.0]), 0.5, 0.1
        loss = lambda x, batch: jnp.sum(jnp.asarray(c) * x**2) / 2  # noqa: E731
        x = size * jnp.asarray([1.0, -0.5])
        value, error = landscape.local_entropy(loss, x, gamma, temperature, ONE, 0)
        truth = temperature / 2 * np.log(1 + gamma * c).sum()
        assert abs(float(value) - truth) < 5 * float(error) + 1e-6

    def test_a_scope_beyond_the_threshold_is_refused(self):
        loss = lambda x, batch: jnp.sum(x**2) - x[0] ** 2 * 3  # noqa: E731
        with pytest.raises(
            ValueError, match="gamma must be below 0.25, -1 / the lowest eigenvalue"
        ):
            landscape.local_entropy(loss, jnp.ones(3), 0.3, 0.1, ONE, 0)
        compiled = jax.jit(lambda x: landscape.local_entropy(loss, x, 0.3, 0.1, ONE, 0))
        assert np.isnan(compiled(jnp.ones(3)).value)

    def test_integration(self, quadratic):
        f = quadratic(np.linspace(-0.5, 8, 12))
        x = np.random.default_rng(4).normal(size=12)
        found = landscape.local_entropy(
            f.loss, jnp.asarray(x, jnp.float32), 0.8, 0.2, f.batches, 0, method="integration"
        )
        truth = closed_form(f, x, 0.8, 0.2)
        assert abs(found.value - truth) < 4 * found.standard_error
        assert found.standard_error < 0.02 * abs(truth)


def by_quadrature(x, gamma, temperature):
    """f_gamma(x) - f(x) of the rough function, in double precision."""
    y = np.linspace(-12, 12, 200_001)
    f = lambda x: np.cos(3 * x) + x**2 / 2  # noqa: E731
    exponent = -(f(y) + (x - y) ** 2 / (2 * gamma)) / temperature
    top = exponent.max()
    integral = np.sum(np.exp(exponent - top)) * (y[1] - y[0])
    log_gauss = np.log(2 * np.pi * gamma * temperature) / 2
    return -temperature * (np.log(integral) + top - log_gauss) - f(x)


class TestIntegration:
    @pytest.mark.parametrize(
        ("x", "gamma", "temperature"), [(0.3, 0.1, 0.2), (1.0, 0.5, 0.5), (-2.0, 0.5, 1.0)]
    )
    def test_against_quadrature(self, x, gamma, temperature):
        found = landscape.local_entropy(
            rough, jnp.asarray([x]), gamma, temperature, ONE, 0, method="integration",
            sampling=landscape.Sampling(num_samples=400),
        )  # fmt: skip
        truth = by_quadrature(x, gamma, temperature)
        assert abs(found.value - truth) < 4 * found.standard_error
        assert found.standard_error < 0.02

    def test_intervals_cover_the_truth(self, coverage):
        run = lambda key: landscape.local_entropy(  # noqa: E731
            rough, jnp.asarray([0.3]), 0.2, 0.5, ONE, key, method="integration",
            sampling=landscape.Sampling(num_samples=40, num_leapfrogs=4, min_effective=0.0),
        )  # fmt: skip
        found = jax.vmap(run)(jax.random.split(jax.random.key(0), 200))
        assert 0.9 < coverage(found, by_quadrature(0.3, 0.2, 0.5), degrees=15) < 0.99

    def test_chains_that_stay_in_their_valleys_give_no_figure(self):
        wells = lambda x, batch: jnp.sum((x**2 - 1) ** 2 + 0.2 * x)  # noqa: E731
        arguments = (wells, jnp.zeros(1), 10.0, 0.02, ONE, 0)
        with pytest.raises(ValueError, match="effective sample size must be at least .*100; got"):
            landscape.local_entropy(*arguments, method="integration")
        run = jax.jit(lambda x: landscape.local_entropy(wells, x, *arguments[2:],
                                                        method="integration"))  # fmt: skip
        assert np.isnan(run(jnp.zeros(1)).value)

    def test_large_networks_are_refused(self):
        with pytest.raises(ValueError, match="at most 10000 numbers for method='integration'"):
            landscape.local_entropy(
                rough, jnp.zeros(10_001), 0.1, 0.1, ONE, 0, method="integration"
            )

    @pytest.mark.slow
    def test_it_agrees_with_the_quadratic_approximation_of_a_network(self, classifier):
        net = classifier()
        arguments = (net.loss, net.params, 0.05, 1e-3, net.batches, 0)
        near = landscape.local_entropy(*arguments)
        exact = landscape.local_entropy(*arguments, method="integration")
        error = np.hypot(near.standard_error, exact.standard_error)
        assert abs(near.value - exact.value) < 4 * error + 0.02 * abs(exact.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, x: landscape.local_energy(f, x, -1.0, ONE, 0), "sigma must be a number >= 0"),
        (
            lambda f, x: landscape.local_energy(f, x, 0.1, ONE, 0, num_samples=5),
            "num_samples must be an even number >= 4",
        ),
        (
            lambda f, x: landscape.local_energy(lambda x, b: x, x, 0.1, ONE, 0),
            "loss must return a number, or a tree of numbers",
        ),
        (lambda f, x: landscape.sharpness(f, x, -0.1, ONE), "rho must be a number >= 0"),
        (lambda f, x: landscape.sharpness(f, x, 0.1, ONE, 1), "adaptive must be True or False"),
        (lambda f, x: landscape.sharpness(f, x, 0.1, ONE, num_steps=0), "num_steps must be"),
        (lambda f, x: landscape.local_entropy(f, x, 0.0, 0.1, ONE, 0), "gamma must be a number"),
        (lambda f, x: landscape.local_entropy(f, x, 1.0, -1, ONE, 0), "temperature must be"),
        (
            lambda f, x: landscape.local_entropy(f, x, 1.0, 0.0, ONE, 0, method="integration"),
            "temperature must be a number > 0",
        ),
        (
            lambda f, x: landscape.local_entropy(f, x, 1.0, 0.1, ONE, 0, method="laplace"),
            "method must be 'quadratic' or 'integration'",
        ),
        (
            lambda f, x: landscape.local_entropy(
                f, x, 1.0, 0.1, ONE, 0, method="integration",
                sampling=landscape.Sampling(num_chains=2),
            ),
            "sampling.num_chains must be >= 4; got sampling.num_chains=2",
        ),
    ],
)  # fmt: skip
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(lambda x, batch: jnp.sum(x**2), jnp.ones(3))
