"""A data set as four arrays on the device, and a validation split held out of it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.model_selection import train_test_split

from entropix.transforms.checks import known_number


class Dataset(NamedTuple):
    """A classification data set, whole, on the device.

    Attributes:
      train_images: shape (n, height, width, channels), float32.
      train_labels: shape (n,), int32.
      test_images: like `train_images`. As in the paper, it serves as the validation set of a
        comparison; a search never sees it.
      test_labels: like `train_labels`.
    """

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.train_images.shape[1:]

    @property
    def num_train(self) -> int:
        """Number of training examples."""
        return self.train_images.shape[0]


def hold_out(dataset: Dataset, fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Splits a validation set off the training set, stratified, and forgets the test set.

    Who tunes by hand chooses on this, so that the test set plays no part; `entropix tune` holds
    out what it needs by itself. Preprocessing is not fitted anew: a whitening has seen the held-out
    images, though no label.

    Args:
      dataset: any data set.
      fraction: share of the training set to hold out, in (0, 1).
      seed: of the split.

    Returns:
      A `Dataset` whose test arrays are the held-out part of the training set.

    Raises:
      ValueError: if `fraction` is outside (0, 1), or too small or too large for one example of
        every class on either side.

    Example:
      >>> import entropix
      >>> split = entropix.data.hold_out(entropix.data.load("digits"), fraction=0.25)
      >>> split.num_train, split.test_labels.shape
      (1077, (360,))
    """
    known = known_number(fraction)
    if known is None or not 0 < known < 1:
        raise ValueError(f"fraction must be in (0, 1); got fraction={fraction!r}.")
    images, labels = np.asarray(dataset.train_images), np.asarray(dataset.train_labels)
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            "hold_out needs two examples of every class or more; got one with label "
            f"{classes[counts.argmin()]}. Add examples of the class, or leave the class out."
        )
    num_test = int(np.ceil(known * len(labels)))
    if not len(classes) <= num_test <= len(labels) - len(classes):
        raise ValueError(
            f"fraction must leave one example for each of {len(classes)} classes on both sides; "
            f"got fraction={fraction!r}, which holds out {num_test} of {len(labels)} examples."
        )
    return split(images, labels, num_test=num_test, seed=seed)


def input_dtype(inputs: np.ndarray) -> Any:
    """float32; whole numbers other than bytes, such as tokens, stay whole."""
    whole = np.issubdtype(inputs.dtype, np.integer) and inputs.dtype != np.uint8
    return jnp.int32 if whole else jnp.float32


def split(images: np.ndarray, labels: np.ndarray, num_test: int, seed: int) -> Dataset:
    """Makes a `Dataset` of one set of images and labels, stratified by label.

    Images of whole numbers other than uint8, such as tokens, become int32; all others float32.
    """
    dtype = input_dtype(images)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=num_test, stratify=labels, random_state=seed
    )
    return Dataset(
        train_images=jnp.asarray(train_images, dtype),
        train_labels=jnp.asarray(train_labels, jnp.int32),
        test_images=jnp.asarray(test_images, dtype),
        test_labels=jnp.asarray(test_labels, jnp.int32),
    )
