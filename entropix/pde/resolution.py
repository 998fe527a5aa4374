"""How fine cells must be for sums of exp(-beta [f(y) + |x-y|^2/(2t)]).

Cells are fine enough when they are narrower than the wells, of width sigma = 1/sqrt(beta (f'' +
1/t)), wherever the measure has mass; and, where the energy falls towards a wall, narrower than the
layer at the wall, of width 1/(beta slope).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.pde.grid import Grid

NEGLIGIBLE = 34.0  # exp(-34) = 2e-15
MOST_HALVINGS = 60  # of a cell, after which floats do not tell its ends apart
_SAFETY = 1.25
_OF_LAYER = 0.5  # widest cell in widths of a layer at a wall: an error of 0.5^2/24 of its mass


class Scales(NamedTuple):
    """Time and inverse temperature."""

    t: jax.Array
    beta: jax.Array


def node_curvature(grid: Grid, values: jax.Array) -> jax.Array:
    """The sum of f's second differences along each dimension, the largest of the neighbours'."""
    total = jnp.zeros(())
    for axis, h in enumerate(grid.spacing):
        pad = [(int(i == axis),) * 2 for i in range(grid.ndim)]
        second = jnp.pad(jnp.diff(values, 2, axis=axis) / h**2, pad, mode="edge")
        # A node where f is infinite has no mass, and tells nothing of its neighbours.
        total = total + jnp.where(jnp.isfinite(second), jnp.maximum(second, 0), 0)
    window = (3,) * grid.ndim
    return lax.reduce_window(total, -jnp.inf, lax.max, window, (1,) * grid.ndim, "SAME").reshape(-1)


def seen_curvature(grid: Grid, h: jax.Array, curvature: jax.Array, scales: Scales) -> jax.Array:
    """The curvature of f at the nodes, but no more than their energies leave room for.

    On a slope a cell's energy is not far below the lower neighbour's, however much f bends there:
    curvature matters around nodes that are lower than their neighbours. Without this, cells on the
    steep side of exp(x^3) would be kept, and halved, in the place of those with mass.

    Args:
      grid: the nodes.
      h: energies at the nodes, shape (nodes,).
      curvature: of f, as from `node_curvature`; shape (nodes,).
      scales: t and beta.
    """
    spacing, around = np.asarray(grid.spacing), (3,) * grid.ndim
    h = lax.stop_gradient(h)

    def lowest_around(values: jax.Array) -> jax.Array:
        values = values.reshape(grid.shape)
        lowest = lax.reduce_window(values, jnp.inf, lax.min, around, (1,) * grid.ndim, "SAME")
        return lowest.reshape(-1)

    lower = slack(curvature, spacing, scales)
    below = lowest_around(jnp.where(h <= lowest_around(h), h - lower, h))
    room = jnp.where(jnp.isfinite(h), jnp.minimum(lower, h - below), lower)
    return room / slack(jnp.zeros(()), spacing, scales) / scales.t - 1 / scales.t


def wall_slopes(grid: Grid, h: jax.Array) -> jax.Array:
    """How steeply energies rise from the box's ends inwards, at nodes there; 0 at all others.

    Args:
      grid: the nodes.
      h: energies at the nodes, shape (nodes,).

    Returns:
      Slopes >= 0 along each dimension, shape (nodes, ndim).
    """
    h, slopes = lax.stop_gradient(h).reshape(grid.shape), []
    for axis, spacing in enumerate(grid.spacing):
        rise = jnp.diff(h, axis=axis) / spacing
        ends = 0, rise.shape[axis] - 1
        first, last = (lax.slice_in_dim(rise, i, i + 1, axis=axis) for i in ends)
        between = jnp.zeros([n - 2 * (i == axis) for i, n in enumerate(grid.shape)])
        slope = jnp.concatenate([first, between, -last], axis=axis).reshape(-1)
        slopes.append(jnp.where(jnp.isfinite(slope), jnp.maximum(slope, 0), 0))
    return jnp.stack(slopes, axis=-1)


def slack(
    curvature: jax.Array,
    width: jax.Array | np.ndarray,
    scales: Scales,
    slope: jax.Array | None = None,
) -> jax.Array:
    """By how much the energy in a cell may be lower than at its middle, near a minimum."""
    at_wall = 0.0 if slope is None else slope @ (width / 2)
    return (curvature + 1 / scales.t) * jnp.sum((width / 2) ** 2) / 2 + at_wall


def halvings_needed(
    h: jax.Array,
    curvature: jax.Array,
    width: jax.Array | np.ndarray,
    scales: Scales,
    slope: jax.Array | None = None,
) -> jax.Array:
    """Halvings after which cells resolve the integrand, where its mass is.

    A trapezoidal sum with nodes d apart leaves out 2 exp(-2 pi^2 sigma^2/d^2) of a Gaussian, and
    of a tail it may leave out as much more as the tail is smaller.
    """
    t, beta = scales
    excess = jnp.maximum(beta * (h - slack(curvature, width, scales, slope) - h.min()), 0)
    sigma = 1 / jnp.sqrt(beta * jnp.maximum(curvature + 1 / t, 0))
    share = jnp.sqrt(jnp.maximum(NEGLIGIBLE - excess, 0) / (2 * np.pi**2)) / sigma
    cells = _SAFETY * jnp.max(width) * share.max()
    if slope is not None:
        of_layers = beta * jnp.max(slope * width[None], axis=-1) / _OF_LAYER
        cells = jnp.maximum(cells, jnp.where(excess < NEGLIGIBLE, of_layers, 0).max())
    needed = jnp.log2(cells)
    return jnp.clip(jnp.ceil(needed), 0, MOST_HALVINGS).astype(int)
