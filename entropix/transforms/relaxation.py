r"""The one protocol behind every relaxation: from gradients of f to a gradient of its relaxation.

A relaxation looks at f only through gradients at points of its own choice. One *outer step* is

    inner = begin(params, state)                 # y <- x, <y> <- x
    repeat num_steps times (the paper's L):
        grads = gradient of the loss at point(inner)
        inner = step(grads, inner)               # one inner (Langevin) step
    relaxed_grads, state = finish(inner, state)  # (x - <y>)/gamma, or another estimate

and costs exactly `num_steps` gradients. Three faces run this loop: `entropix.relax` scans it inside
one update, `entropix.stepwise` spreads it over `num_steps` updates of any training loop, and
`entropix.relaxed_grad` is the loop as a pure function.

A relaxation only sees real and complex leaves. The faces leave out all others (integers, booleans,
random keys) and put them back where a gradient of the loss is wanted. Inner variables are float32
or wider; x, the points and the relaxed gradients have the dtypes of the parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from entropix.transforms.checks import refusal
from entropix.transforms.keys import canonical_key
from entropix.transforms.numerics import where_changed


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


class Pull(NamedTuple):
    """A pull to x; inner steps diverge where step_size is twice gamma or more.

    Attributes:
      gamma: the scope, a number or a schedule.
      step_size: likewise.
    """

    gamma: Any
    step_size: Any


class Relaxation(NamedTuple):
    """Pure functions that make one relaxation; the module's docstring says how they are called.

    Attributes:
      init: `params -> state`.
      begin: `(params, state) -> inner`. `inner` is a NamedTuple whose field `params` is x and
        whose field `outer` is the `state` it began from.
      point: `inner -> params`, where the next loss gradient is wanted; in the parameters' dtypes.
      step: `(grads, inner, **extra_args) -> inner`.
      finish: `(inner, state) -> (relaxed_grads, state)`.
      num_steps: gradients per outer step, L >= 1; a Python int.
      starts_at_params: whether the first point is x, so that a gradient at x can be used.
      restart: `(inner, params, moved) -> inner`. The caller has put the elements where the boolean
        tree `moved` is True at the values of `params`: the outer step starts again there, for
        these elements alone. None moves x alone.
      point_is_y: whether the point is the field `y` of `inner`, rounded to the parameters' dtypes,
        so that `stepwise` needs no memory of where it has put the parameters.
      one_batch: whether all gradients of an outer step are of one mini-batch, as in SAM.
      pull: gamma and step size, where a pull by them can diverge.
    """

    init: Callable[[Any], Any]
    begin: Callable[[Any, Any], Any]
    point: Callable[[Any], Any]
    step: Callable[..., Any]
    finish: Callable[[Any, Any], tuple[Any, Any]]
    num_steps: int
    starts_at_params: bool = True
    restart: Callable[[Any, Any, Any], Any] | None = None
    point_is_y: bool = False
    one_batch: bool = False
    pull: Pull | None = None

    @property
    def update(self) -> Any:
        """There is none: a relaxation is no Optax transformation, and `relax` makes one of it."""
        raise AttributeError(
            "a Relaxation is no Optax transformation and has no update: write entropix.relax("
            "relaxation) in an optax.chain, or entropix.stepwise(relaxation, optimizer)."
        )


def check_relaxation(relaxation: Any) -> Relaxation:
    """Returns a relaxation."""
    if not isinstance(relaxation, Relaxation):
        accepted = "a Relaxation, such as entropix.local_entropy(gamma=1.0)"
        raise refusal("relaxation", accepted, relaxation)
    return relaxation


def check_state(state: Any, expected: type = RelaxationState) -> Any:
    """Returns the state that `update` was given, if it is one of this transformation."""
    if not isinstance(state, expected):
        raise ValueError(
            f"update needs the state of this transformation, a {expected.__name__}, from "
            f"tx.init(params) or the last update; got a {type(state).__name__}. A chain has a "
            "tuple of the states of its links."
        )
    return state


def init_state(key: jax.Array | int | None) -> RelaxationState:
    """Returns the state before the first outer step."""
    # A copy: whoever donates the state would destroy the caller's key.
    key = None if key is None else jnp.copy(canonical_key(key))
    return RelaxationState(outer_count=jnp.zeros([], jnp.int32), key=key)


def next_state(state: RelaxationState) -> RelaxationState:
    """Returns the state after one more outer step."""
    return state._replace(outer_count=optax.safe_increment(state.outer_count))


def restart(relaxation: Relaxation, inner: Any, params: Any, moved: Any) -> Any:
    """Restarts the outer step where the caller has moved elements of the parameters."""
    if relaxation.restart is not None:
        return relaxation.restart(inner, params, moved)
    return inner._replace(params=where_changed(moved, params, inner.params))
