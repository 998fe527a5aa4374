"""Local energy: how much the loss rises when every weight is multiplied by noise."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from entropix.landscape.networks.batches import mean_figures
from entropix.landscape.networks.estimate import Estimate, mean_of_samples
from entropix.landscape.networks.parameters import Tree, at_point, movable
from entropix.landscape.networks.products import LossFn
from entropix.transforms import checks
from entropix.transforms.eager import as_partial
from entropix.transforms.keys import one_key
from entropix.transforms.numerics import scalar
from entropix.transforms.random import noise_like


def local_energy(
    loss: LossFn,
    params: Tree,
    sigma: Any,
    batches: Tree,
    key: jax.Array | int,
    *,
    num_samples: int = 64,
) -> Estimate:
    r"""The mean rise of the loss under multiplicative noise.

    .. math:: \delta E(\sigma) = E_z\, f(x + \sigma\, x \odot z) - f(x),\qquad z \sim N(0, I)

    Noise in proportion to the weights makes the figure indifferent to a rescaling of layers that
    leaves the function as it was (before batch normalisation, or between layers with ReLU).
    The samples come in pairs z, -z, whose odd terms cancel; pairs are independent. The same key
    draws the same noise for every sigma.

    Args:
      loss: `loss(params, batch)`, a number or a tree of numbers, for instance `{"loss": ...,
        "error": ...}`: any figure whose mean over batches makes sense.
      params: x, any tree; floating-point leaves alone are perturbed, in float32 or wider.
      sigma: relative size of the noise, >= 0. Customary: 0 to 0.5.
      batches: a tree of arrays with a leading axis of batches, all of the same size.
      key: for the noise.
      num_samples: passes over the data, an even number >= 4, beside the one at x.

    Returns:
      An `Estimate` of the structure of the loss's result.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda x, batch: jnp.sum(x**2) / 2
      >>> value, error = local_energy(loss, jnp.full(500, 2.0), 0.1, jnp.zeros(1), key=0)
      >>> abs(float(value) - 10) < 3 * float(error)    # sigma^2 |x|^2 / 2
      True

    References:
      Pittorino et al, `Entropic gradient descent algorithms and wide flat minima
      <https://arxiv.org/abs/2006.07897>`_, 2021.
    """
    checks.check_function("loss", loss, "a function of parameters and a batch")
    sigma = checks.check_non_negative("sigma", sigma, schedule=False)
    num_samples = checks.check_count("num_samples", num_samples)
    if num_samples < 4 or num_samples % 2:
        raise checks.refusal(
            "num_samples", "an even number >= 4, since noise comes in pairs z, -z", num_samples
        )
    return _local_energy(as_partial(loss), params, sigma, batches, one_key(key), num_samples // 2)


@functools.partial(jax.jit, static_argnames="num_pairs")
def _local_energy(
    loss: LossFn, params: Tree, sigma: Any, batches: Tree, key: jax.Array, num_pairs: int
) -> Estimate:
    x = movable(params)

    def at(point: Tree) -> Tree:
        return mean_figures(loss, at_point(point, params), batches)

    at_x = at(x)

    def pair(key: jax.Array) -> Tree:
        noise = noise_like(key, x)

        def rise(sign: jax.Array) -> Tree:
            factor = sign * sigma
            moved = jax.tree.map(lambda x, z: x + scalar(factor, x) * x * z, x, noise)
            return jax.tree.map(jnp.subtract, at(moved), at_x)

        rises = lax.map(rise, jnp.asarray([1.0, -1.0]))
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), rises)

    return mean_of_samples(lax.map(pair, jax.random.split(key, num_pairs)))
