"""Runs that are continued end bit for bit like runs without a break."""

import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
import pathlib
import shutil
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs.survival import arrays, assert_identical, leaves_coroutines, result, rows
from small import ALWAYS, one_run

from entropix.runs import loop as loop_module
from entropix.runs.checkpoint import Checkpoint, Checkpoints
from entropix.runs.loop import Loop
from entropix.runs.preemption import Interrupted
from entropix.runs.restoring import restore
from entropix.runs.train import train_run
from entropix.training import programs as programs_module
from entropix.training.programs import make_starter

pytestmark = pytest.mark.usefixtures("compiled_once")


def make(name="hj", *, budget=(60, 3), **options):
    if name == "hj":
        options = {"gamma_end": 0.5, "ema": 0.9} | options
    return one_run(name, budget=budget, **options)


def train(run, workdir, **options):
    return train_run(run, workdir, progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    """An uninterrupted run, its folder not to be changed."""
    workdir = tmp_path_factory.mktemp("whole")
    train(make(), workdir)
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


@leaves_coroutines
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(unfinished, whole):
    path = newest_files(unfinished)[0]
    os.truncate(path, path.stat().st_size // 2)
    with pytest.warns(UserWarning, match=r"outer step 12 .*is damaged"):
        train(make(), unfinished)
    assert_identical(result(unfinished), result(whole))


@leaves_coroutines
def test_with_every_checkpoint_damaged_the_run_begins_again(unfinished, whole):
    for path in (unfinished / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged") as warned:
        train(make(), unfinished)
    assert len(warned) == 3
    assert_identical(result(unfinished), result(whole))


@pytest.mark.parametrize(
    "name", ["hj", "elastic_sgd", pytest.param("snoo", marks=pytest.mark.slow)]
)
def test_stops_at_every_call_change_nothing(name, tmp_path, monkeypatch):
    """Every process stops after its first call, which is one outer step."""
    run = make(name) if name != "snoo" else make(name, num_steps=5)
    train(run, tmp_path / "whole")
    go = Loop.run
    monkeypatch.setattr(Loop, "run", lambda self, _, progress: go(self, lambda: 15, progress))
    stops = 0
    while not (tmp_path / "broken" / "complete.json").exists():
        with contextlib.suppress(Interrupted):
            train(run, tmp_path / "broken")
        stops += 1
        assert stops < 100
    assert stops > 10
    monkeypatch.undo()
    assert_identical(result(tmp_path / "broken"), result(tmp_path / "whole"))


def test_calls_of_any_length_give_one_result(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "_CALL_SECONDS", 0.0)  # one outer step a call
    train(make(), tmp_path)
    assert_identical(result(tmp_path), result(whole))


def test_metrics_after_the_checkpoint_are_measured_again(unfinished, whole):
    """What was written after the last checkpoint, a half line included, does not stay twice."""
    with (unfinished / "metrics.jsonl").open("a") as file:
        file.write('{"algorithm": "hj", "seed": 0, "gradie')
    train(make(), unfinished)
    assert_identical(result(unfinished), result(whole))


@pytest.mark.parametrize("damage", ["empty", "half", "another number", "missing"])
def test_damaged_metrics_of_a_finished_run_are_made_again(damage, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    text = path.read_text()
    if damage == "missing":
        path.unlink()
    else:
        changed = {"empty": "", "half": text[:-30], "another number": text.replace("0.", "1.", 1)}
        assert changed[damage] != text
        path.write_text(changed[damage])
    train(make(), tmp_path / "run")
    assert path.read_text() == text  # the clock's numbers too: from the checkpoint, not run again


def test_a_finished_run_is_read_and_nothing_is_run(whole, monkeypatch):
    monkeypatch.setattr(Loop, "__init__", None)
    found = train(make(), whole)
    assert [row.gradients for row in found] == [20, 20, 40, 40, 60, 60]


def test_a_finished_run_can_be_forked_to_go_on(whole, tmp_path):
    """Its schedules do not refer to the length of the run: it ends like a longer one."""
    shutil.copytree(whole, tmp_path / "run")
    longer = make(budget=(100, 5))
    with pytest.raises(ValueError, match=r"it differs in budget\.evaluations, budget\.gradients\."):
        train(longer, tmp_path / "run")
    train(longer, tmp_path / "run", fork=True)
    train(longer, tmp_path / "straight")
    assert_identical(result(tmp_path / "run"), result(tmp_path / "straight"))


def test_a_fork_with_other_options_begins_its_own_rows(unfinished, whole):
    other = make(budget=(80, 4), learning_rate=0.05)
    with pytest.raises(ValueError, match=r"options\.learning_rate, budget\..*fork=True"):
        train(other, unfinished)
    assert_identical(result(unfinished), result(whole))
    found = train(other, unfinished, fork=True)
    assert {row.gradients for row in found} == {80}
    assert [path.name for path in (unfinished / "checkpoints_forked").iterdir()] == ["12"]
    assert '"learning_rate": 0.1' in (unfinished / "forks.jsonl").read_text()
    assert train(other, unfinished) == found


@pytest.mark.parametrize(
    ("name", "before", "after", "horizon"),
    [
        ("elastic_sgd", {"replicas": 2}, {"replicas": 4}, 160 / 4),
        ("hj", {"num_steps": 5}, {"num_steps": 20}, 160 / 20),
        ("snoo", {"num_steps": 5}, {"num_steps": 10}, 160),
        ("parle", {"replicas": 2, "num_steps": 5}, {"replicas": 4, "num_steps": 10}, 160 / 40),
    ],
)
def test_a_fork_goes_on_where_the_schedule_is_after_its_gradients(
    name, before, after, horizon, tmp_path
):
    """Outer steps of the parent had other numbers of gradients; the cosine ends with the run."""
    shared = {"schedule": "cosine", "weight_decay": 1e-3}
    train(one_run(name, budget=(80, 2), **shared, **before), tmp_path)
    longer = one_run(name, budget=(160, 4), **shared, **after)
    train(longer, tmp_path, fork=True)
    with Checkpoints(tmp_path, 2) as checkpoints:
        arrays = restore(checkpoints, make_starter(longer)).state
    is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
    found = [s for s in jax.tree.leaves(arrays.state, is_leaf=is_schedule) if is_schedule(s)]
    assert found
    for schedule in found:
        np.testing.assert_array_equal(schedule.count, horizon)


def test_a_fork_that_would_train_nothing_is_refused(whole, tmp_path):
    """It would give the parent's rows another name."""
    shutil.copytree(whole, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_text()
    with pytest.raises(ValueError, match="has spent all gradients .* a fork would train nothing"):
        train(make(learning_rate=0.05), tmp_path / "run", fork=True)
    assert (tmp_path / "run" / "run.json").read_text() == before
    with pytest.raises(ValueError, match="has spent all gradients of this budget"):
        train(make(budget=(40, 2)), tmp_path / "run", fork=True)


def test_a_fork_with_seeds_that_its_parent_has_not_is_refused(unfinished):
    message = r"has seeds \[0, 1\] to fork, or that were forked; got seeds=\[0, 1, 2\]"
    more, fork = (make(budget=(80, 4), seeds=n, learning_rate=0.05) for n in (3, 2))
    with pytest.raises(ValueError, match=message):
        train(more, unfinished, fork=True)
    train(fork, unfinished, fork=True)
    with pytest.raises(ValueError, match=message):  # it would stand beside them, begun elsewhere
        train(more, unfinished)


def measured(rows):
    return [(row.seed, row.gradients, row.minibatch_loss, row.measures) for row in rows]


def test_a_fork_that_is_killed_before_its_first_checkpoint_goes_on_as_one(unfinished, tmp_path):
    """The newest checkpoint is still the parent's, whose rows were taken for the fork's."""
    other = make(budget=(80, 4), learning_rate=0.05)
    shutil.copytree(unfinished, tmp_path / "straight")
    expected = train(other, tmp_path / "straight", fork=True)
    with (
        unittest.mock.patch.object(Loop, "run", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        train(other, unfinished, fork=True)
    assert measured(train(other, unfinished)) == measured(expected)


@contextlib.contextmanager
def stopped_at(gradients):
    """A signal that asks to stop after so many gradients, in calls of one outer step."""
    agree = lambda self, _: (0.0, 15 * (self.record.gradients >= gradients))  # noqa: E731
    with (
        unittest.mock.patch.object(Loop, "_agree", agree),
        unittest.mock.patch.object(loop_module, "_CALL_SECONDS", 0.0),
        pytest.raises(Interrupted),
    ):
        yield


@pytest.mark.parametrize("num_steps", [3, 6, 15])
def test_a_fork_from_between_two_evaluations_measures_at_its_own(num_steps, tmp_path):
    with stopped_at(54):
        train(one_run("heat", budget=(90, 2), num_steps=3), tmp_path)
    fork = one_run("heat", budget=(90, 2), num_steps=num_steps, learning_rate=0.05)
    found = train(fork, tmp_path, fork=True)
    assert {row.gradients for row in found} == {54 + -(-36 // num_steps) * num_steps}


def test_a_fork_that_is_interrupted_keeps_its_place_in_the_schedule(tmp_path):
    """9 gradients are four outer steps and a half of two: rounded to even, 4 became 6 later."""
    shared = {"schedule": "cosine", "seeds": 1}
    train(one_run("heat", budget=(9, 1), num_steps=3, **shared), tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "broken")
    fork = one_run("heat", budget=(40, 4), num_steps=2, **shared)
    expected = train(fork, tmp_path / "straight", fork=True)
    with stopped_at(11):
        train(fork, tmp_path / "broken", fork=True)
    assert measured(train(fork, tmp_path / "broken")) == measured(expected)


@pytest.mark.parametrize(("before", "later"), [(2, 5), (4, 1)])
def test_replicas_join_and_leave(tmp_path, before, later, caplog):
    """A fork with another p goes on from the first replicas, and new ones from their centre."""
    train(make("elastic_sgd", replicas=before, budget=(20, 1)), tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        old = checkpoints.restore()
    params = jax.tree.leaves(old.state["state"]["params"])
    caplog.set_level(logging.INFO)
    run = make("elastic_sgd", replicas=later, budget=(40, 2))
    with pytest.raises(ValueError, match=r"another run: it differs in .*replicas"):
        train(run, tmp_path)
    seen = []
    place = programs_module.Starter.place

    def watched(self, arrays):
        seen.append(jax.device_get(arrays.state.params))
        return place(self, arrays)

    with unittest.mock.patch.object(programs_module.Starter, "place", watched):
        rows = train(run, tmp_path, fork=True)
    assert rows[-1].gradients == 40
    assert rows[-1].gradients_per_replica == 20 // before + 20 // later
    told = "new ones start at the centre" if later > before else "the last ones leave"
    assert f"{later} replicas where there were {before}: {told}" in caplog.text
    for leaf, was in zip(jax.tree.leaves(seen[0]), params, strict=True):
        assert leaf.shape == (was.shape[0], later, *was.shape[2:])
        stay = min(before, later)
        np.testing.assert_array_equal(leaf[:, :stay], was[:, :stay])
        for a in range(before, later):
            np.testing.assert_allclose(leaf[:, a], was.mean(axis=1), rtol=1e-5, atol=1e-7)


def test_how_a_run_is_carried_out_is_no_part_of_a_result(whole):
    other = dataclasses.replace(
        ALWAYS, checkpoints_kept=1, checkpoint_seconds=5.0, seed_layout="map"
    )
    assert train(make(settings=other), whole) == train(make(), whole)


def test_one_process_at_a_time(unfinished):
    descriptor = os.open(unfinished, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(ValueError, match="another process is at work in"):
            train(make(), unfinished)
    finally:
        os.close(descriptor)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, whole, caplog):
    """Some of networks know neither locks, nor permissions, nor how to flush a folder."""

    def answering(code):
        def refused(*_):
            raise OSError(code, os.strerror(code))

        return refused

    flush, unknown = os.fsync, answering(errno.EINVAL)
    monkeypatch.setattr(fcntl, "flock", answering(errno.ENOLCK))
    monkeypatch.setattr(os, "fchmod", answering(errno.EPERM))
    monkeypatch.setattr(
        os, "fsync", lambda fd: unknown() if os.path.isdir(f"/proc/self/fd/{fd}") else flush(fd)
    )
    found, expected = train(make(), tmp_path / "run"), train(make(), whole)
    assert [row.measures for row in found] == [row.measures for row in expected]
    assert "has no locks: start no second process there" in caplog.text


def test_a_seed_that_diverges_stops_alone(tmp_path, monkeypatch, whole):
    """From outer step 6 on, seed 0's parameters are poisoned: seed 1 must not notice."""
    advance = Loop._advance

    def poisoned(self):
        if self._step == 6:
            params = jax.tree.map(lambda x: x.at[0].set(jnp.nan), self._arrays.state.params)
            self._arrays = self._arrays._replace(state=self._arrays.state._replace(params=params))
        advance(self)

    monkeypatch.setattr(loop_module, "_CALL_SECONDS", 0.0)
    monkeypatch.setattr(Loop, "_advance", poisoned)
    for _ in range(2):  # the second call reads what the first one left
        with pytest.raises(FloatingPointError) as raised:
            train(make(), tmp_path)
        message = str(raised.value)
        assert "hj: seed 0 stopped, because its loss is not finite" in message
        assert "outer step 6, inner step 0 of 5" in message
        assert "seed 1" not in message
    ill, sound = rows(tmp_path), rows(whole)
    assert [row for row in ill if row["seed"] == 1] == [row for row in sound if row["seed"] == 1]
    lost = [(row["gradients"], row["measures"]["val_error"][0]) for row in ill if row["seed"] == 0]
    assert [gradients for gradients, _ in lost] == [20, 40]
    assert lost[0][1] is not None
    assert lost[1][1] is None
    last, sound_arrays = arrays(tmp_path), arrays(whole)
    for name, array in last.items():
        assert np.isfinite(array).all(), name  # of seed 0, the last good state
        if name.startswith("state"):
            np.testing.assert_array_equal(array[1], sound_arrays[name][1], err_msg=name)


def test_callbacks_get_every_new_row(tmp_path, monkeypatch):
    first, later = [], []
    go = Loop.run
    stop = lambda self, _, progress: go(self, lambda: 15 if self.record.rows else None, progress)  # noqa: E731
    monkeypatch.setattr(Loop, "run", stop)
    with pytest.raises(Interrupted, match="asked to stop by signal 15, and did, after 20 of 60"):
        train(make(), tmp_path, callbacks=[first.append])
    monkeypatch.undo()
    found = train(make(), tmp_path, callbacks=[later.append])
    assert first + later == found
    assert len(first) == 2


def crafted(workdir, **changes):
    """Puts a newest checkpoint with another record into a run's folder, with the right digest."""
    with Checkpoints(workdir, keep=3) as checkpoints:
        found = checkpoints.restore()
        record = found.record | changes
        checkpoints.save(Checkpoint(found.step + 1, found.state, record))


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": "7"},
        {"gradients": "many"},
        {"clock": 3, "since": 1},
    ],
)
def test_a_crafted_record_is_refused(unfinished, changes):
    crafted(unfinished, **changes)
    above = set(unfinished.parent.iterdir())
    with pytest.raises(ValueError, match="the checkpoint is not one of this version of entropix"):
        train(make(), unfinished)
    assert set(unfinished.parent.iterdir()) == above


@leaves_coroutines
@pytest.mark.parametrize("row", [{"seed": "../../../escaped"}, {"run": "../../escaped"}])
def test_a_record_with_paths_in_its_rows_counts_as_damaged(unfinished, whole, row):
    with Checkpoints(unfinished) as checkpoints:
        rows = checkpoints.restore().record["rows"]
    crafted(unfinished, rows=[rows[0] | row, *rows[1:]])
    above = set(unfinished.parent.iterdir())
    with pytest.warns(UserWarning, match="outer step 13 .*is damaged"):
        train(make(), unfinished)
    assert_identical(result(unfinished), result(whole))
    assert set(unfinished.parent.iterdir()) == above
