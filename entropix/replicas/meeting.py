"""How processes find each other: all call process 0, which gives each number one seat."""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

_log = logging.getLogger(__name__)

_CALLER_SECONDS = 5.0  # for a caller to say who is calling
_GREETING = 200  # bytes, at most
_PATIENCE = 1.0  # seconds of waiting before that is worth a line
_PAUSE = 0.1


class Line:
    """A connection to another process that carries one JSON object a line.

    Args:
      peer: the connected socket.
    """

    def __init__(self, peer: socket.socket):
        self._socket = peer
        self._file = peer.makefile("rb")

    def send(self, **message: Any) -> None:
        """Sends a message. Raises `OSError` if nobody can receive it."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float | None = None, limit: int = -1) -> dict[str, Any] | None:
        """Waits for a message.

        Args:
          seconds: to wait, or None to wait for ever.
          limit: bytes that a message may have; -1 for any number.

        Returns:
          The message; None if the other end was closed.

        Raises:
          OSError: if nothing came in time, or the connection broke.
          ValueError: if what came is no JSON object in one line.
        """
        self._socket.settimeout(seconds)
        text = self._file.readline(limit)
        if not text:
            return None
        message = json.loads(text) if text.endswith(b"\n") else None
        if not isinstance(message, dict):
            raise ValueError(f"{text[:20]!r} is no message")
        return message

    def is_open(self) -> bool:
        """Whether the other end is, as far as can be known without waiting."""
        self._socket.settimeout(0.0)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True  # silent, as it has to be
        except OSError:
            return False

    def close(self) -> None:
        """Ends the connection, for a thread that waits at it too."""
        with contextlib.suppress(OSError):  # the other end may be gone
            self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()


class _Seats:
    """Which processes have come to process 0. Every caller is heard in a thread of its own."""

    def __init__(self, processes: int):
        self._processes = processes
        self._taken: dict[int, Line] = {}
        self._lock = threading.Lock()
        self.turned_away: list[str] = []

    def hear(self, caller: socket.socket, address: str) -> None:
        """Gives a caller its seat, or turns it away and says why."""
        line = Line(caller)
        try:
            greeting = line.receive(_CALLER_SECONDS, _GREETING)
        except (OSError, ValueError, RecursionError):
            greeting = None
        with self._lock:
            reason = self._refusal(greeting)
            if not reason and greeting is not None:
                if left := self._taken.pop(greeting["process"], None):
                    left.close()
                self._taken[greeting["process"]] = line
                return
            self.turned_away.append(f"a caller from {address}, because {reason}")
        with contextlib.suppress(OSError):
            line.send(refused=reason)
        line.close()

    def _refusal(self, greeting: dict[str, Any] | None) -> str:
        """Why a caller gets no seat; nothing if there is no reason."""
        if greeting is None or greeting.keys() != {"process", "processes"}:
            return "it did not say which process it is"
        process, processes = greeting["process"], greeting["processes"]
        if processes != self._processes:
            return f"it was started as one of {processes!r} processes, not {self._processes}"
        if type(process) is not int or not 1 <= process < processes:
            return f"process must be one of 1 ... {self._processes - 1} there, not {process!r}"
        if process in self._taken and self._taken[process].is_open():
            return f"process {process} has come already; give each process a number of its own"
        return ""

    def missing(self) -> list[int]:
        """The processes that are not there; one that has left again is not."""
        with self._lock:
            for process in [k for k, line in self._taken.items() if not line.is_open()]:
                self._taken.pop(process).close()
            return sorted(set(range(1, self._processes)) - set(self._taken))

    def lines(self) -> dict[int, Line]:
        """The connections by process."""
        with self._lock:
            return dict(self._taken)


def host(name: str, port: int, processes: int, timeout: float) -> tuple[dict[int, Line], str]:
    """Process 0 waits for the others at an address, and tells them where JAX's service will be.

    Returns:
      The connections by process, and the address "HOST:PORT" for JAX's service to listen at.

    Raises:
      ConnectionError: if the address cannot be used, or not all processes come in time.
    """
    deadline, seats, said = time.monotonic() + timeout, _Seats(processes), False
    with _listening(name, port) as server:
        while (missing := seats.missing()) and time.monotonic() < deadline:
            if not said and time.monotonic() > deadline - timeout + _PATIENCE:
                said = True
                _log.info(
                    "process 0 of %d waits at %s:%d for %s, %d s more at most",
                    processes, name, port, _named(missing), deadline - time.monotonic(),
                )  # fmt: skip
            try:
                caller, address = server.accept()
            except TimeoutError:
                continue
            except OSError:  # a caller that has hung up already, or no file descriptor left
                time.sleep(_PAUSE)
                continue
            threading.Thread(target=seats.hear, args=(caller, address[0]), daemon=True).start()
        where = server.getsockname()[0]
    lines = seats.lines()
    if missing:
        turned_away = f" Turned away: {'; '.join(seats.turned_away[-3:])}."
        reason = (
            f"of {processes} processes, {_named(missing)} had not joined at {name}:{port} after "
            f"{timeout:g} s. Start all of them within that time."
        ) + (turned_away if seats.turned_away else "")
        for line in lines.values():
            with contextlib.suppress(OSError):
                line.send(refused=reason)
            line.close()
        raise ConnectionError(reason)
    with _listening(name, 0) as free:
        service = free.getsockname()[1]
    for line in lines.values():
        line.send(service=service)
    return lines, f"[{where}]:{service}" if ":" in where else f"{where}:{service}"


def join(name: str, port: int, processes: int, process: int, timeout: float) -> tuple[Line, int]:
    """Every other process goes to process 0, which may come later, and waits there.

    Returns:
      The connection, and the port of JAX's service.

    Raises:
      ConnectionError: if process 0 does not come in time, or refuses this process.
    """
    deadline, said = time.monotonic() + timeout, False
    this_process = f"process {process} of {processes}"
    while True:
        line = answer = None
        try:
            line = Line(socket.create_connection((name, port), timeout=_CALLER_SECONDS))
            line.send(process=process, processes=processes)
            # Longer than process 0 waits for the others, if both began at once: it speaks first.
            answer = line.receive(max(0.0, deadline - time.monotonic()) + 2.0)
            reason = "process 0 has ended"
        except OSError as error:
            reason = str(error)
        except ValueError:
            answer = {"refused": "what listens there is no process of entropix"}
        if line and answer and "service" in answer:
            return line, int(answer["service"])
        if line:
            line.close()
        if answer:
            reason = answer.get("refused", "it did not say why")
            raise ConnectionError(f"{this_process} was turned away at {name}:{port}: {reason}")
        left = deadline - time.monotonic()
        if left <= 0:
            raise ConnectionError(
                f"{this_process} found no process 0 at {name}:{port} within {timeout:g} s "
                f"({reason}). Start all of them within that time, with the same coordinator."
            )
        if not said:
            said = True
            _log.info(
                "%s waits for process 0 at %s:%d, %d s at most", this_process, name, port, left
            )
        time.sleep(_PAUSE)


@contextlib.contextmanager
def _listening(name: str, port: int) -> Iterator[socket.socket]:
    """A server at this host's address alone, not at those of its other network interfaces."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        server = socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise ConnectionError(
            f"process 0 cannot listen at {name}:{port} ({error.strerror}). Choose an address of "
            "this machine and a free port, the same for all processes."
        ) from error
    with server:
        server.settimeout(_PAUSE)
        yield server


def _named(processes: list[int]) -> str:
    return f"process{'es' if len(processes) > 1 else ''} {', '.join(map(str, processes))}"
