"""Where data sets come from: by name, as four arrays."""

import difflib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Dataset(NamedTuple):
    """A classification data set, whole, on the device.

    Attributes:
      train_images: shape (n, height, width, channels), float32.
      train_labels: shape (n,), int32.
      test_images: like `train_images`. As in the paper, it serves as the validation set of a
        comparison; tuning never sees it (see `hold_out`).
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


def load(name: str) -> Dataset:
    """Loads a data set by name.

    Args:
      name: "digits": scikit-learn's bundled handwritten digits, 1,797 images of 8 x 8 pixels
        scaled to [0, 1], in a fixed stratified split of 1,437 for training and 360 for testing.
        Needs no network.

    Returns:
      A `Dataset`.

    Raises:
      ValueError: for an unknown name, with the nearest known one.

    Example:
      >>> import entropix
      >>> digits = entropix.data.load("digits")
      >>> digits.train_images.shape, digits.test_images.shape
      ((1437, 8, 8, 1), (360, 8, 8, 1))

    References:
      E. Alpaydin, C. Kaynak, `Optical Recognition of Handwritten Digits
      <https://doi.org/10.24432/C50P49>`_, UCI, 1998 (its test part).
    """
    if name not in _SOURCES:
        near = difflib.get_close_matches(name, _SOURCES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"dataset must be one of {sorted(_SOURCES)}; got {name!r}. Did you mean {near!r}?"
        )
    return _SOURCES[name]()


def _digits() -> Dataset:
    images, labels = load_digits(return_X_y=True)
    return _as_dataset((images / 16.0).reshape(-1, 8, 8, 1), labels, num_test=360, seed=0)


_SOURCES = {"digits": _digits}


def hold_out(dataset: Dataset, fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Splits a validation set off the training set, stratified, and forgets the test set.

    This is what hyper-parameters are tuned on, so that the test set plays no part in their choice.

    Args:
      dataset: any data set.
      fraction: share of the training set to hold out, in (0, 1).
      seed: of the split.

    Returns:
      A `Dataset` whose test arrays are the held-out part of the training set.

    Raises:
      ValueError: if `fraction` is outside (0, 1).

    Example:
      >>> import entropix
      >>> split = entropix.data.hold_out(entropix.data.load("digits"), fraction=0.25)
      >>> split.num_train, split.test_labels.shape
      (1077, (360,))
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1); got fraction={fraction!r}.")
    images, labels = np.asarray(dataset.train_images), np.asarray(dataset.train_labels)
    return _as_dataset(images, labels, num_test=int(np.ceil(fraction * len(labels))), seed=seed)


def _as_dataset(images: np.ndarray, labels: np.ndarray, num_test: int, seed: int) -> Dataset:
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=num_test, stratify=labels, random_state=seed
    )
    return Dataset(
        train_images=jnp.asarray(train_images, jnp.float32),
        train_labels=jnp.asarray(train_labels, jnp.int32),
        test_images=jnp.asarray(test_images, jnp.float32),
        test_labels=jnp.asarray(test_labels, jnp.int32),
    )
