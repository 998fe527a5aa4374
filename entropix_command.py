"""The command `entropix`, from before its first import: Ctrl-C is one line and status 130, always.

Importing JAX takes seconds, and an extension module that is interrupted while it is imported raises
errors of its own.
"""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Runs the command line; see `entropix.cli.main`."""
    before = signal.signal(signal.SIGINT, _leave)
    from entropix.cli import main as run

    signal.signal(signal.SIGINT, before)
    return run()


def _leave(signum: int, frame: FrameType | None) -> None:
    """Ends the process: nothing is begun yet that could be lost."""
    print("entropix: stopped by Ctrl-C.", file=sys.stderr, flush=True)
    os._exit(128 + signum)
