"""A trained network comes back as it was measured."""

import dataclasses
import io
import json
import logging
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import line, one_run, squares

import entropix
from entropix.experiment import (
    Budget,
    Settings,
    algorithm,
    classification,
    load,
    make_config,
)
from entropix.experiment.making import make_runs
from entropix.experiment.source import load_problem
from entropix.runs.train import train_run
from entropix.training.programs import initial_points
from entropix.workflow import compare, train


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hj", {"ema": 0.9}),
        ("elastic_sgd", {}),
        ("easgd", {"period": 3}),
        (optax.chain(optax.clip(1.0), entropix.snoo(optax.sgd(0.1), num_steps=3)), {}),
    ],
)
def test_measures_of_the_loaded_network_are_those_of_the_last_row(tmp_path, name, options):
    run = one_run(name, budget=(20, 1), **options)
    rows = train_run(run, tmp_path, progress=False)
    for row in rows:
        trained = load(tmp_path, seed=row.seed, run=run)
        validation = run.problem.validation
        for measure, entry in run.problem.measures.items():
            value = entry.function(trained.params, trained.model_state, validation)
            assert float(value) == pytest.approx(row[f"val_{measure}"], rel=1e-5)
        residual = trained.apply(trained.params, (), validation["x"]) - validation["y"]
        assert float(np.mean(residual**2)) == pytest.approx(row["val_loss"], rel=1e-5)
        assert trained.rows == [row]
        assert trained.seeds == (row.seed,)


def test_all_seeds_come_along_a_leading_axis(tmp_path):
    run = one_run("hj", budget=(20, 1), seeds=3)
    train_run(run, tmp_path, progress=False)
    every = load(tmp_path, run=run)
    assert every.seeds == (0, 1, 2)
    for seed in every.seeds:
        alone = load(tmp_path, seed=seed, run=run).params
        jax.tree.map(
            lambda a, b, s=seed: np.testing.assert_array_equal(a[s], b), every.params, alone
        )
    assert not np.array_equal(every.params["w"][0], every.params["w"][1])


def test_a_run_of_a_config_needs_nothing_else(tmp_path):
    """With batch norm, whose statistics are estimated at x, and dropout off."""
    config = make_config(
        dataset="digits", model={"name": "mlp", "widths": (4,)}, optimizers={"hj": {}},
        algorithms="hj", seeds=1, gradients_per_eval=20, num_evals=1, eval_train_examples=0,
    )  # fmt: skip
    (row,) = train(config, workdir=tmp_path, progress=False)
    trained = load(tmp_path, seed=0)
    images, labels = trained.problem.validation
    logits = trained.apply(trained.params, trained.model_state, images)
    error = 100 * np.mean(np.argmax(logits, axis=1) != labels)
    assert error == pytest.approx(row["val_error"], abs=1e-4)
    assert trained.config["optimizer"]["algorithm"] == "hj"
    saved = json.loads((tmp_path / "run.json").read_text())
    assert saved["config"].pop("flatness_at") == []  # as of a version that had no such field
    saved["run"] = "near"  # as of a folder that was renamed after it was begun
    del saved["digest"]
    (tmp_path / "run.json").write_text(json.dumps(saved))
    assert load(tmp_path, seed=0).identity == trained.identity
    assert trained.identity["problem"]["name"] == "digits"


def test_an_algorithm_that_is_not_registered_is_named_and_others_load(tmp_path):
    config = make_config(
        dataset="digits", model={"name": "mlp", "widths": (4,)}, optimizers={"sgd": {}, "hj": {}},
        seeds=1, gradients_per_eval=20, num_evals=1,
    )  # fmt: skip
    compare(config, workdir=tmp_path, progress=False)
    for run in ("sgd", "hj"):  # as if a file had registered HJ that is not executed here
        file = tmp_path / run / "run.json"
        saved = json.loads(file.read_text())
        saved["config"]["optimizers"]["hj"]["algorithm"] = "mine"
        del saved["digest"]
        file.write_text(json.dumps(saved))
    assert load(tmp_path / "sgd", seed=0).seeds == (0,)
    with pytest.raises(ValueError, match="algorithm 'mine', which is not registered. Import the"):
        load(tmp_path / "hj", seed=0)


def test_seeds_that_were_added_later_are_found(tmp_path):
    train_run(one_run("hj", budget=(20, 1), seeds=1), tmp_path, progress=False)
    run = one_run("hj", budget=(20, 1), seeds=2)
    rows = train_run(run, tmp_path, progress=False)
    trained = load(tmp_path, seed=1, run=run)
    assert trained.rows == rows[1:]
    with pytest.raises(ValueError, match="seed must be one of 0; got seed=5"):
        load(tmp_path, seed=5, run=run)


def test_a_seed_that_diverged_is_warned_of(tmp_path, caplog):
    usual = line()

    def init(key):
        params = {"w": jax.random.normal(key, (3,)), "b": jnp.zeros(())}
        return params, {"count": jnp.asarray(0), "bad": params["w"][0] > 0}

    def loss(params, state, batch, key):
        bad = (state["count"] > 25) & state["bad"]
        value = squares(params, None, batch) + jnp.where(bad, jnp.nan, 0.0)
        return value, {"count": state["count"] + 1, "bad": state["bad"]}

    problem = dataclasses.replace(usual, init=init, loss=loss)
    run = one_run("sgd", problem, seeds=9)
    bad = [bool(points[0][1]["bad"]) for points in initial_points(run)]
    seeds = bad.index(True), bad.index(False)  # one that diverges, and one that does not
    run = one_run(optax.sgd(1e-4), problem, budget=(40, 4), seeds=seeds)
    with pytest.raises(FloatingPointError):
        train_run(run, tmp_path, progress=False)
    trained = load(tmp_path, seed=seeds[0], run=run)
    assert np.isfinite(trained.params["w"]).all()
    assert f"diverged: seed {seeds[0]}; the parameters are those of the checkpoint" in caplog.text
    caplog.clear()
    load(tmp_path, seed=seeds[1], run=run)
    assert "diverged: seed" not in caplog.text


@pytest.mark.parametrize(("examples", "accepted"), [(7, False), (8, True), (0, True)])
def test_a_models_state_is_estimated_from_a_batch_at_least(examples, accepted, tmp_path):
    def estimate(params, state, batch):
        return {"mean": jnp.mean(batch["x"], axis=0)}

    problem = line(estimate=estimate, eval_batch_size=50)
    settings = Settings(eval_train_examples=examples)
    if not accepted:
        with pytest.raises(
            ValueError, match="eval_train_examples must be 0 for all, or 8 at least"
        ):  # when the run is made, before anything is compiled
            one_run("sgd", problem, budget=(4, 1), seeds=1, settings=settings)
        return
    run = one_run("sgd", problem, budget=(4, 1), seeds=1, settings=settings)
    train_run(run, tmp_path, progress=False)
    assert load(tmp_path, seed=0, run=run).seeds == (0,)


def test_a_backslash_in_a_path_is_refused(tmp_path):
    """The storage library takes a backslash for a slash, and wrote elsewhere."""
    with pytest.raises(ValueError, match="without a backslash"):
        train_run(one_run("sgd"), tmp_path / "a\\b", progress=False)


def test_a_callback_may_change_the_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    go = lambda row: os.chdir(tmp_path / "elsewhere")  # noqa: E731
    algorithms = {"one": algorithm("sgd"), "two": algorithm("hj", num_steps=2)}
    rows = compare(
        line(), algorithms, budget=Budget(4, 1), seeds=1, workdir="out", progress=False,
        callbacks=(go,), report=lambda text: None,
    )  # fmt: skip
    assert {row.run for row in rows} == {"one", "two"}
    assert (tmp_path / "out" / "table.md").exists()
    assert not any((tmp_path / "elsewhere").iterdir())


def test_lines_are_seen_where_nothing_is_logged(tmp_path, capsys, monkeypatch, caplog):
    """In Python and in notebooks nothing was shown; without a standard error `train` failed."""
    caplog.set_level(logging.WARNING, logger="entropix")  # commands before may have switched it on
    train_run(one_run("sgd", budget=(8, 2), seeds=1), tmp_path / "shown", progress=False)
    lines = capsys.readouterr().err.splitlines()
    assert len([text for text in lines if "of 8 gradients, loss " in text]) == 2
    for number, gone in enumerate((None, io.StringIO())):
        if gone is not None:
            gone.close()
        monkeypatch.setattr(sys, "stderr", gone)
        rows = train_run(one_run("sgd", budget=(8, 2), seeds=1), tmp_path / str(number))
        assert len(rows) == 2


def test_arguments_are_those_that_a_saved_run_gives(tmp_path, monkeypatch):
    """A tuple was a tuple in training, and a list when the run was loaded."""
    source = (
        "from small import line\n"
        "def make(batch_size, widths=(1,)):\n"
        "    return line(batch_size=batch_size, name=f'of {widths!r}')\n"
    )
    (tmp_path / "of_widths.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = make_config(
        problem="of_widths:make", arguments={"widths": (3, 4)}, optimizers={"sgd": {}}, seeds=1
    )
    assert load_problem(config).name == "of [3, 4]"


@pytest.mark.parametrize("names", [{"a.b": 1.0, "a": {"b": 2.0}}, {"a/b": 1.0, "a": {"b": 2.0}}])
def test_names_that_would_be_one_in_a_checkpoint_are_refused(tmp_path, names):
    """The run ended, and its network was gone."""

    def init(key):
        return jax.tree.map(jnp.asarray, names), ()

    def loss(params, state, batch, key):
        return sum(jnp.square(leaf) for leaf in jax.tree.leaves(params)), state

    problem = line(init=init, loss=loss, measures={})
    with pytest.raises(ValueError, match=r"must have different names in a checkpoint; got .*a.*b"):
        train_run(one_run("sgd", problem), tmp_path, progress=False)


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist\. Name a folder of results"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        load(tmp_path)
    run = one_run("hj", budget=(20, 1))
    train_run(run, tmp_path, progress=False)
    with pytest.raises(ValueError, match="made from Python, not from a config: give load the run"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"another run: it differs in algorithm\.options\.gamma"):
        load(tmp_path, run=one_run("hj", budget=(20, 1), gamma=3.0))
    other = classification("digits", {"name": "mlp", "widths": (4,)})
    (stranger,) = make_runs(other, {"hj": "hj"}, Budget(20, 1), 2)
    with pytest.raises(ValueError, match=r"another run: it differs in .*problem\."):
        load(tmp_path, run=stranger)
    assert line().apply is not None
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ValueError, match=r"no checkpoint that can be read, and hence no network"):
        load(tmp_path, run=run)


def test_the_folder_of_a_comparison_names_its_runs(tmp_path):
    compare(
        line(), {"sgd": "sgd", "hj": "hj"}, budget=Budget(20, 1), seeds=1, workdir=tmp_path,
        progress=False, report=lambda text: None,
    )  # fmt: skip
    (tmp_path / "sgd").rename(tmp_path / "seeds_5")  # is none
    with pytest.raises(ValueError, match=r"is no folder of a run, and holds those of 1: hj\. Name"):
        load(tmp_path)
    (tmp_path / "seeds_5").rename(tmp_path / "sgd")
    for file in ("table.md", "metrics.jsonl"):  # as of one that was interrupted before these
        with pytest.raises(ValueError, match=r"is no folder of a run"):
            train(line(), "sgd", budget=Budget(20, 1), seeds=1, workdir=tmp_path, progress=False)
        (tmp_path / file).unlink()
    with pytest.raises(ValueError, match=r"is no folder of a run"):
        train(line(), "sgd", budget=Budget(20, 1), seeds=1, workdir=tmp_path, progress=False)
    assert not (tmp_path / "run.json").exists()
