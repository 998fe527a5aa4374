"""The algorithms of experiments: one record each, with all that the package knows of it."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import optax

import entropix
from entropix.experiment import factories
from entropix.experiment.names import check_file_name, check_name, check_options
from entropix.experiment.options import (
    COMMON,
    OF_RATE,
    SCOPED,
    SCOPES,
    check_stored,
    plain_number,
)
from entropix.transforms.checks import check_choice, check_flag, refusal

Ranges = Mapping[str, tuple[float, float]]

# Arguments of factories that the experiment decides: they are no options.
_DECIDED = ("axis_name", "key", "stepwise", "mask", "optimizer_fn")
_SEVERAL = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
# Log-uniform, and wide on purpose. The learning rates are for the gradient output: a displacement
# is about min(gamma, L step_size) gradients long. The useful eta of a relaxation grows with gamma
# up to about 1/curvature, as Example 13 shows.
_RATE = (1e-2, 3.0)
_GAMMA = (0.1, 1e3)  # from twice the smallest that the default inner step of 0.1 allows
_TEMPERATURE = (1e-10, 1e-4)
_ADAM_RATE = (1e-4, 3e-2)


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One algorithm: how to make it, its options, and how tables and figures show it.

    Attributes:
      name: in configs and folders.
      make: returns an Optax transformation. Its arguments and their defaults are the algorithm's
        options. `axis_name`, if `replicated`, is given by the run; `learning_rate` and `gamma`
        arrive as schedules, made of the options that all algorithms share
        (`entropix.experiment.options`).
      label: in tables and figures; by default the name.
      colour: of curves; None for the next free one.
      defaults: of options that have none in `make`, or another one.
      search: option -> (low, high), the log-uniform range in which `tune` looks.
      replicated: whether the algorithm runs on replicas on a named axis.
      counts: what the learning rate's schedule counts: "outer steps", or "gradients" for the
        inner optimiser of an outer one.
      eval_params: `(optimizer_state, params) -> params` to evaluate; None for x itself.
      beyond_the_paper: whether a config's comparison leaves the algorithm out unless it is named.
      options: chosen values.

    Raises:
      ValueError: for a field that is not what it should be, an unknown option, or a `make` with an
        argument that nothing gives.

    Example:
      >>> import entropix
      >>> hj = entropix.experiment.algorithm("hj", gamma=10.0)
      >>> hj.label, hj.all_options["gamma"], hj.all_options["num_steps"]
      ('HJ', 10.0, 5)
    """

    name: str
    make: Callable[..., optax.GradientTransformation]
    label: str = ""
    colour: str | None = None
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    search: Ranges = dataclasses.field(default_factory=dict)
    replicated: bool = False
    counts: str = "outer steps"
    eval_params: Callable[[Any, Any], Any] | None = None
    beyond_the_paper: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_file_name("an algorithm's name", self.name)
        if not callable(self.make):
            raise refusal("make", "a function that returns an Optax transformation", self.make)
        self._check_fields()
        object.__setattr__(self, "label", self.label or self.name)
        options = {name: plain_number(value) for name, value in self.options.items()}
        object.__setattr__(self, "options", options)
        known = self._known()
        check_options(f"algorithm {self.name}", self.options, known)
        check_options(f"algorithm {self.name} in defaults", self.defaults, self._read())
        self._check_rate()
        self._check_arguments(known)
        check_stored(self.name, self.all_options)

    def _check_fields(self) -> None:
        """Refuses what would be noticed after training alone, or never."""
        check_choice("counts", self.counts, ("outer steps", "gradients"))
        check_flag("replicated", self.replicated)
        check_flag("beyond_the_paper", self.beyond_the_paper)
        if not isinstance(self.label, str) or self.label.splitlines() not in ([], [self.label]):
            raise refusal("label", "words in one line, or empty for the name", self.label)
        if not isinstance(self.colour, str | None):
            raise refusal("colour", "one of Matplotlib's, such as '#0072B2', or None", self.colour)
        if self.eval_params is not None and not callable(self.eval_params):
            raise refusal("eval_params", "a function, or None for x itself", self.eval_params)
        for name in ("defaults", "search", "options"):
            if not isinstance(getattr(self, name), Mapping):
                accepted = "option -> (low, high)" if name == "search" else "option -> value"
                raise refusal(name, accepted, getattr(self, name))

    def _read(self) -> list[str]:
        """The options that something reads: the factory by name, or the experiment."""
        taken = [
            name
            for name, parameter in inspect.signature(self.make).parameters.items()
            if parameter.kind not in _SEVERAL
        ]
        ends = [f"{scope}_end" for scope in SCOPES if scope in taken]
        return [*taken, *COMMON, *(SCOPED if "gamma" in taken else ()), *ends]

    def _check_arguments(self, known: Mapping[str, Any]) -> None:
        """Refuses a factory with an argument that nothing gives."""
        given = {*known, "axis_name"} if self.replicated else known
        missing = [
            p.name
            for p in inspect.signature(self.make).parameters.values()
            if p.default is p.empty and p.kind not in _SEVERAL and p.name not in given
        ]
        if missing:
            way_out = f". Nothing gives {', '.join(missing)}."
            way_out += " With replicated=True the run gives axis_name." * ("axis_name" in missing)
            accepted = "a factory whose arguments have defaults, of its own or in defaults="
            raise refusal("make", accepted, self.make, way_out)

    def _check_rate(self) -> None:
        """Refuses options that would do nothing."""
        taken = self.arguments
        for name in () if "learning_rate" in taken else OF_RATE:
            if name not in taken and self.options.get(name, COMMON[name]) != COMMON[name]:
                raise ValueError(
                    f"algorithm {self.name}: {name} acts through the learning rate, and the "
                    f"factory has no argument learning_rate; got {name}={self.options[name]!r}. "
                    "Name the argument learning_rate: it is given as a schedule."
                )

    def _known(self) -> dict[str, Any]:
        taken = self.arguments
        found = {n: d for n, d in taken.items() if isinstance(d, bool | int | float | str)}
        shared = dict(COMMON)
        if "learning_rate" in taken:
            shared["learning_rate"] = 0.1
        if "gamma" in taken:
            shared |= SCOPED
        return shared | found | dict(self.defaults)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `make` with their defaults (`inspect.Parameter.empty` for none)."""
        parameters = inspect.signature(self.make).parameters.values()
        return {
            p.name: p.default
            for p in parameters
            if p.name not in _DECIDED and p.kind not in _SEVERAL
        }

    @property
    def takes_axis(self) -> bool:
        """Whether `make` is given the replicas' axis."""
        return self.replicated and "axis_name" in inspect.signature(self.make).parameters

    @property
    def all_options(self) -> dict[str, Any]:
        """Every option with its value."""
        return self._known() | dict(self.options)

    def with_options(self, **options: Any) -> "Algorithm":
        """The algorithm with other values of some options.

        Raises:
          ValueError: for an option that it does not have, with those that it has.
        """
        return dataclasses.replace(self, options={**self.options, **options})


_INNER = {"gamma": 1.0, "inner": "identity"}

# Okabe and Ito's palette, readable with any colour vision, for the paper's five.
_PAPERS = (
    Algorithm("sgd", entropix.sgd, "SGD", "#000000", search={"learning_rate": _RATE}),
    Algorithm(
        "entropy_sgd", entropix.entropy_sgd, "Entropy-SGD", "#0072B2", _INNER,
        {"learning_rate": _RATE, "gamma": _GAMMA, "temperature": _TEMPERATURE},
    ),
    Algorithm(
        "hj", entropix.hj_sgd, "HJ", "#D55E00", _INNER,
        {"learning_rate": _RATE, "gamma": _GAMMA},
    ),
    Algorithm(
        "heat", entropix.heat_sgd, "HEAT", "#E69F00", {"gamma": 1.0},
        # Only gamma T matters; its square root, the smoothing's width, spans 2e-4 to 0.5.
        {"learning_rate": _RATE, "gamma": (3e-2, 30.0), "temperature": (1e-6, 1e-2)},
    ),
    Algorithm(
        "elastic_sgd", entropix.elastic_sgd, "Elastic-SGD", "#009E73",
        # One update is one gradient: gamma falls once in the 20 of the others' outer step.
        {"gamma": 1.0, "scoping_period": 20},
        {"learning_rate": _RATE, "gamma": _GAMMA}, replicated=True,
    ),
)  # fmt: skip
_RELATIVES = (
    Algorithm(
        "parle", entropix.parle, "Parle", "#CC79A7",
        {**_INNER, "rho": 1.0, "rho_end": 0.0},
        {"learning_rate": _RATE, "gamma": _GAMMA, "temperature": _TEMPERATURE}, replicated=True,
    ),
    Algorithm(
        "easgd", factories.easgd, "EASGD", "#56B4E9", search={"learning_rate": _RATE},
        replicated=True, eval_params=factories.centre,
    ),
    Algorithm(
        "diloco", factories.snoo, "DiLoCo", "#882255",
        {"learning_rate": 1e-3, "num_steps": 50, "momentum": 0.9},
        {"learning_rate": _ADAM_RATE}, replicated=True, counts="gradients",
    ),
    Algorithm(
        "data_parallel", factories.data_parallel, "data-parallel", "#DDCC77",
        search={"learning_rate": _RATE}, replicated=True,
    ),
    Algorithm(
        "adamw", optax.adamw, "AdamW", "#999999", {"learning_rate": 1e-3},
        {"learning_rate": _ADAM_RATE},
    ),
    Algorithm(
        "muon", optax.contrib.muon, "Muon", "#661100", {"learning_rate": 1e-2},
        {"learning_rate": _ADAM_RATE},
    ),
    Algorithm(
        "sam", factories.sam, "SAM", "#F0E442", search={"learning_rate": _RATE, "rho": (1e-2, 1.0)},
    ),
    Algorithm(
        "lookahead", factories.lookahead, "Lookahead", "#117733", search={"learning_rate": _RATE},
        counts="gradients",
    ),
    Algorithm(
        "snoo", factories.snoo, "SNOO", "#44AA99", {"learning_rate": 1e-3},
        {"learning_rate": _ADAM_RATE, "outer_learning_rate": (0.3, 1.0)},
        counts="gradients",
    ),
    Algorithm(
        "outer", factories.outer, "relaxed AdamW", "#88CCEE",
        {"learning_rate": 1e-3, "gamma": 10.0, "scoping_rate": 0.0},
        {"learning_rate": _ADAM_RATE, "gamma": (3.0, 1e3)}, counts="gradients",
    ),
    # The scope of the pull counts updates for `elastic`, outer steps for `parle_outer`.
    Algorithm(
        "elastic", factories.elastic, "elastic AdamW", None,
        {"learning_rate": 1e-3, "gamma": 1.0, "scoping_rate": 0.0},
        {"learning_rate": _ADAM_RATE, "gamma": (0.1, 100.0)}, replicated=True,
    ),
    Algorithm(
        "parle_outer", factories.parle_outer, "Parle around AdamW", None,
        {"learning_rate": 1e-3, "gamma": 10.0, "scoping_rate": 0.0, "rho": 1.0, "rho_end": 0.0},
        {"learning_rate": _ADAM_RATE, "gamma": (3.0, 1e3)}, replicated=True, counts="gradients",
    ),
    Algorithm(
        "schedule_free", factories.schedule_free, "schedule-free", "#AA4499",
        search={"learning_rate": _RATE},
    ),
)  # fmt: skip

_registry: dict[str, Algorithm] = {}
ALGORITHMS: Mapping[str, Algorithm] = types.MappingProxyType(_registry)  # by name, in their order


def register(algorithm: Algorithm) -> Algorithm:
    """Adds an algorithm, or replaces the one of the same name, for configs and comparisons.

    Args:
      algorithm: the record.

    Returns:
      The record.

    Raises:
      ValueError: for what is no `Algorithm`, and for a name that is no Python name.

    Example:
      >>> import entropix, optax
      >>> lion = entropix.experiment.Algorithm(
      ...     "lion", optax.lion, "Lion", search={"learning_rate": (1e-5, 1e-2)})
      >>> entropix.experiment.register(lion).all_options["b1"]
      0.9
    """
    if not isinstance(algorithm, Algorithm):
        raise ValueError(f"register takes an entropix.experiment.Algorithm; got {algorithm!r}.")
    if not algorithm.name.isidentifier():
        raise ValueError(
            "an algorithm's name must be a Python name, since it becomes a field of configs and a "
            f"folder; got name={algorithm.name!r}."
        )
    _registry[algorithm.name] = algorithm
    return algorithm


def algorithm(name: str, **options: Any) -> Algorithm:
    """An algorithm of the registry, with chosen options.

    Args:
      name: of the algorithm; `entropix.experiment.ALGORITHMS` has them all.
      **options: values that differ from the defaults (`all_options`).

    Returns:
      An `Algorithm`.

    Raises:
      ValueError: for an unknown name or option, with the known ones.

    Example:
      >>> import entropix
      >>> entropix.experiment.algorithm("sam", rho=0.1).all_options["rho"]
      0.1
    """
    check_name("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name].with_options(**options)


def is_built_in(algorithm: Algorithm) -> bool:
    """Whether the package's version and the options say all about an algorithm."""
    known = _BUILT_IN.get(algorithm.name)
    return known is not None and (known.make, known.eval_params, known.counts) == (
        algorithm.make, algorithm.eval_params, algorithm.counts,
    )  # fmt: skip


for _record in _PAPERS:
    register(_record)
for _record in _RELATIVES:
    register(dataclasses.replace(_record, beyond_the_paper=True))
_BUILT_IN = dict(ALGORITHMS)
