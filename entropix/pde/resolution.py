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

    most = slack(curvature, spacing, scales)
    below = lowest_around(jnp.where(h <= lowest_around(h), h - most, h))
    room = jnp.where(jnp.isfinite(h), jnp.minimum(most, h - below), most)
    return room / slack(jnp.zeros(()), spacing, scales) / scales.t - 1 / scales.t


def wall_slopes(grid: Grid, h: jax.Array) -> jax.Array:
    """How steeply energies rise from the box's ends inwards, at both end nodes; 0 at all others.

    In the plane all are 0: a layer along an edge would take more cells than can be kept.

    Args:
      grid: the nodes.
      h: energies at the nodes, shape (nodes,).
    """
    if grid.ndim > 1:
        return jnp.zeros_like(h)
    rise = jnp.diff(lax.stop_gradient(h)) / grid.spacing[0]
    slope = jnp.concatenate([rise[:1], jnp.zeros(len(h) - 2), -rise[-1:]])
    return jnp.where(jnp.isfinite(slope), jnp.maximum(slope, 0), 0)


def slack(
    curvature: jax.Array,
    width: jax.Array | np.ndarray,
    scales: Scales,
    slope: jax.Array | float = 0.0,
) -> jax.Array:
    """By how much the energy in a cell may be lower than at its middle, near a minimum."""
    bent = (curvature + 1 / scales.t) * jnp.sum((width / 2) ** 2) / 2
    return bent + slope * jnp.max(width) / 2


def halvings_needed(
    h: jax.Array,
    curvature: jax.Array,
    width: jax.Array | np.ndarray,
    scales: Scales,
    slope: jax.Array | float = 0.0,
) -> jax.Array:
    """Halvings after which cells resolve the integrand, where its mass is.

    A trapezoidal sum with nodes d apart leaves out 2 exp(-2 pi^2 sigma^2/d^2) of a Gaussian, and
    of a tail it may leave out as much more as the tail is smaller.
    """
    t, beta = scales
    excess = jnp.maximum(beta * (h - slack(curvature, width, scales, slope) - h.min()), 0)
    sigma = 1 / jnp.sqrt(beta * jnp.maximum(curvature + 1 / t, 0))
    share = jnp.sqrt(jnp.maximum(NEGLIGIBLE - excess, 0) / (2 * np.pi**2)) / sigma
    layer = jnp.where(excess < NEGLIGIBLE, beta * slope, 0).max() / _OF_LAYER
    needed = jnp.log2(jnp.max(width) * jnp.maximum(_SAFETY * share.max(), layer))
    return jnp.clip(jnp.ceil(needed), 0, MOST_HALVINGS).astype(int)
