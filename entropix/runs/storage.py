"""How the storage library is used: by one process alone, and without tracebacks of its own."""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp


def alone() -> ocp.options.MultiprocessingOptions:
    """In a run of several processes one writes, whole arrays: the library waits for no other."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )


@contextlib.contextmanager
def without_tracebacks() -> Iterator[None]:
    """Keeps the storage library from printing the tracebacks of an error that we report ourselves.

    It logs them; and what else it was writing then reports to an event loop that it has closed, or
    logs minutes later that it has waited in vain. After an error such reports stay filtered out.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level

    def filtered(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = filtered
    try:
        yield
        sys.unraisablehook = hook
    except BaseException:
        logger.addFilter(_is_no_late_report)  # once, however often
        raise
    finally:
        logger.setLevel(level)


def _is_no_late_report(record: logging.LogRecord) -> bool:
    return "_SignalingThread" not in record.getMessage()


def first_line(error: BaseException) -> str:
    """What happened, in one line; a long one's end has the operating system's reason."""
    line = (str(error).strip().splitlines() or [""])[0]
    line = line if len(line) <= 240 else f"{line[:80]} … {line[-160:]}"
    return f"{type(error).__name__}: {line}"


def identity_of(path: pathlib.Path) -> tuple[int, int] | None:
    """Of a folder that another process may replace or remove; None if it is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns
