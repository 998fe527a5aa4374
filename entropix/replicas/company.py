"""The connections between the processes of one run: words exchanged, and deaths noticed."""

import contextlib
import logging
import os
import queue
import sys
import threading
import time
from typing import Any

from entropix.replicas.meeting import Line

_log = logging.getLogger(__name__)

LOST = 76  # exit status of a process that has lost another
FAREWELL = "farewell"
_MOMENT = 1.0  # seconds


def leave(status: int) -> None:
    """Ends a process whose work failed: JAX's own farewell would wait for the others.

    Standard output and standard error are flushed. The process then ends at once: no exception
    is raised, and no exit handler runs.

    Args:
      status: the exit status, 0 to 255; not 0 for a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Company:
    """The processes that this one is connected to: all, for process 0; process 0, for others."""

    def __init__(self, process: int, lines: dict[int, Line], timeout: float):
        self.timeout, self.parted = timeout, False
        self._process, self._lines = process, lines
        self._messages = {name: queue.SimpleQueue[dict[str, Any]]() for name in lines}
        self._ending = threading.Event()
        self._watches = [
            threading.Thread(target=self._watch, args=(n,), daemon=True) for n in lines
        ]
        for watch in self._watches:
            watch.start()

    def exchange(self, kind: str, content: str, seconds: float) -> list[str]:
        """Returns what every process says, by its number. Raises `ConnectionError` if late."""
        deadline = time.monotonic() + seconds
        if self._process == 0:
            said = [content, *(self._next(n, kind, deadline)["said"] for n in sorted(self._lines))]
            self._tell(kind, said)
            return said
        self._tell(kind, content)
        return self._next(0, kind, deadline + _MOMENT)["said"]

    def part(self, seconds: float) -> None:
        """Says farewell, and waits for that of the others."""
        self.parted = True
        try:
            self.exchange(FAREWELL, "", seconds)
        except ConnectionError as error:
            _log.warning("%s; process %d does not wait any longer", error, self._process)
            self._tell(FAREWELL, "")

    def settle(self) -> None:
        """Waits a moment for watches, which end this process if another has died."""
        for watch in self._watches:
            watch.join(_MOMENT)

    def close(self) -> None:
        """Ends the connections."""
        self._ending.set()
        for line in self._lines.values():
            line.close()

    def _tell(self, kind: str, said: Any) -> None:
        for line in self._lines.values():
            with contextlib.suppress(OSError):  # that process has died: its watch knows
                line.send(kind=kind, said=said)

    def _next(self, process: int, kind: str, deadline: float) -> dict[str, Any]:
        try:
            message = self._messages[process].get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ConnectionError(f"process {process} has not come to its {kind} in time") from None
        if message["kind"] != kind:
            raise ConnectionError(f"process {process} is at its {message['kind']}, not its {kind}")
        return message

    def _watch(self, process: int) -> None:
        """Passes on what another process says; ends this one if that one ends without farewell."""
        line, message = self._lines[process], None
        with contextlib.suppress(OSError, ValueError):
            while (message := line.receive()) is not None:
                self._messages[process].put(message)
                if message["kind"] == FAREWELL:
                    return
        if self._ending.is_set():
            return
        print(
            f"entropix: process {process} has ended before its work was done, so process "
            f"{self._process} ends too. Start all of them again with the same commands: a run "
            "continues from its last checkpoint.",
            file=sys.stderr,
        )
        leave(LOST)
