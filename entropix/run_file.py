"""The file `run.json`, in the folder of a run: whose results lie there."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from entropix.files import write_atomic
from entropix.rows import METRICS_FILE, PARTS, TABLE_FILE

RUN_FILE = "run.json"
COMPARED = ("problem", "budget", "evaluation")  # of an identity: equal in runs that are compared


class RunFile(NamedTuple):
    """What `run.json` says.

    Attributes:
      run: the run's name in its comparison.
      label: in tables and figures.
      colour: in figures; None for the next that is free.
      identity: problem, algorithm, budget, evaluation, replicas and start.
      seeds: asked for; at least one.
      versions: package -> version, of the process that began the run.
      config: that the run was made from; empty for a run that was made from Python.
    """

    run: str
    label: str
    colour: str | None
    identity: Mapping[str, Any]
    seeds: list[int]
    versions: Mapping[str, str]
    config: Mapping[str, Any]


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of JSON's types are the same; NaN is the same as NaN."""
    return one == other or json.dumps(one) == json.dumps(other)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two identities differ, with the values of both; None for what lacks.

    Example:
      >>> differing({"budget": {"gradients": 10}}, {"budget": {"gradients": 20}})
      {'budget.gradients': (10, 20)}
    """
    old, new = _fields(one), _fields(other)
    pairs = {name: (old.get(name), new.get(name)) for name in old | new}
    return {name: pair for name, pair in pairs.items() if not is_same(*pair)}


def differs_beyond_budget(fields: Iterable[str]) -> bool:
    """Whether of differing fields one is not of the budget: such a run has rows of its own."""
    return any(not field.startswith("budget.") for field in fields)


def _fields(tree: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, under dotted names."""
    if not isinstance(tree, Mapping):
        return {name: tree}
    fields: dict[str, Any] = {}
    for key, value in tree.items():
        fields |= _fields(value, f"{name}.{key}" if name else key)
    return fields


def digest_of_json(content: Any) -> str:
    """SHA-256 of what JSON can hold; of objects the order of entries does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_run_file(folder: pathlib.Path, content: RunFile) -> None:
    """Writes `run.json`, with a digest of what it says."""
    fields = content._asdict()
    fields["digest"] = _digest(fields)
    write_atomic(folder / RUN_FILE, (json.dumps(fields, indent=2) + "\n").encode())


def check_folder(folder: str | pathlib.Path) -> None:
    """Raises `ValueError` for a folder of results that there is not."""
    path = pathlib.Path(folder)
    if not path.is_dir():
        state = "is no folder" if path.exists() else "does not exist"
        raise ValueError(f"{folder} {state}. Name a folder of results, such as runs/digits/hj.")


def read_run_file(folder: str | pathlib.Path) -> RunFile:
    """Reads whose results a folder holds.

    Raises:
      ValueError: if there is no such folder, or that cannot be known, because `run.json` is
        missing, damaged or changed.
    """
    check_folder(folder)
    path = pathlib.Path(folder) / RUN_FILE
    if not path.exists():
        check_no_comparison(path.parent)
    if not path.exists() and path.with_name("config.json").exists():
        raise ValueError(
            f"{folder} holds results of version 0.1 of entropix, which this version neither "
            "continues nor reports. Choose another workdir, leave the folder out, or go on with "
            "the version that made them."
        )
    try:
        return _checked(path)
    except (OSError, ValueError, RecursionError) as error:
        why = "it is missing" if isinstance(error, FileNotFoundError) else error
        raise ValueError(
            f"{path} cannot be read ({why}), so that nobody knows which run the results in "
            f"{folder} belong to. Restore the file, leave the folder out, or choose another "
            "workdir."
        ) from error


def check_no_comparison(folder: pathlib.Path) -> None:
    """Raises `ValueError` for the folder of a comparison, in the place of that of a run."""
    if inside := runs_inside(folder):
        raise ValueError(
            f"{folder} is no folder of a run, and holds those of {len(inside)}: "
            f"{', '.join(path.name for path in inside)}. Name one of them, such as {inside[0]}."
        )


def runs_inside(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders of runs in that of a comparison; those of a run's added seeds are none."""
    if not folder.is_dir():
        return []
    parts = set(folder.glob(PARTS))
    return sorted(path for path in folder.iterdir() if path not in parts and may_be_run(path))


def may_be_run(folder: pathlib.Path) -> bool:
    """Whether a folder is that of a run, which may have lost its file but for a part's."""
    return _is_run(folder) or any(map(_is_run, folder.glob(PARTS)))


def _is_run(folder: pathlib.Path) -> bool:
    """Whether a folder has a run's files; a comparison has rows too, and a table beside them."""
    files = RUN_FILE, METRICS_FILE, TABLE_FILE
    has = {name: os.path.isfile(folder / name) for name in files}  # also where none can be read
    return has[RUN_FILE] or (has[METRICS_FILE] and not has[TABLE_FILE])


def _checked(path: pathlib.Path) -> RunFile:
    """The content, if its entries have the right types and are those that were written."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    fields: dict[str, Any] = {"colour": None, "config": {}} | content
    wrong = [name for name, kind in _TYPES.items() if not isinstance(fields.get(name), kind)]
    if "seeds" not in wrong and not (
        fields["seeds"] and all(type(seed) is int for seed in fields["seeds"])
    ):
        wrong.append("seeds")
    if "identity" not in wrong:
        parts = {name: fields["identity"].get(name) for name in COMPARED}
        wrong += [f"identity.{name}" for name, part in parts.items() if not isinstance(part, dict)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} missing or of the wrong type")
    if "digest" in content and content["digest"] != _digest(content):
        raise ValueError(
            'it was changed after it was written; if that is meant, remove its entry "digest"'
        )
    return RunFile(**{name: fields[name] for name in RunFile._fields})


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of all entries but `digest`, which keeps this."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    plain = json.loads(json.dumps(rest))  # the names of JSON's objects are strings
    return digest_of_json(plain)


_TYPES: dict[str, Any] = {
    "run": str, "label": str, "colour": str | None, "identity": dict, "seeds": list,
    "versions": dict, "config": dict,
}  # fmt: skip
