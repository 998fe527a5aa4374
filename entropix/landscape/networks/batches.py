"""Means over a data set, one batch in memory at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from entropix.transforms import checks
from entropix.transforms.numerics import mean_dtype

Tree = Any


def batched(data: Tree, batch_size: int) -> Tree:
    """Cuts examples into equal batches, the form that the instruments take data in.

    Args:
      data: a tree of arrays of shape (examples, ...), for instance `(images, labels)`.
      batch_size: examples in a batch, a divisor of the number of examples: the mean over batches
        is the mean over examples only where all batches have the same size.

    Returns:
      A tree of arrays of shape (examples / batch_size, batch_size, ...).

    Raises:
      ValueError: if the examples cannot be cut so.

    Example:
      >>> import jax.numpy as jnp
      >>> images, labels = batched((jnp.zeros((12, 5)), jnp.zeros(12)), 4)
      >>> images.shape, labels.shape
      ((3, 4, 5), (3, 4))
    """
    batch_size = checks.check_count("batch_size", batch_size)
    count = leading_size("data", data)
    if count % batch_size:
        raise ValueError(
            f"batch_size must divide the number of examples, {count}; got batch_size={batch_size}. "
            f"Leave the last {count % batch_size} examples out, or choose a divisor."
        )
    return jax.tree.map(
        lambda leaf: jnp.reshape(leaf, (count // batch_size, batch_size, *leaf.shape[1:])), data
    )


def leading_size(name: str, batches: Tree) -> int:
    """The size >= 1 of the first axis, which all leaves share.

    Raises:
      ValueError: if they do not.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batches)]
    sizes = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or not next(iter(sizes)):
        raise ValueError(
            f"{name} must be a tree of arrays with one common leading axis of size >= 1; got "
            f"shapes {checks.shown(shapes)}. One batch alone: jax.tree.map(lambda b: b[None], b)."
        )
    return int(shapes[0][0])


def mean_over(function: Callable[[Tree], Tree], batches: Tree) -> Tree:
    """The mean of a function over batches, summed in float32 or wider.

    Args:
      function: from one batch to a tree of arrays.
      batches: a tree of arrays with a leading axis of batches.

    Returns:
      A tree like the function's results. The loop holds one batch's intermediate results and one
      running sum, whatever the number of batches.
    """
    count = leading_size("batches", batches)
    first = jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], batches)
    shapes = jax.eval_shape(function, first)
    dtypes = jax.tree.map(lambda s: mean_dtype(s.dtype), shapes)

    def cast(results: Tree) -> Tree:
        return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), results, dtypes)

    if count == 1:
        return cast(function(first))

    def add(total: Tree, batch: Tree) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, cast(function(batch))), None

    zero = jax.tree.map(lambda s, dtype: jnp.zeros(s.shape, dtype), shapes, dtypes)
    total, _ = lax.scan(add, zero, batches)
    return jax.tree.map(lambda leaf: leaf / count, total)


def value_and_gradient(
    loss: Callable[[Tree, Tree], jax.Array], point: Tree, batches: Tree
) -> tuple[jax.Array, Tree]:
    """The mean loss and its gradient: each batch's gradient is taken before the next batch.

    Args:
      loss: `loss(point, batch) -> number`.
      point: where, a tree of floating-point arrays.
      batches: a tree of arrays with a leading axis of batches.
    """
    return mean_over(lambda batch: jax.value_and_grad(loss)(point, batch), batches)


def mean_figures(loss: Callable[[Tree, Tree], Tree], params: Tree, batches: Tree) -> Tree:
    """The mean over batches of a number, or of a tree of several."""

    def of_batch(batch: Tree) -> Tree:
        check_figures(loss, params, batch)
        return jax.tree.map(jnp.asarray, loss(params, batch))

    return mean_over(of_batch, batches)


def check_loss(loss: Callable[..., Any], *arguments: Any, name: str = "loss") -> None:
    """Raises `ValueError` unless a loss returns one floating-point number."""
    result = jax.eval_shape(loss, *arguments)
    leaves = jax.tree.leaves(result)
    scalar = len(leaves) == 1 and getattr(result, "shape", None) == ()
    if not scalar or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise ValueError(
            f"{name} must return one floating-point number; got {_shapes(result)}. "
            "Take the mean over the batch, and return nothing else."
        )


def check_figures(loss: Callable[..., Any], *arguments: Any) -> None:
    """Raises `ValueError` unless a function returns numbers: one, or a tree of several."""
    result = jax.eval_shape(loss, *arguments)
    leaves = jax.tree.leaves(result)
    if not leaves or any(leaf.shape for leaf in leaves):
        raise ValueError(
            f"loss must return a number, or a tree of numbers; got {_shapes(result)}. "
            "Take means over the batch."
        )


def _shapes(result: Tree) -> str:
    """The shapes and dtypes of a tree, for a message."""
    return checks.shown(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", result))
