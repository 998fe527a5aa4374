"""Loss and error at x, with the batch-norm statistics of x."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from entropix.data import Dataset
from entropix.training.epoch import Apply, cross_entropy
from entropix.training.state import Point


class Evaluation(NamedTuple):
    """Losses in nats, errors in per cent; scalars, or one per seed."""

    train_loss: Array
    train_error: Array
    val_loss: Array
    val_error: Array


def make_evaluate(
    apply: Apply,
    estimate: Apply,
    max_batch: int = 2000,
    train_examples: int = 0,
) -> Callable[[Point, Dataset], Evaluation]:
    """Makes the evaluation of one seed at x (see `entropix.training.state.centre`).

    Training collects batch-norm statistics along the inner iterates y, where the gradients are
    wanted, and not at x. So they are estimated anew: one pass over the training set with the
    weights fixed and dropout off, whose batches' statistics are averaged.

    Args:
      apply: the network; called in evaluation mode.
      estimate: the same network, as made by `batch_statistics`.
      max_batch: examples per forward pass.
      train_examples: how many of the training set to look at, the first ones; 0 for all. Records
        of the known data sets come in no order, so the first are as good as any.

    Returns:
      `evaluate(point, data) -> Evaluation`.
    """

    def evaluate(point: Point, data: Dataset) -> Evaluation:
        params, stats = point
        some = slice(train_examples or None)
        train_images, train_labels = data.train_images[some], data.train_labels[some]
        stats = _estimate(estimate, params, stats, train_images, max_batch)

        def measure(images: Array, labels: Array) -> tuple[Array, Array]:
            logits = _forward(lambda x: apply(params, stats, x, train=False)[0], images, max_batch)
            wrong = jnp.argmax(logits, axis=-1) != labels
            return cross_entropy(logits, labels), 100 * jnp.mean(wrong)

        train = measure(train_images, train_labels)
        return Evaluation(*train, *measure(data.test_images, data.test_labels))

    return evaluate


def _estimate(estimate: Apply, params: Any, stats: Any, images: Array, max_batch: int) -> Any:
    """The average over equal batches of the training set of their batch-norm statistics."""
    batches, _ = _split(images, max_batch)  # the unequal rest would need a weight
    seen = lax.map(lambda batch: estimate(params, stats, batch, train=True)[1], batches)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), seen)


def _forward(fn: Callable[[Array], Array], images: Array, max_batch: int) -> Array:
    """Applies `fn` to all images, a batch at a time."""
    batches, rest = _split(images, max_batch)
    outputs = lax.map(fn, batches)
    outputs = outputs.reshape(-1, *outputs.shape[2:])
    return jnp.concatenate([outputs, fn(rest)]) if len(rest) else outputs


def _split(images: Array, max_batch: int) -> tuple[Array, Array]:
    """Splits images into batches of equal size, stacked, and what is left over."""
    size = min(max_batch, len(images))
    whole = len(images) // size * size
    return images[:whole].reshape(-1, size, *images.shape[1:]), images[whole:]
