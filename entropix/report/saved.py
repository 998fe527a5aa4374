"""Saved runs: the rows in a folder, whose they are, and whether the run is finished."""

import collections
import dataclasses
import fnmatch
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from entropix.report.series import seeds_by_state
from entropix.rows import (
    COMPLETE_FILE,
    METRICS_FILE,
    PARTS,
    Row,
    has_results,
    read_rows,
)
from entropix.run_file import (
    RUN_FILE,
    check_folder,
    differing,
    may_be_run,
    read_run_file,
    runs_inside,
)


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
    if isinstance(folders, str | pathlib.PurePath):
        raise ValueError(
            f"folders must be a list of folders of runs or of comparisons; got {folders!r}. "
            f"Write [{str(folders)!r}]."
        )
    runs = [run for folder in folders for run in _run_folders(pathlib.Path(folder).expanduser())]
    # Where nothing came of the seeds that were to be added, others may have them since.
    added = {run: [p for p in sorted(run.glob(PARTS)) if has_results(p)] for run in runs}
    return [_saved_run(part) for run in runs for part in (run, *added[run])]


def runs_beside(folder: pathlib.Path, names: Collection[str]) -> list[str]:
    """The runs in the folder of a comparison that are none of `names`."""
    return [path.name for path in runs_inside(folder) if path.name not in names]


def told_apart(runs: Sequence[SavedRun]) -> list[SavedRun]:
    """The runs, where those of one name that are different runs are called by their folders.

    Seeds of such a run in two folders are then two runs.
    """
    first: dict[str, SavedRun] = {}
    for run in runs:
        first.setdefault(run.name, run)
    several = {run.name for run in runs if differing(first[run.name].identity, run.identity)}
    return [_by_folder(run) if run.name in several else run for run in runs]


def _by_folder(run: SavedRun) -> SavedRun:
    """The run, called by its folder; its parts lie in that folder."""
    is_part = fnmatch.fnmatchcase(run.folder.name, PARTS)
    name = str(run.folder.parent if is_part else run.folder)
    return run._replace(name=name, rows=[dataclasses.replace(row, run=name) for row in run.rows])


def states(runs: Iterable[SavedRun]) -> dict[str, dict[str, list[int]]]:
    """Run -> its seeds, of all parts, by state; see `entropix.report.series.seeds_by_state`.

    A run that has no rows yet is left out.
    """
    runs = list(runs)
    rows: dict[str, list[Row]] = collections.defaultdict(list)
    for run in runs:
        rows[run.name] += run.rows
    going_on = unfinished(runs)
    return {name: seeds_by_state(of, going_on.get(name, ())) for name, of in rows.items() if of}


def unfinished(runs: Iterable[SavedRun]) -> dict[str, list[int]]:
    """Run -> its seeds, of all parts, whose rows are not all there yet."""
    found: dict[str, list[int]] = collections.defaultdict(list)
    for run in runs:
        if not run.finished:
            found[run.name] += run.seeds
    return found


def _saved_run(folder: pathlib.Path) -> SavedRun:
    """Reads a run, or one part of it."""
    told = read_run_file(folder)
    finished, measured = ((folder / name).exists() for name in (COMPLETE_FILE, METRICS_FILE))
    rows = read_rows(folder) if finished or measured else []
    for row in rows:
        if row.run != told.run or row.seed not in told.seeds:
            raise ValueError(
                f"{folder / METRICS_FILE} has a row of {row.run}, seed {row.seed}, and {RUN_FILE} "
                f"beside that file is of {told.run}, seeds {told.seeds}: the files belong to "
                "different runs. Move the folder away and run again."
            )
    rows = [dataclasses.replace(row, label=told.label) for row in rows]  # it may have changed since
    return SavedRun(
        folder, told.run, told.label, told.colour, told.seeds, told.identity, told.versions, rows,
        finished,
    )  # fmt: skip


def _run_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folder itself if it is a run's, or those of the runs of a comparison."""
    check_folder(folder)
    if (folder / RUN_FILE).exists():
        return [folder]
    runs = runs_inside(folder)
    if not runs and may_be_run(folder):
        return [folder]  # a run that has lost its file: `read_run_file` says so
    if not runs:
        raise ValueError(f"{folder} holds no run: neither {RUN_FILE} nor folders that have one.")
    try:
        order = [row.run for row in read_rows(folder)]
    except ValueError:  # none yet, or damaged: made from the rows of the runs, and made again
        order = []
    return sorted(
        runs, key=lambda path: (order.index(path.name) if path.name in order else len(order), path)
    )
