"""Folders of runs: what is read, and what is refused by naming what is wrong."""

import dataclasses
import json
import re

import numpy as np
import pytest

from entropix.report import check_workdir, colours, gather, make_table
from entropix.report.saved import read_runs, states
from entropix.rows import digest_of_rows, read_rows

SGD = np.asarray([[9.0, 8.0], [4.0, 3.0], [2.0, 2.2]])
HJ = SGD - 0.5


def quiet(table):
    pass


@pytest.fixture
def comparison(tmp_path, make_rows, save):
    """Two finished runs; the one that was first is the later one in the alphabet."""
    sgd, hj = make_rows("sgd", val_error=SGD), make_rows("hj", val_error=HJ)
    save(tmp_path / "digits" / "sgd", sgd, colour="#000000")
    save(tmp_path / "digits" / "hj", hj)
    return tmp_path / "digits", sgd + hj


def test_a_comparison_is_its_runs(comparison, tmp_path):
    folder, rows = comparison
    printed = []
    runs = [folder / "sgd", folder / "hj"]
    assert gather(runs, folder, report=printed.append) == rows
    assert printed == [make_table(rows)] == [(folder / "table.md").read_text()]
    assert read_rows(folder) == rows
    again = gather([folder], tmp_path / "new" / "report", report=quiet)
    assert again == rows  # in the order of the comparison
    for name in ("table.md", "metrics.jsonl"):
        assert (tmp_path / "new" / "report" / name).read_bytes() == (folder / name).read_bytes()
    assert colours([folder]) == {"sgd": "#000000", "hj": None}


def test_without_a_workdir_nothing_is_written(comparison):
    folder, rows = comparison
    assert gather([str(folder)], report=quiet) == rows[6:] + rows[:6]  # by name
    assert sorted(path.name for path in folder.iterdir()) == ["hj", "sgd"]


def test_seeds_that_were_added_belong_to_their_run(comparison, make_rows, save):
    folder, rows = comparison
    more = make_rows("hj", seeds=[2, 3], val_error=HJ + 1)
    save(folder / "hj" / "seeds_2-3", more)
    found = gather([folder], report=quiet)
    assert [row for row in found if row.run == "hj"] == rows[6:] + more
    (folder / "hj" / "seeds_2-3" / "run.json").unlink()
    with pytest.raises(ValueError, match=r"seeds_2-3/run.json cannot be read .it is missing"):
        gather([folder], report=quiet)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "it is missing"),
        ("", "Expecting value"),
        ("null", "it is no JSON object"),
        ("[1]", "it is no JSON object"),
        ('{"run": "hj"', "Expecting"),
        ("\xff", ".*can't decode byte"),
        ("{}", "run, label, identity, seeds, versions missing or of the wrong type"),
        ('{"identity": {"problem": null}, "run": 3, "seeds": [], "label": "", "versions": {}}',
         "run, seeds, identity.problem, identity.budget, identity.evaluation missing or"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["comparison", "run", "run with added seeds"])
def test_a_run_that_does_not_say_whose_it_is(content, what, place, comparison, make_rows, save):
    folder, _ = comparison
    path = folder / "hj" / "run.json"
    if place == "run with added seeds":
        save(folder / "hj" / "seeds_2-3", make_rows("hj", seeds=[2, 3], val_error=HJ))
    path.unlink() if content is None else path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} cannot be read \({what}"):
        gather([folder if place == "comparison" else folder / "hj"], report=quiet)


def test_rows_of_another_run_are_refused(comparison):
    folder, rows = comparison
    (folder / "hj" / "metrics.jsonl").write_bytes((folder / "sgd" / "metrics.jsonl").read_bytes())
    with pytest.raises(ValueError, match=r"has a row of sgd, seed 0, and .* is of hj, seeds"):
        gather([folder], report=quiet)


@pytest.mark.parametrize(
    ("complete", "what"),
    [
        (None, "metrics.jsonl has other rows than its run finished with"),
        ("{", "complete.json is damaged"),
        ("[]", "complete.json is damaged"),
    ],
)
def test_changed_rows_of_a_finished_run_are_refused(complete, what, comparison):
    folder, rows = comparison
    path = folder / "hj" / "complete.json"
    mine = read_rows(folder / "hj")
    path.write_text(json.dumps({"digest": digest_of_rows(mine)}))
    assert len(gather([folder], report=quiet)) == len(rows)
    metrics = folder / "hj" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("0.", "1.", 1))
    if complete is not None:
        path.write_text(complete)
    with pytest.raises(ValueError, match=what):
        gather([folder], report=quiet)


def test_bytes_that_are_no_text_are_no_row(comparison):
    path = comparison[0] / "hj" / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"hj", b"h\xff", 1))
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1, is not a row: 'utf-8' codec"):
        gather([comparison[0]], report=quiet)


def test_other_folders_are_refused(comparison, tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        gather([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no run: neither run.json nor"):
        gather([tmp_path / "empty"])
    (comparison[0] / "hj" / "metrics.jsonl").unlink()  # the run says that it is complete
    with pytest.raises(ValueError, match="metrics.jsonl does not exist"):
        gather([comparison[0]])


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"problem__name": "mnist", "problem__arguments": {"size": 4, "pad": 1}},
         r"problem.name \('mnist' instead of 'digits'\), problem.arguments.size \(4 instead of 3\),"
         r" problem.arguments.pad \(1 instead of None\)"),
        ({"problem__digest": "abd"}, r"problem.digest \('abd' instead of 'abc'\)"),
        ({"problem__batch_size": 64}, r"problem.batch_size \(64 instead of 32\)"),
        ({"budget__gradients": 72}, r"budget.gradients \(72 instead of 36\)"),
        ({"evaluation": {"examples": 5}}, r"evaluation.examples \(5 instead of 100\)"),
    ],
)  # fmt: skip
def test_what_is_not_comparable_is_refused_by_naming_the_fields(
    changes, fields, comparison, make_rows, save, tmp_path
):
    folder, rows = comparison
    other = make_rows("heat", val_error=HJ)
    save(tmp_path / "heat", other, algorithm__name="heat", replicas=3, **changes)
    match = rf"not comparable. From .*digits/hj differ {tmp_path}/heat in {fields}\. Report"
    with pytest.raises(ValueError, match=match):
        gather([folder, tmp_path / "heat"], tmp_path / "report")
    assert not (tmp_path / "report").exists()
    tables = []
    found = gather([folder, tmp_path / "heat"], mixed=True, report=tables.append)
    assert len(found) == len(rows + other)
    assert re.search(rf"Not comparable: from .* differ .*heat in {fields}\.", tables[0])


def test_algorithms_may_differ(comparison, make_rows, save, tmp_path):
    changes = {"algorithm__name": "heat", "algorithm__options": {"gamma": 3}, "replicas": 3}
    save(tmp_path / "heat", make_rows("heat", val_error=HJ), **changes)
    tables = []
    gather([comparison[0], tmp_path / "heat"], report=tables.append)
    assert "| HEAT" in tables[0]
    assert "Not comparable" not in tables[0]


def test_mixed_runs_of_one_name_are_called_by_their_folders(comparison, make_rows, save, tmp_path):
    folder, _ = comparison
    other = make_rows("hj", val_error=HJ - 1)
    save(tmp_path / "wide" / "hj", other, budget__gradients=99, colour="#111111")
    added = make_rows("hj", seeds=[7], val_error=HJ[:, :1])
    save(tmp_path / "wide" / "hj" / "seeds_7", added, budget__gradients=99)
    folders, printed = [folder, tmp_path / "wide"], []
    with pytest.raises(ValueError, match=r"two runs of one name, hj.*takes both with mixed=True"):
        gather(folders, report=quiet)
    rows = gather(folders, mixed=True, report=printed.append)
    narrow, wide = str(folder / "hj"), str(tmp_path / "wide" / "hj")
    assert {row.run for row in rows} == {"sgd", narrow, wide}
    assert {row.seed for row in rows if row.run == wide} == {0, 1, 7}
    assert [row["val_error"] for row in rows if row.run == wide][:6] == [*(HJ - 1).flat]
    assert f"| HJ ({narrow})" in printed[0]
    assert f"| HJ ({wide})" in printed[0]
    assert colours(folders) == {"sgd": "#000000", narrow: None, wide: None}


def test_one_name_is_one_run(comparison, make_rows, save, tmp_path):
    folder, rows = comparison
    with pytest.raises(
        ValueError, match=r"digits/hj and .*digits/hj both have hj, seed 0, after 12"
    ):
        gather([folder, folder / "hj"])
    more = make_rows("hj", seeds=[7], val_error=HJ[:, :1])
    save(tmp_path / "more" / "hj", more)
    assert gather([folder / "hj", tmp_path / "more"], report=quiet) == rows[6:] + more
    save(tmp_path / "other" / "hj", more, algorithm__options={"gamma": 3})
    with pytest.raises(ValueError, match=r"two runs of one name, hj: .*algorithm.options.gamma"):
        gather([folder, tmp_path / "other"])


def test_unfinished_runs_are_said_to_be(comparison, make_rows, save):
    folder, _ = comparison
    save(folder / "heat", make_rows("heat", val_error=HJ[:1]), finished=False)
    (folder / "zero").mkdir()
    content = json.loads((folder / "hj" / "run.json").read_text()) | {"run": "zero", "label": "Z"}
    (folder / "zero" / "run.json").write_text(json.dumps(content))
    tables = []
    gather([folder], report=tables.append)
    assert "| HEAT (unfinished) |" in tables[0]
    assert "Unfinished: HEAT (seed 0, 1)." in tables[0]
    assert "Begun, and not measured yet: Z." in tables[0]
    assert "Diverged" not in tables[0]
    for name in ("heat", "hj", "sgd"):
        (folder / name / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="at least one measurement"):
        gather([folder])


def test_versions_that_differ_are_named(comparison, make_rows, save):
    folder, _ = comparison
    versions = {"jax": "0.12.0", "optax": "0.2.8"}
    save(folder / "heat", make_rows("heat", val_error=HJ), versions=versions)
    tables = []
    gather([folder], report=tables.append)
    assert "Versions differ: jax 0.12.0 (HEAT), 0.10.2 (HJ, SGD)." in tables[0]
    assert "optax" not in tables[0]


def test_the_folder_of_a_run_is_no_workdir(comparison):
    folder, rows = comparison
    with pytest.raises(ValueError, match=r"digits/hj is the folder of a run, .*another workdir"):
        gather([folder], folder / "hj")
    assert read_rows(folder / "hj") == rows[6:]


def test_a_workdir_that_cannot_be_written_is_found_first(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write to workdir=.*file/report \(Not a directory"):
        gather([tmp_path / "nowhere"], tmp_path / "file" / "report")
    check_workdir(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_rows_are_given_back_as_they_were(comparison):
    """What is not finite is null in the file and None in the row, and nothing else changes."""
    folder, rows = comparison
    odd = [dataclasses.replace(row, minibatch_loss=None, effective_epochs=None) for row in rows[6:]]
    (folder / "hj" / "metrics.jsonl").write_text("".join(row.to_json() + "\n" for row in odd))
    assert gather([folder / "hj"], report=quiet) == odd


def test_a_report_within_the_folder_of_a_comparison_is_no_run(comparison):
    folder, rows = comparison
    gather([folder], folder / "again", report=quiet)
    assert gather([folder], folder / "again", report=quiet) == gather([folder], report=quiet)


def test_a_run_that_has_lost_its_files_but_for_added_seeds_is_named(comparison, make_rows, save):
    folder, _ = comparison
    save(folder / "sgd" / "seeds_2", make_rows("sgd", seeds=(2,), val_error=HJ[:, :1]))
    for name in ("run.json", "metrics.jsonl"):
        (folder / "sgd" / name).unlink()
    with pytest.raises(ValueError, match=r"sgd/run.json cannot be read \(it is missing"):
        gather([folder], report=quiet)


def test_a_part_that_came_to_nothing_takes_no_seed_away(comparison, make_rows, save):
    """An attempt to add two seeds was killed at once; then one of them was added."""
    folder, _ = comparison
    added = folder / "hj" / "seeds_7_8"
    save(added, make_rows("hj", seeds=[7, 8], val_error=HJ[:, :2]), finished=False)
    (added / "metrics.jsonl").write_text("")
    save(folder / "hj" / "seeds_7", make_rows("hj", seeds=[7], val_error=HJ[:, :1]))
    tables = []
    gather([folder / "hj"], report=tables.append)
    assert "Unfinished" not in tables[0]
    assert "Begun" not in tables[0]
    assert f"| HJ    | {HJ.shape[1] + 1} " in tables[0]


def test_nan_among_a_problems_arguments_is_equal_to_itself(make_rows, save, tmp_path):
    nan = {"size": float("nan")}
    save(tmp_path / "hj", make_rows("hj", val_error=HJ), problem__arguments=nan)
    save(tmp_path / "sgd", make_rows("sgd", val_error=HJ), problem__arguments=nan)
    assert len(gather([tmp_path], report=quiet)) == 2 * HJ.size


def test_states_are_those_of_all_parts(comparison, make_rows, save):
    """Seed 7 goes on, seed 8 diverged; a run without rows has no states."""
    folder, _ = comparison
    added = HJ[:, :2].copy()
    added[-1, 1] = np.nan
    rows = make_rows("hj", seeds=[7, 8], val_error=added)
    save(folder / "hj" / "seeds_7_8", rows, finished=False)
    save(folder / "heat", make_rows("heat", val_error=HJ[:1]), finished=False)
    (folder / "heat" / "metrics.jsonl").write_text("")
    found = states(read_runs([folder]))
    assert found["hj"] == {
        "finished": [*range(HJ.shape[1])], "diverged": [8], "unfinished": [7],
    }  # fmt: skip
    assert found.keys() == {"sgd", "hj"}
