"""How long a run is, and how it is carried out."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from entropix.experiment.options import plain_number
from entropix.replicas.layout import check_kind
from entropix.transforms.checks import (
    check_choice,
    check_count,
    check_index,
    check_non_negative,
    refusal,
)

CHOICES = {"seed_layout": ("auto", "vmap", "map"), "replica_start": ("same", "different")}
"""What `Settings`, and the fields of a config of these names, may be."""


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


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is carried out; a config has fields of the same names and defaults.

    Attributes:
      seed_layout: how seeds share the device: "auto", "vmap" or "map".
      layout: where replicas live: "auto", "vmap", "pmap" or "shard_map".
      devices: that replicas are spread over; 0 for as many as divide p.
      replica_start: initial parameters of a seed's replicas, "same" or "different".
      eval_train_examples: training examples in an evaluation; 0 for all. A model state that is
        estimated at x, such as batch-norm statistics, is that of these examples, which must then be
        `batch_size` at least.
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
