"""From a config, or from a problem and algorithms, to the runs of an experiment."""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

import entropix
from entropix.experiment.algorithms import ALGORITHMS, Algorithm, is_built_in
from entropix.experiment.classification import classification
from entropix.experiment.fields import check_fields, check_replicas, num_evals
from entropix.experiment.fingerprint import digest_program
from entropix.experiment.method import REPLICA_AXIS, Method, build
from entropix.experiment.names import check_name
from entropix.experiment.options import check_common, check_kinds
from entropix.experiment.problem import Problem
from entropix.replicas import layout
from entropix.transforms.checks import check_count, refusal

_log = logging.getLogger(__name__)
_MOST_SHOWN = 2  # options in a label
_MOST_CHECKED = 10_000_000  # outer steps whose schedules are looked at, for the memory they take


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long a run is.

    Attributes:
      gradients: gradient evaluations of a run, over all its replicas. A run takes whole outer
        steps: the first number of gradients that reaches the budget.
      evaluations: equally spaced in gradients, the last one at the end.

    Raises:
      ValueError: unless 1 <= evaluations <= gradients.
    """

    gradients: int
    evaluations: int = 10

    def __post_init__(self) -> None:
        check_count("gradients", self.gradients)
        check_count("evaluations", self.evaluations)
        if self.evaluations > self.gradients:
            raise ValueError(
                f"evaluations must be at most gradients={self.gradients}; got "
                f"evaluations={self.evaluations}."
            )

    def due(self) -> list[int]:
        """The numbers of gradients after which a run is evaluated."""
        share = self.gradients / self.evaluations
        return [round(share * (k + 1)) for k in range(self.evaluations)]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is carried out; see `entropix.experiment.fields.FIELDS`."""

    seed_layout: str = "auto"
    layout: str = "auto"
    devices: int = 0
    replica_start: str = "same"
    eval_train_examples: int = 10_000
    checkpoint_seconds: float = 60.0
    checkpoints_kept: int = 2


@dataclasses.dataclass(frozen=True)
class Run:
    """One algorithm on one problem, with all its seeds: what is trained in one program.

    Attributes:
      name: in its comparison; also that of its folder.
      label: in tables and figures.
      algorithm: with its options.
      problem: what is trained.
      budget: how long.
      seeds: of initial parameters, data order and noise.
      replicas: p, for an algorithm with replicas; else None.
      settings: how.
      config: what the run was made from, to be stored beside its results.
    """

    name: str
    label: str
    algorithm: Algorithm
    problem: Problem
    budget: Budget
    seeds: tuple[int, ...]
    replicas: int | None
    settings: Settings
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides a result but the seeds, in JSON's types."""
        option = {"name": self.algorithm.name, "options": self.algorithm.all_options}
        if not is_built_in(self.algorithm):
            option["digest"] = _digest(self)
        settings = self.settings
        fields = {
            "problem": self.problem.identity,
            "algorithm": option,
            "budget": dataclasses.asdict(self.budget),
            "replicas": self.replicas,
            "evaluation": {"train_examples": settings.eval_train_examples},
            "start": settings.replica_start,
        }
        plain: dict[str, Any] = json.loads(json.dumps(fields))
        return plain

    @functools.cached_property
    def num_parameters(self) -> int:
        """N."""
        params, _ = jax.eval_shape(self.problem.init, jax.random.key(0))
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))

    def method(self, **given: Any) -> Method:
        """The run's transformations; see `entropix.experiment.method.build`."""
        needs_size = bool(self.algorithm.all_options.get("normalise_gamma"))
        return build(
            self.algorithm,
            gradients=self.budget.gradients,
            replicas=self.replicas,
            num_parameters=self.num_parameters if needs_size else 1,
            **given,
        )

    def check(self) -> None:
        """Raises `ValueError` for what would fail, or diverge by its schedules, later."""
        _check_method(self.name, self.method(), self.budget)


def plan(config: ConfigDict, problem: Problem | None = None) -> list[Run]:
    """Makes the runs of a config.

    Args:
      config: from `make_config`, with overrides.
      problem: what it says to train, if that is at hand already.

    Returns:
      Its runs, in the order of the registry.

    Raises:
      ValueError: for what cannot run, would diverge by its schedules or would be unfair; nothing is
        loaded before.
    """
    check_plan(config)
    shared = json.loads(config.to_json())
    problem = load_problem(config) if problem is None else problem
    settings = Settings(**{f.name: config[f.name] for f in dataclasses.fields(Settings)})
    runs = [
        Run(
            name=name,
            label=label,
            algorithm=algorithm,
            problem=problem,
            budget=budget_of(config),
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
    return runs


def check_plan(config: ConfigDict) -> None:
    """Raises `ValueError` for what would only fail, or be unfair, after work has started."""
    check_fields(config)
    budget = budget_of(config)
    for name, _, algorithm, p in entries(config):
        with _named(name):
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
            _check_method(name, method, budget)


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
        given = {k: v for k, v in options.items() if k != "algorithm"}
        record = ALGORITHMS[options["algorithm"]]
        made[name] = record.with_options(**given)
        with _named(name):
            check_kinds(made[name].all_options, record.all_options)
            check_common(made[name].all_options)
    order = list(ALGORITHMS)
    names = sorted(made, key=lambda name: (order.index(made[name].name), name))
    numbers = check_replicas(config.replicas)
    return _spread({name: made[name] for name in names}, numbers)


def _spread(
    algorithms: Mapping[str, Algorithm], numbers: Sequence[int]
) -> list[tuple[str, str, Algorithm, int | None]]:
    """One entry for a run without replicas, one for each p for one with them; with labels."""
    found = []
    for name, algorithm in algorithms.items():
        siblings = [other for other in algorithms.values() if other.name == algorithm.name]
        label = _label(name, algorithm, siblings)
        several = algorithm.replicated and len(numbers) > 1
        for p in numbers if algorithm.replicated else (None,):
            tag = (f"{name}_p{p}", f"{label}, p = {p}") if several else (name, label)
            found.append((*tag, algorithm, p))
    return found


def _label(run: str, algorithm: Algorithm, siblings: Sequence[Algorithm]) -> str:
    """The algorithm's label and, where it has several settings, what differs or the run's name."""
    own = algorithm.all_options
    differing = [name for name in own if any(own[name] != s.all_options[name] for s in siblings)]
    if len(differing) > _MOST_SHOWN:
        return f"{algorithm.label} ({run})"
    return ", ".join([algorithm.label, *(f"{name} = {own[name]}" for name in differing)])


def budget_of(config: ConfigDict) -> Budget:
    """The budget of every run of a config."""
    evaluations = num_evals(config)
    return Budget(evaluations * config.gradients_per_eval, evaluations)


def load_problem(config: ConfigDict, split: Callable[[Any], Any] | None = None) -> Problem:
    """Loads what a config says to train.

    Args:
      config: of the experiment.
      split: changes the data set before the problem is made of it; for the validation split of
        tuning.

    Raises:
      ValueError: for a function that cannot be imported, or does not return a `Problem`.
    """
    if "problem" not in config:
        from entropix import data

        _log.info("loading %s", config.dataset)
        extra = {"zca_regulariser": config.zca_regulariser} if config.dataset == "cifar10" else {}
        dataset: Any = config.dataset
        if split is not None:
            dataset = split(data.load(config.dataset, config.data_dir or None, **extra))
            extra = {}
        return classification(
            dataset, config.model.to_dict(), batch_size=config.batch_size, name=config.dataset,
            data_dir=config.data_dir or None, **extra,
        )  # fmt: skip
    make, arguments = import_function(config.problem), config.arguments.to_dict()
    _log.info("making the problem of %s", config.problem)
    try:
        inspect.signature(make).bind(batch_size=config.batch_size, **arguments)
    except TypeError as error:
        accepted = f"what {config.problem} takes besides batch_size"
        raise refusal("arguments", accepted, arguments, f" ({error}).") from error
    problem = make(batch_size=config.batch_size, **arguments)
    if not isinstance(problem, Problem):
        raise ValueError(
            f"{config.problem} must return an entropix.experiment.Problem; got {problem!r}."
        )
    return problem if split is None else split(problem)


def import_function(path: str) -> Callable[..., Any]:
    """Imports `package.module:function`.

    Raises:
      ValueError: if there is no such function.
    """
    module, colon, name = str(path).partition(":")
    accepted = "'package.module:function', importable from where Python was started"
    if not colon or not module or not name:
        raise refusal("problem", accepted, path)
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises
        why = f" ({type(error).__name__}: {' '.join(str(error).split())})."
        raise refusal("problem", accepted, path, why) from error
    if not callable(function):
        raise refusal("problem", accepted, path)
    return function


def make_runs(
    problem: Problem,
    algorithms: Mapping[str, Any],
    budget: Budget,
    seeds: int | Sequence[int],
    replicas: int | Sequence[int] = 3,
    settings: Settings | None = None,
) -> list[Run]:
    """Makes the runs of a comparison on a problem; see `entropix.experiment.compare`."""
    if not isinstance(problem, Problem):
        raise refusal("problem", "an entropix.experiment.Problem", problem)
    if not isinstance(budget, Budget):
        raise refusal("budget", "an entropix.experiment.Budget", budget)
    if not isinstance(algorithms, Mapping) or not algorithms:
        accepted = "run -> an Optax transformation or an Algorithm, and not empty"
        raise refusal("algorithms", accepted, algorithms)
    for name in algorithms:
        if not isinstance(name, str):
            raise refusal("a run", "called by a string", name)
    made = {name: as_algorithm(name, given) for name, given in algorithms.items()}
    numbers = check_replicas(replicas)
    runs = []
    for name, algorithm in made.items():
        several = algorithm.replicated and len(numbers) > 1
        for p in numbers if algorithm.replicated else (None,):
            tag = f", p = {p}" if several else ""
            runs.append(
                Run(
                    name=_folder(name + tag),
                    label=name + tag,
                    algorithm=algorithm,
                    problem=problem,
                    budget=budget,
                    seeds=check_seeds(seeds),
                    replicas=p,
                    settings=settings or Settings(),
                )
            )
    if len({run.name for run in runs}) < len(runs):
        raise refusal("algorithms", "called by names that differ as folders", list(algorithms))
    for run in runs:
        run.check()
    return runs


def as_algorithm(name: str, given: Any) -> Algorithm:
    """An `Algorithm`: as it is, by its name in the registry, or around an Optax transformation."""
    if isinstance(given, Algorithm):
        return given
    if isinstance(given, str):
        check_name("algorithm", given, ALGORITHMS)
        return ALGORITHMS[given]
    if not isinstance(given, optax.GradientTransformation):
        accepted = "an Optax transformation, an entropix.experiment.Algorithm or the name of one"
        raise refusal(f"algorithms[{name!r}]", accepted, given)
    return Algorithm(_folder(name), lambda: given, label=name)


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Returns the seeds: 0 ... n-1 for a number n."""
    if isinstance(seeds, list | tuple | range):
        known = tuple(seeds)
        whole = [isinstance(s, int | np.integer) and not isinstance(s, bool) for s in known]
        if not known or not all(whole) or min(known) < 0 or len(set(known)) < len(known):
            raise refusal("seeds", "a number >= 1, or different whole numbers >= 0", seeds)
        return tuple(int(s) for s in known)
    return tuple(range(check_count("seeds", seeds)))


def _folder(name: str) -> str:
    """A run's name as that of a folder."""
    kept = "".join(c if c.isalnum() or c in "_-." else "_" for c in str(name)).strip("._")
    if not kept:
        raise refusal("a run", "called by a name with letters or digits", name)
    return kept


def _digest(run: Run) -> str:
    """Of an algorithm that is not the package's: what its first outer step computes."""
    method = run.method()
    params, _ = jax.eval_shape(run.problem.init, jax.random.key(0))

    def step(params: Any) -> Any:
        relaxation, optimizer = method.relaxation.init(params), method.optimizer.init(params)
        grads, _ = entropix.relaxed_grad(method.relaxation, lambda p, i: p)(params, relaxation)
        updates, optimizer = method.optimizer.update(grads, optimizer, params)
        return updates, method.eval_params(optimizer, params)

    if run.replicas is None:
        return digest_program(step, params)

    def repeated(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((run.replicas, *leaf.shape), leaf.dtype)

    return digest_program(jax.vmap(step, axis_name=REPLICA_AXIS), jax.tree.map(repeated, params))


def _check_method(name: str, method: Method, budget: Budget) -> None:
    steps = max(1, math.ceil(budget.gradients / method.cycle))
    with _named(name, " (gamma_end is that floor.)"):
        entropix.check(method.relaxation, min(steps, _MOST_CHECKED))


@contextlib.contextmanager
def _named(run: str, way_out: str = "") -> Iterator[None]:
    """Says which run an error is about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{run}: {error}{way_out}") from error
