"""Monotone discretisations of Hamiltonians H, for schemes of u_t + H(grad u) = viscosity."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Hamiltonian(NamedTuple):
    """A numerical Hamiltonian, made of one-sided slopes along every dimension.

    Attributes:
      flux: a function of (backward, forward, bounds) whose value is H at the nodes. The slopes have
        the shape (ndim, *nodes), the bounds (ndim,). Monotone: not decreasing in the backward
        slopes, not increasing in the forward ones.
      speed: a function of the slopes' bounds whose value bounds the derivative of the flux in every
        slope, shape (ndim,): how fast information travels.
    """

    flux: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    speed: Callable[[jax.Array], jax.Array]


def godunov(left: jax.Array, right: jax.Array) -> jax.Array:
    """Godunov's flux for p^2/2 between the states `left` and `right`: upwind, entropic."""
    return jnp.maximum(jnp.maximum(left, 0), jnp.maximum(-right, 0)) ** 2 / 2


def _sum_of_godunov(backward: jax.Array, forward: jax.Array, bounds: jax.Array) -> jax.Array:
    return godunov(backward, forward).sum(axis=0)


def _lax_friedrichs(backward: jax.Array, forward: jax.Array, bounds: jax.Array) -> jax.Array:
    # The least viscosity that keeps the flux monotone: the bound of the slopes.
    viscosity = jnp.tensordot(bounds, forward - backward, axes=1) / 2
    return jnp.sum(((backward + forward) / 2) ** 2, axis=0) / 2 - viscosity


def _steepest_ascent(backward: jax.Array, forward: jax.Array, bounds: jax.Array) -> jax.Array:
    rise = jnp.maximum(jnp.maximum(forward, 0), jnp.maximum(-backward, 0))
    return -jnp.sqrt(jnp.sum(rise**2, axis=0))


def _same(bounds: jax.Array) -> jax.Array:
    return bounds


GODUNOV = Hamiltonian(_sum_of_godunov, _same)
"""H = |p|^2/2 by Godunov's flux, the least diffusive one."""

LAX_FRIEDRICHS = Hamiltonian(_lax_friedrichs, _same)
"""H = |p|^2/2 by Lax and Friedrichs' flux."""

ASCENT = Hamiltonian(_steepest_ascent, jnp.ones_like)
"""H = -|p|, u_t = +|grad u|: u grows to the maximum over a ball (Osher and Sethian's flux)."""

HAMILTONIANS = {"godunov": GODUNOV, "lax_friedrichs": LAX_FRIEDRICHS}
"""The choices of `inviscid_hj`, by name."""


def one_sided(u: jax.Array, axis: int, h: float) -> tuple[jax.Array, jax.Array]:
    """Backward and forward difference quotients, u mirrored at the walls."""
    padding = [(int(i == axis), int(i == axis)) for i in range(u.ndim)]
    slope = jnp.diff(jnp.pad(u, padding, mode="reflect"), axis=axis) / h
    n = u.shape[axis]
    return (
        lax.slice_in_dim(slope, 0, n, axis=axis),
        lax.slice_in_dim(slope, 1, n + 1, axis=axis),
    )
