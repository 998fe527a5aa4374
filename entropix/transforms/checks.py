"""Messages for bad input: each names the argument, its value, what is accepted, the way out."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

POSITIVE = "a number > 0, or an Optax schedule of such numbers"
NON_NEGATIVE = "a number >= 0, or an Optax schedule of such numbers"


def _check(name: str, value: Any, accepts: Callable[[np.ndarray], Any], accepted: str) -> None:
    """Raises unless every element of a concrete `value` is accepted; traced numbers pass."""
    if callable(value) or isinstance(value, jax.core.Tracer):
        return  # schedules and traced numbers have no value yet at build time
    try:
        good = bool(np.all(accepts(np.asarray(value))))
    except TypeError:
        good = False
    if not good:
        raise ValueError(f"{name} must be {accepted}; got {name}={value!r}.")


def check_positive(name: str, value: Any, *, infinite: bool = False) -> None:
    """Raises `ValueError` unless `value` > 0 (finite, or possibly infinite)."""
    if infinite:
        _check(name, value, lambda v: v > 0, POSITIVE + " (infinity switches the pull off)")
    else:
        _check(name, value, lambda v: (v > 0) & np.isfinite(v), POSITIVE)


def check_number(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is one number > 0, concrete or traced; no schedule."""
    if callable(value) or np.ndim(value) > 0:
        raise ValueError(f"{name} must be one number > 0; got {name}={value!r}.")
    _check(name, value, lambda v: (v > 0) & np.isfinite(v), "one number > 0")


def check_non_negative(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` >= 0 and finite."""
    _check(name, value, lambda v: (v >= 0) & np.isfinite(v), NON_NEGATIVE)


def check_fraction(name: str, value: Any) -> None:
    """Raises `ValueError` unless 0 <= `value` < 1."""
    _check(name, value, lambda v: (v >= 0) & (v < 1), "a number in [0, 1)")


def check_averaging(averaging: Any) -> None:
    """Raises `ValueError` unless `averaging` is in [0, 1) or "linear"."""
    if isinstance(averaging, str) and averaging == "linear":
        return
    _check("averaging", averaging, lambda v: (v >= 0) & (v < 1), "a number in [0, 1) or 'linear'")


def check_flag(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False; got {name}={value!r}.")


def check_rate(name: str, value: Any) -> None:
    """Raises `ValueError` unless 0 < `value` <= 1."""
    _check(name, value, lambda v: (v > 0) & (v <= 1), "a number in (0, 1]")


def check_count(name: str, value: Any) -> int:
    """Returns `value` as a Python int >= 1, for arguments that shape the program."""
    accepted = f"{name} must be a static integer >= 1"
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            f"{accepted}, because it sets the length of a compiled loop; got a traced value. "
            f"With optax.inject_hyperparams, write static_args=('{name}',)."
        )
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{accepted}; got {name}={value!r}.")
    return count


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        accepted = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be {accepted}; got {name}={value!r}.")


def check_like(grads: Any, params: Any, source: str) -> None:
    """Raises `ValueError` unless `grads` has the structure and shapes of `params`.

    Without this, a wrong `grad_fn` surfaces as a mismatch of a scan's carry, far from its cause.
    """
    expected: Any = jax.tree.structure(params)
    got: Any = jax.tree.structure(grads)
    if expected != got:
        hint = ""
        if isinstance(grads, tuple) and len(grads) == 2:
            hint = " It looks like a (value, grads) pair: use jax.grad, or return only the second."
        raise ValueError(
            f"{source} must have the structure of the parameters, {expected}; got {got}.{hint}"
        )
    for (path, leaf), grad in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(grads), strict=True
    ):
        if jnp.shape(leaf) != jnp.shape(grad):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise ValueError(
                f"{source} must have the shapes of the parameters: at {where}, expected "
                f"{jnp.shape(leaf)}, got {jnp.shape(grad)}."
            )


def check_params(params: Any, call: str) -> None:
    """Raises `ValueError` showing the `call` to write when `params` was not passed to `update`."""
    if params is None:
        raise ValueError(f"update needs the current parameters. Write: {call}")


def check_scope(gamma: Any, output: str, infinite_output: str = "displacement") -> None:
    """Raises `ValueError` for a bad `gamma` or `output`, or for an infinite gamma without effect.

    At gamma = inf, (x - <y>)/gamma is zero and gamma grad f(x - y) is infinite: only the other
    `output` of each form trains anything.
    """
    check_choice("output", output, ("gradient", "displacement"))
    check_positive("gamma", gamma, infinite=True)
    known = not callable(gamma) and not isinstance(gamma, jax.core.Tracer)
    if known and np.any(np.isinf(np.asarray(gamma))) and output != infinite_output:
        raise ValueError(
            f"gamma must be finite with output={output!r}, whose result is 0 or infinite "
            f"otherwise; got gamma={gamma!r}. For gamma=inf use output={infinite_output!r}."
        )
