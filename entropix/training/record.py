"""What a search found, as text: a page of tables, and the record in a config file's header."""

import ast
import pathlib
import re
import textwrap
from collections.abc import Mapping, Sequence

from entropix.files import write_atomic
from entropix.training.search import SEARCHABLE
from entropix.training.trials import Trial

_MARKER = "Tuning record (`entropix tune`):"  # the line where a record begins
_WIDTH = 96  # the configs' lines have at most 100 characters
_GLUE = "\xa0"  # a space where no line is broken
_RESULTS = ("val_error", "val_loss")
_TITLES = {"val_error": "error, %", "val_loss": "loss"}

Tried = Mapping[str, Sequence[Trial]]  # algorithm -> its trials, best first


def make_page(tried: Tried, effort: str) -> str:
    """Makes `tuning.md`: the choice, then all trials of each algorithm.

    Args:
      tried: algorithm -> its trials, best first.
      effort: a sentence about what every trial cost.

    Returns:
      Markdown.
    """
    parts = ["# Tuning", effort, "## Choice", _table(_choice(tried))]
    for algorithm, trials in tried.items():
        parts += [f"## {algorithm}", _table(trials)]
    return "\n\n".join(parts) + "\n"


def make_record(tried: Tried, effort: str, command: str) -> str:
    """Makes the record for a config file's header, in lines of at most 100 characters.

    Args:
      tried: algorithm -> its trials, best first.
      effort: a sentence about what every trial cost.
      command: that ran the search.

    Returns:
      The text, beginning with the line that marks a record.
    """
    parts = [_MARKER, _wrap(command, "    "), _wrap(effort)]
    parts.append(textwrap.indent(_table(_choice(tried)), "    "))
    for algorithm, trials in tried.items():
        names = [name for name in SEARCHABLE if name in trials[0]]
        entries = []
        for trial in trials:
            values = ", ".join(f"{trial[name]:.4g}" for name in names)
            entries.append(f"{values}: {trial['val_error']:.2f};".replace(" ", _GLUE))
        lines = _wrap(" ".join(entries).rstrip(";"), "    ").replace(_GLUE, " ")
        parts.append(f"{algorithm}, best first ({', '.join(names)}: error, %):\n\n{lines}")
    return "\n\n".join(parts)


def write_record(path: str | pathlib.Path, record: str) -> None:
    """Puts a record at the end of a config file's docstring, in place of an older one.

    An older record reaches to the end of the docstring. The rest of the file stays as it is, byte
    for byte, and the file is replaced as a whole.

    Args:
      path: of the config file.
      record: made by `make_record`.

    Raises:
      ValueError: if the file does not begin with a docstring in three double quotes, or the
        record cannot stand in one.
    """
    if '"""' in record or "\\" in record:
        raise ValueError(
            f"the record cannot stand in the docstring of {path}: it holds quotes or backslashes. "
            "Run `entropix tune` with a --config path that has none."
        )
    before, header, after = split_header(path)
    kept = re.split(b"^" + re.escape(_MARKER.encode()), header, maxsplit=1, flags=re.M)[0]
    newline = b"\r\n" if b"\r\n" in before + header + after else b"\n"
    text = newline.join(record.encode().splitlines())
    content = before + kept.rstrip() + 2 * newline + text + newline + after
    write_atomic(path, content)


def split_header(path: str | pathlib.Path) -> tuple[bytes, bytes, bytes]:
    """Splits a config file around the text of its docstring.

    Args:
      path: of the file.

    Returns:
      What comes before the text, the text, and what comes after it: the whole file.

    Raises:
      ValueError: if the file does not begin with a docstring in three double quotes.
    """
    content = pathlib.Path(path).read_bytes()
    body = ast.parse(content).body
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        lines = content.splitlines(keepends=True)
        start = sum(map(len, lines[: first.lineno - 1])) + first.col_offset
        end = sum(map(len, lines[: (first.end_lineno or 1) - 1])) + (first.end_col_offset or 0)
        quoted = re.fullmatch(rb'([rR]?""")(.*)"""', content[start:end], flags=re.S)
        if quoted and b'"""' not in quoted[2]:
            return content[: start + quoted.end(1)], quoted[2], content[end - 3 :]
    raise ValueError(
        f"a tuning record needs a file that begins with a docstring in three double quotes; "
        f'{path} does not. Begin it with a line such as """My experiment."""'
    )


def read_choice(path: str | pathlib.Path) -> dict[str, dict[str, float]]:
    """Reads the choice back from the record in a config file.

    Args:
      path: of the config file.

    Returns:
      Algorithm -> option -> chosen value; empty if there is no record.

    Raises:
      ValueError: if the file has no docstring.

    Example:
      >>> import tempfile
      >>> tried = {"sgd": [{"learning_rate": 0.5, "val_error": 2.0, "val_loss": 0.1}]}
      >>> with tempfile.NamedTemporaryFile(suffix=".py") as file:
      ...   _ = pathlib.Path(file.name).write_text("Mine.".join(2 * [3 * '"']))
      ...   write_record(file.name, make_record(tried, "1 trial.", "entropix tune"))
      ...   read_choice(file.name)
      {'sgd': {'learning_rate': 0.5}}
    """
    _, _, record = split_header(path)[1].decode().partition(_MARKER)
    rows = []
    for line in record.splitlines():
        if line.strip().startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    if not rows:
        return {}
    titles, _, *choices = rows
    return {
        row[0]: {
            title: float(cell)
            for title, cell in zip(titles, row, strict=True)
            if title in SEARCHABLE and cell
        }
        for row in choices
    }


def _choice(tried: Tried) -> list[dict[str, float | str]]:
    return [{"algorithm": algorithm, **trials[0]} for algorithm, trials in tried.items()]


def _table(rows: Sequence[Mapping[str, float | str]]) -> str:
    """A Markdown table with aligned columns; options that a row lacks stay empty."""
    found = {name for row in rows for name in row}
    order = ("algorithm", *SEARCHABLE, *_RESULTS)
    names = [name for name in order if name in found]
    formats = {"val_error": ".2f"}
    cells = [[_TITLES.get(name, name) for name in names]]
    for row in rows:
        cells.append([_cell(row.get(name, ""), formats.get(name, ".4g")) for name in names])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = []
    for row_cells in cells:
        padded = (cell.ljust(width) for cell, width in zip(row_cells, widths, strict=True))
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def _cell(value: float | str, form: str) -> str:
    return value if isinstance(value, str) else f"{value:{form}}"


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
