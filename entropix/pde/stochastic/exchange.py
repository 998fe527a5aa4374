"""Rates of exchange between neighbouring nodes: one discretisation of drift and diffusion.

A particle in the potential V with diffusion D hops from node i to i+1 and back at the rates

    r_i = D/h B(z),   l_i = D/h B(-z),   z = (V[i+1] - V[i]) / D,   B(z) = z / (exp(z) - 1)

(Scharfetter and Gummel 1969; Chang and Cooper 1970). The density's equation and its adjoint,
Kolmogorov's, take the same rates: the first conserves mass, the second keeps constants, both are
monotone, second order in h, and their stationary state exp(-V/D) is exact at the nodes. A node
owns the cell up to the middles of its intervals, half as long at the ends, where nothing leaves.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.pde.grid import Grid

_STEEPEST = 700.0  # B(700) is 1e-301, and exp(z) is finite


def bernoulli(z: jax.Array) -> jax.Array:
    """B(z) = z / (exp(z) - 1), with B(0) = 1; with finite derivatives, however large z."""
    z = jnp.minimum(z, _STEEPEST)
    small = jnp.abs(z) < 1e-8
    safe = jnp.where(small, 1.0, z)
    return jnp.where(small, 1 - z / 2, safe / jnp.expm1(safe))


def cells(grid: Grid, axis: int) -> np.ndarray:
    """Lengths of the nodes' cells along one dimension: the weights of the trapezoidal rule."""
    lengths = np.full(grid.shape[axis], grid.spacing[axis])
    lengths[[0, -1]] /= 2
    return lengths


def implicit_step(
    grid: Grid,
    values: jax.Array,
    potential: jax.Array,
    *,
    diffusion: float,
    dt: jax.Array | float,
    adjoint: bool = False,
) -> jax.Array:
    """One implicit Euler step, dimension by dimension: monotone and positive for every dt.

    Args:
      grid: of one or two dimensions.
      values: a density, or with `adjoint` a function whose expectation is wanted; grid's shape.
      potential: V at the nodes; drift is -grad V.
      diffusion: D > 0.
      dt: length of the step.
      adjoint: Kolmogorov's backward equation u_t = -grad V . grad u + D Lap u, in the place of
        rho_t = div(grad V rho) + D Lap rho.

    Returns:
      The values after the step.
    """
    for axis in range(grid.ndim):
        right, left, cell = rates(grid, potential, axis, diffusion=diffusion)
        moved = jnp.moveaxis(values, axis, -1)
        solved = _solve(moved, dt * right, dt * left, cell, adjoint)
        values = jnp.moveaxis(solved, -1, axis)
    return values


def rates(
    grid: Grid, potential: jax.Array, axis: int, *, diffusion: float
) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """The rates r_i and l_i of exchange along one dimension, which is moved to the end.

    Args:
      grid: of one or two dimensions.
      potential: V at the nodes.
      axis: the dimension.
      diffusion: D > 0.

    Returns:
      r and l, shape (..., nodes - 1), and the lengths of the cells, shape (nodes,).
    """
    z = jnp.moveaxis(jnp.diff(potential, axis=axis), axis, -1) / diffusion
    scale = diffusion / grid.spacing[axis]
    return scale * bernoulli(z), scale * bernoulli(-z), cells(grid, axis)


def _solve(
    values: jax.Array, right: jax.Array, left: jax.Array, cell: np.ndarray, adjoint: bool
) -> jax.Array:
    """Solves the tridiagonal systems of one dimension, the last."""
    none = jnp.zeros_like(values[..., :1])
    out = jnp.concatenate([right, none], -1) + jnp.concatenate([none, left], -1)
    upper, lower = (right, left) if adjoint else (left, right)
    return lax.linalg.tridiagonal_solve(
        -jnp.concatenate([none, lower], -1) / cell,
        1 + out / cell,
        -jnp.concatenate([upper, none], -1) / cell,
        values[..., None],
    )[..., 0]
