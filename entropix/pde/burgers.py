"""Burgers' equation p_t + (p^2/2)_x = 0 for the slope p = u_x (Example 15)."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import (
    check_count,
    check_finite,
    check_float64,
    check_line,
    check_positive,
    function_of,
)
from entropix.pde.grid import Function, Grid
from entropix.pde.hamiltonians import godunov

_BISECTIONS = 64  # a bracket shrinks to the last bit of float64
_DOUBLINGS = 64


def burgers(
    grid: Grid, p: Function | ArrayLike, t: float, *, num_steps: int | None = None
) -> jax.Array:
    r"""Solves Burgers' equation by Godunov's conservative scheme, first order in h, past shocks.

    .. math:: p_i \leftarrow p_i - \frac{\Delta t}{h} (F_{i+1/2} - F_{i-1/2}), \qquad
        \Delta t \max|p| \le h

    These are the differences of `inviscid_hj`'s Godunov scheme, to the last bit but rounding:
    nodes here are midpoints there. Beyond the ends p is continued by a constant (for u that
    rises outwards it is the same as reflection); mass changes by the flux through the ends alone.

    Args:
      grid: one-dimensional.
      p: the slope at time 0, a function to be sampled, or values of the grid's shape.
      t: time, > 0.
      num_steps: static number of time steps; None takes the smallest that the condition above
        allows, for which p's values must be known: inside `jax.jit`, give `num_steps`.

    Returns:
      p(., t) at the nodes, as averages over cells of width h.

    Raises:
      ValueError: for an argument outside its range, too few steps, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> grid = entropix.pde.Grid(-1.0, 1.0, 201)
      >>> step = lambda x: jnp.where(x < -0.5, 1.0, 0.0)  # a shock of speed 1/2
      >>> with jax.enable_x64(True):
      ...     p = entropix.pde.burgers(grid, step, t=1.0)
      ...     round(float(grid.interpolate(p, -0.1)), 6), round(float(grid.interpolate(p, 0.1)), 6)
      (1.0, 0.0)

    References:
      LeVeque, Numerical Methods for Conservation Laws, 1992, chapters 12 and 13.
    """
    check_line(grid.shape)
    check_positive(t=t)
    if num_steps is not None:
        check_count(num_steps=num_steps)
    values = grid.sample(p)
    check_finite("p", values, grid.points)
    (h,) = grid.spacing
    if any(isinstance(number, jax.core.Tracer) for number in (values, t)):
        if num_steps is None:
            raise ValueError("num_steps must be given inside jax.jit: t max|p| / h, rounded up")
    else:
        needed = max(1, int(jnp.ceil(t * jnp.abs(values).max() / h * (1 - 1e-12))))
        if num_steps is None:
            num_steps = needed
        elif num_steps < needed:
            raise ValueError(f"num_steps={num_steps} makes steps too long; {needed} are needed")
    return _march(grid, num_steps, values, t)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _march(grid: Grid, num_steps: int, p: jax.Array, t: ArrayLike) -> jax.Array:
    ratio = jnp.asarray(t) / num_steps / grid.spacing[0]

    def body(_: int, p: jax.Array) -> jax.Array:
        padded = jnp.pad(p, 1, mode="edge")
        return p - ratio * jnp.diff(godunov(padded[:-1], padded[1:]))

    return lax.fori_loop(0, num_steps, body, p)


def characteristics(p: Function, x: ArrayLike, t: float) -> jax.Array:
    r"""Solves Burgers' equation before the shock, exactly: p(x, t) = p_0(x - t p(x, t)) (28).

    The foot y of the characteristic through (x, t), y + t p_0(y) = x, is found by bisection:
    before the shock time the left side increases in y. Afterwards there are several, of which this
    is one: compare t with `shock_time`.

    Args:
      p: the slope p_0 at time 0, a function of a number.
      x: points. shape (...,).
      t: time, in (0, shock time).

    Returns:
      p(x, t). shape (...,).

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> with jax.enable_x64(True):  # f = x^2/2 relaxes to x^2 / (2 (1 + t))
      ...     entropix.pde.characteristics(lambda x: x, [1.0, -3.0], t=1.0).tolist()
      [0.5, -1.5]
    """
    check_positive(t=t)
    check_float64()
    x = jnp.asarray(x, jnp.float64)
    feet = _feet(function_of("p", p), x.reshape(-1), jnp.asarray(t, jnp.float64)).reshape(x.shape)
    return (x - feet) / t


@functools.partial(jax.jit, static_argnums=0)
def _feet(p: Function, points: jax.Array, t: jax.Array) -> jax.Array:
    """The y with y + t p(y) = x for every point x, with the derivatives of that y."""

    def foot(x: jax.Array) -> jax.Array:
        excess = lambda y: y + t * p(y) - x  # noqa: E731
        slope = lambda linear, value: value / linear(jnp.ones_like(value))  # noqa: E731
        return lax.custom_root(excess, x, _bisected, slope)

    return jax.vmap(foot)(points)


def _bisected(excess: Function, x: jax.Array) -> jax.Array:
    """The zero of a function that rises: bracketed around x by doubling, halved to the last bit."""

    def widen(_: int, radius: jax.Array) -> jax.Array:
        inside = (excess(x - radius) <= 0) & (excess(x + radius) >= 0)
        return jnp.where(inside, radius, 2 * radius)

    def halve(_: int, bracket: tuple) -> tuple:
        low, high = bracket
        middle = (low + high) / 2
        below = excess(middle) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    radius = lax.fori_loop(0, _DOUBLINGS, widen, jnp.ones_like(x))
    low, high = lax.fori_loop(0, _BISECTIONS, halve, (x - radius, x + radius))
    return (low + high) / 2
