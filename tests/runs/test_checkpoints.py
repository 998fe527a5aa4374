"""Checkpoints under kills, full disks and forgery: the newest or the one before it is whole."""

import json
import os
import pathlib
import random
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs.saver import checkpoint, state
from runs.survival import no_file_beyond
from small import line, one_run

import entropix
from entropix.runs.arrays import digest, from_host, to_host
from entropix.runs.checkpoint import Checkpoint, Checkpoints, check_record
from entropix.runs.loading import load
from entropix.runs.train import train_run

SAVER = pathlib.Path(__file__).with_name("saver.py")


def names(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def assert_whole(workdir, oldest, keep=1):
    """Reads like a run that goes on, which is silent; returns the number found."""
    with Checkpoints(workdir) as looking:
        seen = looking.restore()
    with Checkpoints(workdir, keep) as checkpoints:
        found = checkpoints.restore()
        assert found is not None
        number = found.record["number"]
        assert number >= oldest
        assert found.step == seen.step == number // 3
        np.testing.assert_array_equal(found.state["x"], state(number)["x"])
        np.testing.assert_array_equal(found.state["y"]["z"], state(number)["y"]["z"])
        checkpoints.save(checkpoint(number + 1))
    assert names(workdir)[-1] == str((number + 1) // 3)
    assert len(names(workdir)) <= keep  # nothing unfinished is left
    return number


def every_death(tmp_path, keep, each):
    """Dies before every `each`-th change of the disk: what was saved and what is found, in pairs.

    Python reports each change before it makes it; at each in turn, a process dies.
    """
    command = [sys.executable, SAVER, tmp_path, str(keep), str(each)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    deaths = [line.split() for line in done.stdout.splitlines()]
    assert {status for _, _, status in deaths[:-1]} == {"-9"}
    assert deaths[-1][1:] == ["6", "0"]  # the last one lived
    assert len(deaths) * each > 60
    return [
        (int(saved), assert_whole(tmp_path / change, int(saved), keep))
        for change, saved, _ in deaths[:-1]
    ]


def test_death_at_any_change_of_the_disk_loses_nothing_that_was_saved(tmp_path):
    assert {(4, 4), (5, 5)} <= set(every_death(tmp_path, 1, 11))


def kill_often(tmp_path, kills, keep):
    moments, last = random.Random(keep), -1
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, SAVER, tmp_path, str(keep)], stdout=subprocess.PIPE, text=True
        )
        line = process.stdout.readline()
        assert line, "it did not start"
        time.sleep(moments.uniform(0.0, 0.3))
        process.kill()
        said, _ = process.communicate()
        last = int((line + said).split()[-1])
        with Checkpoints(tmp_path) as checkpoints:
            found = checkpoints.restore()
        assert found.record["number"] in (last, last + 1)
        np.testing.assert_array_equal(found.state["x"], state(found.record["number"])["x"])
    return last


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1, 2])
def test_many_kills_in_the_middle_of_saving(tmp_path, keep):
    assert kill_often(tmp_path, kills=20, keep=keep) > 20


def noise(number):
    """A state that cannot be compressed to fit."""
    return {"x": np.random.default_rng(number).random(50_000)}


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("step", [1, 2])  # the same one, or the next
def test_a_full_disk_leaves_the_newest(tmp_path, keep, step):
    with Checkpoints(tmp_path, keep) as checkpoints:
        checkpoints.save(Checkpoint(1, noise(0), {"rows": []}))
        message = f"of outer step {step} could not be written .*of outer step 1 is as it was"
        with no_file_beyond(4096), pytest.raises(OSError, match=message) as raised:
            checkpoints.save(Checkpoint(step, noise(1), {"rows": [{"seed": 0}]}))
        assert "\n" not in str(raised.value)
        assert names(tmp_path) == ["1"]  # what was unfinished does not take the space that lacks
        found = checkpoints.restore()
        np.testing.assert_array_equal(found.state["x"], noise(0)["x"])
        checkpoints.save(Checkpoint(step, noise(1), {"rows": [{"seed": 0}]}))
        np.testing.assert_array_equal(checkpoints.restore().state["x"], noise(1)["x"])


def test_a_first_checkpoint_that_fails_does_not_speak_of_others(tmp_path):
    with Checkpoints(tmp_path, 1) as checkpoints:
        with no_file_beyond(4096), pytest.raises(OSError, match=r"There is no earlier one\."):
            checkpoints.save(Checkpoint(1, noise(0), {"rows": []}))
        assert checkpoints.newest is None


def test_a_checkpoint_that_is_saved_is_not_said_to_be_lost(tmp_path, monkeypatch):
    def fail(path, *arguments, **options):
        raise PermissionError(1, "Operation not permitted", str(path))

    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(checkpoint(0))
        with monkeypatch.context() as patch:
            patch.setattr("entropix.runs.checkpoint.shutil.rmtree", fail)
            with pytest.warns(UserWarning, match="step 1 is saved, but an older one .* not perm"):
                checkpoints.save(checkpoint(3))
        assert checkpoints.restore().step == 1
        checkpoints.save(checkpoint(6))
    assert names(tmp_path) == ["2"]


def test_a_replacement_that_a_killed_process_left_is_the_newest(tmp_path):
    with Checkpoints(tmp_path, 2) as checkpoints:
        for number in (0, 1, 2):
            checkpoints.save(checkpoint(number))
    folder = tmp_path / "checkpoints"
    (folder / "0").rename(folder / "0.1")  # killed between the removal and the renaming
    assert assert_whole(tmp_path, 2, keep=2) == 2
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(checkpoint(4))
    assert names(tmp_path) == ["0", "1"] or names(tmp_path) == ["1"]


def test_a_damaged_replacement_gives_way_to_what_it_should_replace(tmp_path):
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(checkpoint(1))
    folder = tmp_path / "checkpoints"
    (folder / "0.1").mkdir()
    warned = pytest.warns(UserWarning, match="outer step 0 .* is damaged")
    with Checkpoints(tmp_path, 1) as checkpoints, warned:
        assert checkpoints.restore().record["number"] == 1


def test_a_reader_follows_a_run_that_replaces_what_is_being_read(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, 1) as writer, Checkpoints(tmp_path) as reader:
        writer.save(checkpoint(0))
        read, calls = Checkpoints._read, []

        def slow(self, path):
            calls.append(path.name)
            if len(calls) == 1:
                writer.save(checkpoint(1))
                raise FileNotFoundError(path)
            return read(self, path)

        monkeypatch.setattr(Checkpoints, "_read", slow)
        assert reader.restore().record["number"] == 1
        assert calls == ["0", "0"]


EVIL = [
    {"seed": "../../../evil"},
    {"seed": -1},
    {"seed": True},
    {"seed": 0.5},
    {"seed": None},
    {"algorithm": "../evil", "seed": 0},
    {"algorithm": "/evil"},
    {"algorithm": ".."},
    {"algorithm": ""},
    {"algorithm": "a\0b"},
    {"algorithm": "a" * 300},
    {"run": "a/b"},
    {"run": 5},
    "seed",
]


@pytest.mark.parametrize("row", EVIL, ids=range(len(EVIL)))
@pytest.mark.parametrize("where", ["rows", "failures"])
def test_a_crafted_record_is_refused(row, where):
    check_record({"rows": [{"algorithm": "hj", "run": "hj wide, γ = 3", "seed": 2}]})
    with pytest.raises(ValueError, match="a row"):
        check_record({where: [row]})


def test_a_crafted_checkpoint_is_damaged_however_right_its_digest(tmp_path):
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(checkpoint(0))
        checkpoints.save(checkpoint(3))
    path = tmp_path / "checkpoints" / "1" / "record" / "metadata"
    record = json.loads(path.read_text()) | {"rows": [{"seed": "x/../../../evil"}]}
    record.pop("digest")
    path.write_text(json.dumps(record | {"digest": digest(state(3), record)}))
    warned = pytest.warns(UserWarning, match="seed must be an integer >= 0; got 'x/../../../evil'")
    with Checkpoints(tmp_path, 2) as checkpoints, warned:
        assert checkpoints.restore().step == 0


def test_names_that_are_no_steps_and_links_are_left_alone(tmp_path):
    with Checkpoints(tmp_path / "run", 1) as checkpoints:
        checkpoints.save(checkpoint(0))
        folder = tmp_path / "run" / "checkpoints"
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "file").touch()
        (folder / "7").symlink_to(tmp_path / "outside")
        strange = ["007", "-1", "1e3", "2.", "3.0", "٣", "9" * 40]
        for name in strange:
            (folder / name).mkdir()
        (folder / "8").touch()
        checkpoints.save(checkpoint(3))
        assert checkpoints.restore().step == 1
    assert set(names(tmp_path / "run")) == {"1", "7", "8", *strange}
    assert os.listdir(tmp_path / "outside") == ["file"]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_parameters_of_half_precision_are_saved_and_go_on(tmp_path, dtype):
    problem = line()
    start = jax.tree.map(lambda leaf: leaf.astype(dtype), problem.init(jax.random.key(0))[0])
    problem = line(init=lambda key: (start, {"mean": jnp.zeros(3)}))
    whole, stopped = (one_run("hj", problem, budget=budget) for budget in ((40, 4), (20, 2)))
    train_run(whole, tmp_path / "whole")
    train_run(stopped, tmp_path / "stopped")
    train_run(whole, tmp_path / "stopped", fork=True)
    for found, expected in zip(*(load(tmp_path / name, run=whole).params["w"]
                                 for name in ("stopped", "whole")), strict=True):  # fmt: skip
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


def test_arrays_without_elements_are_refused_before_training(tmp_path):
    start = {"w": jnp.zeros(3), "none": jnp.zeros((0, 3))}
    loss = lambda params, state, batch, key: (jnp.sum(params["w"] ** 2), state)  # noqa: E731
    problem = line(init=lambda key: (start, ()), loss=loss, measures={})
    with pytest.raises(ValueError, match=r"must have elements.*\(0, 3\) at .*none"):
        train_run(one_run("sgd", problem), tmp_path)


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg", "threefry2x32"])
def test_keys_of_any_generator_come_back(generator):
    key = jax.random.key(3, impl=generator)
    before = entropix.entropy_sgd(0.1, 1.0, key=key).init(jnp.ones(2))
    found = from_host(before, to_host(before))
    assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda a: a.dtype, before)
    drawn = [jax.random.normal(optax.tree.get(s, "key"), (4,)) for s in (before, found)]
    np.testing.assert_array_equal(*drawn)
