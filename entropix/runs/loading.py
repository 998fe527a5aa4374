"""A trained network back from a run's folder."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from entropix.experiment.algorithms import ALGORITHMS
from entropix.experiment.fields import FIELDS
from entropix.experiment.plan import plan
from entropix.experiment.problem import Problem
from entropix.experiment.run import Run
from entropix.report.series import seeds_by_state
from entropix.rows import PARTS, Row, has_results, read_rows
from entropix.run_file import RunFile, is_same, read_run_file
from entropix.runs.checkpoint import Checkpoints
from entropix.runs.folder import RunFolder
from entropix.runs.restoring import restore
from entropix.training.programs import make_starter
from entropix.transforms.checks import refusal

_log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """What a run has trained.

    Attributes:
      apply: `apply(params, model_state, inputs) -> outputs` in evaluation mode; None where the
        problem has no `apply`.
      params: x, of every seed along a leading axis; of one seed, without it.
      model_state: likewise; estimated at x where the problem says how.
      seeds: the seeds of that axis.
      problem: what was trained.
      config: what the run was made from; empty for a run that was not made from a config.
      identity: the run's identity.
      rows: what it measured.
    """

    apply: Callable[[Any, Any, Any], Any] | None
    params: Any
    model_state: Any
    seeds: tuple[int, ...]
    problem: Problem
    config: Mapping[str, Any]
    identity: Mapping[str, Any]
    rows: list[Row]


def load(
    folder: str | pathlib.Path,
    seed: int | None = None,
    *,
    run: Run | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Trained:
    """Gives a trained network back.

    Where the folder's `run.json` names the function that made the problem, that function is
    imported and called: load only what you trust.

    Args:
      folder: of a run, such as "runs/digits/hj".
      seed: one seed of the run; None for all that the run began with, along a leading axis. Seeds
        that were added later are in folders `seeds_*` of their own, in which one is found by its
        number.
      run: for a run that was not made from a config: the `Run`, as it was trained
        (`entropix.experiment.runs(problem, algorithms, ...)` makes it again).
      data_dir: folder of prepared data sets, for a run that was made from a config. By default the
        one that the run read or, if that is no more, the usual places (`entropix.data.load`).

    Returns:
      A `Trained`. The parameters of a seed that diverged, of which a warning tells, are those of
      the checkpoint before.

    Raises:
      ValueError: if the folder holds no run, no checkpoint, or not that seed; or if the run cannot
        be made again without `run`.

    Example:
      >>> import entropix, tempfile
      >>> experiment = entropix.experiment
      >>> problem = experiment.classification("digits", {"name": "mlp", "widths": (8,)})
      >>> budget = experiment.Budget(10, evaluations=1)
      >>> (run,) = experiment.runs(problem, {"sgd": "sgd"}, budget=budget, seeds=1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = experiment.train(problem, "sgd", budget=budget, seeds=1, workdir=folder,
      ...                          progress=False)
      ...     trained = experiment.load(folder, seed=0, run=run)
      >>> trained.seeds, len(trained.rows)
      ((0,), 1)
    """
    folder = pathlib.Path(folder).expanduser()
    for part in sorted(folder.glob(PARTS)) if seed is not None else ():
        if has_results(part) and seed in read_run_file(part).seeds:
            folder = part
    saved = read_run_file(folder)
    seeds = tuple(saved.seeds)
    if seed is not None and seed not in seeds:
        raise refusal("seed", f"one of {', '.join(map(str, seeds))}", seed)
    run = _made_again(folder, saved, data_dir) if run is None else run
    run = dataclasses.replace(run, seeds=seeds)
    RunFolder(folder, run).check(fork=False)
    starter = make_starter(run)
    with Checkpoints(folder) as checkpoints:
        found = restore(checkpoints, starter)
    if found is None:
        raise ValueError(
            f"{folder} has no checkpoint that can be read, and hence no network: rows and tables "
            "need none. Copy its folder `checkpoints` too, or train the run again in another "
            "workdir."
        )
    params, model_state = starter.points(found.state.state)
    if seed is not None:
        place = seeds.index(seed)
        params, model_state = jax.tree.map(lambda leaf: leaf[place], (params, model_state))
        seeds = (seed,)
    rows = [row for row in read_rows(folder) if row.seed in seeds]
    if diverged := seeds_by_state(rows)["diverged"]:
        _log.warning(
            "%s: diverged: seed %s; the parameters are those of the checkpoint before",
            folder, ", ".join(map(str, diverged)),
        )  # fmt: skip
    return Trained(
        run.problem.apply, params, model_state, seeds, run.problem, saved.config, saved.identity,
        rows,
    )  # fmt: skip


def _made_again(
    folder: pathlib.Path, saved: RunFile, data_dir: str | os.PathLike[str] | None
) -> Run:
    if not saved.config:
        raise ValueError(
            f"the run in {folder} was made from Python, not from a config: give load the run, as "
            "entropix.experiment.runs(problem, algorithms, budget=..., seeds=...) makes it."
        )
    config = {**FIELDS, **saved.config}  # fields that are newer than the run too
    if data_dir is not None:
        config["data_dir"] = os.fspath(data_dir)
    elif not os.path.isdir(config["data_dir"]):
        config["data_dir"] = ""
    runs: Mapping[str, Any] = {saved.run: config.get("optimizer", {})}
    if "optimizers" in config:
        config["optimizers"] = runs = _of_run(saved, config["optimizers"])
    for options in runs.values():
        _check_registered(saved.run, options)
    made = plan(ConfigDict(config))
    chosen = [run for run in made if run.name == saved.run]
    chosen = chosen or [run for run in made if is_same(run.identity, saved.identity)]
    if not chosen:
        names = ", ".join(run.name for run in made)
        raise ValueError(f"{folder} says it is run {saved.run!r}; its config has {names}.")
    return chosen[0]


def _of_run(saved: RunFile, optimizers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The run's options alone: other runs may be of algorithms that nobody has registered here."""
    name = saved.run.removesuffix(f"_p{saved.identity.get('replicas')}")
    alone = {run: options for run, options in optimizers.items() if run in (saved.run, name)}
    return alone or optimizers


def _check_registered(run: str, options: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a run of an algorithm that has no name here."""
    algorithm = options.get("algorithm")
    if algorithm not in ALGORITHMS:
        raise ValueError(
            f"the run {run!r} is of the algorithm {algorithm!r}, which is not registered. Import "
            "the file that registers it first (entropix landscape: --register=FILE)."
        )
