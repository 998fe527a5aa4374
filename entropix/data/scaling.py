"""Preprocessing of single images: scaling, and global contrast normalisation."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def scale(images: ArrayLike) -> jax.Array:
    """Scales pixels from 0 ... 255 to [0, 1], in float32.

    Args:
      images: any shape, uint8.

    Returns:
      float32 of the same shape.

    Example:
      >>> import numpy as np
      >>> from entropix.data import scale
      >>> scale(np.array([0, 51, 255], np.uint8)).round(6).tolist()
      [0.0, 0.20000000298023224, 1.0]
    """
    return jnp.asarray(images).astype(jnp.float32) / 255


@jax.jit
def global_contrast_normalise(images: ArrayLike, bias: ArrayLike = 10.0) -> jax.Array:
    r"""Gives every image mean 0 and variance nearly 1, over all its pixels and channels.

    .. math:: x \leftarrow (x - \bar x) / \sqrt{b + \mathrm{var}(x)}

    Args:
      images: shape (n, ...), pixels in 0 ... 255.
      bias: b > 0, in squared grey levels: it keeps the noise of images without contrast small, and
        matters little to others, whose variance is in the thousands.

    Returns:
      float32 of the same shape. An image of one colour becomes 0.

    Example:
      >>> import jax, numpy as np
      >>> from entropix.data import global_contrast_normalise
      >>> images = jax.random.randint(jax.random.key(0), (5, 8, 8, 3), 0, 256)
      >>> flat = global_contrast_normalise(images).reshape(5, -1)
      >>> bool(abs(flat.mean(1)).max() < 1e-5), bool(abs(flat.var(1) - 1).max() < 0.01)
      (True, True)

    References:
      Coates, Ng, Lee, `An analysis of single-layer networks in unsupervised feature learning
      <https://proceedings.mlr.press/v15/coates11a.html>`_, 2011, section 3.1.1.
    """
    pixels = jnp.asarray(images).astype(jnp.float32)
    axes = tuple(range(1, pixels.ndim))
    centred = pixels - pixels.mean(axes, keepdims=True)
    return centred / jnp.sqrt(bias + jnp.mean(centred**2, axes, keepdims=True))
