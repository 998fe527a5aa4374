"""Saved runs: whose rows lie in a folder, and whether the run is finished."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from entropix.rows import (
    COMPLETE_FILE,
    METRICS_FILE,
    PARTS,
    RUN_FILE,
    Row,
    check_run_digest,
    read_rows,
)

COMPARED = ("problem", "budget", "evaluation")  # of an identity: equal in runs that are compared
_TYPES: dict[str, Any] = {
    "identity": dict, "run": str, "seeds": list, "label": str,
    "colour": str | None, "versions": dict,
}  # fmt: skip


class SavedRun(NamedTuple):
    """What the folder of a run, or of a part of a run, holds.

    Attributes:
      folder: of the run.
      name: in the comparison.
      label: in tables and figures.
      colour: in figures; None for the next that is free.
      seeds: asked for.
      identity: problem, algorithm, budget, evaluation and replicas.
      versions: package -> version.
      rows: measured so far.
      finished: whether the run came to the end.
    """

    folder: pathlib.Path
    name: str
    label: str
    colour: str | None
    seeds: list[int]
    identity: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: list[Row]
    finished: bool


def read_runs(folders: Iterable[str | pathlib.Path]) -> list[SavedRun]:
    """Reads runs, each in one part or several.

    Args:
      folders: of runs or of comparisons. The runs of a comparison come in the order of its rows,
        where it has some, and then by name.

    Raises:
      ValueError: if a folder has no run, or files of a run are missing, damaged, or those of
        another run.
    """
    runs = [run for folder in folders for run in _run_folders(pathlib.Path(folder).expanduser())]
    parts = [part for run in runs for part in (run, *sorted(run.glob(PARTS))) if _is_run(part)]
    return [read_run(part) for part in parts]


def read_run(folder: pathlib.Path) -> SavedRun:
    """Reads a run, or one part of it; see `read_runs`."""
    path = folder / RUN_FILE
    content = _read_object(path)
    wrong = [name for name, kind in _TYPES.items() if not isinstance(content.get(name), kind)]
    identity: Any = content.get("identity")
    if isinstance(identity, dict):
        wrong += [
            f"identity.{name}" for name in COMPARED if not isinstance(identity.get(name), dict)
        ]
    if wrong:
        raise ValueError(_damaged(path, f"{', '.join(wrong)} missing or of the wrong type"))
    check_run_digest(path, content)
    finished, measured = ((folder / name).exists() for name in (COMPLETE_FILE, METRICS_FILE))
    rows = read_rows(folder) if finished or measured else []
    name, seeds = content["run"], content["seeds"]
    for row in rows:
        if row.run != name or row.seed not in seeds:
            raise ValueError(
                f"{folder / METRICS_FILE} has a row of {row.run}, seed {row.seed}, and {path} is "
                f"of {name}, seeds {seeds}: the files belong to different runs. Move the folder "
                "away and run again."
            )
    return SavedRun(
        folder, name, content["label"], content.get("colour"), seeds, identity,
        content["versions"], rows, finished,
    )  # fmt: skip


def _run_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folder itself if it is a run's, or those of the runs of a comparison."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder. Name folders of runs or of comparisons.")
    if (folder / RUN_FILE).exists():
        return [folder]
    parts = set(folder.glob(PARTS))
    runs = [path for path in folder.iterdir() if path not in parts and _is_run(path)]
    if not runs and (parts or _is_run(folder)):
        return [folder]  # a run that has lost its file: `read_run` says so
    if not runs:
        raise ValueError(f"{folder} holds no run: neither {RUN_FILE} nor folders that have one.")
    try:
        order = [row.run for row in read_rows(folder)]
    except ValueError:  # none yet, or damaged: made from the rows of the runs, and made again
        order = []
    return sorted(
        runs, key=lambda path: (order.index(path.name) if path.name in order else len(order), path)
    )


def _is_run(folder: pathlib.Path) -> bool:
    return any((folder / name).is_file() for name in (RUN_FILE, METRICS_FILE))


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    """The object in a file of JSON; any other content is damage."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: whose rows lie in that folder is unknown. Name folders of runs, "
            "or of comparisons with their runs inside; or run the same command again."
        ) from None
    except ValueError as error:  # no JSON, or no text
        raise ValueError(_damaged(path, str(error))) from error
    if not isinstance(content, dict):
        raise ValueError(_damaged(path, "no JSON object"))
    return content


def _damaged(path: pathlib.Path, what: str) -> str:
    return (
        f"{path} is damaged ({what}): whose rows lie in that folder is unknown. Leave the folder "
        "out, or move it away and run again."
    )
