"""Being asked to stop: signals become a question that a loop asks, or one line and a status.

This module needs the standard library alone, so that Ctrl-C is understood before JAX is imported.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# Ctrl-C; a kill that is announced; the warnings of batch systems (Slurm's `--signal=USR1@60`); the
# end of the terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_AGAIN = 2.0  # seconds after which a Ctrl-C that changed nothing is repeated


class Interrupted(Exception):  # noqa: N818  it is no error: what was asked for was done
    """A run was asked to stop, saved its state, and did; or work without a state was given up.

    Attributes:
      signum: the signal. The exit status of a command is 128 + signum.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(message)
        self.signum = signum


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], int | None]]:
    """Within the context, signals that ask to stop are noted instead of obeyed at once.

    They are SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP: a scheduler that preempts a job sends
    one of them some seconds before SIGKILL, which is time to save. SIGHUP stays ignored in a
    process that was started to ignore it (`nohup`). A Ctrl-C after another signal interrupts as
    ever. Outside the main thread Python handles no signals, and the answer is always None.

    Yields:
      `requested() -> signal number or None`, of the first signal.

    Example:
      >>> import os
      >>> with stop_requests() as requested:
      ...   os.kill(os.getpid(), signal.SIGUSR1)
      ...   requested() == signal.SIGUSR1
      True
    """
    noted: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if noted and signum == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(signum)

    with _handled(note, SIGNALS):
        yield lambda: noted[0] if noted else None


@contextlib.contextmanager
def interruptible(command: str) -> Iterator[None]:
    """Turns Ctrl-C, wherever it comes, into `Interrupted` with one line for the user.

    Python raises KeyboardInterrupt in whatever line is running, and libraries turn it into errors
    of their own (an import that failed, a callback that raised) or drop it. So any exception that
    leaves the context after a Ctrl-C counts as an interruption, and a Ctrl-C that changed nothing
    is repeated every two seconds. `stop_requests` inside takes precedence.

    Args:
      command: what is interrupted, for the message.

    Raises:
      Interrupted: with SIGINT, so that the exit status is 130.

    Example:
      >>> import os
      >>> try:
      ...   with interruptible("tune"):
      ...     os.kill(os.getpid(), signal.SIGINT)
      ... except Interrupted as stop:
      ...   print(stop)
      tune: stopped by Ctrl-C; what was saved before stays.
    """
    pressed, ended, hook = False, threading.Event(), sys.unraisablehook

    def dropped(what: Any) -> None:  # in a callback of C, which Python would show at length
        if what.exc_type is not KeyboardInterrupt:
            hook(what)

    def repeat() -> None:
        while not ended.wait(_AGAIN):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if not pressed:
            pressed, sys.unraisablehook = True, dropped
            threading.Thread(target=repeat, daemon=True).start()
        raise KeyboardInterrupt

    try:
        with _handled(interrupt, (signal.SIGINT,)):
            yield
    except Interrupted:
        raise
    except BaseException as error:
        if not pressed and not isinstance(error, KeyboardInterrupt):
            raise
        message = f"{command}: stopped by Ctrl-C; what was saved before stays."
        raise Interrupted(message, signal.SIGINT) from None
    finally:
        ended.set()
        if pressed:
            sys.unraisablehook = hook


@contextlib.contextmanager
def _handled(
    handler: Callable[[int, FrameType | None], None], signals: tuple[signal.Signals, ...]
) -> Iterator[None]:
    """Installs a handler for signals, and puts the earlier ones back."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in signals:
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                before[signum] = signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, earlier in before.items():
            # None stands for a handler that was not installed from Python, and cannot be put back.
            signal.signal(signum, signal.SIG_DFL if earlier is None else earlier)
