"""The backward equation and its generator: Ornstein-Uhlenbeck's closed forms, order, duality."""

import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, backward_kolmogorov, fokker_planck, generator, gibbs, mass


def tilted(x):
    return (x**2 - 1) ** 2 / 4 + x / 5


@pytest.mark.parametrize("c", [0.5, 2.0])
def test_ornstein_uhlenbeck(c):
    grid, beta, S = Grid(-6.0, 6.0, 601), 2.0, 0.8
    v = backward_kolmogorov(
        grid, lambda x: c * x**2 / 2, lambda x: x**2, beta=beta, horizon=S, num_levels=4,
        num_steps=4000,
    )  # fmt: skip
    x = np.linspace(-2, 2, 9)
    for k in range(5):
        left = S * (1 - k / 4)
        exact = x**2 * np.exp(-2 * c * left) + (1 - np.exp(-2 * c * left)) / (2 * beta * c)
        np.testing.assert_allclose(grid.interpolate(v[k], x), exact, rtol=0, atol=2e-3)


def test_two_dimensions():
    grid, beta, S = Grid((-5.0, -5.0), (5.0, 5.0), (81, 81)), 2.0, 0.5
    bowl = lambda x: x[0] ** 2 / 2 + x[1] ** 2  # noqa: E731
    v = backward_kolmogorov(
        grid, bowl, lambda x: x[0] * x[1], beta=beta, horizon=S, num_levels=1, num_steps=1000
    )[0]
    points = np.asarray([[1.0, 1.0], [-0.5, 1.5]])
    exact = points.prod(axis=1) * np.exp(-3 * S)
    np.testing.assert_allclose(grid.interpolate(v, points), exact, rtol=0, atol=8e-3)


def test_a_drift_that_changes():
    # f = -b(s) x with b linear in time: X(S) = x + int b ds + noise.
    grid, S = Grid(-8.0, 8.0, 401), 1.0
    levels = -np.asarray([0.0, 1.0, 2.0])[:, None] * grid.points
    v = backward_kolmogorov(
        grid, levels, lambda x: x, beta=2.0, horizon=S, num_levels=2, num_steps=200
    )
    x = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(grid.interpolate(v[0], x), x + 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(grid.interpolate(v[1], x), x + 0.75, rtol=0, atol=1e-6)


def test_the_generator_is_of_second_order():
    errors, counts = [], (100, 200, 400)
    for n in counts:
        grid = Grid(-2.0, 2.0, n + 1)
        x = grid.points
        exact = -(x**3 - x + 0.2) * 2 * np.cos(2 * x) - np.sin(2 * x) * 4 / (2 * 3.0)
        found = generator(grid, tilted, lambda x: jnp.sin(2 * x), beta=3.0)
        errors.append(np.abs(found - exact)[1:-1].max())
    assert 1.9 < -np.polyfit(np.log(counts), np.log(errors), 1)[0] < 2.1


@pytest.mark.parametrize("ndim", [1, 2])
def test_the_gibbs_density_has_no_mean_change(ndim):
    grid = Grid((-2.0,) * ndim, (2.0,) * ndim, (31,) * ndim)
    f = lambda x: jnp.sum(tilted(x)) + jnp.prod(jnp.cos(jnp.atleast_1d(x)))  # noqa: E731
    v = np.random.default_rng(0).normal(size=grid.shape)
    change = generator(grid, f, v, beta=2.0)
    assert abs(float(mass(grid, gibbs(grid, f, beta=2.0) * change))) < 1e-11
    assert float(jnp.abs(change).max()) > 1
    np.testing.assert_allclose(generator(grid, f, 0 * v + 3, beta=2.0), 0, atol=1e-12)


def test_expectations_are_those_of_the_forward_equation():
    # Both take the same implicit steps, of which one is the adjoint of the other.
    grid = Grid(-3.0, 3.0, 121)
    options = {"beta": 2.0, "horizon": 1.0, "num_steps": 50}
    rho = jnp.exp(-((grid.points - 1) ** 2) * 5)
    v = backward_kolmogorov(grid, tilted, jnp.sin, num_levels=1, **options)
    later = fokker_planck(grid, tilted, rho, **options)[-1]
    forward, backward = mass(grid, later * v[-1]), mass(grid, rho * v[0])
    np.testing.assert_allclose(forward, backward, rtol=1e-12)


def test_messages():
    grid = Grid(-1.0, 1.0, 11)
    with pytest.raises(ValueError, match="num_steps must be a multiple of num_levels; got 3 and 2"):
        backward_kolmogorov(grid, tilted, tilted, beta=1.0, horizon=1.0, num_levels=2, num_steps=3)
    with pytest.raises(ValueError, match="beta must be one number > 0"):
        generator(grid, tilted, tilted, beta=-1.0)
