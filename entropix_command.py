"""The command `entropix`, from before its first import: Ctrl-C is answered in one line, always."""

import sys


def main() -> int:
    """Runs the command line; see `entropix.cli.main`."""
    try:
        from entropix.cli import main as run
    except KeyboardInterrupt:
        print("entropix: stopped by Ctrl-C.", file=sys.stderr)
        return 130
    return run()
