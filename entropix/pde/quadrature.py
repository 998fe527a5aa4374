"""Means and masses of exp(-beta [f(y) + |x-y|^2/(2t)]), by sums over cells that are halved.

Large beta concentrates the measure in narrow wells. In every round the cells of least energy, a
fixed number, are kept and halved, until they are fine enough (`entropix.pde.resolution`). The sum
over the middles of equal cells is trapezoidal for an integrand that is smooth and has decayed at
the ends: such sums converge faster than any power of the width. Where it has not, the box has
walls, and the error is of the order of the width squared.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.pde.grid import Function, Grid
from entropix.pde.resolution import (
    MOST_HALVINGS,
    Scales,
    halvings_needed,
    node_curvature,
    seen_curvature,
    slack,
    wall_slopes,
)

_BATCH = 16  # points at once, which halve as often as the neediest


class Sums(NamedTuple):
    """The results for one point, or for many.

    Attributes:
      value: -1/beta log of the measure's mass, normalised as in (11).
      gradient: (x - mean)/t.
      margin: by what exponent, at least, all that was dropped is below the largest term.
    """

    value: jax.Array
    gradient: jax.Array
    margin: jax.Array


class _Cells(NamedTuple):
    """The cells kept for one point."""

    middle: jax.Array  # shape (kept, ndim)
    curvature: jax.Array  # of f, near the node that a cell came from
    slope: jax.Array  # of the energy, of a cell from a node on a wall; see `wall_slopes`
    real: jax.Array  # not only there to fill the array


class _Progress(NamedTuple):
    """Of one point."""

    cells: _Cells
    sums: Sums
    left: jax.Array  # halvings that are still needed


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def gibbs_sums(
    grid: Grid,
    function: Function | None,
    max_halvings: int | None,
    kept: int,
    values: jax.Array,
    rows: jax.Array,
    scales: Scales,
) -> Sums:
    """Sums for each point.

    Args:
      grid: its cells are the first.
      function: f; or None for values that are interpolated.
      max_halvings: how often a cell may be halved, None for as often as it takes.
      kept: cells that survive a halving.
      values: f at the nodes.
      rows: points, shape (count, ndim).
      scales: t and beta.
    """
    f = function or (lambda y: grid.interpolate(values, y))
    f_all = jax.vmap(lambda y: f(y.reshape(grid.point_shape)))
    nodes, spacing = jnp.asarray(grid.points).reshape(-1, grid.ndim), np.asarray(grid.spacing)
    children = np.asarray(list(itertools.product([-0.25, 0.25], repeat=grid.ndim)))
    curvature = node_curvature(grid, values)

    lower, upper = np.asarray(grid.lower), np.asarray(grid.upper)

    def first(x: jax.Array) -> tuple[jax.Array, Sums]:
        h = energy(x, nodes, values.reshape(-1), scales)
        return h, node_sums(grid, x, nodes, h, scales)

    def halve(level: jax.Array, x: jax.Array, old: _Progress) -> _Progress:
        cells, sums, left = old
        parents = cells.curvature, cells.slope, cells.real
        width = spacing / 2.0 ** level.astype(float)
        y = (cells.middle[:, None] + (width[None] * children)[None]).reshape(-1, grid.ndim)
        curved, slope, real = (jnp.repeat(a, len(children)) for a in parents)
        inside = jnp.clip(y, lower[None], upper[None])  # f need not exist elsewhere
        real &= jnp.all(inside == y, axis=-1)
        h = jnp.where(real, energy(x, y, f_all(inside), scales), jnp.inf)
        cells, margin = _keep(kept, y, h, curved, slope, width / 2, scales)
        after = jnp.minimum(left - 1, halvings_needed(h, curved, width / 2, scales, slope))
        new = cell_sums(x, y, h, width / 2, scales)
        dropped = jnp.where(after > 0, margin, jnp.inf)
        new = new._replace(margin=jnp.minimum(dropped, sums.margin))
        return jax.tree.map(
            lambda a, b: jnp.where(left > 0, a, b), _Progress(cells, new, after), old
        )

    def batch(x: jax.Array) -> Sums:
        h, sums = jax.vmap(first)(x)
        if max_halvings == 0:
            return sums
        bent = jax.vmap(lambda h: seen_curvature(grid, h, curvature, scales))(h)
        slope = jax.vmap(lambda h: wall_slopes(grid, h))(h)
        left = jax.vmap(lambda h, c, s: halvings_needed(h, c, spacing, scales, s))(h, bent, slope)
        left = jnp.minimum(left, MOST_HALVINGS if max_halvings is None else max_halvings)
        keep = jax.vmap(lambda h, c, s: _keep(kept, nodes, h, c, s, spacing, scales))
        cells, margin = keep(h, bent, slope)
        sums = sums._replace(margin=jnp.where(left > 0, margin, jnp.inf))
        halve_all = jax.vmap(halve, (None, 0, 0))
        loop = jnp.asarray(0), _Progress(cells, sums, left)
        return lax.while_loop(
            lambda loop: jnp.any(loop[1].left > 0),
            lambda loop: (loop[0] + 1, halve_all(loop[0], x, loop[1])),
            loop,
        )[1].sums

    padded = jnp.pad(rows, ((0, -len(rows) % _BATCH), (0, 0)), mode="edge")
    found = lax.map(batch, padded.reshape(len(padded) // _BATCH, _BATCH, grid.ndim))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: len(rows)], found)


def node_sums(grid: Grid, x: jax.Array, nodes: jax.Array, h: jax.Array, scales: Scales) -> Sums:
    """`cell_sums` over the cells around the grid's nodes, as far as these are in the box."""
    inside = h - np.log(_shares_inside(grid)) / scales.beta
    return cell_sums(x, nodes, inside, np.asarray(grid.spacing), scales)


def _shares_inside(grid: Grid) -> np.ndarray:
    """The share of each node's cell that is in the box: a half, or in two dimensions a quarter.

    Example:
      >>> _shares_inside(Grid(0.0, 1.0, 4))
      array([0.5, 1. , 1. , 0.5])
    """
    of_axes = [np.where(np.isin(np.arange(n), (0, n - 1)), 0.5, 1.0) for n in grid.shape]
    return np.asarray(functools.reduce(np.multiply.outer, of_axes)).reshape(-1)


def energy(x: jax.Array, y: jax.Array, f_y: jax.Array, scales: Scales) -> jax.Array:
    """The inner energy f(y) + |x - y|^2/(2t), at many y."""
    return f_y + jnp.sum((x[None] - y) ** 2, axis=-1) / (2 * scales.t)


def cell_sums(
    x: jax.Array, y: jax.Array, h: jax.Array, width: jax.Array | np.ndarray, scales: Scales
) -> Sums:
    """The sums for one point x over cells with the middles y, energies h and one width.

    Args:
      x: shape (ndim,).
      y: shape (cells, ndim).
      h: shape (cells,); infinite where there is no mass.
      width: of a cell along each dimension, shape (ndim,).
      scales: t and beta.
    """
    t, beta = scales
    # The sums do not depend on the shift. The derivative of `min` divides by the number of entries
    # that equal it: none, where the compiler computes h a second time and rounds it otherwise.
    lowest = lax.stop_gradient(h.min())
    has_mass = jnp.isfinite(h)  # a derivative of exp at infinity would be 0 times infinity
    weights = jnp.where(has_mass, jnp.exp(-beta * (jnp.where(has_mass, h, lowest) - lowest)), 0)
    mass = weights.sum()
    log_integral = jnp.log(mass) + jnp.log(width).sum()
    log_integral -= len(width) / 2 * jnp.log(2 * jnp.pi * t / beta)
    gradient = weights @ (x[None] - y) / (mass * t)
    return Sums(lowest - log_integral / beta, gradient, jnp.asarray(jnp.inf))


def _keep(
    kept: int,
    y: jax.Array,
    h: jax.Array,
    curvature: jax.Array,
    slope: jax.Array,
    width: jax.Array | np.ndarray,
    scales: Scales,
) -> tuple[_Cells, jax.Array]:
    """The cells of least energy, and the margin of all others."""
    missing = max(kept + 1 - len(y), 0)
    y = jnp.pad(y, ((0, missing), (0, 0)), mode="edge")
    h = jnp.pad(h, (0, missing), constant_values=jnp.inf)
    curvature = jnp.pad(curvature, (0, missing))
    slope = jnp.pad(slope, (0, missing))
    least, chosen = lax.top_k(slack(curvature, width, scales, slope) - h, kept + 1)
    margin, chosen = scales.beta * (-least[-1] - h.min()), chosen[:-1]
    return _Cells(y[chosen], curvature[chosen], slope[chosen], jnp.isfinite(h[chosen])), margin
