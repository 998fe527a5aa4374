"""What people call to run experiments: `train`, `compare` and `tune`, from Python or a config."""

import dataclasses
import functools
import logging
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from entropix.experiment.algorithms import Algorithm
from entropix.experiment.classification import MEASURES
from entropix.experiment.making import make_runs
from entropix.experiment.names import check_name, folder_name, is_file_name
from entropix.experiment.plan import check_entry, check_plan, entries, plan
from entropix.experiment.problem import Problem
from entropix.experiment.run import Run
from entropix.experiment.search import Ranges, check_ends, named_ranges, searched
from entropix.experiment.settings import Budget, Settings
from entropix.files import write_atomic
from entropix.report import check_workdir, gather
from entropix.report.saved import runs_beside
from entropix.report.tuning import tuning_page
from entropix.rows import Row
from entropix.runs.compare import compare_runs
from entropix.runs.train import train_run
from entropix.runs.trials import Trial
from entropix.runs.tune import at_edges, rungs, tune_runs
from entropix.transforms.checks import check_count, refusal

_log = logging.getLogger(__name__)
Callbacks = Sequence[Callable[[Row], Any]]
# What a config says, and where.
_OF_CONFIG = {
    "algorithm": "config.optimizer, by make_config(algorithms=...)",
    "algorithms": "config.optimizers, by make_config(optimizers=..., algorithms=...)",
    "budget": "config.num_evals and config.gradients_per_eval",
    "seeds": "config.seeds",
    "replicas": "config.replicas",
    "settings": "the config's fields of the settings' names, such as config.layout",
    "search": "config.search",
}


def train(
    problem: Problem | ConfigDict,
    algorithm: Any = None,
    *,
    budget: Budget | None = None,
    seeds: int | Sequence[int] | None = None,
    replicas: int | None = None,
    workdir: str | pathlib.Path | None = None,
    settings: Settings | None = None,
    fork: bool = False,
    progress: bool | None = None,
    callbacks: Callbacks = (),
) -> list[Row]:
    """Trains one algorithm on a problem, with several seeds.

    Args:
      problem: an `entropix.experiment.Problem`; or the config of one run, which says what is
        trained and how: algorithm, budget, seeds, replicas and settings are then refused.
      algorithm: an Optax transformation, an `Algorithm`, or the name of one in the registry.
      budget: of the run.
      seeds: their number, 3 by default, or the seeds.
      replicas: p, of an algorithm with replicas; 3 by default.
      workdir: folder of the run, by default `runs/PROBLEM/ALGORITHM`. Called again, a finished run
        is read, one that was interrupted is continued, and one of another identity is refused.
      settings: how the run is carried out.
      fork: whether to continue a run of another identity, from its last checkpoint.
      progress: True for a bar, False for a line per evaluation, None for a bar in a terminal and
        lines elsewhere. Lines are logged, or go to standard error where nothing is logged.
      callbacks: functions, called with every new `Row`.

    Returns:
      One `Row` per evaluation and seed.

    Raises:
      ValueError: for what cannot be run, before anything is run.
      FloatingPointError: if a seed diverged; the others were trained to the end.

    Example:
      >>> import entropix, optax, tempfile
      >>> experiment = entropix.experiment
      >>> problem = experiment.classification("digits", {"name": "mlp", "widths": (8,)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   rows = experiment.train(problem, optax.adam(1e-2), seeds=1, workdir=folder,
      ...                           budget=experiment.Budget(20, evaluations=2))
      >>> [row.gradients for row in rows], rows[-1].measures["val_error"].unit
      ([10, 20], '%')
    """
    if isinstance(problem, ConfigDict):
        _check_alone(
            algorithm=algorithm, budget=budget, seeds=seeds, replicas=replicas, settings=settings
        )
        runs = plan(problem)
        if len(runs) > 1:
            names = ", ".join(run.name for run in runs)
            raise ValueError(
                f"train makes one run, and this config has {len(runs)}: {names}. Choose an "
                "algorithm and, if it has replicas, one number of them; or use compare."
            )
    else:
        name = algorithm if isinstance(algorithm, str) else getattr(algorithm, "name", "run")
        runs = _made(problem, {name: algorithm}, budget, seeds, replicas, settings)
        if len(runs) > 1:
            way_out = ". Choose one of them, or use compare."
            raise refusal("replicas", "one number, since train makes one run", replicas, way_out)
        runs = [dataclasses.replace(run, label=run.algorithm.label) for run in runs]
    (run,) = runs
    folder = _folder(workdir, run.problem, run.name)
    return train_run(run, folder, fork=fork, progress=progress, callbacks=callbacks)


def compare(
    problem: Problem | ConfigDict,
    algorithms: Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seeds: int | Sequence[int] | None = None,
    replicas: int | Sequence[int] | None = None,
    workdir: str | pathlib.Path | None = None,
    settings: Settings | None = None,
    fork: bool = False,
    progress: bool | None = None,
    callbacks: Callbacks = (),
    report: Callable[[str], Any] = print,
) -> list[Row]:
    """Trains several algorithms on a problem, from equally many gradients, and tables the result.

    Args:
      problem: an `entropix.experiment.Problem`; or a config, which says what is trained
        and how: algorithms, budget, seeds, replicas and settings are then refused.
      algorithms: name -> an Optax transformation, an `Algorithm`, or the name of one in the
        registry. A transformation takes one gradient per update, and is evaluated at
        `entropix.eval_params` where it has a link of this package.
      budget: of every run; rounded up to whole outer steps, which is said.
      seeds: their number, 3 by default, or the seeds. More of them can be added to a finished
        comparison: those that are there are not repeated.
      replicas: p, or several, of algorithms with replicas; 3 by default.
      workdir: folder of the comparison, by default `runs/PROBLEM`; gets a folder for each run,
        `metrics.jsonl` and `table.md`. These are of the runs of the call; further runs that the
        folder holds are named, and `gather` tables all.
      settings: how runs are carried out.
      fork: whether to continue runs of another identity, from their last checkpoints.
      progress: True for bars, False for a line per evaluation, None for bars in a terminal and
        lines elsewhere. Lines are logged, or go to standard error where nothing is logged.
      callbacks: functions, called with every new `Row`.
      report: called with what went wrong, and with the finished table.

    Returns:
      All rows.

    Raises:
      ValueError: for what cannot be run, before anything is run.

    Example:
      >>> import entropix, optax, tempfile
      >>> experiment = entropix.experiment
      >>> problem = experiment.classification("digits", {"name": "mlp", "widths": (8,)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   rows = experiment.compare(
      ...     problem,
      ...     {"AdamW": optax.adamw(1e-2), "SNOO": entropix.snoo(optax.adamw(1e-2), num_steps=5),
      ...      "HJ": experiment.algorithm("hj", gamma=10.0)},
      ...     budget=experiment.Budget(gradients=20, evaluations=1), seeds=1, workdir=folder,
      ...     report=lambda text: None)
      >>> sorted({row.label for row in rows})
      ['AdamW', 'HJ', 'SNOO']
    """
    if isinstance(problem, ConfigDict):
        _check_alone(
            algorithms=algorithms, budget=budget, seeds=seeds, replicas=replicas, settings=settings
        )
        runs = plan(problem)
    else:
        runs = _made(problem, algorithms, budget, seeds, replicas, settings)
    folder = _folder(workdir, runs[0].problem)
    check_workdir(folder)
    compare_runs(runs, folder, fork=fork, progress=progress, callbacks=callbacks, report=report)
    names = [run.name for run in runs]
    rows = gather([folder / name for name in names], folder, report=report)
    if others := runs_beside(folder, names):
        quoted = shlex.quote(str(folder))
        report(
            f"{folder} holds further runs, which are not in this table: {', '.join(others)}. "
            f"`entropix report {quoted} --workdir={quoted}` makes one of all."
        )
    return rows


def tune(
    problem: Problem | ConfigDict,
    algorithms: Mapping[str, Any] | None = None,
    *,
    budget: Budget | None = None,
    seeds: int | None = None,
    replicas: int | None = None,
    search: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    trials: int = 16,
    seed: int = 0,
    objective: str | None = None,
    workdir: str | pathlib.Path | None = None,
    settings: Settings | None = None,
    progress: bool | None = None,
) -> dict[str, list[Trial]]:
    """Searches options of algorithms by successive halving, with equal effort for each.

    Args:
      problem: an `entropix.experiment.Problem`; or a config, which says what is searched
        and where: algorithms, budget, seeds, replicas, search and settings are then refused.
      algorithms: name -> an `Algorithm`, or the name of one in the registry.
      budget: of a whole run: what the last rung trains.
      seeds: of every trial, 1 by default; they are counted from 10,000 on, so that final runs
        with seeds below have not been seen.
      replicas: p, of algorithms with replicas; 3 by default.
      search: name -> option -> (low, high) where it differs from the algorithm's own ranges. Of
        those, the ones of options whose value is 0, switched off, are left out.
      trials: of every algorithm, at the first rung.
      seed: of the search.
      objective: the measure that trials are judged by, of those that the problem has; the error by
        default, if there is one. With few held-out examples many errors tie, and losses do not;
        but the loss prefers small learning rates.
      workdir: gets `tuning.md` and the trials; by default `runs/PROBLEM/tune`.
      settings: how trials are carried out.
      progress: whether to show progress bars; None for a terminal's.

    Returns:
      Name -> trials, best first; see `entropix.runs.tune.tune_runs`.

    Raises:
      ValueError: for what cannot be run, or nothing to search.

    Example:
      >>> import entropix, tempfile
      >>> experiment = entropix.experiment
      >>> problem = experiment.classification("digits", {"name": "mlp", "widths": (8,)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   tried = experiment.tune(problem, {"sgd": "sgd"}, budget=experiment.Budget(9, 1),
      ...                           trials=3, workdir=folder, progress=False)
      >>> [trial["gradients"] for trial in tried["sgd"]]
      [9.0, 3.0, 3.0, 3.0]
    """
    if isinstance(problem, ConfigDict):
        _check_alone(
            algorithms=algorithms, budget=budget, seeds=seeds, replicas=replicas, search=search,
            settings=settings,
        )  # fmt: skip
        ranges = _checked_ranges(problem, objective)
        runs = plan(problem)
    else:
        seeds = 1 if seeds is None else check_count("seeds", seeds)
        runs = _made(problem, algorithms, budget, seeds, replicas, settings)
        named = _of_search({} if search is None else search, runs)
        ranges = _ranges({run.name: run.algorithm for run in runs}, named)
    folder = _folder(workdir, runs[0].problem, "tune")
    tried = tune_runs(
        runs, ranges, folder, trials=trials, seed=seed, objective=objective, progress=progress
    )
    page = tuning_page(
        tried,
        labels={run.name: run.label for run in runs},
        edges={name: at_edges(trials[0], ranges[name]) for name, trials in tried.items()},
        effort=describe_effort(runs[0], trials, objective),
    )
    write_atomic(folder / "tuning.md", page.encode())
    if isinstance(problem, ConfigDict):
        return tried
    return {run.label: tried[run.name] for run in runs}


def _checked_ranges(config: ConfigDict, objective: str | None) -> dict[str, Ranges]:
    """Run -> option -> range, of a config; refused before anything is loaded."""
    check_plan(config)
    if objective is not None and "dataset" in config:
        check_name("objective", objective, MEASURES)
    runs = entries(config)
    algorithms = {name: algorithm for name, _, algorithm, _ in runs}
    ranges = _ranges(algorithms, _of_config(config, algorithms))
    for name, _, algorithm, p in runs:
        check = functools.partial(check_entry, config, name, p=p)
        check_ends(name, algorithm, ranges[name], check)
    return ranges


def _of_config(
    config: ConfigDict, algorithms: Mapping[str, Algorithm]
) -> dict[str, Mapping[str, Any]]:
    """Run -> the ranges that a config has for the run, or for its algorithm."""
    ranges = {name: dict(r) for name, r in config.search.to_dict().items()}
    if len(algorithms) > len(ranges):
        raise ValueError(
            f"tune searches for one number of replicas; got config.replicas={config.replicas}. "
            "Choose one, and search for another in another workdir."
        )
    return {
        run: named_ranges(algorithm, ranges.get(run) or ranges[algorithm.name])
        for run, algorithm in algorithms.items()
    }


def _of_search(search: Any, runs: Sequence[Run]) -> dict[str, Mapping[str, Any]]:
    """Run -> the ranges that a caller has named."""
    if not isinstance(search, Mapping):
        raise refusal("search", "run -> option -> (low, high)", search)
    names = {run.name: run.name for run in runs}
    names |= {run.label: run.name for run in runs}  # as they were given
    for name in search:
        check_name("run of search", name, list(names))
    return {names[name]: ranges for name, ranges in search.items()}


def _ranges(
    algorithms: Mapping[str, Algorithm], named: Mapping[str, Mapping[str, Any]]
) -> dict[str, Ranges]:
    """Run -> option -> range: those that are named, and the algorithm's others."""
    ranges = {run: searched(run, a, named.get(run, {})) for run, a in algorithms.items()}
    for run, algorithm in algorithms.items():
        off = [name for name in algorithm.search if name not in ranges[run]]
        if off:
            _log.info("%s: not searched, since 0 switches it off: %s", run, ", ".join(off))
    if empty := [name for name, of_run in ranges.items() if not of_run]:
        accepted = f"ranges for {', '.join(empty)} too, which has none"
        way_out = ". A bare Optax transformation has no options: give an Algorithm, or a name."
        raise refusal("search", accepted, dict(named), way_out)
    return ranges


def describe_effort(run: Run, trials: int, objective: str | None = None) -> str:
    """The sentence about a search's budget that its page holds."""
    ladder = "; ".join(
        f"{count} trial{'s' * (count > 1)} of {max(1, round(share * run.budget.gradients)):,}"
        for count, share in rungs(trials)
    )
    seeds = len(run.seeds)
    return (
        "Successive halving with equal effort for every algorithm, in gradients, rounded up to "
        f"whole outer steps, and {seeds} seed{'s' * (seeds > 1)} a trial: {ladder}. Measured on a "
        "fifth of the training set, held out; the validation set played no part. Means over seeds."
    ) + ("" if objective is None else f" Trials are judged by their {objective}.")


def runs(
    problem: Problem,
    algorithms: Mapping[str, Any],
    *,
    budget: Budget,
    seeds: int | Sequence[int] = 3,
    replicas: int | Sequence[int] = 3,
    settings: Settings | None = None,
) -> list[Run]:
    """The runs that `compare` makes of the same arguments, for `load`.

    Args:
      problem: an `entropix.experiment.Problem`.
      algorithms: name -> an Optax transformation, an `Algorithm`, or the name of one in the
        registry.
      budget: of every run.
      seeds: their number, or the seeds.
      replicas: p, or several, of algorithms with replicas.
      settings: how runs are carried out; None for the defaults.

    Returns:
      The runs, in the order of `algorithms`: one for each algorithm, and for an algorithm with
      replicas one for each p.

    Raises:
      ValueError: for what cannot be run.

    Example:
      >>> import entropix, optax
      >>> experiment = entropix.experiment
      >>> problem = experiment.classification("digits", {"name": "mlp", "widths": (8,)})
      >>> runs = experiment.runs(problem, {"AdamW": optax.adamw(1e-2), "EASGD": "easgd"},
      ...                        budget=experiment.Budget(12, evaluations=1), replicas=[2, 3])
      >>> [(run.name, run.replicas) for run in runs]
      [('AdamW', None), ('EASGD__p___2', 2), ('EASGD__p___3', 3)]
    """
    return make_runs(problem, algorithms, budget, seeds, replicas, settings)


def _check_alone(**given: Any) -> None:
    """Raises `ValueError` for arguments that a config would leave without effect."""
    for name, value in given.items():
        if value is not None:
            way_out = f". Leave {name} out and set {_OF_CONFIG[name]}."
            raise refusal(name, "left out beside a config, which says it", value, way_out)


def _made(
    problem: Any,
    algorithms: Mapping[str, Any] | None,
    budget: Budget | None,
    seeds: int | Sequence[int] | None,
    replicas: int | Sequence[int] | None,
    settings: Settings | None,
) -> list[Run]:
    """The runs of a problem, with the defaults of what was left out."""
    if budget is None:
        accepted = "an entropix.experiment.Budget, such as Budget(gradients=1000, evaluations=10)"
        raise refusal("budget", accepted, budget)
    algorithms = {} if algorithms is None else algorithms
    seeds, replicas = 3 if seeds is None else seeds, 3 if replicas is None else replicas
    return make_runs(problem, algorithms, budget, seeds, replicas, settings)


def _folder(workdir: str | pathlib.Path | None, problem: Problem, *within: str) -> pathlib.Path:
    """The folder of results, absolute: a callback may change the current one."""
    if workdir is not None:
        return pathlib.Path(workdir).expanduser().absolute()
    name = problem.name
    name = name if is_file_name(name) else folder_name("a problem", name)
    return pathlib.Path("runs", name, *within).absolute()
