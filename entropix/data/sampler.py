"""Mini-batches drawn on the device, as a function of a key alone."""

import jax
import jax.numpy as jnp
from jax import Array

from entropix.data.dataset import Dataset


def sample_batch(key: Array, data: Dataset, batch_size: int) -> tuple[Array, Array]:
    """Draws a mini-batch of the training set, uniformly and with replacement.

    Nothing is remembered between batches: the data order is a function of the key, so that a run
    resumes exactly from its step count, and the draw costs a gather inside the compiled step.

    Args:
      key: typed key.
      data: on the device; arrays of NumPy are put there at every call.
      batch_size: examples in the batch, >= 1.

    Returns:
      images of shape (batch_size, height, width, channels), labels of shape (batch_size,).

    Example:
      >>> import entropix, jax
      >>> digits = entropix.data.load("digits")
      >>> images, labels = entropix.data.sample_batch(jax.random.key(0), digits, 128)
      >>> images.shape, labels.shape
      ((128, 8, 8, 1), (128,))
    """
    index = jax.random.randint(key, (batch_size,), 0, data.num_train)
    return jnp.asarray(data.train_images)[index], jnp.asarray(data.train_labels)[index]
