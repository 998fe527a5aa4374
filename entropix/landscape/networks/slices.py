"""The loss along a segment between two points, and on a plane through one."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from entropix.landscape.networks.batches import mean_figures
from entropix.landscape.networks.parameters import Tree, as_vector, at_point, movable, vector_part
from entropix.landscape.networks.products import LossFn
from entropix.transforms import checks
from entropix.transforms.eager import as_partial
from entropix.transforms.keys import one_key
from entropix.transforms.numerics import scalar
from entropix.transforms.random import noise_like

NORMALISATIONS = ("filter", "layer", "none")


class Segment(NamedTuple):
    """Losses on the segment from a to b.

    Attributes:
      position: s from 0 (a) to 1 (b). shape=(points,).
      value: the loss at (1 - s) a + s b, or a tree of several figures. shape=(points,).
      barrier: the largest rise above the straight line between the losses of a and b, >= 0; of
        the structure of the loss. shape=().
    """

    position: jax.Array
    value: Any
    barrier: Any


class Slice2d(NamedTuple):
    """Losses on the plane x + s d1 + t d2.

    Attributes:
      position: values of s, and of t. shape=(points,).
      value: the loss, with s along the first axis, or a tree of figures. shape=(points, points).
      directions: d1 and d2 as used, trees like the parameters.
    """

    position: jax.Array
    value: Any
    directions: tuple[Any, Any]


def segment(loss: LossFn, a: Tree, b: Tree, batches: Tree, *, num_points: int = 25) -> Segment:
    r"""The loss along the straight line between two solutions, and its barrier.

    .. math:: \max_s\; f((1-s)a + s b) - (1-s) f(a) - s f(b)

    Between networks with batch normalisation the running statistics of neither end fit: let `loss`
    normalise with the batch's own, or estimate them anew. Hidden units of two runs are in different
    orders, so that a barrier does not show that two solutions lie in different valleys.

    Args:
      loss: `loss(params, batch)`, a number or a tree of numbers.
      a: parameters at s = 0. Leaves that are no floating-point numbers are taken from here.
      b: parameters at s = 1, of the structure and shapes of `a`.
      batches: a tree of arrays with a leading axis of batches, all of the same size.
      num_points: points, ends included, >= 2; each is a pass over the data.

    Returns:
      A `Segment`.

    Raises:
      ValueError: for arguments of other forms.

    Example:
      >>> import jax.numpy as jnp
      >>> double_well = lambda x, batch: (x**2 - 1) ** 2
      >>> line = segment(double_well, -1.0, 1.0, jnp.zeros(1), num_points=5)
      >>> line.value.tolist(), float(line.barrier)
      ([0.0, 0.5625, 1.0, 0.5625, 0.0], 1.0)

    References:
      Frankle et al, `Linear mode connectivity and the lottery ticket hypothesis
      <https://arxiv.org/abs/1912.05671>`_, 2020; Entezari et al, `The role of permutation
      invariance in linear mode connectivity <https://arxiv.org/abs/2110.06296>`_, 2022.
    """
    checks.check_function("loss", loss, "a function of parameters and a batch")
    num_points = checks.check_count("num_points", num_points)
    if num_points < 2:
        raise checks.refusal("num_points", ">= 2, both ends", num_points)
    return _segment(as_partial(loss), a, b, batches, num_points)


@functools.partial(jax.jit, static_argnames="num_points")
def _segment(loss: LossFn, a: Tree, b: Tree, batches: Tree, num_points: int) -> Segment:
    start, end = movable(a), vector_part(b, a, "b")
    first = jax.tree.leaves(start)[0]
    position = jnp.linspace(0, 1, num_points, dtype=first.dtype)

    def at(s: jax.Array) -> Tree:
        mixed = jax.tree.map(lambda x, y: scalar(1 - s, x) * x + scalar(s, x) * y, start, end)
        return mean_figures(loss, at_point(mixed, a), batches)

    def barrier(values: jax.Array) -> jax.Array:
        chord = (1 - position) * values[0] + position * values[-1]
        return jnp.maximum(jnp.max(values - chord), 0)

    values = lax.map(at, position)
    return Segment(position, values, jax.tree.map(barrier, values))


def slice2d(
    loss: LossFn,
    params: Tree,
    batches: Tree,
    key: jax.Array | int = 0,
    *,
    directions: Sequence[Tree] | None = None,
    normalise: str = "filter",
    extent: float = 1.0,
    num_points: int = 21,
) -> Slice2d:
    r"""The loss on a plane through a point, its directions in units of the weights.

    .. math:: f(x + s d_1 + t d_2),\qquad s, t \in [-e, e]

    A network's slice looks flat if its weights are large, unless directions are scaled with them:
    "filter" gives each output unit's weights in a direction the norm that they have in x.

    Args:
      loss: `loss(params, batch)`, a number or a tree of numbers.
      params: x, any tree; floating-point leaves move, in float32 or wider.
      batches: a tree of arrays with a leading axis of batches, all of the same size.
      key: for random directions.
      directions: two trees like `params`, such as eigenvectors; by default Gaussian ones.
      normalise: see `normalised`.
      extent: e > 0.
      num_points: along either axis, >= 2; their square is the number of passes over the data.

    Returns:
      A `Slice2d`.

    Raises:
      ValueError: for arguments of other forms, and for "filter" where no leaf has two axes.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda x, batch: jnp.sum(x**2)
      >>> plane = slice2d(loss, jnp.eye(3), jnp.zeros(1), num_points=3)
      >>> plane.value.shape, float(plane.value[1, 1])
      ((3, 3), 3.0)

    References:
      Li et al, `Visualizing the loss landscape of neural nets
      <https://arxiv.org/abs/1712.09913>`_, 2018.
    """
    checks.check_function("loss", loss, "a function of parameters and a batch")
    extent = checks.check_positive("extent", extent, schedule=False)
    normalise = checks.check_choice("normalise", normalise, NORMALISATIONS)
    num_points = checks.check_count("num_points", num_points)
    if num_points < 2:
        raise checks.refusal("num_points", ">= 2", num_points)
    point = movable(params)
    if normalise == "filter" and all(leaf.ndim < 2 for leaf in jax.tree.leaves(point)):
        way_out = ", of which nothing would move. Write normalise='layer'."
        raise checks.refusal("normalise", "'layer' or 'none' without a matrix", "filter", way_out)
    if directions is None:
        keys = jax.random.split(one_key(key))
        directions = [as_vector(noise_like(k, point), params) for k in keys]
    if len(directions) != 2:
        raise checks.refusal("directions", "two trees like params", directions)
    first, second = (normalised(direction, params, normalise) for direction in directions)
    return _slice2d(as_partial(loss), params, batches, (first, second), extent, num_points)


@functools.partial(jax.jit, static_argnames="num_points")
def _slice2d(
    loss: LossFn, params: Tree, batches: Tree, directions: Any, extent: Any, num_points: int
) -> Slice2d:
    x = movable(params)
    first, second = (vector_part(d, params, "directions") for d in directions)
    dtype = jax.tree.leaves(x)[0].dtype
    position = jnp.asarray(extent, dtype) * jnp.linspace(-1, 1, num_points, dtype=dtype)

    def at(s: jax.Array, t: jax.Array) -> Tree:
        moved = jax.tree.map(
            lambda x, d, e: x + scalar(s, x) * d + scalar(t, x) * e, x, first, second
        )
        return mean_figures(loss, at_point(moved, params), batches)

    value = lax.map(lambda s: lax.map(lambda t: at(s, t), position), position)
    return Slice2d(position, value, directions)


def normalised(direction: Tree, params: Tree, by: str = "filter") -> Tree:
    """A direction scaled to the size of the weights.

    Args:
      direction: a tree like `params`.
      params: x.
      by: "filter" gives the weights of every output unit, the last axis of leaves of two and more
        axes, the norm of those in x, and sets leaves of fewer axes (biases, the scales of batch
        normalisation) to zero; "layer" does so for whole leaves, of any number of axes; "none"
        changes nothing.

    Returns:
      A tree like `params`, in float32 or wider.

    Raises:
      ValueError: for an unknown `by`, a direction of another form than `params`, and parameters
        without floating-point leaves or with complex ones.

    Example:
      >>> import jax.numpy as jnp
      >>> weights = jnp.asarray([[3.0, 0.0], [4.0, 1.0]])
      >>> direction = normalised(jnp.ones((2, 2)), weights)
      >>> jnp.linalg.norm(direction, axis=0).round(4).tolist()
      [5.0, 1.0]
    """
    checks.check_choice("by", by, NORMALISATIONS)

    def scaled(d: jax.Array, x: jax.Array) -> jax.Array:
        if by == "none":
            return d
        if by == "filter" and x.ndim < 2:
            return jnp.zeros_like(d)
        axes = tuple(range(x.ndim - 1)) if by == "filter" else None
        size, target = (jnp.sqrt(jnp.sum(leaf**2, axis=axes, keepdims=True)) for leaf in (d, x))
        return d * target / jnp.where(size > 0, size, 1)

    part = vector_part(direction, params, "direction")
    return as_vector(jax.tree.map(scaled, part, movable(params)), params)
