"""Several processes: they meet, agree, part, and none outlives another by more than a moment."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import ended, free_port

from entropix import replicas
from entropix.replicas.processes import LOST

WORKER = pathlib.Path(__file__).with_name("worker.py")


def start(port, process, *arguments, processes=2, task="count", **environment):
    arguments = map(str, (task, port, processes, process, *arguments))
    environment |= os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    return subprocess.Popen(
        [sys.executable, WORKER, *arguments], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def pair(*arguments, task):
    port = free_port()
    return [start(port, process, *arguments, task=task) for process in (0, 1)]


def reaches(worker, word):
    """Reads what a worker says until it says this."""
    while word not in (line := worker.stdout.readline()):
        assert line or worker.poll() is None, worker.communicate()


def test_they_meet_in_any_order_and_end_together():
    port = free_port()
    second = start(port, 1, 5, 0.01)
    time.sleep(1.0)
    first = start(port, 0, 5, 0.01)
    for worker in (first, second):
        status, out, err = ended(worker, 60)
        assert status == 0, err
        assert "mean 6.0\n" in out  # of 0 ... 7, and five times 0.5


def test_the_program_of_the_page_runs(tmp_path):
    page = pathlib.Path(__file__).parents[2] / "docs" / "processes.md"
    (program,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    (tmp_path / "train.py").write_text(program)
    address, environment = f"127.0.0.1:{free_port()}", os.environ | {"JAX_PLATFORMS": "cpu"}
    workers = [
        subprocess.Popen(
            [sys.executable, "train.py", address, str(process)], cwd=tmp_path, text=True,
            env=environment | {"JAX_NUM_CPU_DEVICES": "2"}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for process in (0, 1)
    ]  # fmt: skip
    for worker in workers:
        status, _, err = ended(worker, 60)
        assert status == 0, err
    # The mean of the four targets is the minimum of the mean loss.
    np.testing.assert_allclose(np.load(tmp_path / "weights.npy"), [3.0, 4.0], atol=1e-3)


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_ends_with_a_clear_error(victim):
    workers = pair(1000, 0.01, task="count")
    reaches(workers[victim], "step 5")
    workers[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    status, _, err = ended(workers[1 - victim], seconds=20)
    assert time.monotonic() - killed < 10
    assert status == LOST, err
    assert f"process {victim} has ended before its work was done" in err
    assert "continues from its last checkpoint" in err
    ended(workers[victim], 60)


def test_a_failure_that_comes_before_the_news_of_a_death_is_explained_by_that():
    """JAX raises a ValueError where a collective fails while a result is fetched."""
    first, second = pair(task="fail")
    status, _, err = ended(second, 20)
    assert status == LOST, err
    assert "process 0 has ended before its work was done" in err
    assert "Gloo" not in err
    assert ended(first, 20)[0] == -signal.SIGKILL


@pytest.mark.parametrize("trial", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(8))])
def test_a_request_to_stop_both_does_not_end_the_one_that_saves(trial, tmp_path):
    """The other has nothing to save and is done at once; saving takes two seconds."""
    workers = pair(tmp_path / "saved", 2.0, "farewell", task="save")
    for worker in workers:
        reaches(worker, "ready")
    for worker in workers[:: 1 if trial % 2 else -1]:
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.05 * trial)
    for worker in workers:
        status, out, err = ended(worker, 60)
        assert status == 143, err
        assert "stopped" in out
        assert "has ended before" not in err
    assert (tmp_path / "saved").read_text() == "whole"


@pytest.mark.slow
def test_without_a_farewell_leaving_is_dying(tmp_path):
    """What the test above would see if a farewell did nothing."""
    workers = pair(tmp_path / "saved", 5.0, "none", task="save")
    for worker in workers:
        reaches(worker, "ready")
        worker.send_signal(signal.SIGTERM)
    status, _, err = ended(workers[0], 60)
    assert status == LOST
    assert "process 1 has ended before its work was done" in err
    assert ended(workers[1], 60)[0] == 143
    assert not (tmp_path / "saved").exists()


@pytest.mark.slow
def test_a_killed_writer_is_still_noticed_by_who_waits_at_the_farewell(tmp_path):
    workers = pair(tmp_path / "saved", 30.0, "farewell", task="save")
    for worker in workers:
        reaches(worker, "ready")
        worker.send_signal(signal.SIGTERM)
    reaches(workers[0], "saving")
    time.sleep(0.5)
    workers[0].kill()
    status, _, err = ended(workers[1], 20)
    assert status == LOST
    assert "process 0 has ended before its work was done" in err
    ended(workers[0], 20)


@pytest.mark.slow
def test_a_farewell_does_not_wait_for_ever():
    first, second = pair(1.0, task="part")
    status, out, err = ended(first, 60)
    assert status == 0
    assert "process 1 has not come to its farewell in time; process 0 does not wait" in err
    assert 0.5 < float(out.split()[1]) < 2.5
    ended(second, 60)


ONE = {"seeds": 2, "model": {"name": "mlp", "widths": [16, 16]}, "threshold": float("nan")}
OTHER = {"seeds": 3, "model": {"name": "mlp", "widths": [32]}, "threshold": float("nan")}


@pytest.mark.slow
def test_equal_identities_go_on():
    backwards = dict(reversed(ONE.items()))
    for worker in pair(json.dumps(ONE), json.dumps(backwards), task="identify"):
        status, out, err = ended(worker, 60)
        assert (status, out) == (0, "alike\n"), err


def test_different_identities_are_one_sentence_in_all_processes():
    identities, port = [json.dumps(ONE), json.dumps(ONE), json.dumps(OTHER)], free_port()
    workers = [start(port, k, *identities, processes=3, task="identify") for k in range(3)]
    ends = [ended(worker, 60) for worker in workers]
    said = {line for _, _, err in ends for line in err.splitlines() if "ValueError" in line}
    assert said == {
        "ValueError: process 0 and process 2 were not started alike: they differ in model.widths "
        "([16, 16] and [32]), seeds (2 and 3); start all with the same command, but for the "
        "process's number."
    }
    assert [status for status, _, _ in ends] == [2, 2, 2]
    assert not any(out == "alike\n" for _, out, _ in ends)


@pytest.mark.slow
def test_one_that_does_not_say_what_it_is_keeps_nobody_waiting():
    port = free_port()
    first, second = (start(port, 0, "{}", task="identify"), start(port, 1, task="terminated"))
    status, _, err = ended(first, 60)
    assert status == 2
    assert "process 1 has not come to its identity in time" in err
    second.kill()
    ended(second, 20)


def test_a_kill_that_nothing_handles_ends_a_process():
    """JAX's own handler would note the signal and go on."""
    first, second = pair(task="terminated")
    for worker in (first, second):
        reaches(worker, "ready")
    first.send_signal(signal.SIGTERM)
    assert ended(first, 20)[0] == -signal.SIGTERM
    assert ended(second, 20)[0] == LOST


@pytest.mark.parametrize("process", [0, 1])
def test_one_that_stays_alone_says_what_it_waits_for_and_ends_in_one_line(process):
    port = free_port()
    status, _, err = ended(start(port, process, MEETING_SECONDS="3"), seconds=40)
    assert status == 2
    waits, ends = (line for line in err.splitlines() if "process " in line)
    if process == 0:
        assert f"process 0 of 2 waits at 127.0.0.1:{port} for process 1, " in waits
        assert f"of 2 processes, process 1 had not joined at 127.0.0.1:{port} after 3 s" in ends
    else:
        assert f"process 1 of 2 waits for process 0 at 127.0.0.1:{port}, 2 s at most" in waits
        assert f"process 1 of 2 found no process 0 at 127.0.0.1:{port} within 3 s" in ends
        assert "refused" in ends


def join(address, processes, process):
    with replicas.connected(address, processes, process, timeout=2):
        pass


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match=f"cannot listen at 127.0.0.1:{port} .*free port"):
            join(f"127.0.0.1:{port}", 2, 0)


@pytest.mark.parametrize(
    "address", ["localhost", "localhost:", ":80", "localhost:http", "a:99999", "a:0"]
)
def test_addresses_are_checked(address):
    with pytest.raises(ValueError, match="coordinator must be HOST:PORT"):
        join(address, 2, 0)


def test_numbers_are_checked():
    with pytest.raises(ValueError, match="got process=2 of 2"):
        join("localhost:80", 2, 2)
