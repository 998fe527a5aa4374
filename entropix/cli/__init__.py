"""The command line: parses and dispatches, nothing else.

Parsing needs the standard library alone, so that `entropix --help` works in every installation.
"""

import logging
import sys
from collections.abc import Sequence

from entropix.cli import commands
from entropix.cli.options import UsageError
from entropix.cli.parsing import parse
from entropix.runs.preemption import Interrupted, interruptible

__all__ = ["UsageError", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      argv: arguments without the program's name; those of the process by default.

    Returns:
      The exit status: 0; 2 after a message for what cannot be run, or went wrong; 128 + n after
      signal n, which asked to stop.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)  # of other packages
    logging.getLogger("entropix").setLevel(logging.INFO)
    argv = list(sys.argv[1:] if argv is None else argv)
    processes = 1
    try:
        with interruptible(argv[0] if argv else "entropix"):
            options = parse(argv)
            processes = getattr(options, "processes", 1)
            getattr(commands, options.command)(options)
        return 0
    except SystemExit as end:  # after --help and --version
        return int(end.code or 0)
    except Interrupted as stop:
        return _fail(str(stop), 128 + stop.signum, processes)
    except ModuleNotFoundError as error:
        return _fail(_missing(error), 2, processes)
    except (UsageError, ValueError, FloatingPointError, OSError) as error:
        return _fail(str(error), 2, processes)


def _fail(message: str, status: int, processes: int) -> int:
    """Says what went wrong; one process of several ends here, without the others' farewell."""
    print(f"entropix: {message}", file=sys.stderr)
    if processes > 1:
        from entropix.replicas import leave

        leave(status)
    return status


def _missing(error: ModuleNotFoundError) -> str:
    """What to install for a command whose packages are missing."""
    if str(error.name).partition(".")[0] == "entropix":
        raise error
    return (
        f"this command needs the package {error.name}, which is not installed. Install what "
        "experiments need: pip install 'entropix-jax[train]'"
    )
