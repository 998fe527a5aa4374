"""Saves checkpoints over and over, and dies: for `test_checkpoints.py`.

`saver.py WORKDIR KEEP` saves until it is killed, and says what is saved; `saver.py FOLDER KEEP
EACH` dies before every change of the file system in turn, or before every second one, and so on.
"""

import os
import pathlib
import shutil
import signal
import sys

import numpy as np

from entropix.runs.checkpoint import Checkpoint, Checkpoints

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


def state(number):
    return {"x": np.full(20_000, number, np.float32), "y": {"z": np.arange(3) + number}}


def checkpoint(number):
    """Every step is saved three times, each time with more in its record."""
    return Checkpoint(number // 3, state(number), {"number": number, "rows": []})


def save_for_ever(workdir, keep):
    number = 0
    with Checkpoints(workdir, keep) as checkpoints:
        if found := checkpoints.restore():
            number = found.record["number"] + 1
        while True:
            checkpoints.save(checkpoint(number))
            print(number, flush=True)
            number += 1


def die_at(change):
    """Lets Python's own reports of what it does count down to the end."""
    left = [change]

    def report(event, arguments):
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_CREAT | os.O_TRUNC)):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(report)


def replace_once(workdir, keep, change):
    """Saves two numbers, and dies in the saves of 5, which replaces, or of 6, a new step."""
    with Checkpoints(workdir, keep) as checkpoints:
        for number in (3, 4):
            checkpoints.save(checkpoint(number))
        die_at(change)
        checkpoints.save(checkpoint(5))  # of the same step
        print(5, flush=True)
        checkpoints.save(checkpoint(6))  # of the next one
        print(6, flush=True)


def every_death(folder, keep, each):
    """Dies at changes in turn, each time in a child; says what each one had saved."""
    for change in range(1, 1000, each):
        workdir = pathlib.Path(folder) / str(change)
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.dup2(write, 1)
            replace_once(workdir, keep, change)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as said:
            saved = said.read().split()
        _, status = os.waitpid(child, 0)
        print(change, saved[-1] if saved else 4, os.waitstatus_to_exitcode(status), flush=True)
        if status == 0:
            shutil.rmtree(workdir)
            return


if __name__ == "__main__":
    if sys.argv[3:]:
        every_death(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        save_for_ever(sys.argv[1], int(sys.argv[2]))
