"""Sharpness: the largest rise of the loss in a ball, from below."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from entropix.landscape.networks.batches import check_loss, mean_over, value_and_gradient
from entropix.landscape.networks.parameters import Tree, at_point, movable
from entropix.landscape.networks.products import LossFn, as_partial
from entropix.transforms import checks
from entropix.transforms.keys import canonical_key
from entropix.transforms.numerics import scalar


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
    :math:`\rho^2 \lambda_{max}/2` for small rho.

    Args:
      loss: `loss(params, batch) -> number`, the mean over the batch's examples.
      params: x, any tree; floating-point leaves move, in float32 or wider.
      rho: radius of the ball, >= 0. Customary: 0.05; 0.5 to 2 if adaptive.
      batches: a tree of arrays with a leading axis of batches, all of the same size.
      adaptive: whether the ball is in units of the weights, which a rescaling of layers that leaves
        the function as it was does not change. Weights that are zero do not move then.
      num_steps: steps of each ascent, >= 1; each is a gradient of all batches.
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
        canonical_key(key),
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
    x, unravel = ravel_pytree(movable(params))
    rho = scalar(rho, x)
    units = jnp.abs(x) if adaptive else jnp.ones_like(x)

    def of_batch(u: jax.Array, batch: Tree) -> jax.Array:
        point = at_point(unravel(x + units * u), params)
        check_loss(loss, point, batch)
        return loss(point, batch)

    def value(u: jax.Array) -> jax.Array:
        return mean_over(lambda batch: of_batch(u, batch), batches)

    def step(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, ...], None]:
        u, best = carry
        here, slope = value_and_gradient(of_batch, u, batches)
        moved = u + rho * _unit(slope)
        inside = moved * jnp.minimum(1, rho / _positive(jnp.linalg.norm(moved)))
        return (inside, jnp.maximum(best, here)), None

    bottom = value(jnp.zeros_like(x))

    def ascend(start: jax.Array) -> jax.Array:
        (last, best), _ = lax.scan(step, (start, bottom), length=num_steps)
        return jnp.maximum(best, value(last))

    noise = jax.random.normal(key, x.shape, x.dtype)
    starts = jnp.stack([jnp.zeros_like(x), rho * _unit(noise)])
    return jnp.max(lax.map(ascend, starts)) - bottom


def _unit(vector: jax.Array) -> jax.Array:
    """The vector divided by its length; zero where that is zero."""
    return vector / _positive(jnp.linalg.norm(vector))


def _positive(length: jax.Array) -> jax.Array:
    return jnp.where(length > 0, length, 1)
