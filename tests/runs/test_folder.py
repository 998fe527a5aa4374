"""A folder answers for the run that it holds, and for no other."""

import json
import shutil

import pytest
from runs.survival import rows
from small import arrays, line, one_run

from entropix.run_file import read_run_file
from entropix.runs.folder import RunFolder
from entropix.runs.train import train_run

pytestmark = pytest.mark.usefixtures("compiled_once")


def train(run, workdir, **options):
    return train_run(run, workdir, progress=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_once):
    workdir = tmp_path_factory.mktemp("finished")
    train(one_run(budget=(20, 1)), workdir)
    return workdir


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"problem": line(data=arrays(5))}, r"problem\.digest"),
        ({"problem": line(batch_size=4)}, r"problem\.batch_size, problem\.digest"),
        ({"problem": line(name="other")}, r"problem\.name"),
        ({"problem": line(arguments={"a": 1})}, r"problem\.arguments\.a"),
        ({"gamma": 2.0}, r"algorithm\.options\.gamma"),
        ({"momentum": None}, r"algorithm\.options\.momentum"),
        ({"budget": (40, 1)}, r"budget\.gradients"),
        ({"budget": (20, 2)}, r"budget\.evaluations"),
        ({"name": "sgd"}, r"algorithm\.name, "),
    ],
)
def test_another_run_is_refused_naming_the_fields(finished, changes, fields):
    before = {path: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    message = rf"holds results of another run: it differs in .*{fields}.*--fork"
    with pytest.raises(ValueError, match=message):
        train(one_run(**{"budget": (20, 1)} | changes), finished)
    assert {path: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before


def test_an_argument_that_is_not_a_number_is_equal_to_itself(tmp_path):
    run = one_run("sgd", line(arguments={"floor": float("nan")}), budget=(4, 1))
    assert train(run, tmp_path) == train(run, tmp_path)


GARBAGE = {
    "lost": None,
    "empty": b"",
    "null": b"null",
    "no object": b"[1, 2]",
    "no JSON": b"\x80garbage",
    "deep": b"[" * 100_000,
    "no identity": b'{"run": "hj", "label": "HJ", "seeds": [0, 1], "versions": {}}',
    "no identity but a number": b'{"run":"x","label":"x","identity":3,"seeds":[0],"versions":{}}',
    "seeds that are paths": b'{"run":"x","label":"x","identity":{},"seeds":["../x"],"versions":{}}',
    "no seeds": b'{"run": "x", "label": "x", "identity": {}, "seeds": [], "versions": {}}',
}


@pytest.mark.parametrize("content", GARBAGE)
@pytest.mark.parametrize("complete", [True, False])
def test_whose_a_folder_is_must_be_known(copy, content, complete):
    if not complete:
        (copy / "complete.json").unlink()
    if GARBAGE[content] is None:
        (copy / "run.json").unlink()
    else:
        (copy / "run.json").write_bytes(GARBAGE[content])
    for fork in (False, True):
        with pytest.raises(ValueError, match=r"run\.json cannot be read .*which run the results"):
            train(one_run(budget=(20, 1)), copy, fork=fork)


def test_a_changed_seed_is_no_other_seed(copy):
    """One wrong digit would give the state of seed 1 to seed 7."""
    path = copy / "run.json"
    text = path.read_text()
    path.write_text(text.replace("1\n  ],", "7\n  ],"))
    assert path.read_text() != text
    with pytest.raises(ValueError, match=r"run\.json cannot be read \(it was changed after it was"):
        train(one_run(budget=(20, 1)), copy)


def test_a_folder_without_results_is_free(tmp_path):
    (tmp_path / "run.json").write_text("null")
    (tmp_path / "notes.txt").write_text("mine")
    assert len(train(one_run(budget=(20, 1)), tmp_path)) == 2
    assert read_run_file(tmp_path).run == "hj"


def test_results_of_version_0_1_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"algorithm": "hj"}\n')
    with pytest.raises(ValueError, match=r"holds results of version 0\.1 .*Choose another"):
        train(one_run(budget=(20, 1)), tmp_path)


def test_other_versions_are_said(copy, caplog):
    (copy / "complete.json").unlink()
    content = json.loads((copy / "run.json").read_text())
    content["versions"]["jax"] = "0.1"
    del content["digest"]
    (copy / "run.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"made with jax 0\.1, and this is .* digests may differ"):
        train(one_run(problem=line(data=arrays(5)), budget=(20, 1)), copy)
    train(one_run(budget=(20, 1)), copy)
    assert "was begun with other versions of jax" in caplog.text


def test_run_json_says_all_that_a_report_needs(finished):
    content = json.loads((finished / "run.json").read_text())
    assert set(content) == {
        "run", "label", "colour", "identity", "seeds", "versions", "config", "digest"
    }  # fmt: skip
    assert (content["run"], content["label"], content["seeds"]) == ("hj", "hj", [0, 1])
    assert set(content["identity"]) == {
        "problem", "algorithm", "budget", "replicas", "evaluation", "start"
    }  # fmt: skip
    assert {"entropix", "jax", "numpy", "backend"} <= set(content["versions"])


def test_more_seeds_are_added_and_the_others_not_repeated(copy):
    before = rows(copy)
    stamps = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    found = train(one_run(budget=(20, 1), seeds=4), copy)
    assert [row.seed for row in found] == [0, 1, 2, 3]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert rows(copy) == before
    assert [row["seed"] for row in rows(copy / "seeds_2_3")] == [2, 3]
    straight = train(one_run(budget=(20, 1), seeds=[2, 3]), copy.parent / "straight")
    assert [row.measures for row in found[2:]] == [row.measures for row in straight]
    # And later a part of them, with one more.
    later = train(one_run(budget=(20, 1), seeds=[3, 7]), copy)
    assert [row.seed for row in later] == [3, 7]
    assert sorted(path.name for path in copy.glob("seeds_*")) == ["seeds_2_3", "seeds_7"]
    with pytest.raises(ValueError, match=r"differs in algorithm\.options\.gamma"):
        train(one_run(budget=(20, 1), seeds=[9], gamma=2.0), copy)  # none of its seeds is there


def test_a_run_that_diverged_says_so_again(tmp_path):
    run = one_run("sgd", budget=(20, 1), learning_rate=1e30)
    message = r"sgd: seed 0 stopped, because .* outer step \d, .*\n.*seed 1 stopped"
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=message):
            train(run, tmp_path)


def test_nothing_is_left_of_a_run_that_could_not_begin(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot write to workdir=.*Choose a folder"):
        train(one_run(budget=(20, 1)), tmp_path / "file" / "below")
    assert RunFolder(tmp_path / "nothing", one_run(budget=(20, 1))).begun() is False
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("of[1]/run", r"workdir must be a path without '\[' and .*; got .*choose another"),
        ("seeds_2", r"called by a name unlike 'seeds_\*'.*; got a run='seeds_2'"),
    ],
)
def test_folders_that_could_not_be_found_again_are_refused(tmp_path, folder, message):
    with pytest.raises(ValueError, match=message):
        train(one_run(budget=(20, 1)), tmp_path / folder)
    assert not (tmp_path / folder).exists()


def test_a_part_of_many_seeds_has_a_short_name(tmp_path):
    train(one_run(budget=(10, 1), seeds=1), tmp_path)
    for _ in range(2):  # the second time all of them are there
        found = train(one_run(budget=(10, 1), seeds=120), tmp_path)
        assert [row.seed for row in found] == list(range(120))
    (part,) = tmp_path.glob("seeds_*")
    assert len(part.name) < 120
