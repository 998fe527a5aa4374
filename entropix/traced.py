"""The caller's functions inside compiled programs, which are used as long as they are right.

`jax.jit` knows a function by its identity: what the function reads from outside, a global or an
attribute of an object, counts as it was at the first call. That is plain to those who write
`jax.jit`. Here the package compiles, and the caller does not see it.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ADDRESS = re.compile(r"0x[0-9a-f]+")  # of the functions in a program's text


class Traced:
    """A function, and what it computed when it was traced.

    Compiled programs are kept for both: two are equal if the function is the same, the program that
    JAX makes of it, and the arrays in that.
    """

    def __init__(self, function: Callable[..., Any], text: str, constants: tuple[Any, ...]):
        self.function, self.text, self.constants = function, text, constants

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self.function(*arguments)

    def __hash__(self) -> int:
        return hash((self.function, self.text))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Traced)
            and (self.function, self.text) == (other.function, other.text)
            and all(map(_same, self.constants, other.constants))
        )


def traced(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """The function, equal to those alone that compute the same.

    Args:
      function: of arrays, with a hash. One that cannot be traced with the arguments is returned as
        it is: the call that follows says why.
      *arguments: arrays, numbers or `jax.ShapeDtypeStruct`s, of the shapes that it will be given.

    Returns:
      A `Traced`, to be a static argument of a compiled program.

    Example:
      >>> scale = 1.0
      >>> double = lambda x: scale * x
      >>> first = traced(double, 1.0)
      >>> first == traced(double, 1.0)
      True
      >>> scale = 2.0
      >>> first == traced(double, 1.0)
      False
    """

    def anew(*arguments: Any) -> Any:  # JAX remembers what it has traced
        return function(*arguments)

    try:
        program = jax.make_jaxpr(anew)(*arguments)
    except Exception:
        return function
    if any(isinstance(constant, jax.core.Tracer) for constant in program.consts):
        return function  # a part of a program that the caller compiles
    # NumPy's arrays are copied: the caller may write into them.
    constants = [c if isinstance(c, jax.Array) else np.array(c) for c in program.consts]
    return Traced(function, _ADDRESS.sub("", str(program)), tuple(constants))


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()
