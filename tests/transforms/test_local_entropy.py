"""Local entropy: exact chains, Gibbs averages with standard errors, and degenerate settings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix
from entropix.transforms.keys import step_key
from entropix.transforms.local_entropy import langevin_step
from entropix.transforms.random import noise_like

QUADRATICS = [  # seed, dimension, lowest and highest eigenvalue of Q
    (0, 2, 0.1, 3.0),
    (1, 5, 0.0, 10.0),
    (2, 8, -2.0, 4.0),
    (3, 3, -1.0, -0.5),
]


def stable_constants(seed, low, high):
    """Random gamma below the convexity threshold (Remark 6), step size below 2/curvature, x."""
    rng = np.random.default_rng(100 + seed)
    gamma = rng.uniform(0.1, 0.95) / max(-low, 0.5)
    return gamma, rng.uniform(0.2, 0.95) * 2 / (high + 1 / gamma)


class TestQuadraticChain:
    """Identity 1: without noise the chain is a matrix power."""

    @pytest.mark.parametrize(("seed", "dim", "low", "high"), QUADRATICS)
    def test_iterates_are_matrix_powers(self, x64, quadratic, points, seed, dim, low, high):
        f = quadratic(seed, dim, low, high)
        gamma, step_size = stable_constants(seed, low, high)
        x = np.random.default_rng(seed).normal(size=dim)
        steps = 31
        relaxation = entropix.local_entropy(
            gamma, num_steps=steps, step_size=step_size, averaging=0, temperature=0
        )
        relaxed, y = points(relaxation, f.grad)(jnp.asarray(x))
        factor = np.eye(dim) - step_size * f.pulled(gamma)
        exact = [f.mean(x, gamma)]
        for n in range(steps + 1):
            y_n = exact[0] + np.linalg.matrix_power(factor, n) @ (x - exact[0])
            exact.append(y_n)
        np.testing.assert_allclose(y, exact[1:-1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(relaxed, (x - exact[-1]) / gamma, rtol=0, atol=1e-11)

    @pytest.mark.parametrize(("seed", "dim", "low", "high"), QUADRATICS)
    def test_long_chain_gives_closed_form_gradient(self, x64, quadratic, seed, dim, low, high):
        f = quadratic(seed, dim, low, high)
        gamma = 0.9 / max(-low, 0.5)
        x = jnp.asarray(np.random.default_rng(seed).normal(size=dim))
        relaxation = entropix.local_entropy(
            gamma, num_steps=2000, step_size=1 / (high + 1 / gamma), temperature=0
        )
        relaxed, _ = entropix.relaxed_grad(relaxation, f.grad)(x, relaxation.init(x))
        np.testing.assert_allclose(relaxed, (x - f.mean(x, gamma)) / gamma, rtol=0, atol=1e-11)

    @pytest.mark.parametrize("averaging", [0.3, 0.75, 0.99])
    def test_average_weighs_the_old(self, x64, quadratic, points, averaging):
        f = quadratic(4, 4, -1.0, 2.0)
        x = np.linspace(-1, 1, 4)
        relaxation = entropix.local_entropy(
            0.5, num_steps=12, averaging=averaging, temperature=0, output="displacement"
        )
        displacement, y = points(relaxation, f.grad)(jnp.asarray(x))
        y = np.concatenate([y[1:], [y[-1] - 0.1 * (f.grad(y[-1]) + (y[-1] - x) / 0.5)]])
        weights = (1 - averaging) * averaging ** np.arange(11, -1, -1)
        mean = averaging**12 * x + weights @ y
        np.testing.assert_allclose(displacement, x - mean, rtol=0, atol=1e-13)


class TestNumpyTwin:
    """(31)-(33) written out in NumPy, fed with the same noise and the same mini-batches."""

    @pytest.mark.parametrize("temperature", [0.0, 1e-8, 0.3])
    @pytest.mark.parametrize("output", ["gradient", "displacement"])
    def test_outer_steps(self, x64, regression, assert_close, temperature, output):
        problem = regression(seed=1, dtype=jnp.float64)
        gamma, eta, alpha, L = 0.7, 0.05, 0.6, 7
        divisor = gamma if output == "gradient" else 1.0
        relaxation = entropix.local_entropy(
            gamma, num_steps=L, step_size=eta, averaging=alpha,
            temperature=temperature, key=5, output=output,
        )  # fmt: skip
        fn = jax.jit(entropix.relaxed_grad(relaxation, problem.grad))
        state, x = relaxation.init(problem.params), problem.params
        for outer in range(3):
            y, mean = x, x
            for i in range(L):
                noise = noise_like(step_key(jax.random.key(5), outer, i), x, "popcount")
                y = jax.tree.map(
                    lambda y, x, g, e: np.asarray(y) - eta * (g + (y - x) / gamma)
                    + np.sqrt(2 * eta * temperature) * e,
                    y, x, problem.grad(y, i), noise,
                )  # fmt: skip
                mean = jax.tree.map(lambda m, y: alpha * m + (1 - alpha) * y, mean, y)
            expected = jax.tree.map(lambda x, m: (x - m) / divisor, x, mean)
            relaxed, state = fn(x, state)
            assert_close(relaxed, expected, 1e-13)
            x = optax.tree.add_scale(x, -0.5, relaxed)

    def test_kernel(self, x64):
        rng = np.random.default_rng(0)
        y, x, d, noise = rng.normal(size=(4, 6))
        arrays = (jnp.asarray(y), jnp.asarray(x), jnp.asarray(d))
        drift = y - 0.3 * (d + (y - x) / 2.5)
        still = langevin_step(*arrays, 2.5, 0.3, 0.7)
        np.testing.assert_allclose(still, drift, rtol=1e-15, atol=1e-15)
        moved = langevin_step(*arrays, 2.5, 0.3, 0.7, jnp.asarray(noise))
        expected = drift + np.sqrt(2 * 0.3 * 0.7) * noise
        np.testing.assert_allclose(moved, expected, rtol=1e-15, atol=1e-15)

    def test_traced_zero_temperature_is_the_deterministic_chain(self, regression, assert_close):
        problem = regression()

        def relaxed(temperature):
            relaxation = entropix.local_entropy(0.5, num_steps=5, temperature=temperature)
            fn = entropix.relaxed_grad(relaxation, problem.grad)
            return fn(problem.params, relaxation.init(problem.params))[0]

        traced = jax.jit(relaxed)(jnp.asarray(0.0))
        assert_close(traced, relaxed(0.0), 1e-6)


class TestGibbsMeasure:
    """Identities 2 and 3: averages along noisy chains, in standard errors."""

    @pytest.mark.parametrize("temperature", [0.1, 2.0])
    def test_modes_have_exact_euler_maruyama_moments(self, x64, points, temperature):
        # Every mode is an AR(1) process with factor r = 1 - eta a, so the variance of its time
        # mean and time variance, and with it the effective sample size, is known exactly.
        gamma, eta, chains, L, burn_in = 0.8, 0.25, 40, 4000, 100
        q = np.asarray([-0.9, -0.3, 0.0, 1.0, 2.5, 4.0])
        p = np.asarray([0.5, -1.0, 0.3, 2.0, -0.7, 1.0])
        a = q + 1 / gamma
        assert np.all((eta * a > 0) & (eta * a < 2))
        assert eta * a.max() > 1  # so that O(eta) is far from negligible
        x = np.linspace(1, 2, 6)
        relaxation = entropix.local_entropy(
            gamma, num_steps=burn_in + L, step_size=eta, temperature=temperature, key=1
        )
        _, y = points(relaxation, lambda y, i: p + q * y)(jnp.broadcast_to(x, (chains, 6)))
        y = np.asarray(y)[burn_in:]
        r, n = 1 - eta * a, L * chains
        variance = temperature / (a * (1 - eta * a / 2))

        mu = x - (p + q * x) / a
        mean_error = np.sqrt(variance * (1 + r) / (1 - r) / n)
        z_mean = (y.mean(axis=(0, 1)) - mu) / mean_error
        assert np.abs(z_mean).max() < 4

        effective = n * (1 - r**2) / (1 + r**2)
        z_variance = (((y - mu) ** 2).mean(axis=(0, 1)) / variance - 1) / np.sqrt(2 / effective)
        assert np.abs(z_variance).max() < 4
        # Power: the measure's own variance T/a, which the formula corrects, would not pass.
        assert np.abs((1 - (temperature / a) / variance) / np.sqrt(2 / effective)).max() > 20
        # Nor may the errors be much smaller than they are said to be.
        assert 0.2 < np.mean(z_mean**2) < 3
        assert 0.2 < np.mean(z_variance**2) < 3

    def test_covariance_of_coupled_directions(self, x64, quadratic, points):
        gamma, eta, temperature, dim, chains = 1.5, 0.1, 0.4, 3, 20_000
        f = quadratic(5, dim, -0.4, 3.0)
        x = np.asarray([1.0, -2.0, 0.5])
        relaxation = entropix.local_entropy(
            gamma, num_steps=400, step_size=eta, averaging=0, temperature=temperature, key=2,
            output="displacement",
        )  # fmt: skip
        fn = entropix.relaxed_grad(relaxation, lambda y, i: f.p + y @ f.Q)
        start = jnp.broadcast_to(x, (chains, dim))
        displacement, _ = jax.jit(fn)(start, relaxation.init(start))
        y = x - np.asarray(displacement)  # one independent draw of every chain
        A = f.pulled(gamma)
        covariance = temperature * np.linalg.inv(A @ (np.eye(dim) - eta / 2 * A))
        mean_error = np.sqrt(np.diag(covariance) / chains)
        assert np.abs((y.mean(axis=0) - f.mean(x, gamma)) / mean_error).max() < 4
        products = (y - f.mean(x, gamma))[:, :, None] * (y - f.mean(x, gamma))[:, None, :]
        error = products.std(axis=0) / np.sqrt(chains)
        assert np.abs((products.mean(axis=0) - covariance) / error).max() < 4
        # Lemma 4's Sigma = T (Q + I/gamma)^-1 is the limit of small steps.
        gap = np.linalg.norm(covariance - temperature * np.linalg.inv(A), 2)
        assert gap < eta * temperature

    @pytest.mark.parametrize(
        ("x", "gamma", "temperature"),
        [(0.3, 0.5, 0.1), (0.0, 1.0, 0.3), (0.8, 1.0, 0.3), (-0.8, 2.0, 0.5), (1.2, 0.5, 1.0)],
    )
    def test_nonconvex_gradient_is_cole_hopf(self, x, gamma, temperature):
        f = lambda y: y**4 / 4 - y**2 + y / 3 + y**3 / 5  # noqa: E731

        def cole_hopf(x, temperature, f=f):
            y = np.linspace(-8, 8, 40_001)
            energy = (f(y) + (x - y) ** 2 / (2 * gamma)) / temperature
            weight = np.exp(-(energy - energy.min()))
            return np.sum((x - y) / gamma * weight) / weight.sum()

        # The public result itself: its average remembers the last 2,000 of 40,000 steps.
        # Independent chains give a standard error that includes all autocorrelation.
        chains = 512
        relaxation = entropix.local_entropy(
            gamma, num_steps=40_000, step_size=0.0025, averaging=0.9995,
            temperature=temperature, key=3,
        )  # fmt: skip
        fn = entropix.relaxed_grad(relaxation, lambda y, i: jax.vmap(jax.grad(f))(y))
        start = jnp.full(chains, x)
        slopes = np.asarray(jax.jit(fn)(start, relaxation.init(start))[0], np.float64)
        error = slopes.std(ddof=1) / np.sqrt(chains)
        exact = cole_hopf(x, temperature)
        assert abs(slopes.mean() - exact) < 4 * error
        # Power: neither a temperature off by 2 (the paper's own convention) nor a mirrored f,
        # which the unequal wells tell apart, would pass.
        assert abs(cole_hopf(x, 2 * temperature) - exact) > 10 * error
        assert abs(cole_hopf(x, temperature, lambda y: f(-y)) - exact) > 10 * error


class TestSmallScope:
    """(x - <y>)/gamma is a difference of weights, and has their rounding, over gamma."""

    @pytest.mark.parametrize("gamma", [1e-2, 1e-3, 1e-4, 1e-5])
    def test_rounding_is_bounded_by_that_of_the_weights_over_gamma(self, gamma):
        x, slope = jnp.asarray([0.1, 1.0, 3.0]), jnp.asarray([1e-3, 1e-4, 1e-2])
        options = {"step_size": gamma / 2, "num_steps": 30}

        def relaxed(relaxation):
            return entropix.relaxed_grad(relaxation, lambda p, i: slope)(x, relaxation.init(x))[0]

        unit = np.finfo(np.float32).eps * np.asarray(x)
        error = np.abs(relaxed(entropix.hamilton_jacobi(gamma, **options)) - slope)
        assert np.all(error <= 2 * unit / gamma)
        found = relaxed(entropix.hamilton_jacobi(gamma, form="gradient", **options))
        np.testing.assert_allclose(found, slope, rtol=1e-6)
