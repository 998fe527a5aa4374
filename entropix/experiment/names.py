"""Names that a person types, checked against those that are known."""

import difflib
from collections.abc import Iterable


def check_name(kind: str, name: str | None, known: Iterable[str]) -> None:
    """Raises `ValueError` unless `name` is known, naming the nearest that is."""
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown {kind} {name!r}; known: {', '.join(known)}. Did you mean {near!r}?"
        )


def check_options(kind: str, given: dict, known: Iterable[str]) -> dict:
    """Returns `given`; raises `ValueError` for an option that is not known."""
    for name in given:
        check_name(f"option of {kind}", name, known)
    return given
