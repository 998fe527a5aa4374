r"""A convolution whose gradients stay fast inside compiled loops on CPU.

XLA has fast CPU code for channels-last convolutions with channels-last filters. The transposed
convolutions that `jax.grad` makes of `jax.lax.conv_general_dilated` have other layouts; outside a
loop XLA rearranges them, inside `lax.scan` it does not, and the weight gradient of a single 3x3
layer takes seconds (https://github.com/jax-ml/jax/issues/12868).

The cure is to differentiate another formula for the same function,

.. math:: y = P(x)\, W,

where row (n, i, j) of P(x) holds the patch of x that output pixel (n, i, j) sees. The derivatives
are matrix products,

.. math:: \dot y = P(\dot x)\, W + P(x)\, \dot W,\qquad
          \bar W = P(x)^\top \bar y,\qquad \bar x = P^\top(\bar y\, W^\top),

and P, made of slices, is transposed by JAX itself into padded additions. Stating the tangent
rather than the cotangents keeps forward mode (Hessian-vector products) and `vmap`, which
`jax.custom_vjp` and `jax.custom_derivatives.linear_call` would cost.

Images of few channels make patches of few contiguous numbers, slow to copy and to multiply. For
these the same formula is computed with channels first and the batch last, forward too.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from entropix.transforms.numerics import is_static

Pads = tuple[tuple[int, int], ...]

# Patches are made for as many images at a time as fit into this many bytes: a large batch's would
# leave the cache (and take 450 MB in the widest layer of the paper's networks).
_PIECE_BYTES = 8 * 2**20

# Grey and colour images have few channels, a batch for training many images.
_FEW_CHANNELS, _MANY_IMAGES = 4, 32


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` with gradients that stay fast inside `lax.scan` on CPU.

    Values are those of `jax.lax`, from the same code but for large batches of images of at most
    four channels, where they are equal up to rounding; so are gradients, in forward, reverse and
    mixed mode, under `jit`, `vmap` and `scan`. On other backends, and for everything but plain
    channels-last convolutions of real floating point arrays (no dilation, no groups, no
    `preferred_element_type` or `out_sharding`), the call goes to `jax.lax` untouched.

    The backend is read while tracing, from `jax.default_backend()`. `lax.platform_dependent`
    would decide later, but it keeps both branches in every differentiated program and stores the
    residuals of both. On a machine with an accelerator, code sent to the CPU by hand therefore
    gets the stock gradient: correct, only slower.

    Args:
      lhs: input, `(batch, *spatial, channels)` for the fast gradient.
      rhs: filter, `(*window, in_channels, out_channels)` for the fast gradient.
      window_strides: one stride per spatial dimension.
      padding: "SAME", "VALID", "SAME_LOWER" or a (low, high) pair per spatial dimension.
      lhs_dilation: see `jax.lax`.
      rhs_dilation: see `jax.lax`.
      dimension_numbers: see `jax.lax`; `("NHWC", "HWIO", "NHWC")` or its like for other ranks.
      feature_group_count: see `jax.lax`.
      batch_group_count: see `jax.lax`.
      precision: of the products, also of those in the gradients.
      preferred_element_type: see `jax.lax`.
      out_sharding: see `jax.lax`.

    Returns:
      The convolution, of the dtype of `lhs`.

    Example:
      >>> from flax import nnx
      >>> layer = nnx.Conv(
      ...     3, 8, (3, 3), conv_general_dilated=conv_general_dilated, rngs=nnx.Rngs(0))
      >>> layer(jnp.ones((2, 16, 16, 3))).shape
      (2, 16, 16, 8)
    """
    plain = (
        jax.default_backend() == "cpu"
        and all(step == 1 for step in (*(lhs_dilation or ()), *(rhs_dilation or ())))
        and feature_group_count == batch_group_count == 1
        and preferred_element_type is None
        and out_sharding is None
        and is_static(lhs.shape)
        and jnp.issubdtype(lhs.dtype, jnp.floating)
        and _is_channels_last(lhs, rhs, dimension_numbers)
    )
    if not plain:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
            out_sharding,
        )
    strides = tuple(window_strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:-1], rhs.shape[:-2], strides, padding)
    convolve = _convolve_patches if _is_batch_last(lhs) else _convolve
    pads: Pads = tuple((low, high) for low, high in padding)
    return convolve(lhs, rhs, strides, pads, precision)


def _channels_last(rank: int) -> tuple[str, str, str]:
    spatial = "0123456789"[: rank - 2]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"


def _is_batch_last(x: jax.Array) -> bool:
    return x.shape[-1] <= _FEW_CHANNELS and x.shape[0] >= _MANY_IMAGES


def _is_channels_last(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _channels_last(lhs.ndim))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _convolve(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, precision: Any
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        dimension_numbers=_channels_last(x.ndim),
        precision=precision,
    )


@functools.partial(_convolve.defjvp, symbolic_zeros=True)
def _convolve_jvp(
    strides: tuple[int, ...], pads: Pads, precision: Any, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    y = _convolve(x, kernel, strides, pads, precision)
    y_dot = jnp.zeros_like(y)
    # Symbolic zeros (the data under the first layer) must not become a convolution of zeros.
    if not isinstance(x_dot, SymbolicZero):
        y_dot += _convolve_patches(x_dot, kernel, strides, pads, precision)
    if not isinstance(kernel_dot, SymbolicZero):
        y_dot += _convolve_patches(x, kernel_dot, strides, pads, precision)
    return y, y_dot


def _convolve_patches(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, precision: Any
) -> jax.Array:
    """Returns P(x) W, made of as few pieces of the batch as fit the cache."""
    window, batch = kernel.shape[:-2], x.shape[0]
    patches = jax.eval_shape(lambda x: _patches(x, window, strides, pads), x)
    size = patches.size * patches.dtype.itemsize
    batch_last = _is_batch_last(x)
    convolve = _product_batch_last if batch_last else _product_channels_last
    # A loop keeps XLA from merging the padded additions of the input's gradient into whatever uses
    # it, where they would be done again for every use; images seldom need theirs.
    least = 1 if batch_last else 2
    divisors = (d for d in range(least, batch + 1) if batch % d == 0 and size <= d * _PIECE_BYTES)
    pieces = next(divisors, max(batch, 1))

    # Without checkpoint, the patches rather than x would be stored for the backward pass.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def convolve_piece(x: jax.Array) -> jax.Array:
        return convolve(x, kernel, strides, pads, precision)

    if pieces == 1:
        return convolve_piece(x)
    y = lax.map(convolve_piece, x.reshape(pieces, batch // pieces, *x.shape[1:]))
    return y.reshape(batch, *y.shape[2:])


def _product_channels_last(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, precision: Any
) -> jax.Array:
    patches = _patches(x, kernel.shape[:-2], strides, pads)
    matrices = kernel.reshape(-1, *kernel.shape[-2:])
    return jnp.einsum("p...i,pio->...o", patches, matrices, precision=precision)


def _product_batch_last(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], pads: Pads, precision: Any
) -> jax.Array:
    """The same with batch and channels exchanged, so that every view of x is long and contiguous.

    XLA fuses the exchanges into what makes x and what uses y.
    """
    patches = _patches(jnp.swapaxes(x, 0, -1), kernel.shape[:-2], strides, pads)
    matrices = kernel.reshape(-1, *kernel.shape[-2:])
    y = lax.dot_general(matrices, patches, (((0, 1), (0, 1)), ((), ())), precision=precision)
    return jnp.swapaxes(y, 0, -1)


def _patches(
    x: jax.Array, window: tuple[int, ...], strides: tuple[int, ...], pads: Pads
) -> jax.Array:
    """Returns P(x), `(prod(window), batch, *out, channels)`: one strided view for every tap.

    Batch and channels may be exchanged, in x and in P(x).
    """
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)])
    spans = [
        (extent - width) // stride * stride + 1
        for extent, width, stride in zip(x.shape[1:-1], window, strides, strict=True)
    ]
    views = [
        lax.slice(
            x,
            (0, *offset, 0),
            (x.shape[0], *(o + span for o, span in zip(offset, spans, strict=True)), x.shape[-1]),
            (1, *strides, 1),
        )
        for offset in itertools.product(*map(range, window))
    ]
    return jnp.stack(views)
