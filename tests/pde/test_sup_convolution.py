"""Suprema: brute force, closed forms, monotone schemes that share nothing with them, and SAM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entropix
from entropix.pde import Grid, ball_maximum, inviscid_hj, monotone_steps, sup_convolution
from entropix.pde.hamiltonians import ASCENT


def rugged(x):
    return jnp.sum(jnp.cos(3 * x) + x**2 / 2)


def box(ndim, n, width=2.0):
    return Grid((-width,) * ndim, (width,) * ndim, (n + 1,) * ndim)


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("t", [0.05, 1.0])
def test_sup_convolution_by_brute_force(ndim, t):
    grid = box(ndim, (120, 20)[ndim - 1])
    nodes = grid.points.reshape(-1, ndim)
    squares = ((nodes[:, None] - nodes) ** 2).sum(axis=-1)
    heights = np.asarray(grid.sample(rugged)).reshape(-1) - squares / (2 * t)
    u = sup_convolution(grid, rugged, t)
    np.testing.assert_allclose(u.value.reshape(-1), heights.max(axis=1), rtol=0, atol=1e-12)
    found = np.asarray(u.prox).reshape(-1, ndim)
    np.testing.assert_allclose(
        np.asarray(u.gradient).reshape(-1, ndim), (found - nodes) / t, rtol=1e-12, atol=1e-12
    )


def test_the_scheme_for_sup_convolution_is_that_of_minus_f():
    errors, counts = [], (100, 200, 400)
    for n in counts:
        grid = box(1, n, width=4.0)
        scheme = -inviscid_hj(grid, -grid.sample(rugged), 0.1)
        u = sup_convolution(grid, rugged, 0.1).value
        errors.append(float(jnp.abs(u - scheme)[abs(grid.points) < 2].max()))
    assert 0.7 < -np.polyfit(np.log(counts), np.log(errors), 1)[0] < 1.3


class TestBallMaximum:
    def test_brute_force_on_a_line(self):
        grid, rho = box(1, 60), 0.4
        offsets = rho * np.linspace(-1, 1, 200_001)
        truth = [float(np.max(np.cos(3 * (x + offsets)) + (x + offsets) ** 2 / 2))
                 for x in grid.points]  # fmt: skip
        u = ball_maximum(grid, rugged, rho, num_radii=512)
        np.testing.assert_allclose(u.value, truth, rtol=0, atol=10 * (rho / 512) ** 2)

    @pytest.mark.parametrize("rho", [0.1, 1.5])
    def test_a_bowl_in_the_plane(self, rho):
        points = np.random.default_rng(0).uniform(-1, 1, size=(20, 2))
        u = ball_maximum(box(2, 4), lambda x: x @ x, rho, points, num_angles=1000)
        far = np.linalg.norm(points, axis=-1)
        np.testing.assert_allclose(u.value, (far + rho) ** 2, rtol=1e-5)
        exact = 2 * points * (1 + rho / far)[:, None]
        np.testing.assert_allclose(u.gradient, exact, rtol=0, atol=0.01 * (1 + rho))

    @pytest.mark.parametrize("ndim", [1, 2])
    def test_the_monotone_scheme_converges_to_it(self, ndim):
        rho, errors = 0.3, []
        counts = [(100, 200, 400), (24, 48, 96)][ndim - 1]
        for n in counts:
            grid = box(ndim, n)
            scheme = inviscid_hj(grid, rugged, rho, flux=ASCENT)
            inside = np.abs(grid.points.reshape(*grid.shape, ndim)).max(axis=-1) <= 1
            nodes = slice(None, None, 1 if ndim == 1 else 7)
            exact = ball_maximum(grid, rugged, rho, grid.points[inside][nodes], num_radii=32)
            errors.append(float(jnp.abs(scheme[inside][nodes] - exact.value).max()))
        # First order; second where one side of the ball decides.
        assert 0.5 < -np.polyfit(np.log(counts), np.log(errors), 1)[0] < 2.1
        assert errors[-1] < 0.1

    def test_the_scheme_is_ordered_and_keeps_maxima(self):
        rng = np.random.default_rng(1)
        grid = box(2, 12)
        f, g = rng.normal(size=(2, *grid.shape))
        steps = monotone_steps(grid, f, 0.3, flux=ASCENT)
        assert steps == monotone_steps(grid, 100 * f, 0.3, flux=ASCENT)  # its speed is 1
        solve = lambda v: inviscid_hj(grid, v, 0.3, flux=ASCENT)  # noqa: E731
        top = solve(np.maximum(f, g))
        assert (top >= jnp.maximum(solve(f), solve(g)) - 1e-13).all()
        assert abs(float(solve(f).max()) - f.max()) < 1e-13
        assert (solve(f) >= f - 1e-13).all()

    def test_sam_descends_it_where_f_is_convex(self):
        f, rho = lambda x: jnp.exp(x) - x, 0.2  # one step of ascent ends where the maximum is
        points = np.asarray([-1.5, -0.7, 0.4, 1.2])
        truth = ball_maximum(Grid(-3.0, 3.0, 11), f, rho, points).gradient
        relaxation = entropix.sharpness(rho)
        for x, expected in zip(points, truth, strict=True):
            x = jnp.asarray(x)
            slope = entropix.relaxed_grad(relaxation, lambda y, i: jax.grad(f)(y))
            np.testing.assert_allclose(slope(x, relaxation.init(x))[0], expected, rtol=1e-6)

    def test_messages(self):
        with pytest.raises(ValueError, match="rho must be one number > 0"):
            ball_maximum(box(1, 4), rugged, -1.0)
        with pytest.raises(ValueError, match="f must be a function"):
            ball_maximum(box(1, 4), np.zeros(5), 0.1)
        with pytest.raises(ValueError, match="num_radii must be an integer >= 1"):
            ball_maximum(box(1, 4), rugged, 0.1, num_radii=0)


@pytest.mark.parametrize("ndim", [1, 2])
def test_minus_infinity_is_a_domain_and_all_else_is_refused(ndim):
    grid = box(ndim, 20)
    rng = np.random.default_rng(0)
    values = np.where(rng.uniform(size=grid.shape) < 0.5, -np.inf, rng.normal(size=grid.shape))
    nodes = grid.points.reshape(-1, ndim)
    squares = ((nodes[:, None] - nodes) ** 2).sum(axis=-1)
    heights = (values.reshape(-1) - squares / 0.6).max(axis=1)
    found = sup_convolution(grid, values, 0.3).value.reshape(-1)
    np.testing.assert_allclose(found, heights, rtol=0, atol=1e-12)
    for wrong in (np.nan, np.inf):
        values[(0,) * ndim] = wrong
        with pytest.raises(ValueError, match=rf"finite or -infinity.* is {wrong}"):
            sup_convolution(grid, values, 0.3)
