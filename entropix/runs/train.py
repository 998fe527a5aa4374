"""One algorithm, all its seeds, from a `Run` to rows."""

import contextlib
import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from entropix.experiment.names import check_run_name
from entropix.experiment.run import Run
from entropix.replicas import agree, agree_on
from entropix.rows import PARTS, Row, has_results
from entropix.run_file import check_no_comparison, differs_beyond_budget, read_run_file
from entropix.runs.checkpoint import Checkpoints
from entropix.runs.folder import DIVERGED, SPENT, RunFolder, claimed
from entropix.runs.loop import Loop
from entropix.runs.preemption import Interrupted, stop_requests
from entropix.runs.progress import in_terminal
from entropix.runs.record import Failure
from entropix.runs.restoring import is_lead
from entropix.training.programs import make_programs
from entropix.transforms.checks import refusal

_log = logging.getLogger(__name__)
_LONGEST = 100  # characters of a part's name
_LOADING_SECONDS = 600.0  # that one of several processes may take longer to load than another
Callbacks = Sequence[Callable[[Row], Any]]


def train_run(
    run: Run,
    workdir: str | pathlib.Path,
    *,
    fork: bool = False,
    progress: bool | None = None,
    callbacks: Callbacks = (),
) -> list[Row]:
    """Trains a run, or continues or reads what an equal one left in `workdir`.

    A run that was killed at any moment and is started again ends bit for bit like one that was not
    (but for the clock). Signals that ask to stop save first. Seeds that a finished run has not had
    are trained in a folder of their own below it, `seeds_*`, and the others are not repeated.

    Args:
      run: what to train.
      workdir: of this run. Holds `run.json`, `metrics.jsonl`, TensorBoard events, and
        `checkpoints`, the last of which has the trained state.
      fork: whether to continue a run of another identity, from its last checkpoint.
      progress: True for a progress bar, False for a line per evaluation, None for a bar in a
        terminal and lines elsewhere.
      callbacks: called with every new `Row`, in the process that writes them.

    Returns:
      The rows of the run's seeds: one per evaluation and seed. (In a run of several processes only
      process 0 writes, and has them.)

    Raises:
      ValueError: for a `workdir` that holds results of another run or is in use.
      OSError: if `workdir` cannot be written or the disk is full; the last checkpoint is intact.
      FloatingPointError: if the loss, the parameters or a measure of a seed were not finite. Such a
        seed stops at once, the others run to the end first.
      Interrupted: after a signal that asks to stop.
    """
    check_callbacks(callbacks)
    _check_path(pathlib.Path(workdir))
    progress = in_terminal() if progress is None else progress
    same = {**run.identity, "seeds": list(run.seeds), "layout": run.settings.layout, "fork": fork}
    agree_on(same, timeout=_LOADING_SECONDS)
    rows, failures = [], []
    for folder, part in parts(run, pathlib.Path(workdir), fork):
        found = _train_part(part, folder, fork, progress, callbacks)
        rows += found[0]
        failures += found[1]
    failures = [failure for failure in failures if failure.seed in run.seeds]
    if failures:
        raise FloatingPointError("\n".join(map(str, failures)))
    return [row for row in rows if row.seed in run.seeds] if is_lead() else []


def parts(run: Run, workdir: pathlib.Path, fork: bool = False) -> list[tuple[pathlib.Path, Run]]:
    """The folders of a run, each with the seeds that it has or is to get.

    A run that was begun keeps its name, also in a folder that was renamed: all rows have one.

    Raises:
      ValueError: if one of them holds another run's results, and is not to be forked, or cannot
        be; or if a fork has other seeds than its parent.
    """
    found, changed, forked = [], False, False
    for folder in (workdir, *sorted(workdir.glob(PARTS))):
        if has_results(folder):
            saved = read_run_file(folder)
            part = dataclasses.replace(run, seeds=tuple(saved.seeds))
            contents = RunFolder(folder, part)
            if fields := contents.check(fork):
                contents.check_fork()
                changed = True
            if saved.run != run.name and not differs_beyond_budget(fields):
                part = dataclasses.replace(part, name=saved.run)  # that of its rows
            forked = forked or contents.forked()
            found.append((folder, part))
    if not found:
        check_no_comparison(workdir)
        return [(workdir, run)]
    missing = tuple(s for s in run.seeds if not any(s in part.seeds for _, part in found))
    wanted = [entry for entry in found if set(entry[1].seeds) & set(run.seeds)]
    if missing and (changed or forked):
        seeds = sorted(seed for _, part in found for seed in part.seeds)
        raise ValueError(
            f"{workdir} has seeds {seeds} to fork, or that were forked; got seeds="
            f"{list(run.seeds)}. Fork those that are there, or choose another workdir: new seeds "
            "would not begin where the others did."
        )
    if changed and len(wanted) < len(found):
        seeds = sorted(seed for _, part in found for seed in part.seeds)
        raise ValueError(
            f"{workdir} has seeds {seeds}, and a fork takes all of them: what stayed behind would "
            f"be another run of the same name. Got seeds={list(run.seeds)}; ask for all, or choose "
            "another workdir."
        )
    if missing:
        beside = dataclasses.replace(found[0][1], seeds=missing)  # of the same name
        wanted.append((workdir / _part(missing), beside))
    return wanted


def _part(seeds: Sequence[int]) -> str:
    """The name of a part's folder; of many seeds the ends and a digest, since names have limits.

    Example:
      >>> _part([3, 4]), _part(range(3, 100))
      ('seeds_3_4', 'seeds_3_to_99_8774cf6d')
    """
    name = "_".join(map(str, seeds))
    if len(name) > _LONGEST:
        name = f"{seeds[0]}_to_{seeds[-1]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"seeds_{name}"


def _check_path(workdir: pathlib.Path) -> None:
    """Raises `ValueError` for a folder whose results could not be found again."""
    check_run_name(workdir.name)
    path = workdir.resolve().as_posix()
    if "[" in path or "\\" in path:  # Orbax takes a path for a pattern, and a backslash for a slash
        way_out = ". Checkpoints below such a folder cannot be read again: choose another."
        raise refusal("workdir", "a path without '[' and without a backslash", path, way_out)


def check_callbacks(callbacks: Any) -> None:
    """Raises `ValueError` for anything but functions in a list or a tuple."""
    if not isinstance(callbacks, list | tuple) or not all(map(callable, callbacks)):
        raise refusal("callbacks", "a list of functions of a Row, such as [print]", callbacks)


def _train_part(
    run: Run, path: pathlib.Path, fork: bool, progress: bool, callbacks: Callbacks
) -> tuple[list[Row], list[Failure]]:
    """The rows and failures of one folder; trains what is missing."""
    folder = RunFolder(path, run)
    folder.check(fork)
    finished = folder.finished() if is_lead() else None
    if finished is not None:
        folder.relabel()
    if agree([finished is not None])[0]:
        return finished or ([], [])
    with claimed(path) if is_lead() else contextlib.nullcontext():
        return _run(run, folder, progress, callbacks)


def _run(
    run: Run, folder: RunFolder, progress: bool, callbacks: Callbacks
) -> tuple[list[Row], list[Failure]]:
    """Takes a run to its end."""
    _log.info("%s: compiling for %d seeds", run.name, len(run.seeds))
    programs = make_programs(run)
    with Checkpoints(folder.path, run.settings.checkpoints_kept) as checkpoints:
        loop = Loop(run, programs, checkpoints, folder.path, callbacks)
        if is_lead():
            if folder.changed():
                _begin_fork(folder, loop, checkpoints)
            folder.begin()
        with stop_requests() as requested:
            loop.run(requested, progress)
            if is_lead():
                folder.finish(loop.record.rows, loop.record.failures)
            if (signum := requested()) is not None:
                raise Interrupted(f"{folder.path} is finished; asked to stop after it.", signum)
    return loop.record.rows, loop.record.failures


def _begin_fork(folder: RunFolder, loop: Loop, checkpoints: Checkpoints) -> None:
    """Keeps the other run's state, which is the start of this one; its rows stay with it.

    Rows stay where the budget alone is another: they are the same run's.
    """
    if loop.record.failures:
        raise ValueError(f"the run in {folder.path} {DIVERGED}")
    if loop.finished:
        raise ValueError(f"the run in {folder.path} {SPENT}")
    checkpoints.keep_copy()  # the parent's state, whatever the fork saves
    if differs_beyond_budget(folder.changed()):
        loop.record.rows = []
