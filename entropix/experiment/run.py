"""A run: one algorithm on one problem, with several seeds; and its identity."""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax

import entropix
from entropix.experiment.algorithms import Algorithm, is_built_in
from entropix.experiment.first_step import check_foreign, digest_of_first_step
from entropix.experiment.method import Method, build
from entropix.experiment.options import plain_number
from entropix.experiment.problem import Problem
from entropix.experiment.settings import Budget, Settings
from entropix.run_file import digest_of_json
from entropix.transforms.checks import refusal

_USUAL = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}
_MOST_CHECKED = 10_000_000  # outer steps whose schedules are looked at, for the memory they take


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
        self._check_train_examples()

    def _check_train_examples(self) -> None:
        """Raises `ValueError` for less than a batch, which a model's state is estimated from."""
        problem, given = self.problem, self.settings.eval_train_examples
        least = min(problem.batch_size, problem.num_examples or problem.batch_size)
        if problem.estimate is not None and 0 < given < least:
            accepted = f"0 for all, or {least} at least, a batch to estimate the model's state from"
            raise refusal("eval_train_examples", accepted, given)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides a result but the seeds, in JSON's types."""
        option = {"name": self.algorithm.name, "options": self.algorithm.all_options}
        if not is_built_in(self.algorithm):
            option["digest"] = digest_of_first_step(self.method(), self.shapes, self.replicas)
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
                check_foreign(self.algorithm, method, self.shapes, self.replicas)


def _jax_settings() -> dict[str, Any]:
    """JAX's settings of double precision and of random numbers, where they are not the usual ones.

    Only then, so that runs with the usual ones stay what they were.
    """
    found = {name: getattr(jax.config, name) for name in _USUAL}
    other = {name: value for name, value in found.items() if value != _USUAL[name]}
    return {"jax": other} if other else {}


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
