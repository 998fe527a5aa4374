"""Monotone explicit schemes for u_t + |grad u|^2/2 = (1/2 beta) Laplacian u, viscous or not."""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_positive
from entropix.pde.grid import Function, Grid

Flux = Literal["godunov", "lax_friedrichs"]


def inviscid_hj(
    grid: Grid,
    f: Function | ArrayLike,
    t: float,
    *,
    beta: float = math.inf,
    flux: Flux = "godunov",
    num_steps: int | None = None,
) -> jax.Array:
    r"""Solves (viscous) Hamilton-Jacobi by a monotone scheme, first order in h.

    .. math:: u_t = -\tfrac12 |\nabla u|^2 + \tfrac1{2\beta} \Delta u, \qquad u(\cdot, 0) = f

    With one-sided differences D-, D+ the numerical Hamiltonian is, summed over dimensions,
    Godunov's max(max(D-, 0), max(-D+, 0))^2 / 2, or Lax-Friedrichs' ((D- + D+)/2)^2/2
    - P (D+ - D-)/2, P a bound of the slope. Explicit steps with

    .. math:: \Delta t \sum_i \Big( \frac{P_i}{h_i} + \frac1{\beta h_i^2} \Big) \le 1

    are monotone: the comparison principle holds, the scheme is non-expansive in the sup norm and
    converges to the viscosity solution. f is continued by reflection at the walls; where f rises
    towards the walls no information enters from them.

    Args:
      grid: the nodes.
      f: a function to be sampled, or values of the grid's shape.
      t: time, > 0.
      beta: inverse temperature in (0, inf]; infinite: no viscosity.
      flux: "godunov", the less diffusive one, or "lax_friedrichs".
      num_steps: static number of time steps; None takes the smallest that the condition above
        allows, for which f's values must be known: inside `jax.jit`, give `num_steps`.

    Returns:
      u(., t) at the nodes.

    Raises:
      ValueError: for an argument outside its range, too few steps, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> grid = entropix.pde.Grid(-2.0, 2.0, 401)
      >>> with jax.enable_x64(True):  # a cone is rounded off: |x| - t/2 away from its tip
      ...     u = entropix.pde.inviscid_hj(grid, jnp.abs, t=0.5)
      ...     bool(jnp.abs(u - (jnp.abs(grid.points) - 0.25))[:100].max() < 1e-6)
      True

    References:
      Oberman, `Convergent difference schemes for degenerate elliptic and parabolic equations
      <https://doi.org/10.1137/S0036142903435235>`_, 2006; Crandall and Lions, Two approximations
      of solutions of Hamilton-Jacobi equations, 1984.
    """
    check_positive(t=t)
    if beta != math.inf:
        check_positive(beta=beta)
    if flux not in ("godunov", "lax_friedrichs"):
        raise ValueError(f"flux must be 'godunov' or 'lax_friedrichs'; got {flux!r}")
    u = grid.sample(f)
    needed = None if isinstance(u, jax.core.Tracer) else monotone_steps(grid, u, t, beta)
    if num_steps is None and needed is None:
        raise ValueError("num_steps must be given inside jax.jit; see entropix.pde.monotone_steps")
    if num_steps is not None and needed is not None and num_steps < needed:
        raise ValueError(
            f"num_steps={num_steps} makes steps too long to be monotone; {needed} are needed"
        )
    return _march(grid, flux, needed if num_steps is None else num_steps, u, t, 1 / beta)


def monotone_steps(grid: Grid, f: Function | ArrayLike, t: float, beta: float = math.inf) -> int:
    """The smallest number of steps for which `inviscid_hj` is monotone up to time t.

    Slopes of a monotone scheme never exceed those it began with, so f's decide.
    """
    values = grid.sample(f)
    rate = sum(
        float(jnp.abs(jnp.diff(values, axis=axis)).max()) / h**2 + 1 / (beta * h**2)
        for axis, h in enumerate(grid.spacing)
    )
    return max(1, math.ceil(t * rate * (1 + 1e-12)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _march(
    grid: Grid, flux: Flux, num_steps: int, u: jax.Array, t: ArrayLike, temperature: ArrayLike
) -> jax.Array:
    step = jnp.asarray(t) / num_steps
    # Lax-Friedrichs adds the least viscosity that keeps it monotone: P of the data.
    bounds = [jnp.abs(jnp.diff(u, axis=axis)).max() / h for axis, h in enumerate(grid.spacing)]

    def body(_: int, u: jax.Array) -> jax.Array:
        change = jnp.zeros_like(u)
        for axis, h in enumerate(grid.spacing):
            backward, forward = one_sided(u, axis, h)
            if flux == "godunov":
                change -= godunov(backward, forward)
            else:
                change -= ((backward + forward) / 2) ** 2 / 2
                change += bounds[axis] * (forward - backward) / 2
            change += temperature / 2 * (forward - backward) / h
        return u + step * change

    return lax.fori_loop(0, num_steps, body, u)


def one_sided(u: jax.Array, axis: int, h: float) -> tuple[jax.Array, jax.Array]:
    """Backward and forward difference quotients, u mirrored at the walls."""
    padding = [(int(i == axis), int(i == axis)) for i in range(u.ndim)]
    slope = jnp.diff(jnp.pad(u, padding, mode="reflect"), axis=axis) / h
    n = u.shape[axis]
    return (
        lax.slice_in_dim(slope, 0, n, axis=axis),
        lax.slice_in_dim(slope, 1, n + 1, axis=axis),
    )


def godunov(left: jax.Array, right: jax.Array) -> jax.Array:
    """Godunov's flux for p^2/2 between the states `left` and `right`: upwind, entropic."""
    return jnp.maximum(jnp.maximum(left, 0), jnp.maximum(-right, 0)) ** 2 / 2
