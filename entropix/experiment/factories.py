"""Factories of the registry that are not the package's own functions.

Each is a chain of this package and Optax, with a complete inner optimiser by name, so that a config
can choose one.
"""

from typing import Any

import optax

import entropix
from entropix.experiment.names import check_name
from entropix.transforms.checks import check_momentum, check_positive


def complete(
    name: str, learning_rate: Any, weight_decay: float, momentum: float | None = 0.9
) -> optax.GradientTransformation:
    """A complete optimiser, inside an outer one or behind a relaxation; `momentum` is SGD's."""
    check_name("optimizer", name, ("adamw", "muon", "sgd"))
    momentum = check_momentum(momentum)  # also where AdamW or Muon, which have none, is named
    if name == "adamw":
        return optax.adamw(learning_rate, weight_decay=weight_decay)
    if name == "muon":
        return optax.contrib.muon(learning_rate, weight_decay=weight_decay)
    decayed = optax.add_decayed_weights(weight_decay)
    return optax.chain(decayed, entropix.sgd(learning_rate, momentum))


def lookahead(
    learning_rate: Any,
    *,
    optimizer: str = "sgd",
    weight_decay: float = 0.0,
    slow_step_size: float = 0.5,
    num_steps: int = 6,
) -> optax.GradientTransformation:
    """`entropix.lookahead` around any complete optimiser."""
    inside = complete(optimizer, learning_rate, weight_decay)
    return entropix.lookahead(inside, slow_step_size, num_steps=num_steps)


def snoo(
    learning_rate: Any,
    *,
    optimizer: str = "adamw",
    weight_decay: float = 0.0,
    outer_learning_rate: float = 0.7,
    momentum: float | None = 0.6,
    num_steps: int = 30,
    axis_name: Any = None,
) -> optax.GradientTransformation:
    """`entropix.snoo` around any complete optimiser; with an axis, DiLoCo."""
    return entropix.snoo(
        complete(optimizer, learning_rate, weight_decay), outer_learning_rate, momentum,
        num_steps=num_steps, axis_name=axis_name,
    )  # fmt: skip


def outer(
    learning_rate: Any,
    gamma: Any,
    *,
    optimizer: str = "adamw",
    weight_decay: float = 0.0,
    step_size: float = 1.0,
    temperature: float = 0.0,
    averaging: float = 0.0,
    outer_learning_rate: float = 1.0,
    momentum: float | None = None,
    num_steps: int = 20,
    axis_name: Any = None,
) -> optax.GradientTransformation:
    """The chains of HJ and Entropy-SGD (`averaging` > 0) with a complete optimiser inside."""
    return entropix.outer(
        complete(optimizer, learning_rate, weight_decay),
        entropix.sgd(outer_learning_rate, momentum),
        num_steps=num_steps, gamma=gamma, step_size=step_size, temperature=temperature,
        averaging=averaging, axis_name=axis_name,
    )  # fmt: skip


def sam(
    learning_rate: Any,
    *,
    optimizer: str = "sgd",
    weight_decay: float = 0.0,
    rho: float = 0.05,
    momentum: float | None = 0.9,
    num_ascents: int = 1,
    adaptive: bool = False,
) -> optax.GradientTransformation:
    """`entropix.sharpness` in front of any complete optimiser."""
    relaxation = entropix.sharpness(rho, num_ascents=num_ascents, adaptive=adaptive)
    behind = complete(optimizer, learning_rate, weight_decay, momentum)
    return entropix.stepwise(relaxation, behind)


def data_parallel(
    learning_rate: Any, axis_name: Any, *, optimizer: str = "sgd", momentum: float | None = 0.9
) -> optax.GradientTransformation:
    """All replicas make the step that one would make with a batch p times as large."""
    behind = complete(optimizer, learning_rate, 0.0, momentum)
    return optax.chain(entropix.average_updates(axis_name), behind)


def easgd(
    learning_rate: Any,
    axis_name: Any,
    *,
    optimizer: str = "sgd",
    momentum: float | None = 0.9,
    period: int = 10,
    moving_rate: float = 0.9,
) -> optax.GradientTransformation:
    """`entropix.easgd`, around any complete optimiser."""
    inside = complete(optimizer, learning_rate, 0.0, momentum)
    return optax.chain(inside, entropix.elastic_averaging(moving_rate, axis_name, period=period))


def elastic(
    learning_rate: Any,
    gamma: Any,
    axis_name: Any,
    *,
    optimizer: str = "adamw",
    weight_decay: float = 0.0,
    momentum: float | None = 0.9,
    period: int = 1,
) -> optax.GradientTransformation:
    """`entropix.elastic_sgd` with any complete optimiser in the place of SGD."""
    behind = complete(optimizer, learning_rate, weight_decay, momentum)
    return optax.chain(entropix.elastic_coupling(gamma, axis_name, period=period), behind)


def parle_outer(
    learning_rate: Any,
    gamma: Any,
    rho: Any,
    axis_name: Any,
    *,
    optimizer: str = "adamw",
    weight_decay: float = 0.0,
    step_size: float = 1.0,
    temperature: float = 0.0,
    averaging: float = 0.75,
    outer_learning_rate: float = 1.0,
    momentum: float | None = None,
    num_steps: int = 20,
) -> optax.GradientTransformation:
    """Parle with a complete optimiser inside: Entropy-SGD's chain, coupled once an outer step."""
    coupled = optax.chain(
        entropix.elastic_coupling(check_positive("rho", rho, infinite=True), axis_name),
        entropix.sgd(outer_learning_rate, momentum),
    )
    return entropix.outer(
        complete(optimizer, learning_rate, weight_decay), coupled,
        num_steps=num_steps, gamma=gamma, step_size=step_size, temperature=temperature,
        averaging=averaging,
    )  # fmt: skip


def schedule_free(
    learning_rate: Any, *, optimizer: str = "sgd", b1: float = 0.9, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """`optax.contrib.schedule_free`, whose momentum replaces that of the optimiser inside."""
    check_name("optimizer", optimizer, ("adamw", "sgd"))
    if optimizer == "sgd":
        base = optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate))
    else:
        base = optax.adamw(learning_rate, b1=0.0, weight_decay=weight_decay)
    return optax.contrib.schedule_free(base, learning_rate, b1=b1)


def centre(state: Any, params: Any) -> Any:
    """The slow centre that EASGD is evaluated at."""
    return optax.tree.get(state, "centre")
