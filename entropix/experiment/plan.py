"""From a config to the runs of an experiment."""

import dataclasses
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence

from ml_collections import ConfigDict

from entropix.experiment.algorithms import ALGORITHMS, Algorithm
from entropix.experiment.fields import ABOUT_A_RUN, FIELDS, check_fields, check_replicas
from entropix.experiment.method import build
from entropix.experiment.names import check_name
from entropix.experiment.options import check_common, check_kinds, plain_numbers
from entropix.experiment.problem import Problem
from entropix.experiment.run import Run, check_method, named
from entropix.experiment.settings import Budget, Settings
from entropix.experiment.source import load_problem
from entropix.replicas import layout
from entropix.transforms.checks import refusal

_log = logging.getLogger(__name__)
_MOST_SHOWN = 2  # options in a label
_UNSAID = 0.005  # of a share of the run, by rounding to whole evaluations
_READ_WITH = {"drop_factor": "drop_at", "scoping_period": "scoping_rate"}
"""Options that act where another one is not empty or 0."""


def plan(config: ConfigDict, problem: Problem | None = None) -> list[Run]:
    """Makes the runs of a config.

    Args:
      config: from `make_config`, with overrides.
      problem: what the config says to train, if that is at hand already; by default it is loaded.

    Returns:
      Its runs, in the order of the registry.

    Raises:
      ValueError: for what cannot run, would diverge by its schedules or would be unfair. Nothing is
        loaded before, but for runs with `normalise_gamma`: their check needs the number of
        parameters.

    Example:
      >>> from entropix.experiment import make_config
      >>> config = make_config(dataset="digits", model={"name": "mlp", "widths": (8,)},
      ...                      optimizers={"hj": {"gamma": 10.0}, "sgd": {}}, seeds=2)
      >>> [(run.name, run.label, run.seeds) for run in plan(config)]
      [('sgd', 'SGD', (0, 1)), ('hj', 'HJ', (0, 1))]
    """
    check_plan(config)
    budget = budget_of(config)
    if abs((share := budget.evaluations / config.num_evals) - config.length) > _UNSAID:
        _log.info(
            "length=%g of %d evaluations is %d of them, %.3g of the run",
            config.length, config.num_evals, budget.evaluations, share,
        )  # fmt: skip
    shared = json.loads(json.dumps(plain_numbers(config.to_dict())))
    problem = load_problem(config) if problem is None else problem
    settings = Settings(**{f.name: config[f.name] for f in dataclasses.fields(Settings)})
    runs = [
        Run(
            name=name,
            label=label,
            algorithm=algorithm,
            problem=problem,
            budget=budget,
            seeds=tuple(range(config.seeds)),
            replicas=p,
            settings=settings,
            config=shared,
        )
        for name, label, algorithm, p in entries(config)
    ]
    for run in runs:
        if run.algorithm.all_options.get("normalise_gamma"):  # the size is known by now
            run.check()
    for setting, reason in _without_effect(config, runs):
        _log.info("%s has no effect: %s", setting, reason)
    return runs


def _without_effect(config: ConfigDict, runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """What a config sets and no run reads, and why.

    It is said and not refused: so one override, of `drop_at` say, switches drops off.
    """
    for run in runs:
        options, usual = run.algorithm.all_options, ALGORITHMS[run.algorithm.name].all_options
        of_factory = run.algorithm.arguments
        for name, needed in _READ_WITH.items():
            if needed not in options or name in of_factory or options[name] == usual[name]:
                continue
            if not options[needed]:
                yield f"{name}={options[name]} of {run.name}", f"{needed}={options[needed]}"
    numbers = tuple(check_replicas(config.replicas))
    if numbers != FIELDS["replicas"] and not any(run.replicas for run in runs):
        yield f"replicas={numbers}", "no algorithm has replicas"


def check_plan(config: ConfigDict) -> None:
    """Raises `ValueError` for what would only fail, or be unfair, after work has started."""
    check_fields(config)
    for name, _, algorithm, p in entries(config):
        check_entry(config, name, algorithm, p)


def check_entry(config: ConfigDict, name: str, algorithm: Algorithm, p: int | None) -> None:
    """Raises `ValueError` for what is wrong with one run; a search asks for every end of a range.

    Args:
      config: whose fields are in their ranges.
      name: of the run.
      algorithm: with its options.
      p: number of replicas; None for an algorithm without.
    """
    budget = budget_of(config)
    with named(name):
        method = build(algorithm, gradients=budget.gradients, replicas=p)
    if p is not None:
        layout(p, config.layout, devices=config.devices or None)
    if config.gradients_per_eval % method.cycle:
        raise ValueError(
            f"gradients_per_eval must be a multiple of the {method.cycle} gradients of one "
            f"outer step of {name} (num_steps x replicas), so that all algorithms are "
            f"evaluated after equally many; got config.gradients_per_eval="
            f"{config.gradients_per_eval}."
        )
    if not algorithm.all_options.get("normalise_gamma"):
        check_method(name, method, budget)


def entries(config: ConfigDict) -> list[tuple[str, str, Algorithm, int | None]]:
    """Name, label, algorithm and number of replicas of every run of a config."""
    if "optimizer" in config:
        options = config.optimizer.to_dict()
        chosen = {options.pop("run", options["algorithm"]): options}
    else:
        chosen = {name: config.optimizers[name].to_dict() for name in config.optimizers}
    if not chosen:
        raise refusal("optimizers", "at least one run of an algorithm", chosen)
    made = {}
    for name, options in chosen.items():
        check_name("algorithm", options.get("algorithm"), ALGORITHMS)
        given = {k: v for k, v in options.items() if k not in ABOUT_A_RUN}
        record = ALGORITHMS[options["algorithm"]]
        made[name] = record.with_options(**given)
        with named(name):
            check_kinds(made[name].all_options, record.all_options)
            check_common(made[name].all_options)
    order = list(ALGORITHMS)
    names = sorted(made, key=lambda name: (order.index(made[name].name), name))
    numbers = check_replicas(config.replicas)
    labels = {name: options["label"] for name, options in chosen.items() if "label" in options}
    return _spread({name: made[name] for name in names}, labels, numbers)


def _spread(
    algorithms: Mapping[str, Algorithm], labels: Mapping[str, str], numbers: Sequence[int]
) -> list[tuple[str, str, Algorithm, int | None]]:
    """One entry for a run without replicas, one for each p for one with them; with labels."""
    found = []
    for name, algorithm in algorithms.items():
        siblings = [
            other
            for run, other in algorithms.items()
            if other.name == algorithm.name and run not in labels
        ]
        label = labels.get(name) or _label(name, algorithm, siblings)
        several = algorithm.replicated and len(numbers) > 1
        for p in numbers if algorithm.replicated else (None,):
            tag = (f"{name}_p{p}", f"{label}, p = {p}") if several else (name, label)
            found.append((*tag, algorithm, p))
    return found


def _label(run: str, algorithm: Algorithm, siblings: Sequence[Algorithm]) -> str:
    """The algorithm's label and, where it has several settings, what differs or the run's name."""
    options = algorithm.all_options
    differing = [
        name for name in options if any(options[name] != s.all_options[name] for s in siblings)
    ]
    if len(differing) > _MOST_SHOWN:
        return f"{algorithm.label} ({run})"
    return ", ".join([algorithm.label, *(f"{name} = {options[name]}" for name in differing)])


def budget_of(config: ConfigDict) -> Budget:
    """The budget of every run of a config; halves of an evaluation are rounded up."""
    evaluations = max(1, math.floor(config.length * config.num_evals + 0.5))
    return Budget(evaluations * config.gradients_per_eval, evaluations)
