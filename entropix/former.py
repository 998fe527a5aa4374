"""The names of `entropix.training` in version 0.1, answered by `entropix.experiment`."""

import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from entropix import workflow
from entropix.experiment.classification import classification
from entropix.experiment.config import make_config as experiment
from entropix.experiment.plan import check_plan, plan
from entropix.experiment.plan import check_plan as check_config
from entropix.experiment.run import Run
from entropix.report import gather, make_table
from entropix.rows import Row, read_rows
from entropix.runs.checkpoint import Checkpoint, Checkpoints
from entropix.runs.compilation import keep_compiled
from entropix.runs.metrics import MetricWriter
from entropix.runs.preemption import Interrupted
from entropix.runs.train import train_run
from entropix.runs.trials import Trial
from entropix.training.devices import spread_replicas

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Interrupted",
    "MetricWriter",
    "check_config",
    "compare",
    "experiment",
    "gather",
    "keep_compiled",
    "make_table",
    "read_metrics",
    "runs",
    "spread_replicas",
    "train",
    "tune",
]


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    data: Any = None,
    fork: bool = False,
    progress: bool = True,
) -> list[Row]:
    """`entropix.experiment.train` of a config; `data` are arrays in place of `config.dataset`."""
    if data is None:
        return workflow.train(config, workdir=workdir, fork=fork, progress=progress)
    check_plan(config)
    problem = classification(data, config.model.to_dict(), batch_size=config.batch_size)
    (run,) = plan(config, problem)
    return train_run(run, workdir, fork=fork, progress=progress)


def compare(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    fork: bool = False,
    progress: bool = True,
    report: Callable[[str], Any] = print,
) -> list[Row]:
    """`entropix.experiment.compare` of a config."""
    return workflow.compare(config, workdir=workdir, fork=fork, progress=progress, report=report)


def tune(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    trials: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, list[Trial]]:
    """`entropix.experiment.tune` of a config."""
    return workflow.tune(config, workdir=workdir, trials=trials, seed=seed, progress=progress)


def runs(config: ConfigDict) -> dict[str, Run]:
    """The runs of a config by name: `entropix.experiment.plan`."""
    return {run.name: run for run in plan(config)}


def read_metrics(folders: list[pathlib.Path]) -> list[Row]:
    """The rows of several folders, in order."""
    return [row for folder in folders for row in read_rows(folder)]
