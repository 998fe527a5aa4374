"""The keys of a run: no two uses of a seed share one."""

import itertools

import jax
import numpy as np
from entropix.training.algorithm import make_algorithm
from entropix.training.config import experiment, runs
from entropix.training.network import build_network
from flax import nnx

from entropix import models
from entropix.training.state import init_state

MODEL = {"name": "mlp", "widths": (4,), "input_dropout": 0.0, "dropout": 0.0}


def config():
    return experiment(
        dataset="digits", model=MODEL, optimizers={"entropy_sgd": {}}, algorithms="entropy_sgd"
    )


def words(key) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_data_and_noise_keys_are_not_among_those_of_the_network(monkeypatch):
    handed_out, mlp = [], models.mlp

    def spy(*, rngs, **options):
        twin = nnx.clone(rngs)
        handed_out.extend(words(twin.params()) for _ in range(10))
        return mlp(rngs=rngs, **options)

    monkeypatch.setattr(models, "mlp", spy)
    (single,) = runs(config()).values()
    algorithm = make_algorithm(single.optimizer, gradients_per_epoch=10.0)
    seen = []
    for seed in range(3):
        network = build_network(single.model, (8, 8, 1), seed)
        state = init_state(algorithm, [(network.params, network.batch_stats)], seed)
        seen += [words(state.key), words(state.relaxation.key)]
        fresh = nnx.Rngs(seed)  # what a network would use that was given the seed itself
        handed_out.extend(words(fresh.params()) for _ in range(2))
    assert len(handed_out) == 3 * 12
    assert len(set(seen)) == len(seen)
    assert set(seen).isdisjoint(handed_out)


def test_every_seed_and_replica_has_initial_parameters_of_its_own():
    (single,) = runs(config()).values()
    leaves = [
        np.concatenate(
            [
                np.ravel(leaf)
                for leaf in jax.tree.leaves(build_network(single.model, (8, 8, 1), *at).params)
                if leaf.ndim == 2
            ]
        )
        for at in itertools.product(range(3), range(3))
    ]
    for one, other in itertools.combinations(leaves, 2):
        assert not np.any(one == other)
