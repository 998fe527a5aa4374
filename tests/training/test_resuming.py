"""Runs that are continued: from what, to what end, and what is refused."""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
import shutil
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entropix.training.checkpoint import from_host, to_host
from entropix.training.loop import Loop
from training.survival import arrays, assert_identical, rows

from entropix.data import load
from entropix.training import (
    Checkpoint,
    Checkpoints,
    Interrupted,
    compare,
    experiment,
    runs,
    train,
)  # fmt: skip
from entropix.training import loop as loop_module
from entropix.training import programs as programs_module
from entropix.training import run as run_module

OPTIMIZERS = {"hj": {"gamma_end": 0.5}, "elastic_sgd": {}}


def make(algorithms="hj", optimizers=OPTIMIZERS, **options):
    defaults = {
        "seeds": 2, "gradients_per_eval": 20, "num_evals": 3, "batch_size": 32,
        "checkpoint_seconds": 0.0, "checkpoints_kept": 3, "replicas": (2,),
    }  # fmt: skip
    return experiment(
        dataset="digits",
        model={"name": "mlp", "widths": (16,), "input_dropout": 0.1, "dropout": 0.2},
        optimizers=optimizers,
        algorithms=algorithms,
        **defaults | options,
    )


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """A process that continues compiles anew; here one compilation serves all that are equal."""
    make_programs, known = run_module.make_programs, {}

    def remember(config, data):
        key = json.dumps([config.optimizer.to_dict(), config.seeds, config.length], default=str)
        if key not in known:
            known[key] = make_programs(config, data)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "make_programs", remember)
        yield


def result(workdir):
    return rows(workdir), arrays(workdir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, its folder not to be changed."""
    workdir = tmp_path_factory.mktemp("whole")
    train(make(), workdir, progress=False)
    return workdir


@pytest.fixture
def unfinished(whole, tmp_path):
    """A copy of the run, as if it had been killed just before it was marked as finished."""
    workdir = tmp_path / "unfinished"
    shutil.copytree(whole, workdir)
    (workdir / "complete.json").unlink()
    return workdir


def newest_files(workdir: pathlib.Path) -> list[pathlib.Path]:
    """The files of the newest checkpoint, largest first."""
    newest = max((workdir / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    files = [path for path in newest.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: -path.stat().st_size)


# The storage library leaves coroutines of a failed read behind, which complain when collected.
leaves_coroutines = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@leaves_coroutines
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, pathlib.Path.unlink])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(damage, unfinished, whole):
    damage(newest_files(unfinished)[0])
    with pytest.warns(UserWarning, match=r"outer step 12 .*is damaged.*the one before it is used"):
        train(make(), unfinished, progress=False)
    assert_identical(result(unfinished), result(whole))


@leaves_coroutines
def test_a_flipped_bit_in_the_record_is_found_too(unfinished, whole):
    (record,) = [
        path for path in newest_files(unfinished) if path.parts[-2:] == ("record", "metadata")
    ]
    text = record.read_text()
    assert '"val_error": ' in text
    record.write_text(text.replace('"val_error": 1', '"val_error": 2').replace("0.0", "0.1"))
    with pytest.warns(UserWarning, match="checksum is wrong"):
        train(make(), unfinished, progress=False)
    assert_identical(result(unfinished), result(whole))


@leaves_coroutines
def test_with_every_checkpoint_damaged_the_run_begins_again(unfinished, whole):
    for path in (unfinished / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged") as warned:
        train(make(), unfinished, progress=False)
    assert len(warned) == 3
    assert_identical(result(unfinished), result(whole))
    assert len(list((unfinished / "checkpoints_damaged").iterdir())) == 3  # nothing is thrown away


@pytest.mark.parametrize("algorithm", OPTIMIZERS)
def test_stops_at_every_call_change_nothing(algorithm, tmp_path, monkeypatch):
    """Every process stops after its first call, which is one outer step."""
    train(make(algorithm), tmp_path / "whole", progress=False)
    run = Loop.run
    monkeypatch.setattr(Loop, "run", lambda self, _, progress: run(self, lambda: 15, progress))
    for _ in range(100):
        with contextlib.suppress(Interrupted):
            train(make(algorithm), tmp_path / "broken", progress=False)
        if (tmp_path / "broken" / "complete.json").exists():
            break
    monkeypatch.undo()
    train(make(algorithm), tmp_path / "broken", progress=False)
    assert_identical(result(tmp_path / "broken"), result(tmp_path / "whole"))


def test_calls_of_any_length_give_one_result(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "_CALL_SECONDS", 0.0)  # one outer step a call
    train(make(), tmp_path, progress=False)
    assert_identical(result(tmp_path), result(whole))


def test_metrics_after_the_checkpoint_are_measured_again(unfinished, whole):
    """What was written after the last checkpoint, a half line included, does not stay twice."""
    with (unfinished / "metrics.jsonl").open("a") as file:
        file.write('{"algorithm": "hj", "seed": 0, "gradient_eval')
    train(make(), unfinished, progress=False)
    assert_identical(result(unfinished), result(whole))


def test_another_config_is_refused_naming_the_fields_unless_forked(unfinished, whole, caplog):
    longer = {"num_evals": 4, "optimizers": {"hj": {"gamma_end": 0.5, "learning_rate": 0.05}}}
    with pytest.raises(
        ValueError, match=r"it differs in num_evals, optimizer.learning_rate\. .* --fork"
    ):
        train(make(**longer), unfinished, progress=False)
    assert_identical(result(unfinished), result(whole))

    train(make(**longer), unfinished, fork=True, progress=False)
    forked = rows(unfinished)
    assert forked[: len(rows(whole))] == rows(whole)
    assert {row["gradient_evaluations"] for row in forked[6:]} == {80}
    assert [path.name for path in (unfinished / "checkpoints_forked").iterdir()] == ["12"]
    (old,) = [json.loads(line) for line in (unfinished / "forks.jsonl").read_text().splitlines()]
    assert old["num_evals"] == 3
    assert json.loads((unfinished / "config.json").read_text())["num_evals"] == 4


def test_a_finished_run_can_be_forked_to_go_on(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    train(make(num_evals=5), tmp_path / "run", fork=True, progress=False)
    train(make(num_evals=5), tmp_path / "straight", progress=False)
    assert_identical(result(tmp_path / "run"), result(tmp_path / "straight"))


def test_a_fork_into_another_shape_is_refused_and_changes_nothing(unfinished):
    before = (unfinished / "config.json").read_text()
    with pytest.raises(ValueError, match=r"the checkpoint holds .* where this config needs"):
        train(make(seeds=3), unfinished, fork=True, progress=False)
    assert (unfinished / "config.json").read_text() == before
    assert not (unfinished / "checkpoints_damaged").exists()


def test_a_fork_into_a_shorter_run_is_refused(unfinished):
    with pytest.raises(ValueError, match=r"has 60 gradients, more than this config's 40"):
        train(make(num_evals=2), unfinished, fork=True, progress=False)


@pytest.mark.parametrize(("before", "later"), [(2, 5), (4, 1), (1, 2)])
def test_replicas_join_and_leave(tmp_path, before, later, caplog):
    """A fork with another p goes on from the first replicas, and new ones from their centre."""
    train(make("elastic_sgd", replicas=(before,), num_evals=1), tmp_path, progress=False)
    with Checkpoints(tmp_path) as checkpoints:
        old = checkpoints.restore()
    params = jax.tree.leaves(old.state["state"]["params"])
    caplog.set_level(logging.INFO)
    config = make("elastic_sgd", replicas=(later,), num_evals=2)
    with pytest.raises(ValueError, match=r"another config: it differs in .*optimizer.replicas"):
        train(config, tmp_path, progress=False)
    seen = []
    watched = lambda self, now: seen.append(to_host(now)) or place(self, now)  # noqa: E731
    place = programs_module.Programs.place
    with unittest.mock.patch.object(programs_module.Programs, "place", watched):
        rows = train(config, tmp_path, fork=True, progress=False)
    told = "new ones start at the centre" if later > before else "the last ones leave"
    assert f"{later} replicas where there were {before}: {told}" in caplog.text
    start = jax.tree.leaves(seen[0].state.params)
    for leaf, was in zip(start, params, strict=True):
        assert leaf.shape == (was.shape[0], later, *was.shape[2:])
        stay = min(before, later)
        np.testing.assert_array_equal(leaf[:, :stay], was[:, :stay])
        for a in range(before, later):
            np.testing.assert_allclose(leaf[:, a], was.mean(axis=1), rtol=1e-5, atol=1e-7)
    assert [row["replicas"] for row in rows if row["seed"] == 0] == [before, later]
    assert [row["gradient_evaluations"] for row in rows if row["seed"] == 0] == [20, 40]
    assert [row["outer_steps"] for row in rows if row["seed"] == 0] == [
        20 // before, 20 // before + 20 // later
    ]  # fmt: skip


def test_replicas_may_start_at_different_points():
    config = make("elastic_sgd", replica_start="different")
    (single,) = runs(config).values()
    now = programs_module.make_programs(single, load("digits")).init()
    kernels = [leaf for leaf in jax.tree.leaves(now.state.params) if leaf.ndim == 4]
    points = np.concatenate([kernels[0][:, a] for a in range(2)])  # of 2 seeds, 2 replicas
    assert len(np.unique(points.reshape(4, -1), axis=0)) == 4


def test_where_data_lie_and_checkpoints_are_no_part_of_a_result(whole):
    other = make(data_dir="elsewhere", checkpoints_kept=1, checkpoint_seconds=5.0)
    assert train(other, whole, progress=False) == train(make(), whole, progress=False)


def test_one_process_at_a_time(unfinished):
    descriptor = os.open(unfinished, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ValueError, match="another process is at work in"):
            train(make(), unfinished, progress=False)
    finally:
        os.close(descriptor)


def test_other_versions_are_said(unfinished, caplog):
    versions = json.loads((unfinished / "versions.json").read_text())
    (unfinished / "versions.json").write_text(json.dumps(versions | {"jax": "0.1"}))
    train(make(), unfinished, progress=False)
    assert "was begun with other versions of jax" in caplog.text


def test_only_the_newest_checkpoints_are_kept(whole, tmp_path):
    train(make(checkpoints_kept=1), tmp_path, progress=False)
    assert [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")] == ["12"]
    assert len(list((whole / "checkpoints").glob("[0-9]*"))) == 3


def test_a_state_comes_back_from_the_host_as_it_was():
    state = {"x": jnp.arange(3.0), "keys": jnp.asarray([1], jnp.uint32), "none": None}
    back = from_host(state, to_host(state))
    np.testing.assert_array_equal(back["x"], state["x"])
    with pytest.raises(ValueError, match=r"nothing where this config needs y"):
        from_host({**state, "y": jnp.zeros(2)}, to_host(state))
    with pytest.raises(ValueError, match="holds x, which this config does not know"):
        from_host({"keys": state["keys"]}, to_host(state))


def test_saving_one_step_twice_is_no_error(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for _ in range(2):
            checkpoints.save(Checkpoint(1, to_host({"x": jnp.ones(2)}), {"rows": []}))
        assert checkpoints.restore().step == 1


def test_compare_goes_on_after_an_algorithm_that_diverged(tmp_path):
    optimizers = {"sgd": {"learning_rate": 1e30}, "hj": {}}
    said = []
    found = compare(make("", optimizers), tmp_path, progress=False, report=said.append)
    assert "sgd: seed 0 stopped" in said[0]
    assert "| HJ | 5 | 1 | " in said[1]
    assert "| SGD | 1 | 1 | 20, 20 | not at the end |" in said[1]
    assert "left out: SGD's seed 0, SGD's seed 1." in said[1]
    lost = [row for row in found if row["algorithm"] == "sgd"]
    assert [row["val_error"] for row in lost] == [None, None]  # at the evaluation not reached
    assert {row["gradient_evaluations"] for row in lost} == {20}


def test_a_seed_that_diverges_stops_alone(tmp_path, monkeypatch):
    """From outer step 6 on, seed 0's parameters are poisoned: seed 1 must not notice."""
    config = make(checkpoint_seconds=0.0)
    train(config, tmp_path / "sound", progress=False)
    advance = Loop._advance

    def poisoned(self):
        if self._step == 6:
            params = jax.tree.map(lambda x: x.at[0].set(jnp.nan), self._now.state.params)
            self._now = self._now._replace(state=self._now.state._replace(params=params))
        advance(self)

    monkeypatch.setattr(loop_module, "_CALL_SECONDS", 0.0)
    monkeypatch.setattr(Loop, "_advance", poisoned)
    for _ in range(2):  # the second call reads what the first one left
        with pytest.raises(FloatingPointError) as raised:
            train(config, tmp_path / "ill", progress=False)
        message = str(raised.value)
        assert "hj: seed 0 stopped, because its loss is not finite" in message
        assert "outer step 6, inner step 0 of 5" in message
        assert "seed 1" not in message
    ill, sound = rows(tmp_path / "ill"), rows(tmp_path / "sound")
    assert [row for row in ill if row["seed"] == 1] == [row for row in sound if row["seed"] == 1]
    lost = [(row["gradient_evaluations"], row["val_error"]) for row in ill if row["seed"] == 0]
    assert [gradients for gradients, _ in lost] == [20, 40]
    assert lost[1][1] is None
    last, whole = arrays(tmp_path / "ill"), arrays(tmp_path / "sound")
    for name, array in last.items():
        assert np.isfinite(array).all(), name  # of seed 0, the last good state
        if name.startswith("state"):
            np.testing.assert_array_equal(array[1], whole[name][1], err_msg=name)


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    """A stop before the last evaluation and the end of the run are at one outer step."""
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for rows in ([], [{"val_error": 1.0}]):
            checkpoints.save(Checkpoint(1, {"x": jnp.ones(2)}, {"rows": rows}))
            assert checkpoints.restore().record["rows"] == rows
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_metrics_that_are_not_whole_are_not_finished(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    train(make(), tmp_path / "run", progress=False)
    assert rows(tmp_path / "run") == rows(whole)


def test_reading_makes_and_removes_nothing(unfinished, tmp_path):
    with Checkpoints(tmp_path / "nowhere") as checkpoints:
        assert checkpoints.restore() is None
    assert not (tmp_path / "nowhere").exists()
    half_written = unfinished / "checkpoints" / "13.orbax-checkpoint-tmp-1"
    half_written.mkdir()
    with Checkpoints(unfinished) as checkpoints:
        assert checkpoints.restore().step == 12
    assert half_written.exists()
