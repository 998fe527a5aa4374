"""Burgers: exact shocks and rarefactions, characteristics, mass, and Hamilton-Jacobi's slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, burgers, characteristics, inviscid_hj, monotone_steps


def bump(x):
    return jnp.exp(-4 * x**2)


def test_first_order_before_the_shock():
    t, errors = 0.3, []  # the shock forms at 1/max(-p') = 0.58
    counts = (100, 200, 400, 800)
    for n in counts:
        grid = Grid((-3.0,), (3.0,), (n + 1,))
        exact = characteristics(bump, grid.points, t)
        error = jnp.abs(burgers(grid, bump, t) - exact)
        errors.append(float(jnp.mean(error)))
    assert 0.8 < -np.polyfit(np.log(counts), np.log(errors), 1)[0] < 1.2


def test_characteristics_satisfy_28():
    x, t = np.linspace(-3, 3, 101), 0.5
    p = characteristics(bump, x, t)
    np.testing.assert_allclose(p, bump(x - t * p), rtol=0, atol=1e-14)
    far = characteristics(lambda x: 2 * x - 1, [[1e6, -3.0]], 0.25)
    np.testing.assert_allclose(far, (2 * np.asarray([[1e6, -3.0]]) - 1) / 1.5, rtol=1e-9)


def test_characteristics_have_derivatives():
    """Of p = x/(1 + t), and of a bump by differences; x and t may be traced."""
    line = lambda x: x  # noqa: E731
    assert float(jax.grad(characteristics, 1)(line, 1.0, 1.0)) == pytest.approx(0.5)
    assert float(jax.grad(characteristics, 2)(line, 1.0, 1.0)) == pytest.approx(-0.25)
    x = jnp.linspace(-2, 2, 9)
    h = 1e-5
    by_x = (characteristics(bump, x + h, 0.5) - characteristics(bump, x - h, 0.5)) / (2 * h)
    rows = jax.jit(jax.jacfwd(lambda x: characteristics(bump, x, 0.5)))(x)
    np.testing.assert_allclose(rows, np.diag(by_x), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("left", "right"), [(1.0, 0.0), (0.5, -0.7), (2.0, 1.0)])
def test_shocks_move_at_the_mean_speed(left, right):
    grid, t = Grid((-2.0,), (4.0,), (1201,)), 0.8
    p = burgers(grid, lambda x: jnp.where(x < 0, left, right), t)
    exact = np.where(grid.points < t * (left + right) / 2, left, right)
    assert np.trapezoid(np.abs(p - exact), grid.points) < 4 * grid.spacing[0]


def test_rarefaction():
    grid, t = Grid((-2.0,), (2.0,), (1601,)), 1.0  # through a sonic point: no entropy glitch
    p = burgers(grid, lambda x: jnp.where(x < 0, -1.0, 1.0), t)
    assert np.abs(p - np.clip(grid.points / t, -1, 1)).max() < 0.05
    assert np.trapezoid(np.abs(p - np.clip(grid.points / t, -1, 1)), grid.points) < 0.02


def test_mass_is_conserved_and_variation_falls():
    grid = Grid((-3.0,), (3.0,), (301,))
    rng = np.random.default_rng(0)
    inside = np.abs(grid.points) < 1
    for _ in range(10):
        p = np.where(inside, rng.normal(size=301), 0)
        after = burgers(grid, p, 0.5)
        np.testing.assert_allclose(after.sum(), p.sum(), rtol=0, atol=1e-12)
        assert np.abs(np.diff(after)).sum() <= np.abs(np.diff(p)).sum() + 1e-12
        assert p.min() - 1e-14 <= after.min() <= after.max() <= p.max() + 1e-14
        q = np.where(inside, rng.normal(size=301), 0)
        steps = int(np.ceil(0.5 * max(np.abs(p).max(), np.abs(q).max()) / grid.spacing[0])) + 1
        distance = burgers(grid, p, 0.5, num_steps=steps) - burgers(grid, q, 0.5, num_steps=steps)
        assert np.abs(distance).sum() <= np.abs(p - q).sum() + 1e-12  # L1 contraction


def test_it_is_the_slope_of_hamilton_jacobi():
    """Example 15, discretely: for f that rises to both ends, to rounding, past the shock."""
    grid = Grid((-2.0,), (2.0,), (201,))
    (h,) = grid.spacing
    f = grid.sample(lambda x: jnp.cos(3 * x) + x**2)
    midpoints = Grid((-2.0 + h / 2,), (2.0 - h / 2,), (200,))
    steps = monotone_steps(grid, f, 0.4) + 1
    slope = jnp.diff(inviscid_hj(grid, f, 0.4, num_steps=steps)) / h
    p = burgers(midpoints, jnp.diff(f) / h, 0.4, num_steps=steps)
    np.testing.assert_allclose(p, slope, rtol=0, atol=1e-11)


def test_rejects():
    grid = Grid((-1.0,), (1.0,), (11,))
    with pytest.raises(ValueError, match="one dimension"):
        burgers(Grid((0.0, 0.0), (1.0, 1.0), (4, 4)), lambda x: x[0], 1.0)
    for wrong in (np.inf, np.nan):
        with pytest.raises(ValueError, match=rf"p must be finite; its value at -1\.0 is {wrong}"):
            burgers(grid, np.full(11, wrong), 1.0)
    with pytest.raises(ValueError, match="too long"):
        burgers(grid, bump, 1.0, num_steps=1)
    with pytest.raises(ValueError, match="t must be"):
        characteristics(bump, 0.0, -1.0)
