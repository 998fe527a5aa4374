"""Viscous Hamilton-Jacobi, u_t = -|grad u|^2/2 + (1/2 beta) Laplacian u, by Cole-Hopf."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_positive
from entropix.pde.grid import Function, Grid, Relaxed
from entropix.pde.hamilton_jacobi import hamilton_jacobi

_KEPT = {1: 512, 2: 2048}  # cells kept by a refinement; one well needs 31 in 1-D, 750 in 2-D
_BATCH = 16


def cole_hopf(
    grid: Grid,
    f: Function | ArrayLike,
    t: float,
    beta: float,
    points: ArrayLike | None = None,
    *,
    num_halvings: int | None = None,
) -> Relaxed:
    r"""Local entropy (11) and its gradient (Lemma 1), by quadrature in log space.

    .. math:: u(x, t) = -\tfrac1\beta \log \int_{box} (2\pi t/\beta)^{-N/2}
        e^{-\beta [f(y) + |x-y|^2/(2t)]} dy, \qquad \nabla u = (x - \langle y \rangle)/t

    The integral is a sum over cells, first the grid's. Large beta concentrates it in wells of
    width sigma = 1/sqrt(beta (max f'' + 1/t)); so the cells of least energy are kept and halved
    until they resolve sigma. The sum is trapezoidal for the integrand, which is smooth and has
    decayed before the kept cells end: the error for smooth f is that of rounding. beta = 1e6 costs
    about ten halvings, and no accuracy.

    Args:
      grid: its box is the domain of integration: wide enough that exp(-beta ...) has decayed at
        its ends. Its nodes must resolve f, so that no well is missed.
      f: a function; or values, which are interpolated linearly between nodes.
      t: time (gamma of the optimisers), > 0.
      beta: inverse temperature 1/T, > 0.
      points: where u is wanted. shape (..., *point_shape); the nodes by default.
      num_halvings: static; None works it out, for which f's values, t and beta must be known:
        inside `jax.jit`, give it.

    Returns:
      Value and gradient, shapes (...,) and (..., *point_shape). The Gibbs mean is x - t gradient.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-9.0, 9.0, 201)
      >>> with jax.enable_x64(True):  # curvature 1 becomes 1/(1 + t), whatever beta (Example 13)
      ...     u = entropix.pde.cole_hopf(grid, lambda x: x**2 / 2, t=1.0, beta=1e6, points=[3.0])
      >>> u.gradient.round(9).tolist()
      [1.5]
    """
    check_positive(t=t, beta=beta)
    values, rows = grid.sample(f), grid.rows(points)
    if num_halvings is None:
        if any(isinstance(x, jax.core.Tracer) for x in (values, t, beta)):
            raise ValueError("num_halvings must be given inside jax.jit")
        num_halvings = _halvings(grid, values, float(t), float(beta))
    function = f if callable(f) else None
    numbers = (jnp.asarray(t, jnp.float64), jnp.asarray(beta, jnp.float64))
    value, gradient = _gibbs(grid, function, num_halvings, values, rows, *numbers)
    return grid.relaxed(value, gradient, points)


def viscous_hj(
    grid: Grid, f: Function | ArrayLike, t: float, beta: float, *, num_steps: int | None = None
) -> jax.Array:
    """Solves viscous Hamilton-Jacobi by the monotone scheme of `hamilton_jacobi`; same arguments.

    First order, with walls that reflect: a check of `cole_hopf` that shares nothing with it.

    References:
      Oberman, `Convergent difference schemes for degenerate elliptic and parabolic equations
      <https://doi.org/10.1137/S0036142903435235>`_, 2006.
    """
    check_positive(beta=beta)
    return hamilton_jacobi(grid, f, t, beta=beta, num_steps=num_steps)


def _halvings(grid: Grid, values: jax.Array, t: float, beta: float) -> int:
    """Halvings of the grid's cells after which they are no wider than sigma/2."""
    curvature = 0.0
    for axis, h in enumerate(grid.spacing):
        curvature += max(0.0, float(jnp.diff(values, 2, axis=axis).max()) / h**2)
    sigma = 1 / math.sqrt(beta * (curvature + 1 / t))
    return max(0, math.ceil(math.log2(max(grid.spacing) / (sigma / 2))))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _gibbs(
    grid: Grid,
    function: Function | None,
    num_halvings: int,
    values: jax.Array,
    rows: jax.Array,
    t: jax.Array,
    beta: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    f = function or (lambda y: grid.interpolate(values, y))
    nodes, kept = jnp.asarray(grid.points).reshape(-1, grid.ndim), _KEPT[grid.ndim]
    spacing = np.asarray(grid.spacing)
    children = np.asarray(list(itertools.product([-0.25, 0.25], repeat=grid.ndim)))

    def at(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        energy = lambda y, f_y: f_y + jnp.sum((x - y) ** 2, axis=-1) / (2 * t)  # noqa: E731
        y, width = nodes, spacing
        h = energy(y, values.reshape(-1))
        for _ in range(num_halvings):
            if len(y) > kept:
                y = y[lax.top_k(-h, kept)[1]]
            y = (y[:, None] + width * children).reshape(-1, grid.ndim)
            width = width / 2
            h = energy(y, jax.vmap(lambda y: f(y.reshape(grid.point_shape)))(y))
        lowest = h.min()
        weights = jnp.exp(-beta * (h - lowest))
        mass = weights.sum()
        log_integral = jnp.log(mass) + np.log(width).sum()
        log_integral -= grid.ndim / 2 * jnp.log(2 * jnp.pi * t / beta)
        return lowest - log_integral / beta, weights @ (x - y) / (mass * t)

    return lax.map(at, rows, batch_size=_BATCH)
