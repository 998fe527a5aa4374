"""Names that a person types, checked against those that are known."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from entropix.transforms.checks import shown


def check_name(kind: str, name: str | None, known: Iterable[str]) -> None:
    """Raises `ValueError` unless `name` is known, naming the nearest that is."""
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {kind} {shown(name)}; known: {', '.join(known)}.{hint}")


def check_options(kind: str, given: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Returns `given`; raises `ValueError` for an option that is not known."""
    for name in given:
        check_name(f"option of {kind}", name, known)
    return dict(given)
