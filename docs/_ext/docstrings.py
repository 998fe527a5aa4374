"""Docstrings on the site: equations in words hold bars and asterisks that are no markup there."""

import re
from typing import Any

MATH = re.compile(r"^(\s*)\.\. math::")


def escape(lines: list[str]) -> None:
    """Escapes `|` and `*` in text, outside of equations, examples and literals."""
    margin = None
    for n, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if found := MATH.match(line):
            margin = len(found.group(1))
        elif margin is not None and line.strip() and indent <= margin:
            margin = None
        if margin is None and not line.lstrip().startswith((">>>", "...")):
            lines[n] = _escape_text(line)


def _escape_text(line: str) -> str:
    """The line with escaped bars, and asterisks that begin no emphasis; backticks stay."""
    parts = re.split(r"(``.*?``|:math:`.*?`|`.*?`_?)", line)
    return "".join(part if n % 2 else _escape_words(part) for n, part in enumerate(parts))


def _escape_words(text: str) -> str:
    text = re.sub(r"(?<=\()\*+(?=\w)|(?<!\S)\*+(?=[\s,])", lambda m: r"\*" * len(m[0]), text)
    return text.replace("|", r"\|").replace("_ ", r"\_ ")


def setup(app: Any) -> dict[str, Any]:
    """Registers the handler with Sphinx."""
    app.connect(
        "autodoc-process-docstring",
        lambda app, what, name, obj, options, lines: escape(lines),
        priority=400,
    )
    return {"parallel_read_safe": True}
