r"""The one protocol behind every relaxation: from gradients of f to a gradient of its relaxation.

A relaxation looks at f only through gradients at points of its own choice. One *outer step* is

    inner = begin(params, state)                 # y <- x, <y> <- x
    repeat num_steps times (the paper's L):
        grads = gradient of the loss at point(inner)
        inner = step(grads, inner)               # one inner (Langevin) step
    relaxed_grads, state = finish(inner, state)  # (x - <y>)/gamma, or another estimate

and costs exactly `num_steps` gradients. Who runs the loop is another matter: `entropix.relax`
scans it inside one update, `entropix.stepwise` spreads it over `num_steps` updates of any training
loop, `entropix.relaxed_grad` is the loop as a pure function.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import ScalarOrSchedule

from entropix.transforms.keys import canonical_key


class RelaxationState(NamedTuple):
    """What a relaxation remembers between outer steps.

    Attributes:
      outer_count: outer steps finished. shape=(), dtype=int32. Schedules of gamma, step size and
        temperature are read at this count.
      key: the typed key all noise derives from, or None for a deterministic relaxation.
      inner_memory: the inner transformation's state between two outer steps, or None where each
        outer step starts it anew (and during a `stepwise` one, whose `inner` has it then).
    """

    outer_count: jax.Array
    key: Any
    inner_memory: Any = None


class Relaxation(NamedTuple):
    """Five pure functions; see the module's docstring for how they are called.

    Attributes:
      init: `params -> state`.
      begin: `(params, state) -> inner`. `inner` is a NamedTuple whose field `params` is x and
        whose field `outer` is the `state` it began from.
      point: `inner -> params`, where the next loss gradient is wanted.
      step: `(grads, inner, **extra_args) -> inner`.
      finish: `(inner, state) -> (relaxed_grads, state)`.
      num_steps: gradients per outer step, L >= 1; a Python int.
      starts_at_params: whether the first point is x, so that a gradient at x can be used.
    """

    init: Callable[[Any], Any]
    begin: Callable[[Any, Any], Any]
    point: Callable[[Any], Any]
    step: Callable[..., Any]
    finish: Callable[[Any, Any], tuple[Any, Any]]
    num_steps: int
    starts_at_params: bool = True


def init_state(key: jax.Array | int | None) -> RelaxationState:
    """Returns the state before the first outer step."""
    key = None if key is None else canonical_key(key)
    return RelaxationState(outer_count=jnp.zeros([], jnp.int32), key=key)


def next_state(state: RelaxationState) -> RelaxationState:
    """Returns the state after one more outer step."""
    return state._replace(outer_count=optax.safe_increment(state.outer_count))


def is_zero(value: Any) -> bool:
    """Whether `value` is 0 already at build time, so that code for it can be left out."""
    return isinstance(value, int | float) and value == 0


def at(value: ScalarOrSchedule, count: jax.Array) -> Any:
    """Returns the value of a number, or of a schedule at `count`."""
    return value(count) if callable(value) else value


def wide(leaf: jax.Array) -> jax.Array:
    """Casts a leaf to at least float32, the precision in which all kernels compute."""
    return jnp.asarray(leaf).astype(jnp.promote_types(leaf.dtype, jnp.float32))


def scalar(value: Any, like: jax.Array) -> jax.Array:
    """Casts a number to the real dtype of `like`, so that it never promotes a kernel's result."""
    return jnp.asarray(value).astype(jnp.finfo(like.dtype).dtype)


def copy_tree(tree: Any) -> Any:
    """Copies every leaf: a state that aliases the parameters could not be donated with them."""
    return jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.copy(leaf), tree
    )
