"""Scoping in continuous time (sections 1.1 and 5): dx = -grad u(x, S - s) ds."""

import jax
import jax.numpy as jnp
import numpy as np

from entropix.pde import (
    Grid,
    cole_hopf,
    estimate,
    fokker_planck,
    gradient_flow,
    scoped_flow,
    simulate,
    value_function,
)

GRID = Grid(-5.0, 5.0, 251)
BETA, S, PATHS = 8.0, 1.5, 5_000


def rugged(x):
    return x**2 / 4 + 0.3 * jnp.cos(7 * x) + 0.15 * jnp.sin(13 * x)


slope = jax.vmap(jax.grad(rugged))


def test_it_ends_lower_than_gradient_flow_and_than_sgd(measured):
    start = jnp.linspace(-3, 3, PATHS)
    scoped = scoped_flow(GRID, rugged, start, beta=BETA, horizon=S, num_levels=20)
    plain = gradient_flow(slope, start, horizon=S, num_steps=400)[-1]
    sgd = simulate(
        lambda x, s: -jax.grad(rugged)(x), start, jax.random.key(0), sigma=BETA**-0.5, horizon=S,
        num_steps=400,
    )[-1]  # fmt: skip
    noisy = scoped_flow(
        GRID, rugged, start, beta=BETA, horizon=S, key=jax.random.key(0), num_levels=20
    )
    means = [estimate(rugged(x)) for x in (scoped, plain, noisy, sgd)]
    measured(
        "§1.1",
        "E f from starts in [-3, 3] after the same time: {:.3f} scoped, {:.3f} gradient flow; with "
        "the same noise {:.3f} ({:.3f}) scoped, {:.3f} ({:.3f}) SGD".format(
            means[0].mean, means[1].mean, *means[2], *means[3]
        ),
        "scoped lower by 0.05, with noise by 10 s.e.",
    )
    assert means[0].mean < means[1].mean - 0.05
    assert means[2].mean < means[3].mean - 10 * (means[2].error + means[3].error)


def test_it_is_the_optimal_control_of_no_drift(measured):
    # u of the control problem with f = 0 and V = f is local entropy, and the paths pay u(x, S).
    x0, count = 1.72, 10_000
    u = float(cole_hopf(GRID, rugged, S, BETA, [x0]).value[0])
    values = value_function(
        GRID, lambda x: 0 * x, rugged, beta=BETA, horizon=S, num_levels=50, num_steps=1000,
        method="linear",
    )  # fmt: skip
    solved = float(GRID.interpolate(values[0], x0))
    x = scoped_flow(
        GRID,
        rugged,
        jnp.full(count, x0),
        beta=BETA,
        horizon=S,
        key=jax.random.key(1),
        num_levels=20,
    )
    density = jnp.zeros(251).at[int(np.abs(GRID.points - x0).argmin())].set(1 / GRID.spacing[0])
    rho = fokker_planck(GRID, values, density, beta=BETA, horizon=S, num_steps=2000)[-1]
    expected = float(GRID.spacing[0] * jnp.sum(rho * GRID.sample(rugged)))
    mean, error = estimate(rugged(x))
    measured(
        "§1.1",
        f"u({x0:g}, S) {u:.4f} by Cole-Hopf, {solved:.4f} by the control problem; E f of scoped "
        f"paths {mean:.4f} ({error:.4f}), by their density {expected:.4f}",
        "0.005; 4 s.e. + 0.01",
    )
    assert abs(u - solved) < 0.005
    assert abs(mean - expected) < 4 * error + 0.01
    assert mean < u  # the rest of the cost is the effort


def test_horizon_and_starts_may_be_traced():
    grid, start = Grid(-6.0, 6.0, 121), jnp.ones(1)

    def end(start, horizon):  # of f = x^2/2: x(0)/(1 + S)
        f = lambda x: x**2 / 2  # noqa: E731
        given = {"beta": 5.0, "num_levels": 10, "num_steps": 50}
        return scoped_flow(grid, f, start, horizon=horizon, **given)[0]

    np.testing.assert_allclose(jax.jit(end)(start, 1.0), end(start, 1.0), rtol=1e-12)
    assert abs(float(jax.jacfwd(end, argnums=1)(start, 1.0)) + 1 / 4) < 0.02
