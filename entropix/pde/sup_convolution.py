"""Suprema instead of infima: what ascent to a nearby maximum, as SAM's, makes of a function."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_count, check_finite, check_positive, function_of
from entropix.pde.grid import Function, Grid, Relaxed
from entropix.pde.hopf_lax import Proximal, hopf_lax

_BATCH = 64


def sup_convolution(grid: Grid, f: Function | ArrayLike, t: float) -> Proximal:
    r"""Solves u_t = +|grad u|^2/2, Hamilton-Jacobi with the other sign, for the grid's nodes.

    .. math:: u(x, t) = \max_y f(y) - \frac{|x - y|^2}{2t}, \qquad \nabla u = \frac{y - x}{t}

    SAM's maximum with a penalty in the place of its ball (`ball_maximum`): the same sweeps as
    `hopf_lax`, of -f. The maximum runs over nodes, and is at an edge of the box where f rises
    towards that edge faster than the penalty.

    Args:
      grid: the nodes, both of x and of y.
      f: a function to be sampled, or values of the grid's shape; -infinity
        where y is not allowed to be.
      t: time, > 0.

    Returns:
      Value, gradient and the maximising node (the field `prox`).

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-2.0, 2.0, 401)
      >>> with jax.enable_x64(True):  # for f = -|x|^2/2: curvature -1 becomes -1/(1 + t)
      ...     u = entropix.pde.sup_convolution(grid, lambda x: -(x**2) / 2, t=1.0)
      >>> round(float(u.gradient[300]), 6)  # at x = 1
      -0.5
    """
    values = grid.sample(f)
    check_finite("f", values, grid.points, besides=-math.inf)
    value, gradient, prox = hopf_lax(grid, -values, t)
    return Proximal(-value, -gradient, prox)


def ball_maximum(
    grid: Grid,
    f: Function,
    rho: float,
    points: ArrayLike | None = None,
    *,
    num_radii: int = 128,
    num_angles: int = 256,
) -> Relaxed:
    r"""Solves u_t = +|grad u| up to t = rho: the maximum over a ball, which SAM descends.

    .. math:: u(x, \rho) = \max_{|e| \le \rho} f(x + e), \qquad \nabla u = \nabla f(x + e^*)

    The maximum runs over `num_radii` radii, 0 and rho included, of 2 directions in 1-D, or of
    `num_angles` in 2-D; the error for smooth f is of second order in their distances.

    Args:
      grid: its dimension is that of f, and its nodes are the default points. f is evaluated up to
        rho outside the box, too.
      f: a JAX function of one point (see `Grid`).
      rho: radius of the ball, > 0.
      points: where u is wanted. shape (..., *point_shape).
      num_radii: at least 1.
      num_angles: at least 1.

    Returns:
      Value and gradient, shapes (...,) and (..., *point_shape); of the grid's shape by default.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-1.0, 1.0, 3)
      >>> with jax.enable_x64(True):
      ...     u = entropix.pde.ball_maximum(grid, lambda x: x**2, rho=0.5)
      >>> u.value.tolist(), u.gradient.tolist()  # (|x| + rho)^2, whose slope at 0 is one of two
      ([2.25, 0.25, 2.25], [-3.0, -1.0, 3.0])

    References:
      Foret et al, `Sharpness-aware minimization <https://arxiv.org/abs/2010.01412>`_, 2021;
      Osher and Sethian, `Fronts propagating with curvature-dependent speed
      <https://doi.org/10.1016/0021-9991(88)90002-2>`_, 1988.
    """
    check_positive(rho=rho)
    check_count(num_radii=num_radii, num_angles=num_angles)
    if not callable(f):
        raise ValueError("f must be a function of a point, because a ball ends between nodes")
    rows = grid.rows(points)
    counts = num_radii, num_angles
    value, gradient = _over_ball(grid, function_of("f", f), counts, rows, jnp.asarray(rho))
    return grid.relaxed(value, gradient, points)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _over_ball(
    grid: Grid, f: Function, counts: tuple[int, int], rows: jax.Array, rho: jax.Array
) -> tuple[jax.Array, jax.Array]:
    radii = np.linspace(0, 1, counts[0] + 1)[1:]
    if grid.ndim == 1:
        directions = np.asarray([[-1.0], [1.0]])
    else:
        angles = 2 * np.pi * np.arange(counts[1]) / counts[1]
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    offsets = (radii[:, None, None] * directions).reshape(-1, grid.ndim)
    ball = rho * jnp.asarray(np.concatenate([np.zeros((1, grid.ndim)), offsets]))

    def at(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        nearby = (x[None] + ball).reshape(-1, *grid.point_shape)
        values = jax.vmap(f)(nearby)
        grid.check_value(values)
        highest = values.argmax()
        return values[highest], jax.grad(f)(nearby[highest]).reshape(-1)

    return lax.map(at, rows, batch_size=_BATCH)
