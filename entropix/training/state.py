"""The state of one run, as a pytree of arrays: all that a checkpoint has to hold."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entropix.replicas import centre as mean_of_replicas
from entropix.training.algorithm import Algorithm
from entropix.training.keys import split_seed
from entropix.transforms import reseed


class TrainState(NamedTuple):
    """State between two outer steps. With replicas every leaf has a leading axis p.

    Attributes:
      params: x.
      batch_stats: batch-norm statistics, collected along the inner iterates y.
      relaxation: state of the relaxation; its `outer_count` is the step count.
      optimizer: state of the outer optimiser.
      key: mini-batches and dropout derive from it and the step count.
    """

    params: Any
    batch_stats: Any
    relaxation: Any
    optimizer: Any
    key: jax.Array


def init_state(algorithm: Algorithm, starts: Sequence[tuple[Any, Any]], seed: int) -> TrainState:
    """Returns the state before the first step.

    Args:
      algorithm: what to run.
      starts: initial parameters and batch-norm statistics; one pair, at which all replicas start,
        or one for each of them.
      seed: of mini-batches, dropout and Langevin noise (`entropix.training.keys`).

    Returns:
      The `TrainState`, with a replica axis if the algorithm has replicas; they differ in their
      keys.
    """
    keys = split_seed(seed)

    def start(params: Any, batch_stats: Any) -> TrainState:
        relaxation = algorithm.relaxation.init(params)
        return TrainState(
            params, batch_stats, relaxation, algorithm.optimizer.init(params), keys.data
        )

    states = [start(*pair) for pair in starts]
    if algorithm.replicas is None:
        (state,) = states
    else:
        states *= algorithm.replicas // len(states)
        state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        state = state._replace(key=jax.random.split(keys.data, algorithm.replicas))
    return state._replace(relaxation=reseed(state.relaxation, keys.noise))


class Point(NamedTuple):
    """What is evaluated: parameters, and batch-norm statistics to begin with."""

    params: Any
    batch_stats: Any


def centre(state: TrainState, algorithm: Algorithm) -> Point:
    """Returns the point to evaluate: x, or the replicas' mean."""
    point = Point(state.params, state.batch_stats)
    return point if algorithm.replicas is None else mean_of_replicas(point)
