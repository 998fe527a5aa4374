"""All runs of a comparison, side by side, from the same number of gradients."""

import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from entropix.experiment.run import Run
from entropix.rows import Row
from entropix.runs.train import check_callbacks, parts, train_run

_log = logging.getLogger(__name__)


def compare_runs(
    runs: Sequence[Run],
    workdir: str | pathlib.Path,
    *,
    fork: bool = False,
    progress: bool | None = None,
    callbacks: Sequence[Callable[[Row], Any]] = (),
    report: Callable[[str], Any] = print,
) -> list[Row]:
    """Trains every run.

    Each run keeps its files in a folder of its own, so that calling this again trains only what is
    missing. Seeds that diverge are reported, and missing from the table; they stop neither other
    seeds nor other algorithms.

    Args:
      runs: from `entropix.experiment.plan`.
      workdir: gets the folder `RUN` of every run.
      fork: whether to continue runs of another identity, from their last checkpoints.
      progress: see `train_run`.
      callbacks: called with every new `Row`.
      report: called with what went wrong.

    Returns:
      All rows.

    Raises:
      ValueError: if a folder holds another run's results, before anything is run.
    """
    check_callbacks(callbacks)
    workdir = pathlib.Path(workdir)
    for run in runs:
        parts(run, workdir / run.name, fork)
    _say_rounding(runs)
    rows = []
    for run in runs:
        folder = workdir / run.name
        try:
            rows += train_run(run, folder, fork=fork, progress=progress, callbacks=callbacks)
        except FloatingPointError as error:
            report(str(error))
    return rows


def _say_rounding(runs: Sequence[Run]) -> None:
    """Says which budgets are no whole number of outer steps."""
    for run in runs:
        cycle = run.method().cycle
        beyond = -run.budget.gradients % cycle
        if beyond or any(due % cycle for due in run.budget.due()):
            _log.info(
                "%s: one outer step is %d gradients; evaluations wait for the end of one, and the "
                "run takes %d gradients where %d were asked for",
                run.name, cycle, run.budget.gradients + beyond, run.budget.gradients,
            )  # fmt: skip
