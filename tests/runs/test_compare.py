"""Whole runs, small: what they write, skip and refuse."""

import json

import numpy as np
import pytest

from entropix.training import compare, experiment, gather, make_table, train
from entropix.training.metrics import read_metrics

MODEL = {"name": "mlp", "widths": (16,), "input_dropout": 0.0, "dropout": 0.0}
OPTIMIZERS = {"sgd": {}, "hj": {}, "elastic_sgd": {}}


def make(algorithms="", optimizers=OPTIMIZERS, **options):
    defaults = {"seeds": 2, "gradients_per_eval": 10, "num_evals": 2, "batch_size": 32}
    options = defaults | {"replicas": (2,)} | options
    return experiment(
        dataset="digits", model=MODEL, optimizers=optimizers, algorithms=algorithms, **options
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    printed = []
    rows = compare(make(), workdir, progress=False, report=printed.append)
    return workdir, rows, printed


def test_compare_writes_metrics_table_and_events(finished):
    workdir, rows, printed = finished
    assert len(rows) == 3 * 2 * 2  # algorithms, evaluations, seeds
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert (workdir / "table.md").read_text() == printed[0] == make_table(rows)
    for algorithm in OPTIMIZERS:
        assert len(list((workdir / algorithm / "tensorboard").glob("seed_*/events.*"))) == 2
        assert json.loads((workdir / algorithm / "versions.json").read_text())["jax"]


def test_gather_needs_the_metric_files_alone(finished, tmp_path):
    workdir, rows, printed = finished
    again = []
    folders = [workdir / algorithm for algorithm in OPTIMIZERS]
    assert gather(folders, tmp_path / "report", report=again.append) == rows
    assert again == printed
    for name in ("table.md", "metrics.jsonl"):
        assert (tmp_path / "report" / name).read_bytes() == (workdir / name).read_bytes()
    with pytest.raises(
        ValueError, match=r"one measurement of hj \(replicas=1\), seed 0, after 10 gradients.* 2"
    ):
        gather([workdir / "hj", workdir / "hj"], tmp_path / "twice")
    assert not (tmp_path / "twice").exists()
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ValueError, match="at least one measurement"):
        gather([tmp_path], tmp_path / "empty")


def test_all_algorithms_spend_equally_many_gradients(finished):
    _, rows, _ = finished
    last = {(r["algorithm"], r["seed"]): r["gradient_evaluations"] for r in rows}
    assert set(last.values()) == {20}
    steps = {r["algorithm"]: r["outer_steps"] * r["num_steps"] * r["replicas"] for r in rows}
    assert set(steps.values()) == {20}


def test_measurements_are_plausible(finished):
    _, rows, _ = finished
    for row in rows:
        assert 0 <= row["val_error"] <= 100
        assert 0 < row["train_loss"] < 3
        assert row["seconds_per_gradient"] > 0
        np.testing.assert_allclose(row["effective_epochs"], row["gradient_evaluations"] * 32 / 1437)
    seeds = [r["train_loss"] for r in rows if r["algorithm"] == "sgd" and r["outer_steps"] == 20]
    assert len(set(seeds)) == 2


def test_table_states_mean_and_spread(finished):
    _, rows, _ = finished
    errors = [
        r["val_error"] for r in rows if r["algorithm"] == "hj" and r["gradient_evaluations"] == 20
    ]
    expected = f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} @ 0.45"
    assert expected in make_table(rows)


def test_a_second_call_runs_nothing_again(finished):
    workdir, rows, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("*/metrics.jsonl")}
    assert len(before) == 3
    assert compare(make(), workdir, progress=False, report=lambda text: None) == rows
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_unfinished_algorithm_is_run_again(finished, tmp_path):
    workdir, rows, _ = finished
    train(make("hj"), tmp_path / "hj", progress=False)
    (tmp_path / "hj" / "complete.json").unlink()
    (tmp_path / "hj" / "metrics.jsonl").write_text('{"half": ')
    again = train(make("hj"), tmp_path / "hj", progress=False)
    losses = [row["train_loss"] for row in again]
    np.testing.assert_allclose(
        losses, [r["train_loss"] for r in rows if r["algorithm"] == "hj"], rtol=1e-6
    )


def test_finished_results_of_another_config_are_refused(finished):
    workdir, _, _ = finished
    with pytest.raises(ValueError, match="another config: it differs in optimizer.gamma. Cho"):
        train(make("hj", {"hj": {"gamma": 3.0}}), workdir / "hj", progress=False)


def test_a_diverging_run_stops_and_says_where(tmp_path):
    config = make("sgd", {"sgd": {"learning_rate": 1e30}})
    message = r"sgd: seed 0 stopped, because .* outer step \d, .*\n.*seed 1 stopped"
    with pytest.raises(FloatingPointError, match=message):
        train(config, tmp_path, progress=False)
    with pytest.raises(FloatingPointError, match=message):  # and says it again, running nothing
        train(config, tmp_path, progress=False)


def test_broken_metric_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"metrics.jsonl does not exist"):
        read_metrics([tmp_path])
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n{"a": ')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2, is not JSON"):
        read_metrics([tmp_path])
