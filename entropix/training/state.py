"""The state of one run, as a pytree of arrays: all that a checkpoint has to hold."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entropix.training.algorithm import Algorithm
from entropix.transforms import reseed


class TrainState(NamedTuple):
    """State between two outer steps. With p > 1 replicas every leaf has a leading axis p.

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


def init_state(algorithm: Algorithm, params: Any, batch_stats: Any, seed: int) -> TrainState:
    """Returns the state before the first step.

    Args:
      algorithm: what to run.
      params: initial parameters; replicas all start there.
      batch_stats: initial batch-norm statistics.
      seed: of mini-batches, dropout and Langevin noise.

    Returns:
      The `TrainState`, with a replica axis if the algorithm has several; replicas differ in
      their keys.
    """
    relaxation = algorithm.relaxation.init(params)
    data_key, noise_key = jax.random.split(jax.random.key(seed))
    state = TrainState(params, batch_stats, relaxation, algorithm.optimizer.init(params), data_key)
    if algorithm.replicas > 1:
        copies = lambda leaf: jnp.repeat(leaf[None], algorithm.replicas, axis=0)  # noqa: E731
        state = jax.tree.map(copies, state)
        state = state._replace(key=jax.random.split(data_key, algorithm.replicas))
    return state._replace(relaxation=reseed(state.relaxation, noise_key))


def centre(state: TrainState, replicas: int) -> Any:
    """Returns the parameters to evaluate: x, or the replicas' mean."""
    if replicas == 1:
        return state.params
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), state.params)
