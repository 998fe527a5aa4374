"""What a problem's functions return, checked by shapes and dtypes alone."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def returned(name: str, function: Callable[..., Any], *args: Any, given: str = "") -> Any:
    """The shapes that a function of the problem returns.

    Args:
      name: what the message calls the function.
      function: of the problem.
      args: arrays or shapes.
      given: what of `args` the message shows, in words.

    Raises:
      ValueError: if the function fails.
    """
    try:
        return jax.eval_shape(function, *args)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} failed{given} ({type(error).__name__}: {error}). See "
            "entropix.experiment.Problem for what it is called with."
        ) from error


def two_of(name: str, pair: str, made: Any) -> Any:
    """What a function returned, a pair."""
    if not isinstance(made, tuple | list) or len(made) != 2 or hasattr(made, "_fields"):
        way_out = "Where the model carries no state along, model_state is ()."
        raise ValueError(f"{name} must return {pair}; got {described(made)}. {way_out}")
    return made


def check_state(name: str, after: Any, before: Any) -> None:
    """Raises `ValueError` unless a model state has the structure, shapes and dtypes of `init`'s."""
    source = f"{name} must return a model_state like that of init"
    old: Any = jax.tree.structure(before)
    new: Any = jax.tree.structure(after)
    if old != new:
        raise ValueError(f"{source}, of structure {old}; got {new}.")
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, leaf), found in leaves:
        if (leaf.shape, leaf.dtype) != (found.shape, found.dtype):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise ValueError(
                f"{source}: at {where}, expected {described(leaf)}; got {described(found)}."
            )


def is_number(made: Any) -> bool:
    """Whether a function returned one real number, or a truth value."""
    known = isinstance(made, jax.ShapeDtypeStruct) and made.shape == ()
    return known and not jnp.issubdtype(made.dtype, jnp.complexfloating)


def described(made: Any) -> str:
    """What a function returned, in words."""
    if isinstance(made, jax.ShapeDtypeStruct):
        return f"{made.dtype} of shape {made.shape}"
    return f"a {type(made).__name__} of structure {jax.tree.structure(made)}"


def shapes_of(tree: Any) -> str:
    """The shapes of the arrays in a pytree, in words."""
    return ", ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree))


def form_of(tree: Any) -> Any:
    """The structure of a pytree in which lists and named tuples are tuples."""
    if isinstance(tree, Mapping):
        return {key: form_of(entry) for key, entry in tree.items()}
    if isinstance(tree, list | tuple):
        return tuple(form_of(entry) for entry in tree)
    return str(jax.tree.structure(tree))  # a PyTreeDef is not unequal to a dictionary
