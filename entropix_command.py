"""The command `entropix`, from before its first import: Ctrl-C is one line and status 130, always.

Importing JAX takes seconds, and an extension module that is interrupted while it is imported raises
errors of its own. So does an interpreter that is interrupted while it ends.
"""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Runs the command line; see `entropix.cli.main`."""
    leave_on_ctrl_c()
    reach_current_folder()
    from entropix.cli import main as run

    status = run()
    if status:  # what failed is said; threads of libraries may wait minutes for what never comes
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def reach_current_folder() -> None:
    """Puts the current folder last on Python's path, where `python -m entropix` has it first.

    A config may name a function of a module that lies there.
    """
    if "" not in sys.path:
        sys.path.append("")


def leave_on_ctrl_c() -> None:
    """Lets Ctrl-C end the process, wherever the command has nothing that could be lost."""
    signal.signal(signal.SIGINT, _leave)


def _leave(signum: int, frame: FrameType | None) -> None:
    print("entropix: stopped by Ctrl-C.", file=sys.stderr, flush=True)
    os._exit(128 + signum)
