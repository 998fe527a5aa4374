"""From the text of a command line to the options of a command."""

import argparse
import difflib
from collections.abc import Mapping, Sequence

from entropix.cli.options import Parser, UsageError, parsers


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line.

    Args:
      argv: arguments without the program's name.

    Returns:
      The options of the command, and `command`, `overrides` (pairs of field and text).

    Raises:
      UsageError: for a command line that is none of ours.
      SystemExit: after --help or --version, which are answered on the standard output.
    """
    if list(argv) in ([], ["help"]):
        argv = ["--help"]
    rest, overrides = _split(argv)
    parser, of_command = parsers()
    first = rest[0] if rest else ""
    if not first.startswith("-") and first not in of_command:
        near = difflib.get_close_matches(first, of_command, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"unknown command {first!r}; known: {', '.join(of_command)}. Did you mean {near!r}?"
        )
    options, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UsageError(_unknown(unknown[0], options.command, of_command))
    if overrides and not hasattr(options, "config"):
        raise UsageError(f"{options.command} takes no --config.{overrides[0][0]}.")
    options.overrides = overrides
    return _checked(options)


def _split(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes out `--config.FIELD=VALUE` and `--config.FIELD VALUE`."""
    rest, overrides, pending = [], [], ""
    for text in argv:
        if pending and not text.startswith("--"):
            overrides.append((pending, text))
            pending = ""
        elif pending:
            break
        elif text.startswith("--config."):
            field, equals, value = text.removeprefix("--config.").partition("=")
            pending = "" if equals else field
            overrides += [(field, value)] if equals else []
        else:
            rest.append(text)
    if pending:
        raise UsageError(f"--config.{pending} needs a value: --config.{pending}=VALUE.")
    return rest, overrides


def _unknown(text: str, command: str, of_command: Mapping[str, Parser]) -> str:
    if not text.startswith("--"):
        return f"unexpected {text!r}; options are written --name=value."
    name = text.partition("=")[0]
    if name == "--write":
        return (
            "--write is gone: a search leaves its best values and all trials in tuning.md, in "
            "the folder --workdir. Copy the values that you want into the config's file."
        )
    owners = [owner for owner, parser in of_command.items() if name in parser.names]
    if owners:
        return f"{name} is an option of {', '.join(owners)}, and not of {command}."
    near = difflib.get_close_matches(name, of_command[command].names, n=1, cutoff=0.0)[0]
    return f"unknown option {name} of {command}. Did you mean {near}?"


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """What several options must be together."""
    if getattr(options, "config", "") is None:
        raise UsageError("--config=FILE is missing, for instance --config=digits.")
    if not getattr(options, "folders", ["none needed"]):
        raise UsageError(
            f"{options.command} needs folders of runs, for instance entropix {options.command} "
            "runs/digits."
        )
    if getattr(options, "processes", 1) > 1 and options.coordinator is None:
        raise UsageError(f"--processes={options.processes} needs --coordinator=HOST:PORT.")
    return options
