"""Monotone schemes: closed forms, Hopf-Lax, an independent solver, comparison, the sup norm."""

import functools

import hj_reachability
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import pde
from entropix.pde import Grid, hopf_lax, inviscid_hj, monotone_steps

FLUXES = pytest.mark.parametrize("flux", ["godunov", "lax_friedrichs"])
NDIMS = pytest.mark.parametrize("ndim", [1, 2])


def rugged(x):
    return jnp.sum(jnp.cos(3 * x) + x**2 / 2)


def box(ndim, n, width=2.0):
    return Grid((-width,) * ndim, (width,) * ndim, (n + 1,) * ndim)


def fitted_order(counts, errors):
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@FLUXES
@NDIMS
def test_first_order_on_a_quadratic(flux, ndim):  # Example 13 with beta infinite
    c, t, errors = 1.5, 0.4, []
    counts = [(50, 100, 200, 400), (25, 50, 100)][ndim - 1]
    for n in counts:
        grid = box(ndim, n)
        u = inviscid_hj(grid, lambda x: c * jnp.sum(x**2) / 2, t, flux=flux)
        x = grid.points.reshape(*grid.shape, ndim)
        inside = np.abs(x).max(axis=-1) <= 1
        errors.append(np.abs(u - (x**2).sum(axis=-1) / (2 * (t + 1 / c)))[inside].max())
    assert 0.8 < fitted_order(counts, errors) < 1.2


@functools.cache
def past_the_shock(ndim, t):
    """Hopf-Lax on a fine grid."""
    return hopf_lax(box(ndim, (3200, 960)[ndim - 1]), rugged, t).value


@FLUXES
@NDIMS
def test_converges_to_hopf_lax_past_the_shock(flux, ndim):
    t, errors = 0.4, []  # shocks form at 1/8
    counts = [(100, 200, 400, 800), (40, 80, 160)][ndim - 1]
    for n in counts:
        grid = box(ndim, n)
        fine = past_the_shock(ndim, t)
        exact = fine[(slice(None, None, (fine.shape[0] - 1) // n),) * ndim]
        errors.append(float(jnp.abs(inviscid_hj(grid, rugged, t, flux=flux) - exact).max()))
    assert 0.6 < fitted_order(counts, errors) < 1.3


class Kinetic(hj_reachability.Dynamics):
    """The Hamiltonian |p|^2/2 for hj_reachability, which writes v_t = H for growing times."""

    def __init__(self):
        super().__init__(None, None, None, None)

    def __call__(self, state, control, disturbance, time):
        raise NotImplementedError

    def optimal_control_and_disturbance(self, state, time, grad_value):
        raise NotImplementedError

    def hamiltonian(self, state, time, value, grad_value):
        return jnp.sum(grad_value**2) / 2

    def partial_max_magnitudes(self, state, time, value, grad_value_box):
        return jnp.maximum(jnp.abs(grad_value_box.lo), jnp.abs(grad_value_box.hi))


@NDIMS
def test_hj_reachability_agrees(ndim):
    """WENO5 in space and third order in time, before the shock, and after it."""
    n, reach = (400, 120)[ndim - 1], hj_reachability
    grid = box(ndim, n)
    domain = reach.sets.Box(jnp.asarray(grid.lower), jnp.asarray(grid.upper))
    edge = reach.boundary_conditions.extrapolate_away_from_zero
    theirs = reach.Grid.from_lattice_parameters_and_boundary_conditions(
        domain, grid.shape, boundary_conditions=(edge,) * ndim
    )
    settings = reach.SolverSettings.with_accuracy("very_high")
    inside = np.abs(grid.points.reshape(*grid.shape, ndim)).max(axis=-1) <= 1.5
    for t, kink in ((0.1, 0.02), (0.3, 1.0)):  # shocks form at 1/8; at them WENO is first order
        v = reach.step(settings, Kinetic(), theirs, 0.0, grid.sample(rugged), t, progress_bar=False)
        error = lambda u, v=v: float(jnp.abs(u - v)[inside].max())  # noqa: E731
        h = grid.spacing[0]
        assert error(hopf_lax(grid, rugged, t).value) < ndim * (kink * h + 10 * h**2)
        assert error(inviscid_hj(grid, rugged, t)) < ndim * 5 * h


@FLUXES
@pytest.mark.parametrize("beta", [float("inf"), 5.0])
@NDIMS
def test_comparison_and_sup_norm(flux, beta, ndim):
    """Rough random data at exactly the CFL number: monotone, so ordered and non-expansive."""
    grid = box(ndim, (60, 16)[ndim - 1])
    rng = np.random.default_rng(0)
    for _ in range(6):
        f, g = rng.normal(size=(2, *grid.shape))
        top = np.maximum(f, g)
        steps = max(monotone_steps(grid, v, 0.05, beta) for v in (f, g, top))
        solve = lambda v: inviscid_hj(grid, v, 0.05, beta=beta, flux=flux, num_steps=steps)  # noqa: B023, E731
        u = solve(f)
        assert f.min() - 1e-13 <= u.min()
        assert u.max() <= f.max() + 1e-13  # compared with constants
        for axis in range(ndim):  # compared with translates: slopes do not grow
            before = np.abs(np.diff(f, axis=axis)).max()
            assert np.abs(np.diff(u, axis=axis)).max() <= before + 1e-12
        if flux == "godunov":  # Lax-Friedrichs' viscosity depends on the data: no pairs
            v, w = solve(g), solve(top)
            assert (w >= jnp.maximum(u, v) - 1e-13).all()
            assert jnp.abs(u - v).max() <= np.abs(f - g).max() + 1e-13


def test_inside_jit_and_rejections():
    grid = box(1, 50)
    f = grid.sample(rugged)
    solve = jax.jit(lambda f: inviscid_hj(grid, f, 0.1, num_steps=40))
    np.testing.assert_allclose(
        solve(f), inviscid_hj(grid, f, 0.1, num_steps=40), rtol=1e-14, atol=1e-15
    )
    with pytest.raises(ValueError, match="num_steps must be given inside jax.jit"):
        jax.jit(lambda f: inviscid_hj(grid, f, 0.1))(f)
    with pytest.raises(ValueError, match="num_steps=2 makes steps too long"):
        inviscid_hj(grid, f, 0.1, num_steps=2)
    with pytest.raises(ValueError, match="flux must be"):
        inviscid_hj(grid, f, 0.1, flux="upwind")


def test_time_may_be_traced_where_the_steps_are_given(x64):
    grid = pde.Grid(-2.0, 2.0, 81)
    values = grid.sample(lambda x: jnp.abs(x))
    solve = lambda t: pde.inviscid_hj(grid, values, t, num_steps=100)  # noqa: E731
    times = jnp.asarray([0.1, 0.5])
    together = jax.vmap(solve)(times)
    for t, found in zip(times, together, strict=True):
        np.testing.assert_allclose(found, solve(float(t)), rtol=1e-12)
    slope = jax.grad(lambda t: solve(t)[0])(0.5)
    assert np.isfinite(slope)
    with pytest.raises(ValueError, match="num_steps must be given inside jax.jit"):
        jax.jit(lambda t: pde.inviscid_hj(grid, values, t))(0.5)
    shock = jax.vmap(lambda t: pde.burgers(grid, values, t, num_steps=100))(times)
    np.testing.assert_allclose(shock[1], pde.burgers(grid, values, 0.5, num_steps=100), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda grid: pde.monotone_steps(grid, jnp.abs, -1.0), "t must be"),
        (
            lambda grid: pde.cole_hopf(grid, jnp.abs, 1.0, 2.0, max_halvings=1.5),
            "max_halvings must be an integer >= 0; got max_halvings=1.5",
        ),
        (
            lambda grid: pde.cole_hopf(grid, jnp.abs, 1.0, 2.0, max_halvings=-1),
            "max_halvings must be an integer >= 0; got max_halvings=-1",
        ),
        (
            lambda grid: pde.convex_interval(grid, lambda x: x**2, 5.0),
            r"minimum must lie on the grid, in \[-2, 2\]; got 5.0",
        ),
        (
            lambda grid: pde.control_gap(
                grid, jnp.abs, jnp.abs, jnp.ones(3), jax.random.key(0), beta=-2.0, horizon=1.0,
                values=jnp.zeros((3, 81)),
            ),
            "beta must be",
        ),
    ],
)  # fmt: skip
def test_nonsense_is_refused(call, message, x64):
    with pytest.raises(ValueError, match=message):
        call(pde.Grid(-2.0, 2.0, 81))


def test_the_interval_of_a_convex_function_ends_at_the_grids_edges(x64):
    grid = pde.Grid(-1.0, 1.0, 5)
    for f in (lambda x: x**2, grid.sample(lambda x: x**2)):
        assert pde.convex_interval(grid, f, 0.0) == (-1.0, 1.0)


def test_the_temperature_may_be_traced_where_the_steps_are_given(x64):
    grid, f = Grid(-1.0, 1.0, 41), lambda x: x**2 / 2
    solve = jax.jit(lambda beta: pde.viscous_hj(grid, f, 0.1, beta, num_steps=200))
    np.testing.assert_allclose(solve(2.0), pde.viscous_hj(grid, f, 0.1, 2.0, num_steps=200))


@pytest.mark.parametrize("solve", [pde.inviscid_hj, pde.burgers])
def test_a_number_of_steps_is_whole(x64, solve):
    with pytest.raises(ValueError, match="num_steps"):
        solve(Grid(-1.0, 1.0, 41), lambda x: x**2 / 2, 0.1, num_steps=1e3)
