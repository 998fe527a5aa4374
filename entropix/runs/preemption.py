"""Being asked to stop: the signals that precede a kill become a question the loop can ask."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Interrupted(Exception):  # noqa: N818  it is no error: the state is saved
    """A run was asked to stop, saved its state, and did.

    Attributes:
      signum: the signal.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], int | None]]:
    """Within the context, SIGTERM and SIGINT (Ctrl-C) are noted instead of obeyed at once.

    A scheduler that preempts a job sends SIGTERM some seconds before SIGKILL: time to save. A
    second Ctrl-C interrupts as ever. Outside the main thread Python handles no signals, and the
    question is always answered with None.

    Yields:
      `requested() -> signal number or None`.

    Example:
      >>> import os
      >>> with stop_requests() as requested:
      ...   os.kill(os.getpid(), signal.SIGTERM)
      ...   requested() == signal.SIGTERM
      True
    """
    noted: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if noted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(signum)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: noted[0] if noted else None
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
