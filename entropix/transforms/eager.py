"""Calls outside of `jax.jit`, which must not compile anything anew at every call.

JAX compiles a loop or a conditional whenever it is called eagerly, and keeps the program. Compiled
once per transformation instead are the functions of its relaxation. What these have of the caller's
(schedules, `inner`) is compiled with them: a global that a schedule reads counts as it was at the
first call, as it does under `jax.jit`.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.tree_util import Partial

from entropix.transforms.relaxation import Relaxation


def is_concrete(*trees: Any) -> bool:
    """Whether all leaves are values, as outside of `jax.jit`, `jax.vmap` and `jax.grad`."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def is_eager(*trees: Any) -> bool:
    """Whether all leaves are values, and are not the constants of a program that JAX is tracing."""
    # While a program is traced, the result of any operation is a tracer.
    return is_concrete(trees) and is_concrete(lax.neg(np.float32(0)))


def is_data(*trees: Any) -> bool:
    """Whether all leaves are numbers or arrays, which a compiled function takes.

    Not so a flag, `True` or `False`, by which a link may choose what to do.
    """
    numbers = (jax.Array, np.ndarray, np.generic, int, float, complex)
    leaves = jax.tree.leaves(trees)
    return all(isinstance(leaf, numbers) and not isinstance(leaf, bool) for leaf in leaves)


def as_partial(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a tree, which compiled programs take; equal functions share a program.

    Arrays that a `Partial` binds are arguments of the program. A function without a hash, such as
    an Equinox model or a dataclass, is equal to no other.
    """
    if isinstance(function, Partial):
        return function
    try:
        hash(function)
    except TypeError:
        return Partial(lambda *arguments: function(*arguments))
    return Partial(function)


def cond(
    predicate: jax.Array,
    if_true: Callable[[Any], Any],
    if_false: Callable[[Any], Any],
    operand: Any,
) -> Any:
    """`lax.cond`, which chooses in Python where the predicate is known, and compiles nothing."""
    if isinstance(predicate, jax.core.Tracer):
        return lax.cond(predicate, if_true, if_false, operand)
    return if_true(operand) if predicate else if_false(operand)


def compiled(relaxation: Relaxation) -> Relaxation:
    """The relaxation with its functions compiled, each when it is first called."""
    return relaxation._replace(
        begin=jax.jit(relaxation.begin),
        point=jax.jit(relaxation.point),
        step=jax.jit(relaxation.step),
        finish=jax.jit(relaxation.finish),
    )
