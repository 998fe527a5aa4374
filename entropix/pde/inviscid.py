"""Monotone explicit schemes for u_t + H(grad u) = (1/2 beta) Laplacian u, viscous or not."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_count, check_positive, chosen
from entropix.pde.grid import Function, Grid
from entropix.pde.hamiltonians import GODUNOV, HAMILTONIANS, Hamiltonian, one_sided


def inviscid_hj(
    grid: Grid,
    f: Function | ArrayLike,
    t: float,
    *,
    beta: float = math.inf,
    flux: Hamiltonian | str = GODUNOV,
    num_steps: int | None = None,
) -> jax.Array:
    r"""Solves (viscous) Hamilton-Jacobi by a monotone scheme, first order in h.

    .. math:: u_t = -\tfrac12 |\nabla u|^2 + \tfrac1{2\beta} \Delta u, \qquad u(\cdot, 0) = f

    With one-sided differences D-, D+ the numerical Hamiltonian is, summed over dimensions,
    Godunov's max(max(D-, 0), max(-D+, 0))^2 / 2, or Lax-Friedrichs' ((D- + D+)/2)^2/2
    - P (D+ - D-)/2, P a bound of the slope; another `Hamiltonian` makes the scheme one for another
    equation. Explicit steps with

    .. math:: \Delta t \sum_i \Big( \frac{P_i}{h_i} + \frac1{\beta h_i^2} \Big) \le 1

    (P_i: the Hamiltonian's speed) are monotone: the comparison principle holds, the scheme is
    non-expansive in the sup norm and converges to the viscosity solution. f is continued by
    reflection at the walls; where f rises towards the walls no information enters from them.

    Args:
      grid: the nodes.
      f: a function to be sampled, or values of the grid's shape.
      t: time, > 0.
      beta: inverse temperature in (0, inf]; infinite: no viscosity.
      flux: a `Hamiltonian`, or the name of one: "godunov", "lax_friedrichs".
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
    _check_times(t, beta)
    hamiltonian = chosen("flux", flux, HAMILTONIANS)
    u = grid.sample(f)
    known = not any(isinstance(number, jax.core.Tracer) for number in (u, t, beta))
    needed = monotone_steps(grid, u, t, beta, flux=hamiltonian) if known else None
    if num_steps is not None:
        check_count(num_steps=num_steps)
    if num_steps is None and needed is None:
        raise ValueError("num_steps must be given inside jax.jit; see entropix.pde.monotone_steps")
    if num_steps is not None and needed is not None and num_steps < needed:
        raise ValueError(
            f"num_steps={num_steps} makes steps too long to be monotone; {needed} are needed"
        )
    return _march(grid, hamiltonian, needed if num_steps is None else num_steps, u, t, 1 / beta)


def monotone_steps(
    grid: Grid,
    f: Function | ArrayLike,
    t: float,
    beta: float = math.inf,
    *,
    flux: Hamiltonian | str = GODUNOV,
) -> int:
    r"""The smallest number of steps for which `inviscid_hj` is monotone up to time t.

    .. math:: n = \Big\lceil t \sum_i \Big( \frac{P_i}{h_i} + \frac1{\beta h_i^2} \Big) \Big\rceil

    P_i is the Hamiltonian's speed. Slopes of a monotone scheme never exceed those that it began
    with, so f's decide.

    Args:
      grid: that of `inviscid_hj`, as are all arguments.
      f: a function, or values.
      t: time, > 0.
      beta: inverse temperature in (0, inf].
      flux: a `Hamiltonian` or its name.

    Returns:
      A number of steps, at least 1.

    Raises:
      ValueError: for an argument outside its range; for values of f that are not finite, or so
        steep that no number of steps does; and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-2.0, 2.0, 5)
      >>> with jax.enable_x64(True):  # slope 2 and spacing 1 allow steps of 1/2
      ...     entropix.pde.monotone_steps(grid, lambda x: 2 * x, t=1.25)
      3
    """
    _check_times(t, beta)
    speeds = chosen("flux", flux, HAMILTONIANS).speed(_bounds(grid, grid.sample(f)))
    spacing = np.asarray(grid.spacing)
    rate = float(jnp.sum(speeds / spacing + 1 / (beta * spacing**2)))
    if not math.isfinite(t * rate):
        raise ValueError(
            "f must be finite at all nodes, and so must its slopes; choose another box"
        )
    return max(1, math.ceil(t * rate * (1 + 1e-12)))


def _check_times(t: ArrayLike, beta: ArrayLike) -> None:
    """Raises a ValueError unless t and beta are positive; beta may be infinite, both be traced."""
    check_positive(t=t)
    if isinstance(beta, jax.core.Tracer) or beta != math.inf:
        check_positive(beta=beta)


def _bounds(grid: Grid, u: jax.Array) -> jax.Array:
    """The largest slope between neighbours, along every dimension."""
    rises = [jnp.abs(jnp.diff(u, axis=axis)).max() for axis in range(grid.ndim)]
    return jnp.stack(rises) / np.asarray(grid.spacing)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _march(
    grid: Grid,
    hamiltonian: Hamiltonian,
    num_steps: int,
    u: jax.Array,
    t: ArrayLike,
    temperature: ArrayLike,
) -> jax.Array:
    step, bounds = jnp.asarray(t) / num_steps, _bounds(grid, u)

    def body(_: int, u: jax.Array) -> jax.Array:
        slopes = [one_sided(u, axis, h) for axis, h in enumerate(grid.spacing)]
        backward, forward = (jnp.stack(sides) for sides in zip(*slopes, strict=True))
        laplacian = jnp.tensordot(1 / np.asarray(grid.spacing), forward - backward, axes=1)
        change = temperature / 2 * laplacian - hamiltonian.flux(backward, forward, bounds)
        return u + step * change

    return lax.fori_loop(0, num_steps, body, u)
