"""Names that a person types, checked against those that are known."""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any

from entropix.rows import FIGURE_FILE, METRICS_FILE, PARTS, TABLE_FILE
from entropix.run_file import RUN_FILE
from entropix.transforms.checks import refusal, shown

MOST_OF_A_NAME = 200
"""Bytes, in UTF-8, of a name that becomes that of a file: systems allow 255, with what is added."""
_BESIDE = METRICS_FILE, TABLE_FILE, RUN_FILE, FIGURE_FILE  # in the folder of a comparison
# What options are often called elsewhere.
_ELSEWHERE = {"lr": "learning_rate", "wd": "weight_decay", "L": "num_steps", "T": "temperature"}


def is_file_name(name: Any) -> bool:
    """Whether a name may become that of a file in any folder."""
    plain = r"(?!\.)[^/\\\0]+"
    return isinstance(name, str) and re.fullmatch(plain, name) is not None and is_short(name)


def is_short(name: str) -> bool:
    """Whether a name is no longer than that of a file may be."""
    return len(name.encode(errors="surrogatepass")) <= MOST_OF_A_NAME


def check_file_name(kind: str, name: Any) -> str:
    """Returns a name that may become that of a file in any folder."""
    if not is_file_name(name):
        accepted = f"1 to {MOST_OF_A_NAME} bytes in UTF-8, without / and \\, no dot first"
        raise ValueError(f"{kind} must have {accepted}; got {shown(name)}.")
    return name


def folder_name(kind: str, name: str) -> str:
    """A name as that of a folder: letters and digits, all else as "_"."""
    kept = "".join(c if c.isalnum() or c in "_-." else "_" for c in str(name)).strip("._")
    if not kept or not is_short(kept):
        accepted = f"called by a name with letters or digits, of {MOST_OF_A_NAME} bytes at most"
        raise refusal(kind, accepted, name)
    return kept


def check_run_name(name: str) -> None:
    """Raises `ValueError` for a run's name that is that of a file or a folder beside runs."""
    if name in _BESIDE:
        accepted = f"called unlike the files of a comparison, {', '.join(_BESIDE)}"
        raise refusal("a run", accepted, name)
    if fnmatch.fnmatchcase(name, PARTS):
        accepted = f"called by a name unlike {PARTS!r}, which folders of added seeds have"
        raise refusal("a run", accepted, name)


def check_name(kind: str, name: str | None, known: Iterable[str]) -> None:
    """Raises `ValueError` unless `name` is known, with those that are, and with a near one."""
    known = list(known)
    if name not in known:
        elsewhere = _ELSEWHERE.get(str(name))
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        near = [elsewhere] if elsewhere in known else near
        hint = f" Did you mean {near[0]!r}?" if near else ""
        names = ", ".join(known) or "none"
        raise ValueError(f"unknown {kind} {shown(name)}; known: {names}.{hint}")


def check_options(kind: str, given: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Returns `given`; raises `ValueError` for an option that is not known."""
    for name in given:
        check_name(f"option of {kind}", name, known)
    return dict(given)
