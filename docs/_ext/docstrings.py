"""Docstrings on the site: bars and asterisks of formulas in words are no markup."""

import re
from typing import Any

MATH = re.compile(r"^(\s*)\.\. math::")
CODE = re.compile(r"(``.*?``|:math:`.*?`|`.*?`_?)")
# A lone asterisk: after which no emphasis ends, or before a space where no list begins.
LONE = re.compile(r"(?<![\w*])\*+(?=\w)(?![^*]*[\w.,)]\*(?![\w*]))|(?<=\S )\*+(?=[\s,])")


def escape(lines: list[str]) -> None:
    """Escapes `|` and `*` in text, outside of equations and examples."""
    margin, example = None, False
    for n, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if found := MATH.match(line):
            margin = len(found.group(1))
        elif margin is not None and line.strip() and indent <= margin:
            margin = None
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if margin is None and not example:
            after = " ".join(lines[n + 1 : n + 3])
            lines[n] = _escape_text(line, after)


def _escape_text(line: str, after: str) -> str:
    """The line with escapes; what stands in backticks stays. Emphasis may end in lines `after`."""
    parts = CODE.split(line)
    for n in range(0, len(parts), 2):
        rest = "".join(parts[n + 1 :]) + " " + after
        text = parts[n] + rest
        kept = [match for match in LONE.finditer(text) if match.start() < len(parts[n])]
        for match in reversed(kept):
            stars = r"\*" * len(match[0])
            parts[n] = parts[n][: match.start()] + stars + parts[n][match.end() :]
        parts[n] = parts[n].replace("|", r"\|").replace("_ ", r"\_ ")
    return "".join(parts)


def setup(app: Any) -> dict[str, Any]:
    """Registers the handler with Sphinx, before Google's sections are read."""
    app.connect(
        "autodoc-process-docstring",
        lambda app, what, name, obj, options, lines: escape(lines),
        priority=400,
    )
    return {"parallel_read_safe": True}
