"""Messages for bad input: each names the argument, its value, what is accepted, the way out.

The checks return what they accept in the one form that the package computes with: a known number is
a Python float; a number in a JAX array, traced or not, and a schedule stay what they are.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MAX_COUNT = 2**31  # counters are int32
_LONG = 500  # characters: of larger structures a message names the first difference
OR_SCHEDULE = ", or an Optax schedule of such numbers"


def refusal(name: str, accepted: str, value: Any, way_out: str = "") -> ValueError:
    """The error for an argument that is not accepted, in one line."""
    return ValueError(f"{name} must be {accepted}; got {name}={shown(value)}{way_out or '.'}")


def shown(value: Any) -> str:
    """The value in one line of at most 100 characters."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not print integers of thousands of digits
        text = f"a {type(value).__name__} of too many digits to print"
    return text if len(text) <= 100 else f"{text[:97]}..."


def is_schedule(value: Any) -> bool:
    """Whether `value` is a function, as schedules are; classes such as `float` are none."""
    return callable(value) and not isinstance(value, type)


def check_number(
    name: str,
    value: Any,
    accepted: str,
    accepts: Callable[[float], bool],
    *,
    schedule: bool = False,
    array: bool | None = None,
) -> Any:
    """Returns a number in the form that the package computes with.

    Args:
      name: of the argument.
      value: what was passed.
      accepted: what is accepted, in words.
      accepts: whether a known number is accepted. It is asked about the number in JAX's default
        precision, in which 1e-50 is 0 and 1 - 1e-9 is 1.
      schedule: whether a schedule is accepted.
      array: whether a number in a JAX array stays one; by default where a schedule is accepted.

    Returns:
      A Python float for a known real number; a traced number, a schedule and, with `array`, a
      number in a JAX array as it is.

    Raises:
      ValueError: for everything else.
    """
    if schedule and is_schedule(value):
        return value
    if isinstance(value, jax.core.Tracer) and _is_real_scalar(value):
        return value  # without a value at build time
    known = known_number(value)
    if known is None:
        raise refusal(name, accepted, value, _way_out(value))
    rounded, dtype = _rounded(known)
    if not accepts(rounded) or (rounded == 0 and known != 0):
        differs = math.isfinite(known) and rounded != known and accepts(known)
        way_out = f", which is {rounded:g} in {dtype}." * differs
        raise refusal(
            name, accepted, value, way_out or ", which is not finite." * (known == math.inf)
        )
    keep = schedule if array is None else array
    return value if keep and isinstance(value, jax.Array) else known


def check_value(value: Any) -> Any:
    """Returns what a schedule returned, which must be one real number."""
    real = isinstance(value, int | float) or (
        isinstance(value, np.generic | np.ndarray | jax.Array) and _is_real_scalar(value)
    )
    if not real:
        raise refusal("a schedule's value", "a real number of shape ()", value)
    return value


def known_number(value: Any) -> float | None:
    """A real number with a value at build time, as a Python float; None for anything else."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, float):
        return float(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array) and _is_real_scalar(value):
        return None if isinstance(value, jax.core.Tracer) else float(value)
    return None


def _is_real_scalar(value: Any) -> bool:
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    return bool(value.shape == () and real)


def _rounded(value: float) -> tuple[float, Any]:
    """The number in JAX's default precision, and that; compiled programs may make subnormals 0."""
    info = jnp.finfo(jnp.result_type(float))
    if abs(value) < float(info.tiny):
        return 0.0, info.dtype
    if abs(value) > float(info.max):
        return math.copysign(math.inf, value), info.dtype
    return float(info.dtype.type(value)), info.dtype


def _way_out(value: Any) -> str:
    """How to pass what is not one number."""
    if isinstance(value, type):
        return ", a class. Write a number."
    if callable(value):
        return ", a function. Schedules are not taken here: write a number."
    if isinstance(value, list | tuple) or getattr(value, "ndim", 0) > 0:
        return ". For several values at once, jax.vmap a function of one of them."
    return ""


def check_positive(name: str, value: Any, *, infinite: bool = False, schedule: bool = True) -> Any:
    """Returns a number > 0 (finite, or possibly infinite) or, where taken, a schedule."""
    accepted = "a number > 0" + OR_SCHEDULE * schedule
    if infinite:
        accepted += " (infinity switches the pull off)"
        return check_number(name, value, accepted, lambda v: v > 0, schedule=schedule)
    return check_number(name, value, accepted, lambda v: 0 < v < math.inf, schedule=schedule)


def check_non_negative(name: str, value: Any, *, schedule: bool = True) -> Any:
    """Returns a finite number >= 0 or, where taken, a schedule."""
    accepted = "a number >= 0" + OR_SCHEDULE * schedule
    return check_number(name, value, accepted, lambda v: 0 <= v < math.inf, schedule=schedule)


def check_fraction(name: str, value: Any, accepted: str = "a number in [0, 1)") -> Any:
    """Returns a number in [0, 1)."""
    return check_number(name, value, accepted, lambda v: 0 <= v < 1)


def check_rate(name: str, value: Any) -> Any:
    """Returns a number in (0, 1]."""
    return check_number(name, value, "a number in (0, 1]", lambda v: 0 < v <= 1)


def check_averaging(averaging: Any) -> Any:
    """Returns a number in [0, 1), or "linear"."""
    if isinstance(averaging, str) and averaging == "linear":
        return averaging
    accepted = "a number in [0, 1) or 'linear'"
    return check_number("averaging", averaging, accepted, lambda v: 0 <= v < 1, array=True)


def check_momentum(momentum: Any) -> Any:
    """Returns a number in [0, 1), or None for no momentum."""
    if momentum is None:
        return None
    return check_fraction("momentum", momentum, "a number in [0, 1) or None")


def check_scope(gamma: Any, output: Any, infinite_output: str = "displacement") -> Any:
    """Returns gamma; refuses a bad `output`, and an infinite gamma that would train nothing.

    At gamma = inf, (x - <y>)/gamma is zero and gamma grad f(x - y) is infinite: only the other
    `output` of each form trains anything.
    """
    check_choice("output", output, ("gradient", "displacement"))
    gamma = check_positive("gamma", gamma, infinite=True)
    known = known_number(gamma)
    infinite = known is not None and math.isinf(_rounded(known)[0])
    if infinite and output != infinite_output:
        raise ValueError(
            f"gamma must be finite with output={output!r}, whose result is 0 or infinite "
            f"otherwise; got gamma={gamma!r}. For gamma=inf use output={infinite_output!r}."
        )
    return gamma


def check_flag(name: str, value: Any) -> bool:
    """Returns True or False."""
    if not isinstance(value, bool | np.bool_):
        raise refusal(name, "True or False", value)
    return bool(value)


def check_count(name: str, value: Any) -> int:
    """Returns a Python int >= 1, for arguments that shape the program."""
    accepted = "a static integer >= 1 and < 2**31"
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            f"{name} must be {accepted}, because it sets the length of a compiled loop; got a "
            f"traced value. With optax.inject_hyperparams, write static_args=('{name}',)."
        )
    return _integer(name, value, 1, accepted)


def check_index(name: str, value: Any, accepted: str = "an integer >= 0 and < 2**31") -> int:
    """Returns a Python int >= 0, such as a seed or a number of things that may be none."""
    return _integer(name, value, 0, accepted)


def _integer(name: str, value: Any, least: int, accepted: str) -> int:
    """Returns a Python int in [least, 2**31); a flag, True or False, is none."""
    try:
        integer = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        integer = least - 1
    if not least <= integer < MAX_COUNT:
        raise refusal(name, accepted, value)
    return integer


def check_choice(name: str, value: Any, choices: Sequence[str], way_out: str = "") -> str:
    """Returns one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise refusal(name, " or ".join(repr(choice) for choice in choices), value, way_out)
    return value


def check_function(name: str, value: Any, accepted: str) -> Any:
    """Returns a function; `accepted` says of what."""
    if not is_schedule(value):
        raise refusal(name, accepted, value)
    return value


def check_transformation(name: str, value: Any, example: str) -> Any:
    """Returns an Optax transformation, or what looks like one."""
    parts = [getattr(value, part, None) for part in ("init", "update")]
    if isinstance(value, type) or not all(callable(part) for part in parts):
        called = ". Call the function." * callable(value)
        raise refusal(name, f"an Optax transformation, such as {example}", value, called)
    return value


def check_like(grads: Any, params: Any, source: str, those: str = "the parameters") -> None:
    """Raises `ValueError` unless `grads` has the structure and shapes of `params`.

    Without this, a wrong `grad_fn` surfaces as a mismatch of a scan's carry, far from its cause.
    """
    expected: Any = jax.tree.structure(params)
    got: Any = jax.tree.structure(grads)
    if expected != got:
        hint = ""
        if isinstance(grads, tuple) and len(grads) == 2:
            hint = " It looks like a (value, grads) pair: use jax.grad, or return only the second."
        differ = f"{expected}; got {got}"
        if len(differ) > _LONG and (named := _first_difference(params, grads)):
            differ = named
        raise ValueError(f"{source} must have the structure of {those}, {differ}.{hint}")
    for (path, leaf), grad in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(grads), strict=True
    ):
        if jnp.shape(leaf) != jnp.shape(grad):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise ValueError(
                f"{source} must have the shapes of {those}: at {where}, expected "
                f"{jnp.shape(leaf)}, got {jnp.shape(grad)}."
            )


def _first_difference(params: Any, grads: Any) -> str:
    """Where two large trees differ; empty if their leaves have the same names."""
    ours, theirs = (
        [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        for tree in (params, grads)
    )
    missing = next((name for name in ours if name not in theirs), "")
    further = next((name for name in theirs if name not in ours), "")
    parts = [f"which have {missing}"] * bool(missing)
    parts += [f"which do not have {further}"] * bool(further)
    counts = f" ({len(ours)} leaves; got {len(theirs)})"
    return " and ".join(parts) + counts if parts else ""


def check_params(params: Any, call: str) -> None:
    """Raises `ValueError` showing the `call` to write when `params` was not passed to `update`."""
    if params is None:
        raise ValueError(f"update needs the current parameters. Write: {call}")
