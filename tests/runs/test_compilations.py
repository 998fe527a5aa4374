"""What a run compiles, and where compiled programs are kept; JAX's own settings come first."""

import types

import jax
import pytest

from entropix.data import load
from entropix.training import Checkpoints, compilation, experiment, keep_compiled, runs
from entropix.training.loop import Loop
from entropix.training.programs import make_programs


@pytest.fixture
def config(monkeypatch):
    """A stand-in for JAX's settings: the real ones would outlive the test."""
    values = {"jax_compilation_cache_dir": None}
    stand_in = types.SimpleNamespace(values=values, update=values.__setitem__)
    monkeypatch.setattr(compilation, "jax", types.SimpleNamespace(config=stand_in))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    return values


def test_programs_are_kept_in_the_users_cache(config, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled()
    assert config["jax_compilation_cache_dir"] == str(tmp_path / "entropix" / "compiled")
    assert 0 < config["jax_persistent_cache_min_compile_time_secs"] < 1


def test_the_users_own_settings_stay(config, monkeypatch):
    config["jax_compilation_cache_dir"] = "mine"
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    keep_compiled()
    assert config == {"jax_compilation_cache_dir": "mine"}


@pytest.mark.parametrize("algorithm", ["sgd", "hj", "elastic_sgd"])
def test_nothing_is_compiled_after_the_first_evaluation(algorithm, tmp_path, compilations):
    config = experiment(
        dataset="digits",
        model={"name": "mlp", "widths": (4,), "input_dropout": 0.0, "dropout": 0.0},
        optimizers={algorithm: {}},
        algorithms=algorithm,
        seeds=1,
        replicas=(2,),
        gradients_per_eval=20,
        num_evals=6,
        checkpoint_seconds=1e6,
    )
    (config,) = runs(config).values()
    data = load("digits")
    jax.clear_caches()
    seen = []  # pairs: evaluations so far, compilations so far
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        loop = Loop(config, data, make_programs(config, data), checkpoints, tmp_path)
        loop.run(lambda: seen.append((len(loop.record["rows"]), len(compilations))), False)
    first = next(compiled for rows, compiled in seen if rows == 1)
    assert first > 0
    assert seen[-1][0] == 6
    assert {compiled for rows, compiled in seen if rows > 1} == {first}
