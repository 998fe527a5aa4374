"""Options of every algorithm: schedules in fractions of the run, decay, clipping, averages."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
import optax

import entropix
from entropix.experiment.names import check_name
from entropix.transforms.checks import (
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_non_negative,
    check_positive,
    refusal,
    shown,
)
from entropix.transforms.numerics import (
    cast_like,
    factor,
    filled,
    inexact_leaves,
    inexact_part,
    is_zero,
    norm,
    wide,
)

# Of every algorithm.
COMMON: dict[str, Any] = {
    "schedule": "drops",  # drops | cosine | constant: the learning rate over the run
    "drop_at": (),  # fractions of the run at which the learning rate is divided ...
    "drop_factor": 10.0,  # ... by this
    "warmup": 0.0,  # fraction of the run in which the learning rate rises from 0
    "weight_decay": 0.0,  # decoupled: x shrinks by learning rate x this at every step of x
    "l2": 0.0,  # coupled, as the authors': this times the parameters is added to every gradient
    "clip": 0.0,  # largest norm of a mini-batch gradient; 0 for no limit
    "ema": 0.0,  # decay of the average of x that is evaluated in place of x; 0 for none
}
# Of those with a scope gamma as well.
SCOPED: dict[str, Any] = {
    "scoping_rate": 1e-3,  # gamma shrinks by this share ...
    "scoping_period": 1,  # ... once in so many outer steps
    "gamma_end": 0.0,  # and not below this
    "normalise_gamma": False,  # gamma is divided by the number of parameters (section 7.5)
}
# What they make of numbers with an end, such as gamma and gamma_end: the schedule of a scope.
SCOPES = ("gamma", "rho")
INNERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "identity": optax.identity,
    "nesterov": lambda: optax.trace(0.9, nesterov=True),  # the authors' code
    "adam": optax.scale_by_adam,
}

# What options with numbers as defaults may be besides: None and "linear".
_BESIDES: dict[str, type] = {"momentum": type(None), "averaging": str}


# What acts through the learning rate that an algorithm is given.
OF_RATE = ("schedule", "drop_at", "drop_factor", "warmup", "weight_decay")


def check_kinds(option: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises `ValueError` for an option of another kind than its default, as a number is none.

    Factories of this package check ranges too; those of Optax take anything.
    """
    for name, default in defaults.items():
        value = option[name]
        if isinstance(default, bool):
            check_flag(name, value)
        elif isinstance(default, str):
            if not isinstance(value, str):
                raise refusal(name, "a string", value)
        elif isinstance(default, int | float) and not isinstance(value, _BESIDES.get(name, ())):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or value != value:
                raise refusal(name, "a number", value)


def check_common(option: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a common option outside its range, before work starts."""
    check_choice("schedule", option["schedule"], ("drops", "cosine", "constant"))
    drops = option["drop_at"]
    if not isinstance(drops, list | tuple) or not all(_is_fraction(at) for at in drops):
        way_out = ". Fractions of the run: half of it is 0.5, whatever its length."
        raise refusal("drop_at", "numbers in (0, 1), such as (0.5, 0.75)", drops, way_out)
    if drops and option["schedule"] != "drops":
        raise refusal("drop_at", f"empty with schedule={option['schedule']!r}", drops)
    check_positive("drop_factor", option["drop_factor"], schedule=False)
    for name in ("warmup", "ema"):
        check_fraction(name, option[name])
    for name in ("weight_decay", "l2", "clip"):
        check_non_negative(name, option[name], schedule=False)
    if "scoping_rate" in option:
        check_fraction("scoping_rate", option["scoping_rate"])
        check_count("scoping_period", option["scoping_period"])
        check_flag("normalise_gamma", option["normalise_gamma"])
        for name in SCOPES:
            _check_start(name, option)
    if "inner" in option:
        check_name("inner", option["inner"], INNERS)


def _check_start(name: str, option: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a scope that begins below its end, which would act in its place."""
    start, end = option.get(name), option.get(f"{name}_end")
    if _is_real(start) and _is_real(end) and 0 < start < end:  # a search's are not known
        way_out = f". The scope is never below {name}_end: lower {name}_end, or raise {name}."
        raise refusal(name, f"at least {name}_end={end:g}", start, way_out)


def check_stored(algorithm: str, option: Mapping[str, Any]) -> None:
    """Raises `ValueError` for an option that results cannot be stored with, as a function."""
    for name, value in option.items():
        try:
            json.dumps(value, default=plain_number)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"option {name} of algorithm {algorithm} must be a number, a string or a list of "
                f"these, which results are stored with; got {shown(value)}. Choose it by a name, "
                "of which the factory makes what it needs."
            ) from error


def learning_rate(option: Mapping[str, Any], steps: float) -> optax.Schedule:
    r"""The learning rate as a schedule of steps, of which the run has `steps`.

    .. math:: \eta(t) = \eta_0\, w(t)\, s(t),\qquad t = k/n

    with the warm-up w(t) = min(1, (t + 1/n)/`warmup`), not 0 at the first step, and s the drops or
    half a cosine.
    """
    peak, warmup = option["learning_rate"], option["warmup"]
    drops = jnp.asarray(sorted(option["drop_at"]), jnp.float32)
    cosine = option["schedule"] == "cosine"

    def schedule(count: jax.Array) -> jax.Array:
        fraction = jnp.asarray(count, jnp.float32) / steps
        rate = jnp.asarray(peak, jnp.float32)
        if len(drops):
            rate = rate / option["drop_factor"] ** jnp.sum(fraction >= drops).astype(jnp.float32)
        if cosine:
            rest = jnp.clip((fraction - warmup) / (1 - warmup), 0, 1)
            rate = rate * 0.5 * (1 + jnp.cos(math.pi * rest))
        if not is_zero(warmup):
            rate = rate * jnp.minimum(1.0, (fraction + 1 / steps) / warmup)
        return rate

    return schedule


def scope(name: str, option: Mapping[str, Any], num_parameters: int) -> optax.Schedule:
    """A scope, gamma or rho, as a schedule of outer steps; `num_parameters` is N."""
    share = num_parameters if option["normalise_gamma"] else 1
    start = check_positive(name, option[name], schedule=False) / share
    end = check_non_negative(f"{name}_end", option[f"{name}_end"], schedule=False) / share
    falling = entropix.scoping(start, option["scoping_rate"], end_value=end)
    return lambda count: falling(count // option["scoping_period"])


def on_gradient(option: Mapping[str, Any]) -> Callable[[Any, Any], Any]:
    """Makes `(grads, params) -> grads`: coupled L2, then clipping, of every mini-batch gradient."""
    l2, clip = option["l2"], option["clip"]

    def changed(grads: Any, params: Any) -> Any:
        real = inexact_part(grads, params)
        if not is_zero(l2):
            real = jax.tree.map(lambda g, p: g + l2 * p, real, inexact_leaves(params))
        if not is_zero(clip):
            wider = jax.tree.map(wide, real)  # the squares of float16 overflow from 256 on
            share = jnp.minimum(1.0, clip / jnp.maximum(norm(wider), 1e-30))
            real = cast_like(jax.tree.map(lambda g: g * factor(share, g), wider), real)
        return filled(real, grads)

    return changed


def with_decay(
    optimizer: optax.GradientTransformation,
    rate: optax.Schedule,
    weight_decay: float,
    counts: int = 1,
) -> optax.GradientTransformationExtraArgs:
    """Adds decoupled weight decay: -learning rate x weight decay x parameters to every update.

    Of what the schedule of the learning rate counts, an update makes `counts`.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    if is_zero(weight_decay):
        return optimizer
    decay = optax.chain(optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(rate))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, first = optimizer.update(updates, state[0], params, **extra)
        shrinking, (rest, schedule) = decay.update(optax.tree.zeros_like(updates), state[1], params)
        second = rest, schedule._replace(count=schedule.count + counts - 1)
        return optax.tree.add(updates, shrinking), (first, second)

    return optax.GradientTransformationExtraArgs(
        lambda params: (optimizer.init(params), decay.init(params)), update
    )


def left_to(arguments: Iterable[str]) -> dict[str, float]:
    """The common options that a factory's own arguments of the same names take over, switched off.

    Example:
      >>> left_to(["learning_rate", "l2"])
      {'l2': 0.0}
    """
    return {name: 0.0 for name in ("l2", "clip", "ema") if name in arguments}


def plain_number(value: Any) -> Any:
    """A number of NumPy or JAX as one of Python, which results are stored with; all else as it is.

    Example:
      >>> plain_number(np.int64(5)), plain_number("adam")
      (5, 'adam')
    """
    number = isinstance(value, np.generic | np.ndarray | jax.Array) and value.ndim == 0
    return value.item() if number and not isinstance(value, jax.core.Tracer) else value


def plain_numbers(value: Any) -> Any:
    """`plain_number` of all that dictionaries, lists and tuples hold.

    Example:
      >>> plain_numbers({"gamma": np.float32(10), "widths": (np.int64(8), 4)})
      {'gamma': 10.0, 'widths': (8, 4)}
    """
    if isinstance(value, Mapping):
        return {name: plain_numbers(entry) for name, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain_numbers, value))
    return plain_number(value)


def _is_real(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_fraction(value: Any) -> bool:
    return _is_real(value) and 0 < value < 1
