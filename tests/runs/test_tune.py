import importlib
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from entropix import data
from entropix.training import experiment, tune
from entropix.training.search import RANGES, draw, ranges_of

MODEL = {"name": "mlp", "widths": (8,), "input_dropout": 0.0, "dropout": 0.0}
ALL = {"sgd": {}, "hj": {}, "heat": {}}


def make(optimizers=ALL, **options):
    fields = {"seeds": 1, "gradients_per_eval": 20, "num_evals": 1, "batch_size": 32} | options
    return experiment(dataset="digits", model=MODEL, optimizers=optimizers, **fields)


def lines(folder, algorithm):
    return [
        json.loads(line) for line in (folder / f"tune_{algorithm}.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    return folder, tune(make(), folder, trials=3, progress=False)


def test_every_algorithm_gets_the_same_trials(searched):
    folder, tried = searched
    assert list(tried) == ["sgd", "hj", "heat"]
    rates = [[row["learning_rate"] for row in lines(folder, name)] for name in tried]
    assert rates[0] == rates[1] == rates[2]
    for name, trials in tried.items():
        assert len(trials) == 3
        assert trials[0] == min(trials, key=lambda t: (t["val_error"], t["val_loss"]))
        assert {*trials[0]} == {*RANGES[name], "val_error", "val_loss"}
        assert all(math.isfinite(trial["val_loss"]) for trial in trials)


def test_all_trials_are_tabled_best_first(searched):
    folder, tried = searched
    page = (folder / "tuning.md").read_text()
    assert "3 trials per algorithm, each with 20 gradient evaluations and 1 seed" in page
    section = page.split("## heat")[1]
    places = [section.index(f"{trial['learning_rate']:.4g}") for trial in tried["heat"]]
    assert places == sorted(places)


def test_a_search_continues_to_the_digit(searched, tmp_path):
    folder, tried = searched
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "tune_hj.jsonl"
    whole = path.read_text()
    path.write_text(whole[: whole.index("\n") + 20])  # one trial, and one half written
    assert tune(make(), tmp_path, trials=3, progress=False) == tried
    assert path.read_text() == whole
    # The choice may be copied into the config; the data may lie elsewhere.
    copied = make(ALL | {"hj": {"gamma": 2.0}}, data_dir="elsewhere", seed_layout="map")
    assert tune(copied, tmp_path, trials=3, progress=False) == tried


@pytest.mark.parametrize(
    ("config", "seed", "fields"),
    [
        (make(num_evals=2, seeds=2), 0, "num_evals, seeds"),
        (make({"hj": {"step_size": 0.2}}), 0, "optimizer.step_size"),
        (make(search={"hj": {"gamma": (1.0, 2.0)}}), 0, "search.gamma"),
        (make(), 1, "search_seed"),
    ],
)
def test_another_search_is_refused(searched, config, seed, fields):
    folder, tried = searched
    with pytest.raises(ValueError, match=rf"another search \(it differs in {fields}\)"):
        tune(config, folder, trials=3, seed=seed, progress=False)
    assert tune(make(), folder, trials=3, progress=False) == tried


def test_the_test_set_plays_no_part(searched, tmp_path, monkeypatch):
    def garbage(*arguments):
        whole = data.load(*arguments)
        nothing = jnp.full_like(whole.test_images, jnp.nan)
        return whole._replace(test_images=nothing, test_labels=0 * whole.test_labels)

    module = importlib.import_module("entropix.training.tune")  # `training.tune` is the function
    monkeypatch.setattr(module, "load", garbage)
    tune(make({"sgd": {}}), tmp_path, trials=3, progress=False)
    assert lines(tmp_path, "sgd") == lines(searched[0], "sgd")


def test_a_diverged_trial_is_infinitely_bad(tmp_path):
    config = make({"sgd": {}}, algorithms="sgd", search={"sgd": {"learning_rate": (1.0, 1e30)}})
    trials = tune(config, tmp_path, trials=3, progress=False)["sgd"]
    assert trials[-1]["val_error"] == trials[-1]["val_loss"] == math.inf
    assert any(row["val_error"] is None for row in lines(tmp_path, "sgd"))
    assert tune(config, tmp_path, trials=3, progress=False)["sgd"] == trials


def test_a_temperature_of_zero_is_not_searched():
    assert list(ranges_of(make(), "heat")) == ["learning_rate", "gamma", "temperature"]
    cold = make({"heat": {"temperature": 0.0}})
    assert list(ranges_of(cold, "heat")) == ["learning_rate", "gamma"]


def test_draws_fill_their_ranges_and_are_shared():
    ranges = {"learning_rate": (0.1, 10.0), "temperature": (1e-8, 1e-4)}
    many = draw(ranges, 500, seed=0)
    for name, (low, high) in ranges.items():
        places = [np.log(trial[name] / low) / np.log(high / low) for trial in many]
        assert 0 <= min(places) < 0.02
        assert 0.98 < max(places) <= 1
        assert np.mean(places) == pytest.approx(0.5, abs=0.05)
    assert draw(ranges, 3, seed=0) == many[:3]
    assert [t["learning_rate"] for t in draw({"learning_rate": (0.1, 10.0)}, 3, seed=0)] == [
        t["learning_rate"] for t in many[:3]
    ]


def test_no_trials_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="trials must be >= 1; got trials=0"):
        tune(make(), tmp_path, trials=0)


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "tune_sgd.jsonl").write_text("{}\nx\n")
    with pytest.raises(ValueError, match="tune_sgd.jsonl, line 2, is no trial"):
        tune(make({"sgd": {}}), tmp_path, progress=False)
