"""Leaves of a parameter tree: their precision, what is left alone, and what was changed outside."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from optax import ScalarOrSchedule

from entropix.transforms.checks import check_value


def is_zero(value: Any) -> bool:
    """Whether `value` is 0 already at build time, so that code for it can be left out.

    A number in a JAX array is not known to be: `optax.inject_hyperparams` makes the state with one
    and the update with a traced number, and both have to be made alike.
    """
    return isinstance(value, int | float) and value == 0


def at(value: ScalarOrSchedule, count: jax.Array) -> Any:
    """Returns the value of a number, or of a schedule at `count`."""
    return check_value(value(count)) if callable(value) else value


def dtype_of(leaf: Any) -> Any:
    """The dtype that JAX gives to a leaf: array, abstract array, NumPy or Python scalar."""
    dtype = getattr(leaf, "dtype", None)
    special = dtype is not None and (
        dtype == jax.dtypes.float0 or jnp.issubdtype(dtype, jax.dtypes.extended)
    )
    return dtype if special else jnp.result_type(leaf)


def is_key(leaf: Any) -> bool:
    """Whether `leaf` is a typed JAX key, or an array of them; it may be abstract."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def wide_dtype(dtype: DTypeLike) -> Any:
    """Float32 for real dtypes of fewer bits, else `dtype`: the precision of inner variables."""
    dtype = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def mean_dtype(dtype: DTypeLike) -> Any:
    """In what numbers of a dtype are averaged: `wide_dtype`, and float32 for whole numbers."""
    return wide_dtype(dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.float32)


def wide(leaf: ArrayLike) -> jax.Array:
    """Casts a leaf to at least float32, the precision in which all kernels compute.

    Example:
      >>> import jax.numpy as jnp
      >>> wide(jnp.ones(2, jnp.bfloat16)).dtype, wide(1.0).dtype
      (dtype('float32'), dtype('float32'))
    """
    return jnp.asarray(leaf, wide_dtype(dtype_of(leaf)))


def scalar(value: Any, like: jax.Array) -> jax.Array:
    """Casts a number to the real dtype of `like`, so that it never promotes a kernel's result."""
    value = float(value) if isinstance(value, int) else value  # JAX refuses ints beyond 64 bits
    return jnp.asarray(value).astype(jnp.finfo(like.dtype).dtype)


def factor(value: Any, like: jax.Array) -> jax.Array:
    """A real number in the dtype of `like`, which may be complex: to multiply or divide `like` by.

    Example:
      >>> import jax.numpy as jnp
      >>> scalar(2, jnp.ones(2, jnp.complex64)).dtype, factor(2, jnp.ones(2, jnp.complex64)).dtype
      (dtype('float32'), dtype('complex64'))
    """
    return scalar(value, like).astype(like.dtype)


def root(value: jax.Array) -> jax.Array:
    """The square root of a number >= 0, with no derivative at 0.

    Below zero it is 0: a compiled schedule that ends at zero may end a rounding below. NaN is kept.

    Example:
      >>> import jax.numpy as jnp
      >>> [float(root(jnp.asarray(v))) for v in (4.0, 0.0, -1e-10)]
      [2.0, 0.0, 0.0]
    """
    none = value <= 0
    return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, value)))


def is_static(shape: Sequence[Any]) -> bool:
    """Whether a shape is known, without a symbol of `jax.export`."""
    return all(isinstance(extent, int) for extent in shape)


def norm_squared(tree: Any) -> jax.Array:
    """The sum of the absolute squares of all elements, in the widest of the leaves' precisions.

    The leaves are in float32 or wider. (Strict promotion forbids implicit casts, not these.)

    Example:
      >>> import jax.numpy as jnp
      >>> float(norm_squared({"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}))
      14.0
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.zeros([], jnp.float32) + optax.tree.norm(tree, squared=True)


def norm(tree: Any) -> jax.Array:
    """The root of `norm_squared`, with no derivative at 0."""
    return root(norm_squared(tree))


def cast_like(tree: Any, like: Any) -> Any:
    """Rounds the leaves of `tree` to the dtypes of `like`."""
    return jax.tree.map(lambda leaf, old: jnp.asarray(leaf).astype(dtype_of(old)), tree, like)


def as_real(grad: jax.Array, like: jax.Array) -> jax.Array:
    """A gradient of whole numbers in the dtype of `like`; any other as it is."""
    return grad if is_inexact(grad) else grad.astype(dtype_of(like))


def dtype_of_update(grad: jax.Array, params: jax.Array) -> Any:
    """What a gradient and the parameters are changed in: the wider of both, float32 at least.

    Where both have one dtype, or the gradient is one of whole numbers, that of the parameters.
    (Strict promotion forbids implicit casts, not this one.)
    """
    if grad.dtype == params.dtype or not is_inexact(grad):
        return params.dtype
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(wide_dtype(grad.dtype), wide_dtype(params.dtype))


def wide_like(tree: Any, like: Any) -> Any:
    """Casts leaves to the precision in which kernels compute at the leaves of `like`."""
    return jax.tree.map(lambda leaf, p: leaf.astype(wide_dtype(dtype_of(p))), tree, like)


def copy_tree(tree: Any) -> Any:
    """Copies every leaf: a state that aliases the parameters could not be donated with them."""
    return jax.tree.map(_copy, tree)


def wide_copy(tree: Any) -> Any:
    """Copies every leaf in float32 or wider."""
    return jax.tree.map(lambda leaf: _copy(leaf, wide_dtype(dtype_of(leaf))), tree)


def wide_zeros(tree: Any) -> Any:
    """Zeros of the shapes of `tree`, in float32 or wider."""
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, wide_dtype(dtype_of(leaf))), tree)


def _copy(leaf: Any, dtype: Any = None) -> Any:
    dtype = dtype_of(leaf) if dtype is None else dtype
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)
    return jnp.array(leaf, dtype, copy=True)


def is_abstract(tree: Any) -> bool:
    """Whether leaves are shapes and dtypes alone, as in `jax.eval_shape`."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))


# Leaves that no gradient can move: integers, booleans, random keys.


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf holds real or complex numbers, which gradients can move."""
    return bool(jnp.issubdtype(dtype_of(leaf), jnp.inexact))


def inexact_part(tree: Any, params: Any) -> Any:
    """The leaves of `tree` where `params` are real or complex, as arrays; a hole for every other.

    The hole is Optax's, `optax.MaskedNode`, which every Optax transformation steps over.
    """
    return jax.tree.map(
        lambda p, t: _array(t) if is_inexact(p) else optax.MaskedNode(), params, tree
    )


def inexact_leaves(params: Any) -> Any:
    """The real and complex leaves of the parameters themselves; holes as of `inexact_part`."""
    return inexact_part(params, params)


def _array(leaf: Any) -> Any:
    """A Python or NumPy number as an array of a definite dtype; abstract arrays as they are."""
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf, dtype_of(leaf))


def is_hole(node: Any) -> bool:
    """Whether a node stands for a leaf that is left out; filtered Equinox models have None."""
    return node is None or isinstance(node, optax.MaskedNode)


def filled(tree: Any, rest: Any) -> Any:
    """Fills the holes of `tree` with what `rest` has there."""
    return jax.tree.map(lambda t, r: r if is_hole(t) else t, tree, rest, is_leaf=is_hole)


def with_rest(moves: Any, params: Any) -> Any:
    """Fills the holes of `moves` with updates that change nothing: zeros of the leaves' dtypes.

    They are made for the holes alone: outside of `jax.jit` every array costs time and memory.
    """

    def fill(move: Any, leaf: Any) -> Any:
        return _zero(leaf) if is_hole(move) and not is_hole(leaf) else move

    return jax.tree.map(fill, moves, params, is_leaf=is_hole)


def _zero(leaf: Any) -> Any:
    dtype = dtype_of(leaf)
    if dtype == jax.dtypes.float0 or jnp.issubdtype(dtype, jax.dtypes.extended):
        return leaf  # JAX's own zero; a random key, which has none
    return jnp.zeros(jnp.shape(leaf), dtype)


def on_inexact_leaves(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The optimiser of the real and complex leaves; all others rest, and get a zero update.

    Optax's adamw fails at a leaf of whole numbers, and decay would make zeros of a mask.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Any:
        return optimizer.init(inexact_leaves(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        leaves = updates if params is None else params
        moving = inexact_part(updates, leaves)
        real = None if params is None else inexact_leaves(params)
        moves, state = optimizer.update(moving, state, real, **extra)
        return with_rest(moves, leaves), state

    return optax.GradientTransformationExtraArgs(init, update)


# Who moved the parameters: the state, or the caller.


def rounded(leaf: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Casts to a dtype, with a rounding to bfloat16 that no compiler leaves out.

    XLA may keep float32 where a program rounds to bfloat16 and computes on; then the same number
    differs from itself by what it was not rounded by.
    """
    if dtype == jnp.bfloat16:
        leaf = lax.reduce_precision(wide(leaf), exponent_bits=8, mantissa_bits=7)
    return leaf.astype(dtype)


def landed(params: jax.Array, update: jax.Array) -> jax.Array:
    """Where `optax.apply_updates` puts a leaf; the same expression, hence the same rounding."""
    return rounded(jnp.asarray(params + update), dtype_of(params))


def changed(params: jax.Array, emitted: jax.Array) -> jax.Array:
    r"""Which elements the caller has moved since the state emitted them.

    .. math:: p \ne e \text{ and not } |p - e| < k\,\epsilon\max(|p|, |e|)

    with the dtype's machine epsilon and k = 0 for bfloat16, 1 for what is narrower or float16, and
    4 from float32 on: what compilers may make of one rounding is no change. (Of roundings to
    bfloat16 they make nothing: see `rounded`.) Two NaNs are no change either, and two equal
    infinities; a number in place of an infinity is one.

    Args:
      params: p, the leaf that the caller passes.
      emitted: e, where the last update put the leaf; of the same shape and dtype.

    Returns:
      A boolean array of the same shape.

    Example:
      >>> import jax.numpy as jnp
      >>> e = jnp.asarray([1.0, 1.0, jnp.nan])
      >>> changed(e * (1 + jnp.asarray([1e-7, 1e-3, 0.0])), e).tolist()
      [False, True, False]
    """
    dtype = dtype_of(params)
    p, e = wide(rounded(jnp.asarray(params), dtype)), wide(rounded(jnp.asarray(emitted), dtype))
    info = jnp.finfo(dtype)
    k = 0 if dtype == jnp.bfloat16 else 1 if info.bits < 32 else 4
    rounding = scalar(k * float(info.eps), p)
    near = jnp.abs(p - e) < rounding * jnp.maximum(jnp.abs(p), jnp.abs(e))
    return (p != e) & ~near & ~(jnp.isnan(p) & jnp.isnan(e))


def where_changed(moved: Any, new: Any, old: Any) -> Any:
    """Takes `new` at the elements that the caller moved, in the dtypes of `old`."""
    return jax.tree.map(lambda m, n, o: jnp.where(m, n.astype(o.dtype), o), moved, new, old)
