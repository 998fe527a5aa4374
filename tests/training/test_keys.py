"""The keys of a run: no two uses of a seed share one."""

import itertools

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from small import one_run

from entropix import models
from entropix.experiment import Algorithm, Settings, classification
from entropix.training.keys import split_seed
from entropix.training.programs import make_starter
from entropix.training.state import init_state
from entropix.transforms.numerics import is_key


def words(key) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_data_and_noise_keys_are_not_among_those_of_the_network(monkeypatch):
    handed_out, mlp = [], models.mlp

    def spy(*, rngs, **options):
        twin = nnx.clone(rngs)
        keys = [twin.params() for _ in range(10)]
        if not any(isinstance(key, jax.core.Tracer) for key in keys):  # as shapes alone are made
            handed_out.extend(map(words, keys))
        return mlp(rngs=rngs, **options)

    draw = np.random.default_rng(0)
    data = draw.normal(size=(8, 6)), draw.integers(0, 2, 8)
    problem = classification(
        (*data, *data), lambda rngs: spy(rngs=rngs, input_shape=(6,), widths=(4,), num_classes=2)
    )
    handed_out.clear()
    method = one_run("entropy_sgd", problem).method()
    seen = []
    for seed in range(3):
        state = init_state(method, [problem.init(split_seed(seed).model)], seed)
        seen += [words(state.key), words(state.relaxation.key)]
        fresh = nnx.Rngs(seed)  # what a network would use that was given the seed itself
        handed_out.extend(words(fresh.params()) for _ in range(2))
    assert len(handed_out) == 3 * 12
    assert len(set(seen)) == len(seen)
    assert set(seen).isdisjoint(handed_out)


def test_every_seed_and_replica_has_initial_parameters_of_its_own():
    run = one_run("elastic_sgd", seeds=3, replicas=3, settings=Settings(replica_start="different"))
    kernels = np.asarray(make_starter(run).init().state.params["w"])
    points = kernels.reshape(9, -1)
    for first, second in itertools.combinations(points, 2):
        assert not np.any(first == second)
    together = one_run("elastic_sgd", seeds=3, replicas=3)
    kernels = np.asarray(make_starter(together).init().state.params["w"])
    np.testing.assert_array_equal(kernels, kernels[:, :1].repeat(3, axis=1))
    assert len(np.unique(kernels[:, 0], axis=0)) == 3


@pytest.mark.parametrize(("replicated", "shape"), [(False, (3,)), (True, (3, 2))])
def test_noise_of_an_optimiser_is_of_every_seed_and_replica(replicated, shape):
    make = lambda learning_rate: optax.noisy_sgd(learning_rate, key=0)  # noqa: E731
    run = one_run(Algorithm("noisy", make, replicated=replicated), seeds=3, replicas=2)
    state = make_starter(run).init().state
    (keys,) = (leaf for leaf in jax.tree.leaves(state.optimizer) if is_key(leaf))
    assert keys.shape == shape
    assert len(set(map(words, keys.ravel()))) == keys.size


def test_replicas_and_seeds_draw_different_batches():
    state = make_starter(one_run("elastic_sgd", seeds=2, replicas=3)).init().state
    assert len({words(key) for key in state.key.reshape(-1)}) == 6
