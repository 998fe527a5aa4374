"""Hopf-Lax: a brute-force twin, closed forms, the sup norm, and linear time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, hopf_lax

GRIDS = [Grid((-1.0,), (2.0,), (157,)), Grid((-1.0, 0.0), (1.0, 3.0), (23, 31))]
BOTH = pytest.mark.parametrize("grid", GRIDS, ids=["line", "plane"])


def brute_force(grid, values, t):
    """All pairs of nodes."""
    nodes = grid.points.reshape(-1, grid.ndim)
    squares = ((nodes[:, None] - nodes[None]) ** 2).sum(axis=-1)
    return (np.asarray(values).reshape(-1) + squares / (2 * t)).min(axis=1).reshape(grid.shape)


@BOTH
@pytest.mark.parametrize("t", [1e-8, 1e-3, 0.1, 10.0, 1e8])
def test_brute_force_twin(grid, t):
    rng = np.random.default_rng(0)
    nodes = grid.points.reshape(*grid.shape, grid.ndim)
    for scale in (0.0, 1e-3, 1.0, 100.0):
        values = scale * rng.normal(size=grid.shape) + rng.normal()
        u = hopf_lax(grid, values, t)
        np.testing.assert_allclose(u.value, brute_force(grid, values, t), rtol=1e-12, atol=1e-12)
        # The proximal point attains the minimum, and gives the gradient.
        p = np.asarray(u.prox).reshape(*grid.shape, grid.ndim)
        attained = grid.interpolate(values, u.prox) + ((nodes - p) ** 2).sum(axis=-1) / (2 * t)
        np.testing.assert_allclose(attained, u.value, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(u.gradient, (grid.points - u.prox) / t, rtol=1e-14)


@BOTH
@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_a_domain_beyond_which_f_is_infinite(grid, share):
    rng = np.random.default_rng(1)
    for _ in range(5):
        values = np.where(rng.uniform(size=grid.shape) < share, np.inf, rng.normal(size=grid.shape))
        u = hopf_lax(grid, values, 0.3)
        np.testing.assert_allclose(u.value, brute_force(grid, values, 0.3), rtol=1e-12, atol=1e-12)


@BOTH
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_one_value_that_is_no_number_is_refused(grid, value):
    """A single NaN made finite, wrong values at half of the nodes."""
    values = np.zeros(grid.shape)
    values[(3,) * grid.ndim] = value
    where = np.asarray(grid.points[(3,) * grid.ndim]).tolist()
    message = rf"f must be finite or \+infinity.*value at {re.escape(str(where))} is {value}"
    with pytest.raises(ValueError, match=message):
        hopf_lax(grid, values, 0.3)
    with pytest.raises(ValueError, match="its value at every node is inf"):
        hopf_lax(grid, np.full(grid.shape, np.inf), 0.3)


@pytest.mark.parametrize("shape", ["convex", "concave", "linear", "constant"])
def test_envelopes_of_extreme_length(shape):
    # All parabolas on the envelope, or one only: the loop's length suffices for both.
    grid = Grid((0.0,), (1.0,), (64,))
    x = grid.points
    values = {"convex": x**2, "concave": -9 * x**2, "linear": x, "constant": 0 * x}[shape]
    np.testing.assert_allclose(
        hopf_lax(grid, values, 0.3).value, brute_force(grid, values, 0.3), rtol=0, atol=1e-14
    )


def test_soft_thresholding_and_huber():
    grid, t = Grid((-2.0,), (2.0,), (401,)), 0.5
    u, x = hopf_lax(grid, jnp.abs, t), grid.points
    np.testing.assert_allclose(u.prox, np.sign(x) * np.maximum(np.abs(x) - t, 0), atol=1e-12)
    huber = np.where(np.abs(x) <= t, x**2 / (2 * t), np.abs(x) - t / 2)
    np.testing.assert_allclose(u.value, huber, rtol=0, atol=1e-14)


@pytest.mark.parametrize("ndim", [1, 2])
def test_orders_on_a_quadratic(ndim):  # Example 13
    c, t, values, gradients = 1.7, 0.37, [], []
    counts = np.asarray([50, 100, 200, 400])
    for n in counts:
        grid = Grid((-1.0,) * ndim, (1.0,) * ndim, (n + 1,) * ndim)
        u = hopf_lax(grid, lambda x: c * jnp.sum(x**2) / 2, t)
        x = grid.points.reshape(*grid.shape, ndim)
        exact = (x**2).sum(axis=-1) / (2 * (t + 1 / c))
        values.append(np.abs(u.value - exact).max())
        gradients.append(np.abs(u.gradient.reshape(x.shape) - x / (t + 1 / c)).max())
    assert 1.8 < -np.polyfit(np.log(counts), np.log(values), 1)[0] < 2.2
    assert 0.8 < -np.polyfit(np.log(counts), np.log(gradients), 1)[0] < 1.2


@BOTH
def test_order_and_sup_norm(grid):
    rng = np.random.default_rng(1)
    for _ in range(20):
        f, g = rng.normal(size=(2, *grid.shape))
        u, v = (hopf_lax(grid, h, 0.05).value for h in (f, g))
        assert jnp.abs(u - v).max() <= np.abs(f - g).max() + 1e-14  # non-expansive
        assert (hopf_lax(grid, np.maximum(f, g), 0.05).value >= jnp.maximum(u, v) - 1e-14).all()
        assert (u <= f + 1e-14).all()
        assert u.min() == f.min()


def test_semigroup_up_to_the_grid():
    grid = Grid((-4.0,), (4.0,), (2001,))
    f = lambda x: jnp.cos(3 * x) + x**2 / 2  # noqa: E731
    twice = hopf_lax(grid, hopf_lax(grid, f, 0.2).value, 0.3).value
    np.testing.assert_allclose(twice, hopf_lax(grid, f, 0.5).value, rtol=0, atol=2e-5)


def test_one_compiled_program_under_jit():
    grid = GRIDS[0]
    values = np.random.default_rng(2).normal(size=grid.shape)
    inside = jax.jit(lambda v, t: hopf_lax(grid, v, t).value)(values, 0.1)
    np.testing.assert_allclose(inside, hopf_lax(grid, values, 0.1).value, rtol=1e-15)


@BOTH
def test_derivatives_are_those_for_a_fixed_minimiser(grid):
    """The loop over parabolas allowed no derivatives in reverse mode."""
    values = jnp.asarray(np.random.default_rng(3).normal(size=grid.shape))
    u = hopf_lax(grid, values, 0.3)
    by_t = jax.grad(lambda t: hopf_lax(grid, values, t).value.sum())(0.3)
    np.testing.assert_allclose(by_t, -jnp.sum(u.gradient**2) / 2, rtol=1e-10)  # u_t = -|grad u|^2/2
    node = (5,) * grid.ndim
    by_f = jax.grad(lambda f: hopf_lax(grid, f, 0.3).value[node])(values)
    assert by_f.sum() == 1
    nearest = jnp.unravel_index(by_f.argmax(), grid.shape)
    np.testing.assert_allclose(grid.points[tuple(int(i) for i in nearest)], u.prox[node])


def test_rejects():
    with pytest.raises(ValueError, match="t must be one number > 0"):
        hopf_lax(GRIDS[0], jnp.cos, -1.0)
