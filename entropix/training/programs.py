"""The compiled parts of a run."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from entropix.data import Dataset
from entropix.replicas import Layout
from entropix.training.algorithm import Algorithm, make_algorithm
from entropix.training.devices import layout_of
from entropix.training.epoch import NEVER, Advance, make_advance, make_step, over_seeds
from entropix.training.evaluation import Evaluation, make_evaluate
from entropix.training.network import NetworkFunctions, build_network
from entropix.training.state import TrainState, centre, init_state


class Programs(NamedTuple):
    """The compiled parts of a run; all take states with a leading axis of seeds.

    Attributes:
      init: `init() -> Advance`, before the first step, to be placed.
      advance: `(before, (num_steps, data)) -> after`; donates `before`.
      evaluate: `(states, data) -> Evaluation`.
      algorithm: what they run.
      layout: where the replicas are; states are placed, and data shared, as it says.
    """

    init: Callable[[], Advance]
    advance: Callable[[Advance, tuple[Array, Dataset]], Advance]
    evaluate: Callable[[TrainState, Dataset], Evaluation]
    algorithm: Algorithm
    layout: Layout

    def place(self, now: Advance) -> Advance:
        """Puts a state where `advance` wants it."""
        return Advance(self.layout.place(now.state, axis=1), *self.layout.share(now[1:]))


def make_programs(config: ConfigDict, data: Dataset) -> Programs:
    """Builds and compiles a run.

    Args:
      config: of one algorithm (`config.optimizer`).
      data: on the device.

    Returns:
      The `Programs`, compiled for `config.seeds` seeds: what follows can be timed.
    """
    layout = layout_of(config)
    algorithm = make_algorithm(
        config.optimizer,
        data.num_train / config.batch_size,
        length=config.length,
        axis_name=layout.axis_name,
    )
    networks = _starts(config, data, layout.replicas)
    network = networks[0][0]

    def init() -> Advance:
        states = [
            init_state(algorithm, [(n.params, n.batch_stats) for n in own], seed)
            for seed, own in enumerate(networks)
        ]
        zeros = jnp.zeros(config.seeds)
        return Advance(
            state=jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
            loss_sum=zeros,
            bad=jnp.full_like(zeros, NEVER, jnp.int32),
            done=jnp.zeros_like(zeros, jnp.int32),
        )

    step = make_step(network.apply, algorithm, config.batch_size, layout)
    advance = over_seeds(make_advance(step, algorithm.relaxation.num_steps), config.seed_layout)
    start = _placed(jax.eval_shape(init), layout)
    common = jax.tree.map(lambda x: _like(x, layout.common), (jnp.zeros([], jnp.int32), data))
    places = None if layout.mesh is None else jax.tree.map(lambda x: x.sharding, start)
    compiled = jax.jit(advance, donate_argnums=0, out_shardings=places).lower(start, common)
    return Programs(
        init=init,
        advance=compiled.compile(),
        evaluate=_make_evaluate(config, network, algorithm, layout, start.state, data),
        algorithm=algorithm,
        layout=layout,
    )


def _starts(config: ConfigDict, data: Dataset, replicas: int) -> list[list[NetworkFunctions]]:
    """For every seed the networks at which its replicas start: one for all, or one for each."""
    points = replicas if config.replica_start == "different" else 1
    return [
        [build_network(config.model, data.image_shape, seed, replica) for replica in range(points)]
        for seed in range(config.seeds)
    ]


def _make_evaluate(
    config: ConfigDict,
    network: NetworkFunctions,
    algorithm: Algorithm,
    layout: Layout,
    states: Any,
    data: Any,
) -> Callable[[TrainState, Dataset], Evaluation]:
    """Evaluates all seeds on one device (of each process): dividing it would make others wait."""
    evaluate = make_evaluate(
        network.apply, network.estimate, train_examples=config.eval_train_examples
    )
    evaluate = over_seeds(evaluate, config.seed_layout)
    take_centres = jax.jit(
        jax.vmap(lambda state: centre(state, algorithm)), out_shardings=layout.common
    )
    points = jax.tree.map(lambda x: _like(x, None), jax.eval_shape(take_centres, states))
    centres = take_centres.lower(states).compile()
    measured = jax.jit(evaluate).lower(points, data).compile()

    def run(states: TrainState, data: Dataset) -> Evaluation:
        return measured(layout.local(centres(states)), layout.local(data))

    return run


def _placed(now: Advance, layout: Layout) -> Advance:
    """Shapes with the places that `Programs.place` gives to arrays."""
    state = jax.tree.map(lambda x: _like(x, layout.sharding(axis=1)), now.state)
    return Advance(state, *jax.tree.map(lambda x: _like(x, layout.common), now[1:]))


def _like(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
