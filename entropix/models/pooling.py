"""Max pooling over windows that do not overlap, by reshaping."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from entropix.transforms.numerics import is_static


def max_pool(
    inputs: jax.Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> jax.Array:
    """`flax.nnx.max_pool`, by a reshape when the windows tile the input.

    On CPU XLA vectorises a maximum over axes, but not a sliding window nor its gradient's
    scatter. Windows that overlap or are padded go to Flax untouched. Values are equal; where the
    maximum of a window is attained more than once, Flax gives the gradient to the first of them,
    this to all in equal parts. Both are subgradients.

    Args:
      inputs: `(batch, *spatial, channels)`.
      window_shape: extent of the window, one number >= 1 per spatial dimension.
      strides: steps between windows; None means 1, as in Flax.
      padding: "VALID" (an incomplete last window is dropped), or what Flax accepts.

    Returns:
      The maximum over each window, `(batch, *spatial // strides, channels)`.

    Example:
      >>> import jax.numpy as jnp
      >>> max_pool(jnp.arange(5.0).reshape(1, 5, 1), (2,), (2,)).ravel().tolist()
      [1.0, 3.0]
    """
    window = tuple(window_shape)
    tiled = strides is not None and tuple(strides) == window and padding == "VALID"
    if not tiled or not is_static(inputs.shape):
        return nnx.max_pool(inputs, window_shape, strides, padding)
    # With the batch last, CPUs compare whole vectors whatever the number of channels, and the
    # package's convolution of images leaves its output so.
    batch_last = jax.default_backend() == "cpu" and inputs.shape[0] >= inputs.shape[-1]
    if batch_last:
        inputs = jnp.swapaxes(inputs, 0, -1)
    first, *spatial, last = inputs.shape
    counts = [extent // width for extent, width in zip(spatial, window, strict=True)]
    for axis, (count, width) in enumerate(zip(counts, window, strict=True), start=1):
        inputs = jax.lax.slice_in_dim(inputs, 0, count * width, axis=axis)
    tiles = [extent for pair in zip(counts, window, strict=True) for extent in pair]
    window_axes = tuple(range(2, 2 + 2 * len(window), 2))
    maxima = inputs.reshape(first, *tiles, last).max(axis=window_axes)
    return jnp.swapaxes(maxima, 0, -1) if batch_last else maxima
