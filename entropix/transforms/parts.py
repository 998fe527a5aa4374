"""Optimisers that know their parts: the relaxation, and the optimiser that gets its gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from entropix.transforms.relaxation import Relaxation


@dataclasses.dataclass(frozen=True, eq=False)
class _Update:
    """An update function that knows what it runs; a leaf to whatever takes optimisers apart."""

    function: Callable[..., Any]
    relaxation: Relaxation | None
    optimizer: optax.GradientTransformation | None

    def __deepcopy__(self, memo: Any) -> "_Update":
        return self  # as functions do, so that deep copies are equal

    def __call__(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        return self.function(updates, state, params, **extra_args)


class RelaxedOptimizer(optax.GradientTransformationExtraArgs):
    """A transformation that knows its parts, for `entropix.check` and `entropix.experiment`.

    Like every Optax transformation it is a pair of functions, and nothing more: copies, pickles
    and trees of optimisers, which make a pair again, keep the parts.
    """

    @classmethod
    def of(
        cls,
        tx: optax.GradientTransformation,
        relaxation: Relaxation | None,
        optimizer: optax.GradientTransformation | None = None,
    ) -> "RelaxedOptimizer":
        """Takes over the functions of `tx`.

        `relaxation` is None where every gradient is taken at x, as SGD does; `optimizer` is None
        for the link `relax`, with or without a guarded optimiser behind it.
        """
        return cls(tx.init, _Update(tx.update, relaxation, optimizer))

    @property
    def relaxation(self) -> Relaxation | None:
        """The `Relaxation` that is run; None for none, and where `update` was replaced."""
        return getattr(self.update, "relaxation", None)

    @property
    def optimizer(self) -> optax.GradientTransformation | None:
        """The optimiser that gets the relaxed gradients."""
        return getattr(self.update, "optimizer", None)


def is_without_relaxation(tx: Any) -> bool:
    """Whether an optimiser is known to take every gradient at x, as SGD does."""
    update = getattr(tx, "update", None)
    return isinstance(update, _Update) and update.relaxation is None
