"""Many steps, and the states that are kept on the way."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from entropix.pde.checks import check_count, check_multiple

NumberedStep = Callable[[jax.Array, jax.Array], jax.Array]
"""`(state, n) -> state`, the n-th step."""


@functools.partial(jax.jit, static_argnames=("make", "static", "num_steps", "num_saves"))
def saved_steps(
    make: Callable[..., NumberedStep],
    static: tuple[Hashable, ...],
    arrays: tuple[Any, ...],
    start: jax.Array,
    *,
    num_steps: int,
    num_saves: int,
) -> jax.Array:
    """Takes steps from `start`, and returns the states after equally many of them.

    One compiled program serves all calls with the same `make`, `static` and counts.

    Args:
      make: `make(*static, *arrays)`, whose value is the step, with n = 0 ... num_steps - 1; a
        function of a module, which is the same at every call.
      static: what the program is made of: the grid, and functions that have a hash (`hashable`).
      arrays: numbers, arrays and trees of them that the program is called with.
      start: the first state.
      num_steps: steps, a multiple of `num_saves`.
      num_saves: how many states are returned, the last being the last of all.

    Returns:
      Array of shape (num_saves, *start.shape).
    """
    step = make(*static, *arrays)

    def until_saved(state: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
        state, _ = lax.scan(lambda state, n: (step(state, n), None), state, counts)
        return state, state

    return lax.scan(until_saved, start, jnp.arange(num_steps).reshape(num_saves, -1))[1]


def check_saves(num_steps: int, num_saves: int) -> None:
    """Raises a ValueError unless both are counts, and the steps a multiple of the saves."""
    check_count(num_steps=num_steps, num_saves=num_saves)
    check_multiple("num_steps", num_steps, "num_saves", num_saves)
