"""Parameters as points and vectors of real numbers in float32 or wider.

The instruments move floating-point leaves only. Leaves of other types (counters, masks, random
keys) reach the loss unchanged, and are zero in every vector that is shaped like the parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from entropix.transforms import checks
from entropix.transforms.numerics import (
    dtype_of,
    filled,
    inexact_leaves,
    inexact_part,
    wide,
    with_rest,
)

Tree = Any
Product = Callable[[jax.Array], jax.Array]


def movable(params: Tree) -> Tree:
    """The floating-point leaves, in float32 or wider; a hole for every other leaf.

    Raises:
      ValueError: for parameters without floating-point leaves, or with complex ones.
    """
    part = inexact_leaves(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(part):
        if jnp.issubdtype(dtype_of(leaf), jnp.complexfloating):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise ValueError(
                f"params must have real leaves; got {dtype_of(leaf)} at {where}. Keep the real "
                "and the imaginary part as two leaves, and combine them in the loss."
            )
    if not jax.tree.leaves(part):
        raise ValueError("params must have at least one floating-point leaf; got none.")
    return jax.tree.map(wide, part)


def vector_part(vector: Tree, params: Tree, name: str) -> Tree:
    """The part of a vector that belongs to movable leaves, in the precision of computation."""
    checks.check_like(vector, params, name)
    part = inexact_part(vector, params)
    return jax.tree.map(lambda v, x: jnp.asarray(v).astype(x.dtype), part, movable(params))


def at_point(point: Tree, params: Tree) -> Tree:
    """Parameters for the loss: movable leaves from `point`, all others from `params`."""
    return filled(point, params)


def as_vector(part: Tree, params: Tree) -> Tree:
    """A vector shaped like the parameters, zero where a leaf cannot move."""
    return with_rest(part, params)


# Leaves of several precisions make one vector, and one number, of the widest of them. Strict
# promotion forbids implicit casts, not these.


def raveled(part: Tree) -> tuple[jax.Array, Callable[[jax.Array], Tree]]:
    """The leaves as one vector, and the function that makes such a tree of a vector."""
    with jax.numpy_dtype_promotion("standard"):
        return ravel_pytree(part)


def inner_product(a: Tree, b: Tree) -> jax.Array:
    """The sum over all elements of a times b."""
    with jax.numpy_dtype_promotion("standard"):
        return optax.tree.vdot(a, b)


def check_automatic(params: Tree) -> None:
    """Raises `ValueError` for leaves divided over Explicit axes of a mesh.

    Flat vectors and inner products of such leaves have no sharding that JAX would infer.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not isinstance(leaf, jax.Array):
            continue
        sharding: Any = jax.typeof(leaf).sharding
        if sharding.mesh.explicit_axes and any(part is not None for part in sharding.spec):
            raise ValueError(
                "params must not be divided over Explicit axes of a mesh; got "
                f"{jax.tree_util.keystr(path) or 'the only leaf'} with {sharding.spec}. Make the "
                "mesh with axis_types=(jax.sharding.AxisType.Auto,), one for each axis, or put the "
                "parameters on one device: jax.device_put(params, jax.devices()[0])."
            )


def flattened(matvec: Callable[[Tree], Tree], params: Tree) -> tuple[Product, jax.Array]:
    """An operator on trees as one on flat vectors, and the flat parameters.

    Args:
      matvec: `v -> A v`, both shaped like the parameters.
      params: any tree of arrays and numbers.

    Returns:
      `product(vector) -> vector`, and the movable parameters as one vector of n numbers.
    """
    check_automatic(params)
    flat, unravel = raveled(movable(params))

    def product(vector: jax.Array) -> jax.Array:
        result = matvec(as_vector(unravel(vector), params))
        part = vector_part(result, params, "matvec's result")
        return raveled(part)[0].astype(flat.dtype)

    return product, flat


def size(params: Tree) -> int:
    """The number n of movable parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(movable, params)))
