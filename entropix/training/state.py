"""The state of one run, as a pytree of arrays: all that a checkpoint has to hold."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entropix.experiment.method import Method
from entropix.replicas import centre as mean_of_replicas
from entropix.training.keys import split_seed
from entropix.transforms import reseed
from entropix.transforms.numerics import (
    cast_like,
    filled,
    inexact_leaves,
    inexact_part,
    is_zero,
    wide_copy,
)


class TrainState(NamedTuple):
    """State between two outer steps. With replicas every leaf has a leading axis p.

    Attributes:
      params: x; for a foreign transformation the parameters of its loop.
      model_state: such as batch-norm statistics, collected along the inner iterates y.
      relaxation: state of the relaxation; its `outer_count` is the step count.
      optimizer: state of the outer optimiser.
      key: mini-batches and dropout derive from it and the step count.
      average: average of x over outer steps, in float32 or wider, since a slow average of few bits
        would not move; None where none is kept.
    """

    params: Any
    model_state: Any
    relaxation: Any
    optimizer: Any
    key: jax.Array
    average: Any = None


def init_state(method: Method, starts: Sequence[tuple[Any, Any]], seed: int) -> TrainState:
    """Returns the state before the first step.

    Args:
      method: what to run.
      starts: initial parameters and model state; one pair, at which all replicas start, or one for
        each of them.
      seed: of mini-batches, dropout and all noise (`entropix.training.keys`).

    Returns:
      The `TrainState`, with a replica axis if the method has replicas; they differ in their keys.
    """
    keys = split_seed(seed)

    def start(params: Any, model_state: Any) -> TrainState:
        average = None
        if not is_zero(method.ema):
            average = filled(wide_copy(inexact_leaves(params)), params)
        return TrainState(
            params, model_state, method.relaxation.init(params), method.optimizer.init(params),
            keys.data, average,
        )  # fmt: skip

    states = [start(*pair) for pair in starts]
    if method.replicas is None:
        (state,) = states
    else:
        states *= method.replicas // len(states)
        state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        state = state._replace(key=jax.random.split(keys.data, method.replicas))
    return state._replace(
        relaxation=reseed(state.relaxation, keys.noise),
        optimizer=reseed(state.optimizer, keys.optimizer),
    )


class Point(NamedTuple):
    """What is evaluated: parameters, and the model state to begin with."""

    params: Any
    model_state: Any


def centre(state: TrainState, method: Method) -> Point:
    """Returns the point to evaluate: x, its average, or the replicas' mean."""

    def of_one(state: TrainState) -> Point:
        if state.average is None:
            return Point(method.eval_params(state.optimizer, state.params), state.model_state)
        average, x = (inexact_part(t, state.params) for t in (state.average, state.params))
        return Point(filled(cast_like(average, x), state.params), state.model_state)

    if method.replicas is None:
        return of_one(state)
    return mean_of_replicas(jax.vmap(of_one)(state))
