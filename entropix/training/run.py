"""One algorithm, all its seeds, from config to metrics."""

import contextlib
import pathlib

from ml_collections import ConfigDict

from entropix.data import Dataset, load
from entropix.replicas import agree
from entropix.training.checkpoint import Checkpoints
from entropix.training.config import check_config, runs
from entropix.training.folder import RunFolder, claimed
from entropix.training.loop import Loop, describe
from entropix.training.metrics import Row, read_metrics
from entropix.training.preemption import Interrupted, stop_requests
from entropix.training.programs import make_programs
from entropix.training.restoring import is_lead


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    data: Dataset | None = None,
    fork: bool = False,
    progress: bool = True,
) -> list[Row]:
    """Runs one algorithm with all seeds, or continues or reads what an equal run left in `workdir`.

    A run that was killed at any moment and is started again ends bit for bit like one that was not
    (but for the clock). SIGTERM and Ctrl-C save first.

    Args:
      config: of one algorithm; see `entropix.training.config.experiment`.
      workdir: of this run. Holds `config.json`, `versions.json`, `metrics.jsonl`, TensorBoard
        events, and `checkpoints`, the last of which has the trained state.
      data: `config.dataset`, if it is loaded already.
      fork: whether to continue a run of another config, from its last checkpoint.
      progress: whether to show a progress bar.

    Returns:
      The rows of `metrics.jsonl`: one per evaluation and seed. (In a run of several processes
      only process 0 writes, and has them.)

    Raises:
      ValueError: for a config that cannot run, or a `workdir` that holds results of another
        config or is in use.
      OSError: if `workdir` cannot be written or the disk is full; the last checkpoint is intact.
      FloatingPointError: if the loss or the parameters of a seed were not finite. Such a seed stops
        at once, the others run to the end first.
      Interrupted: after a signal that asks to stop.
    """
    check_config(config)
    single = runs(config)
    if len(single) > 1:
        raise ValueError(
            f"train makes one run, and this config has {len(single)}: {', '.join(single)}. Choose "
            "an algorithm and, if it has replicas, one number of them; or use compare."
        )
    (config,) = single.values()
    folder = RunFolder(workdir, config)
    folder.check(fork)
    failures = folder.failures() if is_lead() else None
    if not agree([failures is not None])[0]:
        with claimed(folder.path) if is_lead() else contextlib.nullcontext():
            failures = _run(config, folder, data, progress)
    if failures:
        raise FloatingPointError("\n".join(describe(failure) for failure in failures))
    return read_metrics([folder.path]) if is_lead() else []


def _run(config: ConfigDict, folder: RunFolder, data: Dataset | None, progress: bool) -> list[Row]:
    """Takes the run to its end; returns the failures."""
    data = load(config.dataset, config.data_dir) if data is None else data
    programs = make_programs(config, data)
    with Checkpoints(folder.path, config.checkpoints_kept) as checkpoints:
        loop = Loop(config, data, programs, checkpoints, folder.path)
        if is_lead():
            if folder.changed():
                if loop.record["failures"]:
                    raise ValueError(
                        f"the run in {folder.path} has seeds that diverged, whose states are "
                        "behind the others': it cannot be forked. Choose another --workdir."
                    )
                checkpoints.keep_copy()  # the parent's state, whatever the fork saves
            folder.begin()
        with stop_requests() as requested:
            loop.run(requested, progress)
            if is_lead():
                folder.finish(len(loop.record["rows"]), loop.record["failures"])
            if (signum := requested()) is not None:
                raise Interrupted(f"{folder.path} is finished; asked to stop after it.", signum)
    return loop.record["failures"]
