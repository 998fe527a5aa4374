r"""Local entropy at a point, relative to the loss.

.. math:: f_\gamma(x) = -T \log \int \exp\left(-\tfrac1T \left[f(y) +
  \tfrac{|x-y|^2}{2\gamma}\right]\right) \frac{dy}{(2\pi\gamma T)^{n/2}}

is the loss that Entropy-SGD descends. It is high where the valley around x is narrow.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from entropix.landscape.networks.batches import Tree, check_loss, value_and_gradient
from entropix.landscape.networks.estimate import Estimate, mean_of_samples
from entropix.landscape.networks.integration import Sampling, integrate
from entropix.landscape.networks.parameters import (
    at_point,
    flattened,
    movable,
    raveled,
    size,
)
from entropix.landscape.networks.products import LossFn, hessian
from entropix.landscape.networks.spectrum import check_samples, quadratures
from entropix.transforms import checks
from entropix.transforms.eager import as_partial, is_concrete
from entropix.transforms.keys import one_key
from entropix.transforms.numerics import scalar

METHODS = ("quadratic", "integration")
MAX_PARAMETERS = 10_000
"""Of thermodynamic integration, whose chains have to explore all dimensions."""


def local_entropy(
    loss: LossFn,
    params: Tree,
    gamma: Any,
    temperature: Any,
    batches: Tree,
    key: jax.Array | int,
    *,
    method: str = "quadratic",
    num_steps: int = 40,
    num_samples: int = 8,
    sampling: Sampling | None = None,
) -> Estimate:
    r"""How far local entropy lies from the loss, :math:`f_\gamma(x) - f(x)`.

    "quadratic" replaces f by its second-order expansion at x, g the gradient, H the Hessian:

    .. math:: -\tfrac12\, g^\top (H + I/\gamma)^{-1} g + \tfrac{T}{2} \log\det(I + \gamma H)

    for any number of parameters: both terms by Lanczos, the second from random vectors. Exact for
    quadratic f (Lemma 4); otherwise right for small gamma (|g| + T), and it needs I + gamma H
    positive definite, the paper's Remark 6. The standard error is that of the random vectors, and
    contains no error of the expansion.

    "integration" makes no such assumption. The derivative with respect to the scope t is the mean
    of a force over the measure :math:`\rho_t` of Lemma 1; with :math:`s = \sqrt t`,

    .. math:: f_\gamma(x) - f(x) = \int_0^{\sqrt\gamma} E_{\rho}\left[
      \tfrac{y - x}{s} \cdot \nabla f(y)\right] ds

    by Gauss-Legendre quadrature in s and Hamiltonian Monte Carlo at every node. Chains are
    independent; the standard error comes from their spread. Where the effective sample size at any
    node is less than `sampling.min_effective`, there is no figure. Chains that all miss the same
    valley are not noticed.

    Args:
      loss: `loss(params, batch) -> number`, the mean over the batch's examples.
      params: x, any tree; floating-point leaves move, in float32 or wider.
      gamma: scope, > 0 and finite; as of `entropix.local_entropy`.
      temperature: T >= 0 ("integration": > 0), of the measure exp(-f/T). With T = 0 the figure is
        that of the Hamilton-Jacobi relaxation.
      batches: a tree of arrays with a leading axis of batches, all of the same size.
      key: for random vectors and chains.
      method: "quadratic" or "integration"; the latter up to 10,000 parameters.
      num_steps: of Lanczos, for "quadratic".
      num_samples: random vectors, >= 2, for "quadratic".
      sampling: how "integration" samples; by default `Sampling()`.

    Returns:
      An `Estimate`. Compiled by the caller (`jax.jit`, `jax.vmap`), NaN where the call itself would
      raise an error about a figure.

    Raises:
      ValueError: for an argument outside its range; if I + gamma H is not positive definite; if
        the effective sample size is too small.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda x, batch: 3 * jnp.sum(x**2) / 2
      >>> value, error = local_entropy(loss, jnp.ones(4), 0.5, 0.1, jnp.zeros(1), key=0)
      >>> exact = -3 * 1.5 / 2.5 * 4 / 2 + 4 * 0.1 / 2 * jnp.log(2.5)    # Example 13
      >>> bool(abs(value - exact) < 1e-4)
      True

    References:
      Chaudhari et al, `Entropy-SGD <https://arxiv.org/abs/1611.01838>`_, 2017; Gelman and Meng,
      `Simulating normalizing constants <https://doi.org/10.1214/ss/1028905934>`_, 1998.
    """
    checks.check_function("loss", loss, "a function of parameters and a batch")
    gamma = checks.check_positive("gamma", gamma, schedule=False)
    method = checks.check_choice("method", method, METHODS)
    key, loss = one_key(key), as_partial(loss)
    if method == "quadratic":
        temperature = checks.check_non_negative("temperature", temperature, schedule=False)
        steps = min(checks.check_count("num_steps", num_steps), size(params))
        samples = check_samples(num_samples)
        found, lowest = _quadratic(loss, params, gamma, temperature, batches, key, steps, samples)
        _refuse_indefinite(lowest, gamma)
        return found
    temperature = checks.check_positive("temperature", temperature, schedule=False)
    if size(params) > MAX_PARAMETERS:
        raise ValueError(
            f"params must have at most {MAX_PARAMETERS} numbers for method='integration', whose "
            f"chains have to explore every dimension; got {size(params)}. Use method='quadratic'."
        )
    sampling = (sampling or Sampling()).checked()
    found, fewest = integrate(loss, params, gamma, temperature, batches, key, sampling)
    _refuse_few(fewest, sampling)
    return found


@functools.partial(jax.jit, static_argnames=("num_steps", "num_samples"))
def _quadratic(
    loss: LossFn,
    params: Tree,
    gamma: Any,
    temperature: Any,
    batches: Tree,
    key: jax.Array,
    num_steps: int,
    num_samples: int,
) -> tuple[Estimate, jax.Array]:
    """The estimate, and the lowest eigenvalue seen."""
    product, x = flattened(hessian(loss, params, batches), params)
    gamma, temperature = scalar(gamma, x), scalar(temperature, x)

    def of_batch(point: Tree, batch: Tree) -> jax.Array:
        check_loss(loss, at_point(point, params), batch)
        return loss(at_point(point, params), batch)

    _, slope = value_and_gradient(of_batch, movable(params), batches)
    flat_slope = raveled(slope)[0]
    nodes, weights = quadratures(product, x, key, num_steps, num_samples, first=flat_slope)
    pulled = jnp.sum(weights[0] / (nodes[0] + 1 / gamma))
    descent = flat_slope @ flat_slope * pulled / 2
    log_det, error = mean_of_samples(
        x.size * jnp.sum(weights[1:] * jnp.log1p(gamma * nodes[1:]), axis=-1)
    )
    lowest = jnp.min(nodes)
    value = jnp.where(1 + gamma * lowest > 0, temperature / 2 * log_det - descent, jnp.nan)
    return Estimate(value, temperature / 2 * error), lowest


def _refuse_indefinite(lowest: jax.Array, gamma: Any) -> None:
    """Raises where the quadratic approximation has no local entropy; traced values pass."""
    if is_concrete(lowest, gamma) and not 1 + float(gamma) * float(lowest) > 0:
        raise ValueError(
            f"gamma must be below {-1 / float(lowest):.3g}, -1 / the lowest eigenvalue of the "
            f"Hessian, for method='quadratic'; got gamma={gamma!r}. Use a smaller gamma, or "
            f"method='integration' for up to {MAX_PARAMETERS} parameters."
        )


def _refuse_few(fewest: jax.Array, sampling: Sampling) -> None:
    """Raises where chains have too few effective samples; traced values pass."""
    if is_concrete(fewest) and not float(fewest) >= sampling.min_effective:
        raise ValueError(
            f"the effective sample size must be at least sampling.min_effective="
            f"{sampling.min_effective:g}; got {math.floor(float(fewest))}. Raise "
            "sampling.num_samples or sampling.num_leapfrogs, or use a smaller gamma."
        )
