"""A disk that is full from any moment on: one line names what was not written, nothing is lost.

Two kinds of full disk: from its k-th change on, for every k, no file or folder can be made, opened
for writing or renamed (Python reports changes before it makes them); and no file can grow beyond so
many bytes, for sizes spread up to the largest file's (the storage library writes without Python).
Once there is space, the same command ends bit for bit like a run without a fault. No thread is left
that would keep the process from ending.
"""

import contextlib
import errno
import os
import shutil
import sys
import threading
import time

import pytest
from faults.rehearsal import FOREIGN, REFUSED, WELL, WRONG, cases, judge, spread
from runs.saver import CHANGES
from runs.survival import assert_identical, leaves_coroutines, no_file_beyond, result
from small import ALWAYS, one_run

from entropix.runs.train import train_run
from entropix.runs.tune import tune_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("compiled_once"),
    leaves_coroutines,
    # The metrics' boards complain of what they had still to write when they are collected.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

NEEDS_SPACE = CHANGES - {"os.remove", "os.rmdir", "os.truncate"}


class Disk:
    """Counts changes of files below a folder; refuses all from the k-th on if it is told to."""

    def __init__(self):
        self.folder, self.left, self.count = "", None, 0
        sys.addaudithook(self._report)  # for ever: hence one disk for all cases

    @contextlib.contextmanager
    def full(self, folder, change):
        self.folder, self.left, self.count = str(folder), change, 0
        try:
            yield
        finally:
            self.folder = ""

    def _report(self, event, arguments):
        if not self.folder or (event not in NEEDS_SPACE and event != "open"):
            return
        if not str(arguments[0]).startswith(self.folder):
            return
        if event == "open" and not arguments[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            return
        self.count += 1
        if self.left is not None and self.count >= self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[0])


@pytest.fixture(scope="module")
def disk():
    return Disk()


def train(workdir):
    train_run(
        one_run("hj", budget=(30, 3), gamma_end=0.5, settings=ALWAYS), workdir, progress=False
    )


def search(workdir):
    ranges = {"sgd": {"learning_rate": (0.01, 0.1)}}
    tune_runs([one_run("sgd", budget=(9, 1))], ranges, workdir, trials=3, progress=False)


def trials(workdir):
    return (workdir / "tune_sgd.jsonl").read_text()


def same_run(workdir, whole):
    assert_identical(result(workdir), result(whole))


def same_search(workdir, whole):
    assert trials(workdir) == trials(whole)


WORK = pytest.mark.parametrize(
    ("work", "same", "full"), [(train, same_run, 400), (search, same_search, 60)]
)


def still_waiting(before, seconds=20.0):
    """Names of new threads that a process waits for at its end, and that run on for so long."""
    others = [t for t in threading.enumerate() if t not in before and not t.daemon]
    end = time.monotonic() + seconds
    for thread in others:
        thread.join(max(0.0, end - time.monotonic()))
    return [thread.name for thread in others if thread.is_alive()]


def one_case(told, work, same, workdir, whole, limit):
    shutil.rmtree(workdir, ignore_errors=True)

    before = threading.enumerate()

    def act():
        with limit:
            work(workdir)

    case = judge(told, act, lambda: same(workdir, whole))
    if waiting := still_waiting(before):
        return case._replace(end=WRONG, told=f"{told}: {waiting} runs on")
    if case.end in (FOREIGN, WRONG):
        return case
    again = judge(told, lambda: work(workdir), lambda: same(workdir, whole))
    return (
        case
        if again.end == WELL
        else again._replace(end=WRONG if again.end == REFUSED else again.end)
    )


@WORK
def test_full_from_any_change_on(work, same, full, disk, tmp_path, counted):
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    with disk.full(whole, None):
        work(whole)
    changes = range(1, disk.count + 1)
    found = [
        one_case(f"{work.__name__}, change {k}", work, same, workdir, whole, disk.full(workdir, k))
        for k in spread(list(changes), cases(full, 10))
    ]
    counted("full disk, from any change on", found)


@WORK
def test_no_file_beyond_any_size(work, same, full, tmp_path, counted):
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    work(whole)
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    found = [
        one_case(f"{work.__name__}, {n} bytes", work, same, workdir, whole, no_file_beyond(n))
        for n in spread(list(range(largest)), cases(full, 10))
    ]
    counted("full disk, no file beyond any size", found)
