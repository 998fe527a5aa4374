"""What every solver checks before it builds a program."""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

T = TypeVar("T")


def check_float64() -> None:
    """Raises a ValueError unless JAX computes in double precision.

    The solvers' errors are measured against closed forms down to 1e-12, and the log-sum-exp of
    beta = 1e6 has no digit left in single precision.

    Raises:
      ValueError: without float64, with both ways to switch float64 on.

    Example:
      >>> import entropix, jax
      >>> with jax.enable_x64(True):
      ...     entropix.pde.check_float64()
    """
    if jax.dtypes.canonicalize_dtype(jnp.float64) != jnp.float64:
        raise ValueError(
            "entropix.pde needs float64, and JAX is set to float32; call "
            'jax.config.update("jax_enable_x64", True) first, or work inside '
            "`with jax.enable_x64(True):`"
        )


def check_positive(**values: Any) -> None:
    """Raises a ValueError unless every number is positive and finite; traced ones pass."""
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            continue
        try:
            good = not isinstance(value, str) and 0 < float(value) < math.inf
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(f"{name} must be one number > 0 and finite; got {name}={value!r}")


def not_negative(values: np.ndarray) -> np.ndarray:
    """Where values are finite and >= 0."""
    return (values >= 0) & np.isfinite(values)


def check_all(
    name: str,
    values: ArrayLike,
    good: Callable[[np.ndarray], np.ndarray],
    accepted: str = "finite and >= 0",
) -> None:
    """Raises a ValueError naming the first value that is not accepted; traced ones pass.

    Args:
      name: of the argument.
      values: a number or an array.
      good: tells of an array which of its values are accepted, such as `not_negative`.
      accepted: the same in words.
    """
    if not isinstance(values, jax.core.Tracer):
        values = np.ravel(np.asarray(values))  # NumPy's: in a program, JAX would trace constants
        bad = values[~good(values)]
        if bad.size:
            raise ValueError(f"{name} must be {accepted}; got {name} with {float(bad[0])}")


def check_count(*, least: int = 1, **values: Any) -> None:
    """Raises a ValueError unless every value, given by its name, is an integer >= `least`."""
    for name, value in values.items():
        try:
            good = operator.index(value) >= least
        except TypeError:
            good = False
        if not good:
            raise ValueError(f"{name} must be an integer >= {least}; got {name}={value!r}")


def check_finite(name: str, values: Any, points: Any, *, besides: float | None = None) -> None:
    """Raises a ValueError unless values at nodes are finite; traced ones pass.

    Args:
      name: of the function.
      values: at the nodes.
      points: the nodes.
      besides: an infinity that is accepted too, if some values are finite.
    """
    if isinstance(values, jax.core.Tracer):
        return
    values = np.asarray(values)
    finite = np.isfinite(values)
    bad = np.argwhere(~finite if besides is None else ~finite & (values != besides))
    if not bad.size and finite.any():
        return
    accepted = "finite" if besides is None else f"finite or {besides:+}inity, and finite somewhere"
    node = tuple(bad[0]) if bad.size else (0,) * values.ndim
    where = points[node].tolist() if bad.size else "every node"
    raise ValueError(f"{name} must be {accepted}; its value at {where} is {values[node]}")


def chosen(name: str, value: T | str, known: Mapping[str, T]) -> T:
    """What an argument stands for: one of the known choices by its name, or a choice itself.

    Args:
      name: of the argument.
      value: a name, or what `known` has names for.
      known: choices by name.

    Raises:
      ValueError: for a name that is not known, and for anything that is no function or NamedTuple.
    """
    if isinstance(value, str) and value in known:
        return known[value]
    if isinstance(value, str) or not (callable(value) or isinstance(value, tuple)):
        names = " or ".join(map(repr, known))
        raise ValueError(f"{name} must be {names}; got {name}={value!r}")
    return value


def check_line(shape: tuple[int, ...]) -> None:
    """Raises a ValueError unless the shape is that of a grid of one dimension."""
    if len(shape) != 1:
        raise ValueError(f"grid must have one dimension; got shape {shape}")


def hashable(value: Any) -> Any:
    """The value as an argument that programs are made of: a function without a hash, wrapped.

    A program is compiled once for a function with a hash, and anew for one without.
    """
    try:
        hash(value)
    except TypeError:
        return lambda *arguments: value(*arguments)
    return value


def real(name: str, value: Any) -> Any:
    """Numbers in float64; raises a ValueError for complex ones. What is no array passes."""
    if not isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex):
        return value
    if jnp.iscomplexobj(value):
        raise ValueError(f"{name} must be real; got complex numbers. Take their jnp.real")
    return jnp.asarray(value, jnp.float64)


@dataclasses.dataclass(frozen=True)
class RealFunction:
    """A function with values in float64, an integer constant's too, so that it has derivatives.

    Attributes:
      name: of the argument that it is.
      function: of JAX, with real values; anything else is refused in words.
    """

    name: str
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """The function's value."""
        try:
            value = self.function(*arguments)
        except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
            raise ValueError(
                f"{self.name} must be a JAX function: write it with jax.numpy instead of numpy "
                "and math, and with jnp.where instead of if"
            ) from error
        return real(self.name, value)


def function_of(name: str, value: Any) -> RealFunction:
    """A function as `hashable` gives it; raises a ValueError for what is no function."""
    if not callable(value):
        raise ValueError(f"{name} must be a JAX function; got {type(value).__name__}")
    return RealFunction(name, hashable(value))


def key_of(key: jax.Array | int) -> jax.Array:
    """A JAX key, or that of a seed; raises a ValueError for anything else."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(key)
    if not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"key must be a JAX key or an integer; got key={key!r}")
    return jnp.asarray(key)


def check_multiple(name: str, value: int, of: str, unit: int) -> None:
    """Raises a ValueError unless the count called `name` is a multiple of the one called `of`."""
    if value % unit:
        raise ValueError(f"{name} must be a multiple of {of}; got {value} and {unit}")
