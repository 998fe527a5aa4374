"""From `--config=FILE:RUNS` and `--config.FIELD=VALUE` to the config of an experiment."""

import ast
import difflib
import inspect
import os
import pathlib
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

import entropix
from entropix.cli.options import UsageError
from entropix.cli.values import short
from entropix.experiment.names import check_name

_EXAMPLE = """\
from entropix.experiment import make_config


def get_config(runs=""):
    return make_config(
        dataset="digits",
        model={"name": "mlp", "widths": (128,)},
        optimizers={"sgd": {"learning_rate": 0.1}, "hj": {"learning_rate": 0.3, "gamma": 1.0}},
        algorithms=runs,
    )
"""


def read_config(given: str, overrides: Sequence[tuple[str, str]] = ()) -> ConfigDict:
    """Makes a config from the command line.

    Args:
      given: a file, or the name of a config of the package; behind a colon, what its `get_config`
        takes.
      overrides: pairs of a field, with dots, and the text of its value.

    Returns:
      The `ConfigDict`; its `name` is that of the file, unless the file says another. The file's
      folder is on Python's path from then on, last: a problem's module may lie beside the config.

    Raises:
      UsageError: for a file that is missing, cannot be executed, or has no `get_config`.
      ValueError: for an unknown field.
    """
    text, colon, argument = split(given)
    file = find(text)
    make = getattr(execute(file), "get_config", None)
    if not callable(make):
        raise UsageError(f"--config={text} has no function get_config. {_pointer()}")
    try:
        inspect.signature(make).bind(*[argument] * bool(colon))
    except (TypeError, ValueError) as error:
        what = repr(argument) if colon else "nothing"
        raise UsageError(
            f"--config={text}: its get_config cannot be called with {what}, which is what stands "
            f"behind the colon ({error})."
        ) from error
    try:
        config = make(argument) if colon else make()
    except Exception as error:
        raise UsageError(f"--config={given}: {_where(error, file)}") from error
    if not isinstance(config, ConfigDict) or "name" not in config:
        kind = type(config).__name__
        raise UsageError(f"--config={text}: get_config must return what make_config makes; got "
                         f"{kind}. {_pointer()}")  # fmt: skip
    for field, value in overrides:
        override(config, field, value)
    if config.name == "":
        config.name = "".join(c if c.isalnum() or c in "_-." else "_" for c in file.stem)
    return config


def split(given: str) -> tuple[str, str, str]:
    """The config's file or name, the colon if there is one, and what stands behind it.

    A path may have colons of its own: the file ends at the first colon before which there is a file
    or the name of a config.
    """
    places = [k for k, sign in enumerate(given) if sign == ":"]
    names = known()
    for end in (*places, len(given)):
        if given[:end] in names or os.path.isfile(os.path.expanduser(given[:end])):
            return given[:end], given[end : end + 1], given[end + 1 :]
    return given.partition(":")


def known() -> dict[str, pathlib.Path]:
    """The configs that come with the package, by name."""
    installed = pathlib.Path(entropix.__file__).parent / "configs"
    folder = installed if installed.is_dir() else installed.parent.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.py"))}


def find(text: str) -> pathlib.Path:
    """The file of a config.

    Raises:
      UsageError: if there is none.
    """
    file = pathlib.Path(os.path.expanduser(text))
    if text in known():
        return known()[text]
    try:
        if file.is_file():
            return file
        state = "is a folder" if file.is_dir() else "does not exist"
    except (OSError, ValueError):
        state = "is no path"
    near = difflib.get_close_matches(text, known(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    longest = 500  # of a path, whose end says most
    raise UsageError(f"--config={short(text, longest)}: the file {state}.{hint} {_pointer()}")


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field of a config, whose value is checked later, along with those of files.

    Args:
      config: changed in place.
      field: names with dots between.
      text: the value as Python writes it, or a bare word.

    Raises:
      ValueError: for a field that there is not, with the nearest one.
      UsageError: for a group of fields.
    """
    *groups, last = field.split(".")
    node, before = config, "config"
    for name in groups:
        check_name(f"field of {before}", name, node)
        node, before = node[name], f"{before}.{name}"
        if not isinstance(node, ConfigDict):
            raise UsageError(f"{before} has no fields; write --{before}=VALUE.")
    check_name(f"field of {before}", last, node)
    current = node[last]
    if isinstance(current, ConfigDict):
        raise UsageError(f"--config.{field} is a group of fields: {', '.join(current)}. Set those.")
    with node.ignore_type():
        node[last] = parse_value(text, current)


def parse_value(text: str, current: Any) -> Any:
    """The value that a text stands for, in place of the current one.

    Example:
      >>> parse_value("10", 1.0), parse_value("3", (3,)), parse_value("None", 0.9)
      (10.0, (3,), None)
    """
    if isinstance(current, str):
        return text
    if isinstance(current, float):
        try:
            return float(text)
        except ValueError:
            pass  # None, perhaps, or a mistake
    words = {"true": True, "false": False}
    try:
        value = words[text] if text in words else ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    if isinstance(current, float) and isinstance(value, bool):
        return text  # the config would take it for 0 or 1
    several = isinstance(current, list | tuple)
    return (value,) if several and not isinstance(value, list | tuple) else value


def execute(file: pathlib.Path, option: str = "--config") -> types.ModuleType:
    """The module of a file, which may register algorithms.

    The file's folder is on Python's path from then on, last.

    Args:
      file: to execute.
      option: that names the file, for messages.

    Raises:
      UsageError: for a file that is missing or fails.
    """
    if not file.is_file():
        raise UsageError(f"{option}={file}: there is no such file.")
    folder = str(file.parent.absolute())
    if folder not in sys.path:
        sys.path.append(folder)
    module = types.ModuleType("entropix_config")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # where dataclasses look their annotations up
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except Exception as error:
        raise UsageError(f"{option}={file}: {_where(error, file)}") from error
    return module


def _where(error: Exception, file: pathlib.Path) -> str:
    """A mistake in a config's file in one line; what our own checks say stands for itself."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    refused = isinstance(error, ValueError) and not isinstance(error, SyntaxError)
    if refused and frames[-1].filename.startswith(str(pathlib.Path(entropix.__file__).parent)):
        return text
    number = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    place = f"line {number} of the file" if number else "the file"
    return f"{place} fails: {type(error).__name__}: {text}"


def _pointer() -> str:
    """The known names, and a file to start from."""
    return f"Known by name: {', '.join(known())}. A file to start from:\n\n{_EXAMPLE}"
