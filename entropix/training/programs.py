"""The compiled parts of a run."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from entropix.data import Dataset
from entropix.training.algorithm import Algorithm, make_algorithm
from entropix.training.epoch import NEVER, Advance, make_advance, make_step, over_seeds
from entropix.training.evaluation import Evaluation, make_evaluate
from entropix.training.network import build_network
from entropix.training.state import TrainState, init_state


class Programs(NamedTuple):
    """The compiled parts of a run; all take states with a leading axis of seeds.

    Attributes:
      init: `init() -> Advance`, before the first step.
      advance: `(before, (num_steps, data)) -> after`; donates `before`.
      evaluate: `(states, data) -> Evaluation`.
      algorithm: what they run.
    """

    init: Callable[[], Advance]
    advance: Callable[[Advance, tuple[Array, Dataset]], Advance]
    evaluate: Callable[[TrainState, Dataset], Evaluation]
    algorithm: Algorithm


def make_programs(config: ConfigDict, data: Dataset) -> Programs:
    """Builds and compiles a run.

    Args:
      config: of one algorithm (`config.optimizer`).
      data: on the device.

    Returns:
      The `Programs`, compiled for `config.seeds` seeds: what follows can be timed.
    """
    algorithm = make_algorithm(
        config.optimizer, data.num_train / config.batch_size, length=config.length
    )
    networks = [build_network(config.model, data.image_shape, seed) for seed in range(config.seeds)]
    network = networks[0]

    def init() -> Advance:
        states = [
            init_state(algorithm, network.params, network.batch_stats, seed)
            for seed, network in enumerate(networks)
        ]
        zeros = jnp.zeros(config.seeds)
        return Advance(
            state=jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
            loss_sum=zeros,
            bad=jnp.full_like(zeros, NEVER, jnp.int32),
            done=jnp.zeros_like(zeros, jnp.int32),
        )

    step = make_step(network.apply, algorithm, config.batch_size)
    advance = over_seeds(make_advance(step, algorithm.relaxation.num_steps), config.seed_layout)
    evaluate = make_evaluate(
        network.apply,
        network.estimate,
        algorithm,
        train_examples=config.eval_train_examples,
    )
    evaluate = over_seeds(evaluate, config.seed_layout)
    start = jax.eval_shape(init)
    count = jax.ShapeDtypeStruct((), jnp.int32)
    return Programs(
        init=init,
        advance=jax.jit(advance, donate_argnums=0).lower(start, (count, data)).compile(),
        evaluate=jax.jit(evaluate).lower(start.state, data).compile(),
        algorithm=algorithm,
    )
