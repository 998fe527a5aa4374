"""Who may join a run: each number once, at one address, and strangers keep nobody waiting."""

import contextlib
import json
import socket
import threading
import time

import pytest
from processes import free_port

from entropix.replicas import meeting


class Meeting:
    """Process 0 in a thread; `end` gives the connections, or raises what it raised."""

    def __init__(self, processes=2, timeout=5.0, name="127.0.0.1"):
        self.port, self.found, self.error = free_port(), None, None

        def host():
            try:
                self.found = meeting.host(name, self.port, processes, timeout)
            except ConnectionError as error:
                self.error = error

        self._thread = threading.Thread(target=host)
        self._thread.start()
        self.processes, self.callers = processes, []

    def call(self):
        """A caller of any kind."""
        for _ in range(100):
            with contextlib.suppress(ConnectionRefusedError):
                self.callers.append(socket.create_connection(("127.0.0.1", self.port)))
                return self.callers[-1]
            time.sleep(0.02)
        pytest.fail("process 0 does not listen")

    def join(self, process, timeout=5.0):
        line, _ = meeting.join("127.0.0.1", self.port, self.processes, process, timeout)
        self.callers.append(line)

    def end(self):
        self._thread.join()
        for caller in self.callers:
            caller.close()
        if self.error:
            raise self.error
        for line in self.found[0].values():
            line.close()
        return self.found


def said(caller):
    return json.loads(caller.makefile("rb").readline())["refused"]


def test_silent_strangers_keep_nobody_waiting():
    meet, started = Meeting(timeout=20.0), time.monotonic()
    for _ in range(5):
        meet.call()
    meet.join(1)
    lines, service = meet.end()
    assert lines.keys() == {1}
    assert service.startswith("127.0.0.1:")
    assert time.monotonic() - started < meeting._CALLER_SECONDS


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00" * 100_000,
        b"1\n",
        b"[" * 150 + b"\n",
        b'{"process": 1}\n',
        b'{"process": "1", "processes": 2}\n',
        b'{"process": true, "processes": 2}\n',
        b'{"process": 2, "processes": 2}\n',
        b'{"process": 0, "processes": 2}\n',
        b'{"process": -1, "processes": 2}\n',
        b'{"process": NaN, "processes": 2}\n',
        b"\n",
    ],
)
def test_garbage_is_turned_away(garbage):
    meet = Meeting()
    caller = meet.call()
    caller.sendall(garbage)
    with contextlib.suppress(ConnectionResetError):  # hung up on before all was sent
        assert said(caller)
    meet.join(1)
    assert meet.end()[0].keys() == {1}


def test_a_number_is_given_once():
    meet = Meeting(processes=3)
    first = meet.call()
    first.sendall(b'{"process": 1, "processes": 3}\n')
    time.sleep(0.2)
    with pytest.raises(ConnectionError, match="process 1 of 3 was turned away .* has come already"):
        meet.join(1)
    meet.join(2)
    assert meet.end()[0].keys() == {1, 2}


def test_one_that_was_interrupted_may_come_again():
    meet = Meeting(processes=3)
    with meet.call() as first:
        first.sendall(b'{"process": 1, "processes": 3}\n')
        time.sleep(0.2)
    meet.callers.remove(first)
    both = [threading.Thread(target=meet.join, args=(process,)) for process in (1, 2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert meet.end()[0].keys() == {1, 2}


def test_another_number_of_processes_is_another_run():
    meet = Meeting(timeout=1.0)
    with pytest.raises(ConnectionError, match="one of 3 processes, not 2"):
        meeting.join("127.0.0.1", meet.port, 3, 1, 5.0)
    with pytest.raises(ConnectionError, match="process 1 had not .*Turned away: a caller from"):
        meet.end()


def test_who_came_hears_that_others_did_not():
    meet = Meeting(processes=3, timeout=1.0)
    with pytest.raises(ConnectionError, match="turned away .* process 2 had not joined"):
        meet.join(1)
    with pytest.raises(ConnectionError, match="process 2 had not joined"):
        meet.end()


def test_the_port_is_open_at_one_address_alone():
    meet = Meeting()
    meet.call()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", meet.port))
    meet.join(1)
    meet.end()


def test_an_address_of_another_machine_cannot_be_listened_at():
    with pytest.raises(ConnectionError, match=r"cannot listen at 192\.0\.2\.1:\d+ .*this machine"):
        meeting.host("192.0.2.1", free_port(), 2, 1.0)


def test_what_listens_there_may_be_another_program():
    def answer():
        caller, _ = other.accept()
        with caller:
            caller.sendall(b"220 mail ready\r\n")

    with socket.create_server(("127.0.0.1", 0)) as other:
        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(ConnectionError, match="what listens there is no process of entropix"):
            meeting.join("127.0.0.1", other.getsockname()[1], 2, 1, 5.0)
        answering.join()
