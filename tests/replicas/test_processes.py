"""Several processes: they meet, agree, and none outlives another by more than a moment."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest
from processes import ended, free_port

from entropix import replicas
from entropix.replicas.processes import LOST

WORKER = pathlib.Path(__file__).with_name("worker.py")


def start(port, process, processes=2, steps=1000, pause=0.01):
    arguments = map(str, (port, processes, process, steps, pause))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    return subprocess.Popen(
        [sys.executable, WORKER, *arguments], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_they_meet_in_any_order_and_end_together():
    port = free_port()
    second = start(port, 1, steps=5)
    time.sleep(1.0)
    first = start(port, 0, steps=5)
    for worker in (first, second):
        status, out, err = ended(worker, 60)
        assert status == 0, err
        assert "mean 6.0\n" in out  # of 0 ... 7, and five times 0.5


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_ends_with_a_clear_error(victim):
    port = free_port()
    workers = [start(port, process) for process in (0, 1)]
    while "step 5" not in workers[victim].stdout.readline():
        assert workers[victim].poll() is None
    workers[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    status, _, err = ended(workers[1 - victim], seconds=20)
    assert time.monotonic() - killed < 10
    assert status == LOST, err
    assert f"process {victim} has ended before its work was done" in err
    assert "continues from its last checkpoint" in err
    ended(workers[victim], 60)


@pytest.mark.parametrize("process", [0, 1])
def test_one_that_stays_alone_says_who_is_missing(process):
    status, _, err = ended(start(free_port(), process), seconds=40)
    assert status == 1
    assert ("1 did not come to" if process == 0 else "did not find all the others") in err
    assert "within 10 s" in err


def join(address, processes, process):
    with replicas.connected(address, processes, process, timeout=2):
        pass


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match=f"cannot listen at 127.0.0.1:{port} .*free port"):
            join(f"127.0.0.1:{port}", 2, 0)


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":80", "localhost:http", "a:99999"])
def test_addresses_are_checked(address):
    with pytest.raises(ValueError, match="coordinator must be HOST:PORT"):
        join(address, 2, 0)


def test_numbers_are_checked():
    with pytest.raises(ValueError, match="got process=2 of 2"):
        join("localhost:80", 2, 2)
