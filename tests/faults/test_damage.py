"""Folders of runs and searches with a damaged file: the same result, or one line that says no.

One byte is flipped, sixteen bytes are lost (zeros), or the rest of the file is cut off, at places
spread evenly over all bytes of all files; and every file is emptied, and is missing, once.
"""

import dataclasses
import json
import os
import shutil
import signal

import jax
import pytest
from faults.rehearsal import cases, judge, spread
from runs.survival import assert_identical, leaves_coroutines, result
from small import ALWAYS, one_run

from entropix.report import gather
from entropix.runs.loading import load
from entropix.runs.preemption import Interrupted
from entropix.runs.train import train_run
from entropix.runs.tune import tune_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("compiled_once"),
    leaves_coroutines,
]

DAMAGES = {
    "flipped": lambda old, at: old[:at] + bytes([old[at] ^ 1 << at % 8]) + old[at + 1 :],
    "lost": lambda old, at: old[:at] + bytes(len(old[at : at + 16])) + old[at + 16 :],
    "cut": lambda old, at: old[:at],
}


def make():
    settings = dataclasses.replace(ALWAYS, checkpoints_kept=2)
    return one_run("hj", budget=(30, 3), gamma_end=0.5, settings=settings)


def train(workdir, **options):
    return train_run(make(), workdir, progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    workdir = tmp_path_factory.mktemp("whole")
    train(workdir)
    return workdir


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, compiled_once):
    """Stopped after the second of three evaluations, with two checkpoints."""
    workdir, seen = tmp_path_factory.mktemp("interrupted"), []

    def stop(row):
        seen.append(row)
        if len(seen) == 4:  # of two seeds
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(workdir, callbacks=[stop])
    assert len(list((workdir / "checkpoints").iterdir())) == 2
    return workdir


def damaged(original, workdir, count):
    """Yields one damage after another, made in a fresh copy of a folder: what was done."""
    files = sorted(p.relative_to(original) for p in original.rglob("*") if p.is_file())
    places = [(file, at) for file in files for at in range((original / file).stat().st_size)]
    whole = [(file, kind) for file in files for kind in ("missing", "emptied")]
    for number, (file, at) in enumerate([*spread(whole, count), *spread(places, count)]):
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(original, workdir)
        path, kind = workdir / file, at
        if kind == "missing":
            path.unlink()
        elif kind == "emptied":
            path.write_bytes(b"")
        else:
            kind = list(DAMAGES)[number % len(DAMAGES)]
            path.write_bytes(DAMAGES[kind](path.read_bytes(), at))
        yield f"{file}, {kind} at byte {at}" if kind != at else f"{file}, {kind}"


def plain(found):
    """Rows without the clock."""
    given = [json.loads(row.to_json()) for row in found]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in given]


def test_runs_that_were_interrupted(interrupted, whole, tmp_path, counted):
    expected, workdir = result(whole), tmp_path / "run"
    found = [
        judge(told, lambda: train(workdir), lambda: assert_identical(result(workdir), expected))
        for told in damaged(interrupted, workdir, cases(3_000, 20))
    ]
    counted("damage, run continued", found)


def read(workdir):
    return plain(train(workdir))


def gathered(workdir):
    return plain(gather([workdir], report=lambda text: None))


def loaded(workdir):
    trained = load(workdir, run=make())
    return plain(trained.rows), jax.device_get(trained.params), trained.seeds


@pytest.mark.parametrize("reader", [read, gathered, loaded])
def test_runs_that_were_finished(reader, whole, tmp_path, counted):
    expected, workdir = repr(reader(whole)), tmp_path / "run"
    seen = []

    def check():
        assert repr(seen[-1]) == expected

    found = [
        judge(told, lambda: seen.append(reader(workdir)), check)
        for told in damaged(whole, workdir, cases(1_000, 20))
    ]
    counted("damage, finished run read", found)


def search(workdir):
    ranges = {"sgd": {"learning_rate": (0.01, 0.1)}}
    run = one_run("sgd", budget=(9, 1))
    return tune_runs([run], ranges, workdir, trials=3, progress=False)


def test_searches(tmp_path, counted):
    """Of a search that was interrupted the last of four trials is missing."""
    expected = search(tmp_path / "whole")
    before = tmp_path / "before"
    shutil.copytree(tmp_path / "whole", before)
    path = before / "tune_sgd.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    workdir, seen = tmp_path / "run", []

    def check():
        assert seen[-1] == expected

    found = [
        judge(told, lambda: seen.append(search(workdir)), check)
        for original in (before, tmp_path / "whole")
        for told in damaged(original, workdir, cases(200, 10))
    ]
    counted("damage, search continued", found)
