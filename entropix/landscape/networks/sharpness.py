"""Sharpness: the largest rise of the loss in a ball, from below."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from entropix.landscape.networks.batches import check_loss, value_and_gradient
from entropix.landscape.networks.parameters import Tree, at_point, movable
from entropix.landscape.networks.products import LossFn
from entropix.transforms import checks
from entropix.transforms.eager import as_partial
from entropix.transforms.keys import one_key
from entropix.transforms.numerics import norm, scalar
from entropix.transforms.random import noise_like


def sharpness(
    loss: LossFn,
    params: Tree,
    rho: Any,
    batches: Tree,
    adaptive: bool = False,
    *,
    num_steps: int = 20,
    key: jax.Array | int = 0,
) -> jax.Array:
    r"""A lower bound of the largest rise of the loss in a ball, by gradient ascent.

    .. math:: \max_{|u| \le \rho} f(x + D u) - f(x),\qquad
      D = I \text{, or } \mathrm{diag}(|x|) \text{ if adaptive}

    of which `entropix.sharpness` (SAM) and its adaptive form (ASAM) follow the gradient. Here the
    loss is that of all batches, whereas SAM's maximum is of each mini-batch. Steps are
    :math:`u \leftarrow \Pi(u + \rho\, g/|g|)`, g the gradient in u and :math:`\Pi` the projection
    to the ball: the first from u = 0 is SAM's own point. A second ascent starts in a random
    direction, for points whose gradient is zero. The highest loss that any step has seen counts.

    It is a lower bound, because ascent finds one maximum out of many. At a minimum it tends to
    :math:`\rho^2 \lambda_{max}/2` for small rho. Its derivative by rho at rho = 0 is that of the
    rise itself, :math:`|D \nabla f(x)|`.

    Args:
      loss: `loss(params, batch) -> number`, the mean over the batch's examples.
      params: x, any tree; floating-point leaves move, in float32 or wider.
      rho: radius of the ball, >= 0. Customary: 0.05; 0.5 to 2 if adaptive.
      batches: a tree of arrays with a leading axis of batches, all of the same size.
      adaptive: whether the ball is in units of the weights, which a rescaling of layers that leaves
        the function as it was does not change. Weights that are zero do not move then.
      num_steps: steps of each ascent, >= 1; both take num_steps + 1 gradients of all batches.
      key: for the random direction.

    Returns:
      The bound, >= 0, a number in float32 or wider.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> curvature = jnp.asarray([1.0, 4.0])
      >>> loss = lambda x, batch: jnp.sum(curvature * x**2) / 2
      >>> round(float(sharpness(loss, jnp.zeros(2), 0.1, jnp.zeros(1))), 4)    # 4 rho^2 / 2
      0.02

    References:
      Foret et al, `Sharpness-aware minimization <https://arxiv.org/abs/2010.01412>`_, 2021;
      Kwon et al, `ASAM <https://arxiv.org/abs/2102.11600>`_, 2021.
    """
    checks.check_function("loss", loss, "a function of parameters and a batch")
    rho = checks.check_non_negative("rho", rho, schedule=False)
    return _sharpness(
        as_partial(loss),
        params,
        rho,
        batches,
        one_key(key),
        adaptive=checks.check_flag("adaptive", adaptive),
        num_steps=checks.check_count("num_steps", num_steps),
    )


@functools.partial(jax.jit, static_argnames=("adaptive", "num_steps"))
def _sharpness(
    loss: LossFn,
    params: Tree,
    rho: Any,
    batches: Tree,
    key: jax.Array,
    adaptive: bool,
    num_steps: int,
) -> jax.Array:
    x = movable(params)
    units = jax.tree.map(jnp.abs if adaptive else jnp.ones_like, x)

    def of_batch(u: Tree, batch: Tree) -> jax.Array:
        point = at_point(jax.tree.map(lambda x, d, u: x + d * u, x, units, u), params)
        check_loss(loss, point, batch)
        return loss(point, batch)

    def step(u: Tree, _: None) -> tuple[Tree, tuple[jax.Array, jax.Array]]:
        value, slope = value_and_gradient(of_batch, u, batches)
        steepness = norm(slope)
        stretch = rho / _positive(steepness)
        moved = jax.tree.map(lambda u, g: u + scalar(stretch, u) * g, u, slope)
        shrink = jnp.minimum(1, rho / _positive(norm(moved)))
        return jax.tree.map(lambda m: scalar(shrink, m) * m, moved), (value, steepness)

    noise = noise_like(key, x)
    length = _positive(norm(noise))
    rho = scalar(rho, length)

    def ascend(size: jax.Array) -> tuple[jax.Array, jax.Array]:
        start = jax.tree.map(lambda z: scalar(size / length, z) * z, noise)
        return lax.scan(step, start, length=num_steps + 1)[1]

    # From x itself, whose value comes first, and from a random point of the sphere.
    values, steepness = lax.map(ascend, jnp.stack([0 * rho, rho]))
    rise = jnp.max(values) - values[0, 0]
    # In a ball of one point all steps tie, and no derivative of theirs is that of the rise.
    return jnp.where(rho > 0, rise, scalar(rho * steepness[0, 0], rise))


def _positive(length: jax.Array) -> jax.Array:
    return jnp.where(length > 0, length, 1)
