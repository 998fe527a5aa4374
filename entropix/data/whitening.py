"""ZCA whitening: fitted on the training set, applied to any set."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from entropix.transforms.checks import check_positive

# Some accelerators multiply float32 in fewer bits by default: not enough for a whitening.
_PRECISION = lax.Precision.HIGHEST
_CHUNK = 4096  # images whose products are summed at once


class Whitening(NamedTuple):
    """A fitted whitening.

    Attributes:
      mean: shape (d,), of the training images, flat.
      matrix: W, shape (d, d), symmetric.
    """

    mean: Array
    matrix: Array


def fit_zca(images: ArrayLike, regulariser: float = 1e-5) -> Whitening:
    r"""Fits the ZCA whitening of a set of images.

    With the covariance :math:`C = V \,\mathrm{diag}(s^2)\, V^T` of the flat images, s the standard
    deviations along the principal directions,

    .. math:: W = V \,\mathrm{diag}(s + \epsilon)^{-1}\, V^T

    is, of all whitenings, the one that changes the images least. Whitened, the training set has
    the standard deviations s/(s + epsilon): 1, except in directions whose standard deviation is not
    large against the regulariser, which are damped instead of blown up.

    Args:
      images: shape (n, ...), usually contrast-normalised.
      regulariser: epsilon > 0, in the units of the images' standard deviation. The default is that
        of the authors' code: nearly complete whitening of images of variance 1.

    Returns:
      A `Whitening` with d = the size of one image.

    Raises:
      ValueError: if `regulariser` is not > 0, there are fewer than two images, or a pixel is not
        finite.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from entropix.data import fit_zca, whiten
      >>> images = jax.random.normal(jax.random.key(0), (500, 2, 3, 1))
      >>> images = images + images[:, :1]  # correlated
      >>> white = whiten(fit_zca(images, regulariser=1e-6), images).reshape(500, 6)
      >>> bool(jnp.allclose(jnp.cov(white.T), jnp.eye(6), atol=0.01))
      True

    References:
      Krizhevsky, `Learning multiple layers of features from tiny images
      <https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf>`_, 2009, appendix A.
    """
    images = np.asarray(images)
    regulariser = check_positive("regulariser", regulariser, schedule=False)
    if len(images) < 2:
        raise ValueError(f"fitting a whitening needs two images or more; got {len(images)}.")
    flat = images.reshape(len(images), -1)
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise ValueError(f"images must be finite to be whitened; image {bad} has NaN or infinity.")
    return _fit(flat, regulariser)


def _fit(flat: np.ndarray, regulariser: float) -> Whitening:
    """In double precision on the host.

    CIFAR-10's smallest variances are a millionth of the largest: a covariance in float32 has lost
    them, and the whitened images would have standard deviations from 0.5 to 1.9.
    """
    mean = flat.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((flat.shape[1],) * 2)
    for start in range(0, len(flat), _CHUNK):
        centred = flat[start : start + _CHUNK] - mean
        covariance += centred.T @ centred / len(flat)
    variances, directions = np.linalg.eigh(covariance)
    # Rounding makes zero variances slightly negative.
    scales = 1 / (np.sqrt(np.maximum(variances, 0)) + regulariser)
    matrix = (directions * scales) @ directions.T
    return Whitening(
        jnp.asarray(mean, jnp.float32), jnp.asarray((matrix + matrix.T) / 2, jnp.float32)
    )


def check_whitening(size: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses arrays, read from a cache, that `fit_zca` cannot have made.

    Args:
      size: d, of one flat image.
      arrays: by the names of `Whitening`.

    Raises:
      ValueError: naming the first array that is not what it has to be.
    """
    for name, shape in (("mean", (size,)), ("matrix", (size, size))):
        array = arrays.get(name, np.zeros(0))
        if (array.dtype, array.shape) != (np.float32, shape) or not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite float32 of shape {shape}")


@jax.jit
def whiten(whitening: Whitening, images: ArrayLike) -> Array:
    """Applies a fitted whitening: (x - mean) W.

    Args:
      whitening: of `fit_zca`, on the training set; the test set gets the same.
      images: shape (n, ...), each of the size that was fitted.

    Returns:
      float32 of the same shape.

    Example:
      See `fit_zca`.
    """
    images = jnp.asarray(images)
    flat = images.reshape(len(images), -1).astype(jnp.float32) - whitening.mean[None]
    return jnp.matmul(flat, whitening.matrix, precision=_PRECISION).reshape(images.shape)
