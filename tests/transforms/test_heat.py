"""HEAT: Gaussian smoothing against exact moments, and the sampled points themselves."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix
from entropix.transforms.keys import step_key
from entropix.transforms.random import noise_like


def smoothed(f_prime, x, variance, num_steps=16, chains=20_000):
    """Mean and standard error of HEAT's gradient of sum_j f(x_j) over independent coordinates."""
    gamma = 4.0
    relaxation = entropix.heat(gamma, num_steps=num_steps, temperature=variance / gamma, key=11)
    fn = jax.jit(entropix.relaxed_grad(relaxation, lambda p, i: f_prime(p)))
    start = jnp.full(chains, x)
    slopes = np.asarray(fn(start, relaxation.init(start))[0], np.float64)
    return slopes.mean(), slopes.std(ddof=1) / math.sqrt(chains)


def gaussian_moment(x, variance, k):
    """E (x + sqrt(v) eps)^k from the moments (j - 1)!! of a standard normal number."""
    even = range(0, k + 1, 2)
    return sum(
        math.comb(k, j) * x ** (k - j) * variance ** (j / 2) * math.prod(range(j - 1, 0, -2))
        for j in even
    )


class TestGaussianSmoothing:
    """(23): the expected gradient is that of f convolved with a Gaussian of variance gamma T."""

    @pytest.mark.parametrize("power", [2, 3, 4, 6])
    @pytest.mark.parametrize(("x", "variance"), [(0.5, 0.3), (-1.2, 1.0)])
    def test_polynomials(self, power, x, variance):
        mean, error = smoothed(lambda p: power * p ** (power - 1), x, variance)
        assert abs(mean - power * gaussian_moment(x, variance, power - 1)) < 4 * error
        assert error < 0.03 * max(1.0, abs(mean))

    @pytest.mark.parametrize("frequency", [1.0, 3.0])
    @pytest.mark.parametrize("variance", [0.05, 0.5])
    def test_cosine_decays_as_an_eigenfunction(self, frequency, variance):
        # Example 14: cos(w x) is damped by exp(-w^2 gamma T / 2).
        slope = lambda p: -frequency * jnp.sin(frequency * p)  # noqa: E731
        mean, error = smoothed(slope, 0.4, variance)
        decay = math.exp(-(frequency**2) * variance / 2)
        assert abs(mean - decay * float(slope(0.4))) < 4 * error
        wider = math.exp(-(frequency**2) * variance)  # 2 gamma T, the other convention of T
        assert abs(wider - decay) * abs(float(slope(0.4))) > 10 * error

    def test_error_shrinks_with_the_number_of_points(self):
        f_prime = lambda p: p**3  # noqa: E731
        errors = [smoothed(f_prime, 0.5, 0.3, num_steps=L)[1] for L in (4, 16, 64)]
        np.testing.assert_allclose([errors[0] / errors[1], errors[1] / errors[2]], 2, rtol=0.1)


class TestPoints:
    """(35): x + sqrt(gamma T) eps_i, and the mean of the gradients there."""

    @pytest.mark.parametrize("temperature", [0.0, 0.2])
    def test_numpy_twin(self, x64, regression, assert_close, temperature):
        problem, gamma, L = regression(seed=1, dtype=jnp.float64), 0.8, 6
        relaxation = entropix.heat(gamma, num_steps=L, temperature=temperature, key=5)
        fn = jax.jit(entropix.relaxed_grad(relaxation, problem.grad))
        x, state = problem.params, relaxation.init(problem.params)
        for outer in range(3):
            total = jax.tree.map(lambda x: np.zeros(x.shape), x)
            for i in range(L):
                noise = noise_like(step_key(jax.random.key(5), outer, i), x)
                point = optax.tree.add_scale(x, math.sqrt(gamma * temperature), noise)
                total = jax.tree.map(lambda t, g: t + np.asarray(g), total, problem.grad(point, i))
            relaxed, state = fn(x, state)
            assert_close(relaxed, optax.tree.scale(1 / L, total), 1e-13)
            x = optax.tree.add_scale(x, -0.3, relaxed)

    def test_points_scatter_around_x_with_variance_gamma_temperature(self, points):
        gamma, temperature, L, n = 0.6, 0.3, 10, 20_000
        relaxation = entropix.heat(gamma, num_steps=L, temperature=temperature)
        _, seen = points(relaxation, lambda p, i: p)(jnp.full(n, 1.5))
        z = (np.asarray(seen, np.float64) - 1.5) / math.sqrt(gamma * temperature)
        assert abs(z.mean()) < 4 / math.sqrt(L * n)
        assert abs(z.var() - 1) < 4 * math.sqrt(2 / (L * n))
        # Draws of different steps have nothing to do with each other.
        correlation = np.corrcoef(z) - np.eye(L)
        assert np.abs(correlation).max() < 4.5 / math.sqrt(n)

    def test_only_the_product_of_scope_and_temperature_matters(self, regression, assert_close):
        problem = regression(seed=2)

        def relaxed(gamma, temperature):
            relaxation = entropix.heat(gamma, num_steps=3, temperature=temperature)
            fn = entropix.relaxed_grad(relaxation, problem.grad)
            return fn(problem.params, relaxation.init(problem.params))[0]

        assert_close(relaxed(0.25, 0.4), relaxed(0.1, 1.0), 1e-6)

    def test_starts_at_params_only_without_noise(self):
        assert not entropix.heat(1.0, temperature=1e-4).starts_at_params
        assert entropix.heat(1.0, temperature=0).starts_at_params
        assert entropix.heat(1.0, temperature=0).init(jnp.ones(2)).key is None
