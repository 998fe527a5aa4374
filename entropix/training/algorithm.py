"""From an optimiser's options to the transformations that run it."""

from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

import entropix
from entropix.training.config import REPLICATED, cycle
from entropix.training.names import check_name
from entropix.transforms import Relaxation
from entropix.transforms.axes import AxisName
from entropix.transforms.checks import check_fraction, check_positive

REPLICA_AXIS = "replica"
_INNERS = {
    "identity": optax.identity,
    "nesterov": lambda: optax.trace(0.9, nesterov=True),  # the authors' code
    "adam": optax.scale_by_adam,
}


class Algorithm(NamedTuple):
    """One of the paper's algorithms, ready to be stepped.

    Attributes:
      relaxation: turns L mini-batch gradients into a relaxed one.
      optimizer: the outer optimiser; it couples the replicas, if there are any.
      replicas: p >= 1 on a named axis; None for an algorithm without replicas.
      gamma: schedule of the scope in outer steps, for reports; None for SGD.
    """

    relaxation: Relaxation
    optimizer: optax.GradientTransformationExtraArgs
    replicas: int | None
    gamma: optax.Schedule | None


def make_algorithm(
    options: ConfigDict,
    gradients_per_epoch: float,
    traced: dict[str, Any] | None = None,
    *,
    length: float = 1.0,
    axis_name: AxisName = REPLICA_AXIS,
) -> Algorithm:
    """Makes the algorithm that `options` describe.

    Args:
      options: an `optimizer` of the config; see `entropix.training.config.DEFAULTS`.
      gradients_per_epoch: training-set size over batch size, to place the learning-rate drops.
      traced: values that replace options of the same names, possibly traced by JAX: one compiled
        program then serves all values, which is how tuning runs its trials.
      length: in (0, 1]; learning-rate drops come earlier, and gamma falls faster, by this factor.
      axis_name: the replicas' axis, `layout.axis_name` of the layout that the algorithm runs in.

    Returns:
      An `Algorithm`.
    """
    option = {**options.to_dict(), **(traced or {})}
    check_positive("learning_rate", option["learning_rate"])
    check_positive("drop_factor", option["drop_factor"])
    if "scoping_rate" in option:
        check_fraction("scoping_rate", option["scoping_rate"])
    if "inner" in option:
        check_name("inner", option["inner"], _INNERS)
    learning_rate = _dropped(option, length * gradients_per_epoch, cycle(options))
    optimizer = entropix.sgd(learning_rate, option["momentum"])
    name = option["algorithm"]
    if name == "sgd":
        return Algorithm(_plain_gradient(), optimizer, None, None)
    check_positive("gamma", option["gamma"])  # `scoping` knows it by another name
    rate = 1 - (1 - option["scoping_rate"]) ** (1 / length)
    gamma = entropix.scoping(option["gamma"], rate, end_value=option["gamma_end"])
    relaxation = _RELAXATIONS[name](gamma, option, axis_name if name in REPLICATED else None)
    if name not in REPLICATED:
        return Algorithm(relaxation, optimizer, None, gamma)
    pull = gamma
    if "rho" in option:
        check_positive("rho", option["rho"])
        pull = entropix.scoping(option["rho"], rate, end_value=option["rho_end"])
    optimizer = entropix.elastic_sgd(
        learning_rate, pull, axis_name, momentum=option["momentum"], period=option["period"]
    )
    return Algorithm(relaxation, optimizer, option["replicas"], gamma)


def _plain_gradient(*_: Any) -> Relaxation:
    """The gradient at x itself: SGD is the relaxation with L = 1 and no noise."""
    return entropix.heat(1.0, num_steps=1, temperature=0)


def _entropy(
    gamma: optax.Schedule, option: dict[str, Any], axis_name: AxisName | None
) -> Relaxation:
    names = ("num_steps", "step_size", "averaging", "temperature", "noise", "output")
    inner = _INNERS[option["inner"]]()
    return entropix.local_entropy(
        gamma, inner=inner, axis_name=axis_name, **{n: option[n] for n in names}
    )


def _hj(gamma: optax.Schedule, option: dict[str, Any], _: AxisName | None) -> Relaxation:
    names = ("num_steps", "step_size", "form", "output")
    inner = _INNERS[option["inner"]]()
    return entropix.hamilton_jacobi(gamma, inner=inner, **{n: option[n] for n in names})


def _heat(gamma: optax.Schedule, option: dict[str, Any], _: AxisName | None) -> Relaxation:
    names = ("num_steps", "temperature", "noise")
    return entropix.heat(gamma, **{n: option[n] for n in names})


_RELAXATIONS = {
    "entropy_sgd": _entropy,
    "hj": _hj,
    "heat": _heat,
    "elastic_sgd": _plain_gradient,
    "parle": _entropy,
}


def _dropped(
    option: dict[str, Any], gradients_per_epoch: float, gradients_per_step: int
) -> optax.Schedule:
    """The learning rate as a schedule of outer steps, from drops given in effective epochs."""
    drops: dict[int, float] = {}
    for epoch in option["drop_at"]:
        step = round(epoch * gradients_per_epoch / gradients_per_step)
        drops[step] = drops.get(step, 1.0) / option["drop_factor"]  # short runs may merge drops
    rate = jax.numpy.asarray(option["learning_rate"], jax.numpy.float32)
    return optax.piecewise_constant_schedule(rate, drops)
