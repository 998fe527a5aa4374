"""Coarser weights: rounded to few bits, or with the smallest set to zero, without retraining."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entropix.landscape.networks.parameters import Tree, check_automatic
from entropix.transforms import checks
from entropix.transforms.numerics import dtype_of, is_inexact, mean_dtype, wide


def quantised(params: Tree, bits: Any) -> Tree:
    r"""Rounds every matrix of weights to the nearest of a few equidistant values.

    .. math:: w \mapsto s \operatorname{round}(w / s),\qquad s = \max|w| / (2^{b-1} - 1)

    The scale s is one number for a leaf. Leaves of fewer than two axes (biases, scales of norms)
    stay as they are, as in practice. A minimum that is flat along the rounding loses little.

    Args:
      params: any tree.
      bits: b in [2, 24], a number or a traced scalar; 8 is customary, 3 is very coarse.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: for a number of bits outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> quantised({"w": jnp.asarray([[0.75, 0.25, -0.5, 0.0]])}, bits=2)["w"].tolist()
      [[0.75, 0.0, -0.75, 0.0]]
    """
    bits = checks.check_number("bits", bits, "a number of bits in [2, 24]", lambda b: 2 <= b <= 24)
    levels = 2.0 ** (jnp.asarray(bits, jnp.float32) - 1) - 1

    def rounded(leaf: Any) -> Any:
        if not _is_matrix(leaf) or leaf.size == 0:
            return leaf
        leaf = jnp.asarray(leaf)
        w = wide(leaf)
        scale = jnp.max(jnp.abs(w)) / levels.astype(w.dtype)
        scale = jnp.where(scale > 0, scale, 1)  # a leaf of zeros, which stays as it is
        return (jnp.round(w / scale) * scale).astype(leaf.dtype)

    return jax.tree.map(rounded, params)


def pruned(params: Tree, share: Any) -> Tree:
    r"""Sets a share of the weights to zero: the smallest ones, over all matrices together.

    .. math:: w \mapsto w\, 1[\,\mathrm{rank}(|w|) > s\,n\,]

    with ranks from 1 to the number n of weights. Of weights of one size, those go first that stand
    first in the tree.

    Args:
      params: any tree; leaves of fewer than two axes stay as they are, and are not counted.
      share: s in [0, 1), a number or a traced scalar.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: for a share outside its range, or a tree without a matrix.

    Example:
      >>> import jax.numpy as jnp
      >>> pruned({"w": jnp.asarray([[0.5, -0.1], [3.0, 0.2]]), "b": jnp.asarray([0.01])}, 0.5)
      {'b': Array([0.01], dtype=float32), 'w': Array([[0.5, 0. ],
             [3. , 0. ]], dtype=float32)}
    """
    share = checks.check_fraction("share", share)
    check_automatic(params)
    sizes = [jnp.abs(wide(leaf)).ravel() for leaf in jax.tree.leaves(params) if _is_matrix(leaf)]
    if not sizes:
        raise ValueError("pruned needs a leaf with two axes or more; got a tree without one.")
    order = jnp.argsort(jnp.concatenate(sizes), stable=True)
    count = _whole(share, order.size)
    kept = jnp.ones(order.size, bool).at[order].set(jnp.arange(order.size) >= count)
    ends = np.cumsum([size.size for size in sizes])
    masks = iter(jnp.split(kept, ends[:-1]))

    def masked(leaf: Any) -> Any:
        return jnp.where(next(masks).reshape(leaf.shape), leaf, 0) if _is_matrix(leaf) else leaf

    return jax.tree.map(masked, params)


def _whole(share: Any, size: int) -> Any:
    """The share of a number of weights, rounded down: 0.29 of 100 is 29, whatever 0.29 * 100 is."""
    rounding = 4 * float(jnp.finfo(jnp.float32).eps)  # of the share, relative
    if isinstance(share, float):
        return math.floor(share * size + min(0.01, rounding * share * size))
    exact = jnp.asarray(share, mean_dtype(dtype_of(share))) * size
    return jnp.floor(exact + jnp.minimum(0.01, rounding * exact)).astype(jnp.int32)


def _is_matrix(leaf: Any) -> bool:
    return is_inexact(leaf) and jnp.ndim(leaf) > 1
