"""Whole comparisons, small: what they write, skip and refuse."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import optax
import pytest
from small import arrays, line, one_run

import entropix
from entropix.experiment import Budget, Settings, algorithm, compare, make_config, train, tune
from entropix.report import gather
from entropix.rows import read_rows, rows_as_lines
from entropix.run_file import read_run_file, write_run_file
from entropix.runs.train import train_run

pytestmark = pytest.mark.usefixtures("compiled_once")
ALGORITHMS = {
    "AdamW": optax.adamw(3e-2),
    "HJ": algorithm("hj", gamma=10.0),
    "Elastic": "elastic_sgd",
}
BUDGET = Budget(20, 2)


def compared(workdir, problem=None, algorithms=ALGORITHMS, **options):
    given = {"budget": BUDGET, "seeds": 2, "replicas": 2, "report": lambda text: None} | options
    return compare(problem or line(), algorithms, workdir=workdir, progress=False, **given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_once):
    workdir = tmp_path_factory.mktemp("compared")
    printed = []
    rows = compared(workdir, report=printed.append)
    return workdir, rows, printed


def test_a_comparison_writes_metrics_table_and_events(finished):
    workdir, rows, printed = finished
    assert len(rows) == 3 * 2 * 2  # algorithms, evaluations, seeds
    assert read_rows(workdir) == rows
    assert (workdir / "table.md").read_text() == printed[-1]
    for name in ALGORITHMS:
        assert len(list((workdir / name / "tensorboard").glob("seed_*/events.*"))) == 2
        assert name in printed[-1]


def test_runs_of_earlier_calls_that_the_table_lacks_are_named(finished, tmp_path):
    workdir, rows, _ = finished
    copy = shutil.copytree(workdir, tmp_path / "some")
    printed = []
    some = compared(copy, algorithms={"HJ": ALGORITHMS["HJ"]}, report=printed.append)
    assert {row.run for row in some} == {"HJ"}
    assert "further runs, which are not in this table: AdamW, Elastic" in printed[-1]
    command = f"entropix report {copy} --workdir={copy}"
    assert command in printed[-1]
    assert sorted({row.run for row in gather([copy], copy, report=printed.append)}) == sorted(
        {row.run for row in rows}
    )


def test_all_algorithms_spend_equally_many_gradients(finished):
    _, rows, _ = finished
    for row in rows:
        assert row.outer_steps * row.num_steps * row.replicas == row.gradients
        assert row.gradients_per_replica * row.replicas == row.gradients
        assert row.effective_epochs == pytest.approx(row.gradients * 8 / 96)
        assert row.seconds_per_gradient > 0
        assert set(row.measures) == {"train_loss", "train_error", "val_loss", "val_error"}
        assert row.measures["val_error"].unit == "%"
    assert {(row.run, row.gradients) for row in rows} == {
        (name, gradients) for name in ALGORITHMS for gradients in (10, 20)
    }
    gammas = {row.run: row.gamma for row in rows}
    assert gammas["AdamW"] is None
    assert gammas["HJ"] == pytest.approx(10 * 0.999**4)


def test_a_second_call_runs_nothing_again(finished):
    workdir, rows, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("*/metrics.jsonl")}
    assert len(before) == 3
    called = []
    assert compared(workdir, callbacks=[called.append]) == rows
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert called == []


@pytest.mark.parametrize("callbacks", [print, [print, 1], "print"])
def test_callbacks_are_looked_at_before_anything_is_run(tmp_path, callbacks):
    with pytest.raises(ValueError, match=r"callbacks must be a list of functions .* got"):
        compared(tmp_path, callbacks=callbacks)
    assert not any(tmp_path.iterdir())


def test_another_problem_or_transformation_is_refused_before_anything_is_run(finished):
    workdir, _, _ = finished
    before = sorted(workdir.iterdir())
    with pytest.raises(ValueError, match=r"it differs in problem\.digest"):
        compared(workdir, line(data=arrays(7)))
    with pytest.raises(ValueError, match=r"it differs in problem\.batch_size"):
        compared(workdir, line(batch_size=4))
    others = {"new": "sgd", "AdamW": optax.adamw(1e-2)}
    with pytest.raises(ValueError, match=r"AdamW holds .*it differs in algorithm\.digest"):
        compared(workdir, algorithms=others)
    assert sorted(workdir.iterdir()) == before


def test_seeds_are_added_to_a_finished_comparison(tmp_path):
    algorithms = {"AdamW": optax.adamw(3e-2)}
    first = compared(tmp_path, algorithms=algorithms)
    called = []
    more = compared(tmp_path, algorithms=algorithms, seeds=3, callbacks=[called.append])
    assert {row.seed for row in called} == {2}
    assert [row for row in more if row.seed < 2] == first
    assert [row for row in more if row.seed == 2] == called


def test_rows_do_not_depend_on_who_else_is_compared(finished, tmp_path):
    _, rows, _ = finished
    alone = train(
        line(), ALGORITHMS["HJ"], budget=BUDGET, seeds=2, workdir=tmp_path, progress=False
    )
    measured = [row.measures for row in rows if row.run == "HJ"]
    assert [row.measures for row in alone] == measured


def test_a_snoo_of_five_steps_is_rounded_to_whole_outer_steps_and_that_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    snoo = {"SNOO": entropix.snoo(optax.adamw(3e-2), num_steps=5)}
    rows = compared(tmp_path, algorithms=snoo, budget=Budget(23, 2), seeds=1)
    assert [row.gradients for row in rows] == [15, 25]  # due: 12 and 23
    assert "one outer step is 5 gradients" in caplog.text
    assert "takes 25 gradients where 23 were asked for" in caplog.text


def test_a_comparison_goes_on_after_an_algorithm_that_diverged(tmp_path):
    said = []
    algorithms = {"wild": algorithm("sgd", learning_rate=1e30), "HJ": "hj"}
    rows = compared(tmp_path, algorithms=algorithms, report=said.append)
    assert "wild: seed 0 stopped" in said[0]
    lost = [row for row in rows if row.run == "wild"]
    assert [row["val_error"] for row in lost] == [None, None]  # at the evaluation not reached
    assert {row.gradients for row in rows if row.run == "HJ"} == {10, 20}


def test_rows_are_gathered_from_the_folders_alone(finished, tmp_path):
    workdir, rows, printed = finished
    again = []
    folders = [workdir / name for name in ALGORITHMS]
    assert gather(folders, tmp_path / "report", report=again.append) == rows
    assert again == printed[-1:]


def test_a_folder_of_its_own_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(line(), "sgd", budget=Budget(4, 1), seeds=1, progress=False)
    assert json.loads((tmp_path / "runs" / "line" / "sgd" / "run.json").read_text())["run"] == "sgd"


def test_a_folder_of_its_own_stays_inside_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = dataclasses.replace(line(), name="../up/line")
    train(problem, "sgd", budget=Budget(4, 1), seeds=1, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert (tmp_path / "runs" / "up_line" / "sgd" / "run.json").exists()


def test_an_accuracy_is_measured_too(tmp_path):
    """A measure of which more is better, on a problem without a validation set."""

    def within(params, model_state, batch):
        prediction = batch["x"] @ params["w"] + params["b"]
        return 100 * np.float32(1) * (abs(prediction - batch["y"]) < 0.5).mean()

    problem = line(validation=None, measures={"within": (within, "higher", "%")})
    (row,) = train(problem, "sgd", budget=Budget(4, 1), seeds=1, workdir=tmp_path, progress=False)
    assert list(row.measures) == ["train_within"]
    assert row.measures["train_within"][1:] == ("%", "higher")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare(line(), ALGORITHMS), "budget must be an entropix.experiment.Budget"),
        (lambda: compare(line(), budget=BUDGET), "algorithms must be run ->"),
        (lambda: compare(3, ALGORITHMS, budget=BUDGET), "problem must be an entropix.experiment.P"),
        (lambda: train(line(), budget=BUDGET), "must be an Optax transformation"),
        (
            lambda: tune(line(), {"sgd": "sgd"}, budget=BUDGET, seeds=[3]),
            "seeds must be a static int",
        ),
        (
            lambda: train(line(), "sgd", budget=BUDGET, settings={"layout": "vmap"}),
            r"settings must be an .*Settings, such as Settings\(layout='vmap'\); got settings={'",
        ),
    ],
)
def test_what_is_missing_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


CONFIGURED = {
    "train": {"algorithm": "hj", "budget": Budget(10, 1), "seeds": 3, "replicas": 3,
              "settings": Settings()},
    "compare": {"algorithms": {"hj": "hj"}, "budget": Budget(10, 1), "seeds": 3, "replicas": (3,),
                "settings": Settings()},
    "tune": {"algorithms": {"hj": "hj"}, "budget": Budget(10, 1), "seeds": 1, "replicas": 3,
             "search": {"hj": {"gamma": (1.0, 2.0)}}, "settings": Settings()},
}  # fmt: skip


@pytest.mark.parametrize(
    ("function", "name"), [(f, name) for f, given in CONFIGURED.items() for name in given]
)
def test_what_a_config_says_is_refused_beside_one(function, name, tmp_path):
    """Even where the value is the default: the config may say another."""
    config = make_config(
        dataset="digits", model={"name": "mlp"}, optimizers={"hj": {}}, algorithms="hj"
    )
    message = (
        rf"{name} must be left out beside a config, .*got {name}=.*\. Leave {name} out and set"
    )
    with pytest.raises(ValueError, match=message):
        getattr(entropix.experiment, function)(
            config, workdir=tmp_path / "new", **{name: CONFIGURED[function][name]}
        )
    assert not (tmp_path / "new").exists()


def test_train_takes_one_number_of_replicas(tmp_path):
    message = (
        r"replicas must be one number, .*replicas=\(2, 3\)\. Choose one of them, or use compare"
    )
    with pytest.raises(ValueError, match=message):
        train(line(), "parle", budget=Budget(20, 1), replicas=(2, 3), workdir=tmp_path / "new")


def test_names_with_spaces_are_kept_by_searches_and_labels_by_single_runs(tmp_path):
    budget, ranges = Budget(9, 1), {"My SGD": {"learning_rate": (0.1, 1.0)}}
    tried = tune(line(), {"My SGD": "sgd"}, budget=budget, trials=3, search=ranges,
                 workdir=tmp_path / "tune", progress=False)  # fmt: skip
    assert list(tried) == ["My SGD"]
    assert all(0.1 <= trial["learning_rate"] <= 1.0 for trial in tried["My SGD"])
    rows = train(line(), "hj", budget=budget, seeds=1, workdir=tmp_path / "hj", progress=False)
    assert {(row.run, row.label) for row in rows} == {("hj", "HJ")}


def test_a_changed_label_is_taken_over_by_finished_runs(tmp_path):
    run = one_run("sgd", budget=(20, 1), seeds=1)
    first = train_run(run, tmp_path / "sgd", progress=False)
    before = {path: path.read_bytes() for path in (tmp_path / "sgd").glob("*.jsonl")}
    renamed = dataclasses.replace(run, label="mean of the weights")
    again = train_run(renamed, tmp_path / "sgd", progress=False)
    assert again == [dataclasses.replace(row, label="mean of the weights") for row in first]
    assert {path: path.read_bytes() for path in before} == before
    assert gather([tmp_path / "sgd"], report=lambda text: None) == again
    wider = dataclasses.replace(renamed, label="more seeds", seeds=(0, 1))
    rows = train_run(wider, tmp_path / "sgd", progress=False)
    assert {(row.label, row.seed) for row in rows} == {("more seeds", 0), ("more seeds", 1)}


def test_a_renamed_folder_is_one_run(tmp_path):
    """Seeds that were added had another name than those before: tables had two runs."""
    hj, budget = algorithm("hj", gamma=3.0), Budget(20, evaluations=1)
    compared(tmp_path, algorithms={"near": hj}, budget=budget, seeds=1)
    (tmp_path / "near").rename(tmp_path / "far")
    rows = compared(tmp_path, algorithms={"far": hj}, budget=budget, seeds=2)
    assert [(row.run, row.label, row.seed) for row in rows] == [("near", "far", s) for s in (0, 1)]


def test_a_folder_that_is_only_read_keeps_its_label(tmp_path, monkeypatch):
    run = one_run("sgd", budget=(20, 1), seeds=1)
    train_run(run, tmp_path / "sgd", progress=False)

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("entropix.runs.folder.write_run_file", refuse)
    renamed = dataclasses.replace(run, label="mean of the weights")
    (row,) = train_run(renamed, tmp_path / "sgd", progress=False)
    assert row.label == "mean of the weights"


def test_a_number_of_replicas_may_be_numpys(tmp_path):
    rows = train(line(), "elastic_sgd", budget=Budget(8, 1), seeds=1, replicas=np.int64(2),
                 workdir=tmp_path, progress=False)  # fmt: skip
    assert {row.replicas for row in rows} == {2}


def test_the_folder_of_a_run_is_refused_before_anything_is_trained(tmp_path):
    train(line(), "sgd", budget=BUDGET, seeds=1, workdir=tmp_path, progress=False)
    with pytest.raises(ValueError, match="is the folder of a run, whose rows"):
        compared(tmp_path, algorithms={"HJ": "hj"})
    assert not (tmp_path / "HJ").exists()


def test_a_fork_takes_all_seeds_or_none(tmp_path):
    algorithms = {"AdamW": optax.adamw(3e-2)}
    compared(tmp_path, algorithms=algorithms)
    compared(tmp_path, algorithms=algorithms, seeds=3)
    before = sorted(tmp_path.rglob("*"))
    longer = {"algorithms": algorithms, "budget": Budget(40, 4), "fork": True}
    with pytest.raises(ValueError, match=r"AdamW has seeds \[0, 1, 2\], and a fork takes all"):
        compared(tmp_path, **longer)
    assert sorted(tmp_path.rglob("*")) == before
    assert {row.seed for row in compared(tmp_path, seeds=3, **longer)} == {0, 1, 2}


def test_a_fork_that_cannot_be_is_refused_before_anything_is_run(tmp_path):
    """The second run has a seed that diverged, and one that did not."""
    algorithms = {"SGD": algorithm("sgd", learning_rate=0.1), "AdamW": optax.adamw(3e-2)}
    compared(tmp_path, algorithms=algorithms)
    rows = read_rows(tmp_path / "AdamW")
    nothing = {n: m._replace(value=None) for n, m in rows[-1].measures.items()}
    rows[-1] = dataclasses.replace(rows[-1], measures=nothing)
    (tmp_path / "AdamW" / "metrics.jsonl").write_bytes(rows_as_lines(rows))
    (tmp_path / "AdamW" / "complete.json").unlink()
    before = (tmp_path / "SGD" / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match=r"AdamW has seeds that diverged, .*cannot be forked"):
        compared(tmp_path, algorithms=algorithms, budget=Budget(40, 4), fork=True)
    assert (tmp_path / "SGD" / "metrics.jsonl").read_text() == before


def test_a_run_whose_rows_are_damaged_may_be_forked(tmp_path):
    algorithms = {"AdamW": optax.adamw(3e-2)}
    compared(tmp_path, algorithms=algorithms)
    path = tmp_path / "AdamW" / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    rows = compared(tmp_path, algorithms=algorithms, budget=Budget(40, 4), fork=True)
    assert max(row.gradients for row in rows) == 40


def test_the_versions_of_a_run_are_those_that_began_it(tmp_path):
    algorithms = {"AdamW": optax.adamw(3e-2)}
    compared(tmp_path, algorithms=algorithms)
    path = tmp_path / "AdamW"
    told = read_run_file(path)
    write_run_file(path, told._replace(versions={**told.versions, "jax": "0.0.1"}))
    (path / "complete.json").unlink()
    compared(tmp_path, algorithms=algorithms)
    assert read_run_file(path).versions["jax"] == "0.0.1"


def test_a_fork_that_was_half_written_down_is_no_fork(tmp_path):
    algorithms = {"AdamW": optax.adamw(3e-2)}
    compared(tmp_path, algorithms=algorithms)
    (tmp_path / "AdamW" / "forks.jsonl").write_text('{"run": "AdamW", "ident')
    rows = compared(tmp_path, algorithms=algorithms, budget=Budget(40, 4), fork=True)
    assert max(row.gradients for row in rows) == 40
    assert (tmp_path / "AdamW" / "forks.jsonl").read_text().count("\n") == 1
    assert len(compared(tmp_path, algorithms=algorithms, budget=Budget(40, 4))) == len(rows)
