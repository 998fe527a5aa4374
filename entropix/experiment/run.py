"""A run: one algorithm on one problem, how long, with which seeds; and its identity."""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

import entropix
from entropix.experiment.algorithms import Algorithm, is_built_in
from entropix.experiment.fingerprint import digest_program
from entropix.experiment.method import REPLICA_AXIS, Method, build
from entropix.experiment.options import COMMON, OF_RATE, plain_number
from entropix.experiment.problem import Problem
from entropix.replicas.layout import check_kind
from entropix.run_file import digest_of_json
from entropix.transforms.axes import UnmappedAxisError
from entropix.transforms.checks import (
    check_choice,
    check_count,
    check_index,
    check_non_negative,
    refusal,
)
from entropix.transforms.eval_params import remembers_parameters
from entropix.transforms.probe import refuse_incomplete

_USUAL = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}
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
        for name in ("gradients", "evaluations"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        if self.evaluations > self.gradients:
            raise ValueError(
                f"evaluations must be at most gradients={self.gradients}; got "
                f"evaluations={self.evaluations}."
            )

    def due(self) -> list[int]:
        """The numbers of gradients after which a run is evaluated."""
        share = self.gradients / self.evaluations
        return [round(share * (k + 1)) for k in range(self.evaluations)]

    def due_at(self, fractions: Iterable[float]) -> list[int]:
        """Those of `due` that are the first to reach fractions of the budget.

        Raises:
          ValueError: for a fraction that is not in [0, 1].

        Example:
          >>> Budget(100, 4).due_at((0.5, 0.6, 1.0))
          [50, 75, 100]
        """
        fractions = tuple(fractions)
        if not all(0 <= fraction <= 1 for fraction in fractions):
            raise refusal("fractions", "parts of the budget, in [0, 1]", fractions)
        numbers = {math.ceil(fraction * self.evaluations - 1e-9) for fraction in fractions}
        due = self.due()
        return [due[max(number, 1) - 1] for number in sorted(numbers)]


CHOICES = {"seed_layout": ("auto", "vmap", "map"), "replica_start": ("same", "different")}
"""What `Settings`, and the fields of a config of these names, may be."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is carried out; a config has fields of the same names and defaults.

    Attributes:
      seed_layout: how seeds share the device: "auto", "vmap" or "map".
      layout: where replicas live: "auto", "vmap", "pmap" or "shard_map".
      devices: that replicas are spread over; 0 for as many as divide p.
      replica_start: initial parameters of a seed's replicas, "same" or "different".
      eval_train_examples: training examples in an evaluation; 0 for all.
      flatness_at: fractions of the run, such as (0.5, 1.0): flatness is measured at the first
        evaluation that reaches each of them.
      flatness_examples: training examples that flatness is measured on.
      checkpoint_seconds: between checkpoints.
      checkpoints_kept: the newest ones.

    Raises:
      ValueError: for a value outside its range.

    Example:
      >>> Settings(flatness_at=1.0).flatness_at    # at the end of the run
      (1.0,)
    """

    seed_layout: str = "auto"
    layout: str = "auto"
    devices: int = 0
    replica_start: str = "same"
    eval_train_examples: int = 10_000
    flatness_at: float | Sequence[float] = ()
    flatness_examples: int = 4096
    checkpoint_seconds: float = 60.0
    checkpoints_kept: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "flatness_at", check_fractions("flatness_at", self.flatness_at))
        for name in ("flatness_examples", "checkpoints_kept"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        for name in ("eval_train_examples", "devices"):
            object.__setattr__(self, name, check_index(name, getattr(self, name)))
        check_non_negative("checkpoint_seconds", self.checkpoint_seconds, schedule=False)
        check_kind("layout", self.layout)
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)


def check_fractions(name: str, value: Any) -> tuple[float, ...]:
    """Returns fractions of a run: ascending, each in (0, 1]; one number stands for itself."""
    several = tuple(value) if isinstance(value, list | tuple) else (value,)
    several = tuple(map(plain_number, several))
    good = [isinstance(f, int | float) and not isinstance(f, bool) and 0 < f <= 1 for f in several]
    if not all(good) or list(several) != sorted(set(several)):
        accepted = "fractions of the run in (0, 1], ascending, such as (0.5, 1.0), or ()"
        raise refusal(name, accepted, value)
    return tuple(float(fraction) for fraction in several)


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

    def __post_init__(self) -> None:
        if self.settings.flatness_at and self.problem.on_host:
            raise ValueError(
                f"{self.name}: flatness is measured on arrays, and the data are a loader on the "
                "host. Give the problem arrays, or leave flatness_at empty."
            )

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides a result but the seeds, in JSON's types."""
        option = {"name": self.algorithm.name, "options": self.algorithm.all_options}
        if not is_built_in(self.algorithm):
            option["digest"] = _digest_of_algorithm(self)
        settings = self.settings
        evaluation: dict[str, Any] = {"train_examples": settings.eval_train_examples}
        if settings.flatness_at:  # only then, so that runs without it stay what they were
            evaluation["flatness"] = {
                "at": settings.flatness_at, "examples": settings.flatness_examples
            }  # fmt: skip
        fields = {
            "problem": self.problem.identity | _jax_settings(),
            "algorithm": option,
            "budget": dataclasses.asdict(self.budget),
            "replicas": self.replicas,
            "evaluation": evaluation,
            "start": settings.replica_start,
        }
        plain: dict[str, Any] = json.loads(json.dumps(fields, default=plain_number))
        return plain

    @functools.cached_property
    def owner(self) -> str:
        """A digest of the identity without its budget: a longer run goes on with the same rows."""
        fields = {name: part for name, part in self.identity.items() if name != "budget"}
        fields = jax.tree.map(lambda leaf: float(leaf) if type(leaf) is int else leaf, fields)
        return digest_of_json(fields)[:16]

    @functools.cached_property
    def shapes(self) -> Any:
        """Shapes and dtypes of the parameters."""
        return jax.eval_shape(self.problem.init, jax.random.key(0))[0]

    @functools.cached_property
    def num_parameters(self) -> int:
        """N."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.shapes))

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
        method = self.method()
        check_method(self.name, method, self.budget)
        if not is_built_in(self.algorithm):
            with named(self.name):
                check_foreign(self, method)


def _jax_settings() -> dict[str, Any]:
    """JAX's settings of double precision and of random numbers, where they are not the usual ones.

    Only then, so that runs with the usual ones stay what they were.
    """
    found = {name: getattr(jax.config, name) for name in _USUAL}
    other = {name: value for name, value in found.items() if value != _USUAL[name]}
    return {"jax": other} if other else {}


def check_foreign(run: Run, method: Method) -> None:
    """Raises `ValueError` for an algorithm of a user's that would climb, or fail in its first step.

    An optimiser that counts outer steps of its own, inside a chain, is one of L = 1 to the
    experiment: the experiment's schedule would count gradients, and its decay would move x at each.
    """
    refuse_incomplete("the algorithm", method.optimizer)
    state = jax.eval_shape(method.optimizer.init, run.shapes)
    options, arguments = run.algorithm.all_options, run.algorithm.arguments
    acting = [name for name in OF_RATE if options[name] != COMMON[name] and name not in arguments]
    if acting and method.per_count and remembers_parameters(state):
        raise ValueError(
            f"{acting[0]}={options[acting[0]]!r} acts at outer steps, and entropix.stepwise is "
            "hidden in a chain or a wrapper, where the experiment cannot count them. Return the "
            "optimiser by name, or entropix.stepwise(relaxation, optimizer), itself; links before "
            "it go into inner=, links after it into the optimiser."
        )
    if run.replicas is not None:
        return

    def step(params: Any, state: Any) -> Any:
        return method.optimizer.update(params, state, params, value=0.0)

    try:
        jax.eval_shape(step, run.shapes, state)
    except UnmappedAxisError as error:
        raise ValueError(
            "its update communicates between replicas, over an axis that the experiment names. "
            "Give the experiment a function of that name: entropix.experiment.Algorithm(name, "
            "lambda axis_name: ..., replicated=True)."
        ) from error
    except TypeError as error:
        raise ValueError(
            f"its update failed ({error}). An experiment calls update(grads, state, params, "
            "value=...) with the mean mini-batch loss, and no other argument."
        ) from error


def _digest_of_algorithm(run: Run) -> str:
    """Of an algorithm that is not the package's: all that its first outer step computes.

    The states too: what a rule does from the second step on is in them.
    """
    method = run.method()
    return digest_program(*on_replicas(run, lambda params: first_step(method, params)))


def first_step(
    method: Method,
    params: Any,
    on_gradient: Callable[[Any, Any], Any] = lambda grads, _: grads,
) -> Any:
    """The first outer step from parameters at which the mini-batch gradient is the point itself.

    Returns:
      The updates, the states after them, and the point to evaluate.
    """
    relaxation, optimizer = method.relaxation.init(params), method.optimizer.init(params)
    slope = entropix.relaxed_grad(method.relaxation, lambda p, i: on_gradient(p, p))
    grads, relaxation = slope(params, relaxation)
    updates, optimizer = method.optimizer.update(grads, optimizer, params, value=0.0)
    return updates, optimizer, relaxation, method.eval_params(optimizer, params)


def on_replicas(run: Run, step: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], Any]:
    """A function of parameters, for all replicas if there are some, and shapes to trace it with."""
    if run.replicas is None:
        return step, run.shapes

    def repeated(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((run.replicas, *leaf.shape), leaf.dtype)

    return jax.vmap(step, axis_name=REPLICA_AXIS), jax.tree.map(repeated, run.shapes)


def check_method(name: str, method: Method, budget: Budget) -> None:
    """Raises `ValueError` if the schedules of a run will make its inner steps diverge."""
    steps = max(1, math.ceil(budget.gradients / method.cycle))
    with named(name, " (gamma_end is that floor.)"):
        entropix.check(method.relaxation, min(steps, _MOST_CHECKED))


@contextlib.contextmanager
def named(run: str, way_out: str = "") -> Iterator[None]:
    """Says which run an error is about."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{run}: {error}{way_out}") from error
