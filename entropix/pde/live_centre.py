"""The function phi that many replicas around their own mean descend (Elastic-SGD, period 1)."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_finite, check_positive
from entropix.pde.grid import Function, Grid, Relaxed
from entropix.pde.quadrature import Sums, energy, node_sums
from entropix.pde.resolution import Scales, halvings_needed, node_curvature, seen_curvature

_MOST_STEPS = 200
_LENGTHS = 4.0 ** -np.arange(8)  # of a Newton step; the one that climbs highest is taken
_TOLERANCE = 1e-10  # of a mean, in widths of the box
_BATCH = 16


def phi(grid: Grid, f: Function | ArrayLike, t: float, beta: float, points: ArrayLike) -> Relaxed:
    r"""The function of which local entropy is the Moreau envelope, and its gradient.

    .. math:: \varphi(m) = \max_z u(z, t) - \frac{|z - m|^2}{2t}, \qquad
        u(z, t) = \min_m \varphi(m) + \frac{|z - m|^2}{2t}, \qquad
        \nabla\varphi(m) = \nabla u(z, t) = \frac{z - m}{t}

    with u the local entropy of `cole_hopf`, and z the anchor around which the Gibbs mean <y> is m.
    Many replicas of Elastic-SGD that are pulled to their own mean m at every step move m along
    -grad phi(m): conditioned on their mean they sample the measure around z, not around m. phi has
    the critical points of u, with the curvature c where u has c/(1 + tc); for a quadratic f it is
    f and a constant. The maximum is that of a concave function, found by Newton's method.

    Args:
      grid: its nodes are those of the quadrature; the box as for `cole_hopf`, the spacing about
        half a standard deviation of the measure around z, 1/sqrt(beta (f'' + 1/t)), or less.
      f: a function to be sampled, or values of the grid's shape.
      t: time (gamma of the optimisers), > 0.
      beta: inverse temperature 1/T, > 0.
      points: m, shape (..., *point_shape), inside the box by some standard deviations.

    Returns:
      phi and its gradient, shapes (...,) and (..., *point_shape).

    Raises:
      ValueError: for an argument outside its range, for nodes too far apart, and for points that
        are the mean around no anchor.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-9.0, 9.0, 201)
      >>> with jax.enable_x64(True):  # the slope of f itself, not x/(1 + t)
      ...     replicas = entropix.pde.phi(grid, lambda x: x**2 / 2, t=1.0, beta=4.0, points=[1.5])
      >>> replicas.gradient.round(9).tolist()
      [1.5]

    References:
      Touchette, `The large deviation approach to statistical mechanics
      <https://arxiv.org/abs/0804.0327>`_, 2009 (Cramer's rate function of a mean, which phi is).
    """
    check_positive(t=t, beta=beta)
    values, rows = grid.sample(f), grid.rows(points)
    check_finite("f", values, grid.points, besides=math.inf)
    scales = Scales(jnp.asarray(t, jnp.float64), jnp.asarray(beta, jnp.float64))
    value, gradient, gap, halvings = _invert(grid, values, rows, scales)
    if not isinstance(gap, jax.core.Tracer):
        _check_result(grid, rows, gap, halvings)
    return grid.relaxed(value, gradient, points)


def _check_result(grid: Grid, rows: jax.Array, gap: jax.Array, halvings: jax.Array) -> None:
    box = max(b - a for a, b in zip(grid.lower, grid.upper, strict=True))
    lost = np.flatnonzero(~(np.asarray(gap) <= _TOLERANCE * box))
    if lost.size:
        raise ValueError(
            f"points must be means that the measure can have; {rows[lost[0]].tolist()} is outside "
            f"the box from {grid.lower} to {grid.upper} or too near to its edge; take a larger box"
        )
    most = int(halvings.max(initial=0))
    if most:
        finer = tuple(2**most * (n - 1) + 1 for n in grid.shape)
        raise ValueError(
            f"the grid's nodes are too far apart for this beta and t; got shape {grid.shape}, "
            f"take {finer}"
        )


def _solved(linear: Callable[[jax.Array], jax.Array], values: jax.Array) -> jax.Array:
    """The vector that a linear function maps to `values`."""
    return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(values)), values)


@functools.partial(jax.jit, static_argnums=0)
def _invert(
    grid: Grid, values: jax.Array, rows: jax.Array, scales: Scales
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Value, gradient, distance of the mean found from the mean wanted, and halvings missing."""
    nodes = jnp.asarray(grid.points).reshape(-1, grid.ndim)
    curvature, spacing = node_curvature(grid, values), np.asarray(grid.spacing)

    def energies(z: jax.Array) -> jax.Array:
        return energy(z, nodes, values.reshape(-1), scales)

    def sums(z: jax.Array) -> Sums:
        return node_sums(grid, z, nodes, energies(z), scales)

    def gradient(z: jax.Array) -> jax.Array:
        return sums(z).gradient

    def height(z: jax.Array, m: jax.Array) -> jax.Array:
        return sums(z).value - jnp.sum((z - m) ** 2) / (2 * scales.t)

    def missing(z: jax.Array, m: jax.Array) -> jax.Array:
        return m - (z - scales.t * gradient(z))

    def climb(m: jax.Array, z: jax.Array) -> jax.Array:
        spread = jnp.eye(grid.ndim) - scales.t * jax.jacfwd(gradient)(z)  # d<y>/dz = beta Cov/t
        move = jnp.linalg.solve(spread, missing(z, m))
        reached = z[None] + jnp.asarray(_LENGTHS)[:, None] * move[None]
        return reached[jax.vmap(height, (0, None))(reached, m).argmax()]

    def solve(m: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        box = max(b - a for a, b in zip(grid.lower, grid.upper, strict=True))

        def far(state: tuple[jax.Array, jax.Array]) -> jax.Array:
            z, count = state
            return (jnp.abs(missing(z, m)).max() > _TOLERANCE * box / 10) & (count < _MOST_STEPS)

        def climbed(_: Any, start: jax.Array) -> jax.Array:
            count = jnp.asarray(0)
            return lax.while_loop(far, lambda s: (climb(m, s[0]), s[1] + 1), (start, count))[0]

        z = lax.custom_root(lambda z: missing(z, m), m, climbed, _solved)
        h = energies(z)
        bent = seen_curvature(grid, h, curvature, scales)
        halvings = halvings_needed(h, bent, spacing, scales)
        return height(z, m), (z - m) / scales.t, jnp.abs(missing(z, m)).max(), halvings

    return lax.map(solve, rows, batch_size=_BATCH)
