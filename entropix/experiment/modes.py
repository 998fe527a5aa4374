"""How a model of any library is told whether it trains: by flags of its call, known by name."""

import inspect
import warnings
from typing import Any

from entropix.transforms.checks import refusal

# Flags that are true in training, and those that are true in evaluation.
TRAINING = ("train", "training", "is_training", "is_train")
EVALUATING = ("deterministic", "use_running_average", "eval", "inference", "is_eval", "test")

FLAGS = (*TRAINING, *EVALUATING)


def mode_of(names: list[str], train: bool) -> dict[str, bool]:
    """The flags of those names, for training or evaluation."""
    return {name: train == (name in TRAINING) for name in names}


def flags_of(model: Any, others: tuple[str, ...] = ()) -> list[str]:
    """The arguments of a model's call that say whether the model trains.

    Args:
      model: of any library.
      others: names of arguments that the call is given besides.

    Raises:
      ValueError: for a model that cannot be called, or an unknown argument without a default.
    """
    if not callable(model):
        raise refusal("model", "a model with a method __call__ of its inputs", model)
    parameters = list(inspect.signature(model.__call__).parameters.values())[1:]
    return flags_among(parameters, f"{type(model).__name__}.__call__", others)


def flags_among(
    parameters: list[inspect.Parameter], call: str, others: tuple[str, ...] = ()
) -> list[str]:
    """The names of the parameters that say whether a model trains.

    Args:
      parameters: of a call, after its inputs.
      call: what the messages call it.
      others: names of arguments that the call is given besides.

    Raises:
      ValueError: for an unknown parameter without a default.
    """
    names = [p.name for p in parameters if p.name in FLAGS]
    unknown = [p for p in parameters if p.name not in (*names, *others)]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [p.name for p in unknown if p.default is p.empty and p.kind in kinds]
    flag = (
        f"A flag that says whether the model trains is called {', '.join(TRAINING)} or, the other "
        f"way round, {', '.join(EVALUATING)}."
    )
    if needed:
        raise ValueError(
            f"{call} is called with inputs and such flags alone; got {', '.join(needed)} without a "
            f"default. {flag} Rename the argument, or give it a default."
        )
    for p in unknown:
        if isinstance(p.default, bool):
            text = f"{call}: {p.name} stays {p.default} in training and in evaluation. {flag}"
            warnings.warn(text, stacklevel=2)
    return names
