"""The density of an operator's eigenvalues, by stochastic Lanczos quadrature, and its means."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from entropix.landscape.networks.estimate import Estimate, mean_of_samples
from entropix.landscape.networks.lanczos import ritz, tridiagonalise
from entropix.landscape.networks.parameters import Product, Tree, flattened, size
from entropix.landscape.networks.products import MatVec
from entropix.transforms import checks
from entropix.transforms.eager import as_partial, is_concrete
from entropix.transforms.keys import one_key
from entropix.transforms.random import normal


class Spectrum(NamedTuple):
    """A density of eigenvalues, with what it was made of.

    Attributes:
      grid: equally spaced points. shape=(points,).
      value: the density at these points, whose integral is 1. shape=(points,).
      standard_error: of the density, from the spread of the samples. shape=(points,).
      nodes: the quadrature's nodes, ascending, a row for every sample. shape=(samples, steps).
      weights: the quadrature's weights, >= 0; the sum of a row is 1. shape=(samples, steps).
      width: standard deviation of the Gaussian that stands for each node. shape=().
    """

    grid: jax.Array
    value: jax.Array
    standard_error: jax.Array
    nodes: jax.Array
    weights: jax.Array
    width: jax.Array


def spectrum(
    matvec: MatVec,
    params: Tree,
    key: jax.Array | int,
    num_steps: int = 80,
    num_samples: int = 8,
    *,
    width: float | None = None,
    num_points: int = 1024,
) -> Spectrum:
    r"""The density of the eigenvalues, by stochastic Lanczos quadrature.

    .. math:: \phi(t) = \frac1n \sum_{i=1}^n g_w(t - \lambda_i)
      \approx \frac1m \sum_{j=1}^m \sum_{l=1}^k \omega_{jl}\, g_w(t - \theta_{jl})

    where :math:`g_w` is the Gaussian of width w, and the nodes and weights are those of k steps of
    Lanczos from the random unit vector j. A quadrature is exact for polynomials of degree 2k - 1:
    the outermost nodes are eigenvalues, the others stand for many. The standard error is that of
    the random vectors; what k steps cannot resolve it does not see: repeat with another k.

    Args:
      matvec: `v -> A v` for trees like `params`, A symmetric.
      params: a tree of n movable numbers.
      key: for the random vectors.
      num_steps: k products with A for every sample; at most n are made. k copies of the
        parameters are kept, those of one sample at a time.
      num_samples: m >= 2.
      width: w > 0; by default 1/200 of the range of the nodes.
      num_points: of the grid, which reaches five widths beyond the outermost nodes.

    Returns:
      A `Spectrum`.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = jnp.concatenate([jnp.zeros(90), jnp.full(10, 5.0)])
      >>> density = spectrum(lambda v: diagonal * v, jnp.zeros(100), key=0, num_samples=20)
      >>> near_zero = jnp.sum(jnp.where(density.nodes < 1, density.weights, 0), axis=1)
      >>> abs(float(near_zero.mean()) - 0.9) < 0.05
      True

    References:
      Ghorbani et al, `An investigation into neural net optimization via Hessian eigenvalue density
      <https://arxiv.org/abs/1901.10159>`_, 2019.
    """
    checks.check_function("matvec", matvec, "a function of a vector")
    num_steps = min(checks.check_count("num_steps", num_steps), size(params))
    num_samples = check_samples(num_samples)
    num_points = checks.check_count("num_points", num_points)
    if width is not None:
        width = checks.check_positive("width", width, schedule=False)
    return _spectrum(
        as_partial(matvec), params, one_key(key), width, num_steps, num_samples, num_points
    )


def check_samples(num_samples: int) -> int:
    """Returns a number of samples, from whose spread a standard error can come."""
    num_samples = checks.check_count("num_samples", num_samples)
    if num_samples < 2:
        raise checks.refusal(
            "num_samples", ">= 2, since the standard error comes from the spread", num_samples
        )
    return num_samples


def quadratures(
    product: Product,
    point: jax.Array,
    key: jax.Array,
    num_steps: int,
    num_samples: int,
    first: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Gauss quadratures of the spectrum from random unit vectors, one at a time in memory.

    Args:
      product: `v -> A v` for flat vectors.
      point: a vector, of whose shape and dtype all are.
      key: for the random vectors.
      num_steps: of Lanczos.
      num_samples: random vectors.
      first: another start vector, whose quadrature comes before the others.

    Returns:
      Nodes and weights, a row for every start vector.
    """

    def sample(of: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        index, key = of
        at_start, later = jax.random.split(key)
        start = normal(at_start, point.shape, point.dtype)
        if first is not None:
            start = jnp.where(index == 0, first, start)
        found = ritz(tridiagonalise(product, start, num_steps, later))
        return found.values, found.weights

    rows = num_samples + (first is not None)
    return lax.map(sample, (jnp.arange(rows), jax.random.split(key, rows)))


@functools.partial(jax.jit, static_argnames=("num_steps", "num_samples", "num_points"))
def _spectrum(
    matvec: MatVec,
    params: Tree,
    key: jax.Array,
    width: float | None,
    num_steps: int,
    num_samples: int,
    num_points: int,
) -> Spectrum:
    product, point = flattened(matvec, params)
    nodes, weights = quadratures(product, point, key, num_steps, num_samples)
    low, high = jnp.min(nodes), jnp.max(nodes)
    spread = _default_width(low, high) if width is None else jnp.asarray(width, nodes.dtype)
    grid = jnp.linspace(low - 5 * spread, high + 5 * spread, num_points)

    def density(sample: tuple[jax.Array, jax.Array]) -> jax.Array:
        theta, omega = sample
        distance = (grid[:, None] - theta[None]) / spread
        return jnp.exp(-(distance**2) / 2) @ omega / (spread * (2 * jnp.pi) ** 0.5)

    value, error = mean_of_samples(lax.map(density, (nodes, weights)))
    return Spectrum(grid, value, error, nodes, weights, spread)


def _default_width(low: jax.Array, high: jax.Array) -> jax.Array:
    """1/200 of the range, which is rounding alone where all nodes are one repeated eigenvalue."""
    rounding = jnp.finfo(low.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
    width = jnp.maximum((high - low) / 200, 100 * rounding)
    return jnp.where(width > 0, width, 1)


def harmonic_mean(spectrum: Spectrum, cutoff: ArrayLike) -> Estimate:
    r"""The harmonic mean of the eigenvalues above a cut-off.

    .. math:: HM = \frac{\#\{\lambda_i > c\}}{\sum_{\lambda_i > c} 1/\lambda_i}

    The paper bounds this mean of a relaxed loss's curvatures (Lemma 20). Of a trained network most
    eigenvalues are near zero, and the smallest of those that count decide: the mean is about as
    large as the cut-off that is chosen. Hand over several cut-offs and look at all of them. Below
    the resolution of the quadrature, about the distance of its nodes near the cut-off, the figure
    says nothing.

    Args:
      spectrum: from `spectrum`.
      cutoff: c > 0, a number or an array of several.

    Returns:
      An `Estimate` of the shape of `cutoff`; NaN where no eigenvalue lies above.

    Raises:
      ValueError: for a cut-off that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = jnp.asarray([0.5, 1.0])
      >>> density = spectrum(lambda v: diagonal * v, jnp.zeros(2), key=0, num_samples=400)
      >>> value, error = harmonic_mean(density, jnp.asarray([0.1, 0.7]))
      >>> abs(float(value[0]) - 2 / 3) < 3 * float(error[0]), round(float(value[1]), 4)
      (True, 1.0)
    """
    above, inverse = _moments_above(spectrum, cutoff, -1)
    return _ratio(above, inverse)


def arithmetic_mean(spectrum: Spectrum, cutoff: ArrayLike) -> Estimate:
    r"""The arithmetic mean of the eigenvalues above a cut-off.

    .. math:: AM = \frac{\sum_{\lambda_i > c} \lambda_i}{\#\{\lambda_i > c\}}

    As for `harmonic_mean`, the mean depends on the cut-off: hand over several cut-offs and look at
    all of them.

    Args:
      spectrum: from `spectrum`.
      cutoff: c > 0, a number or an array of several.

    Returns:
      An `Estimate` of the shape of `cutoff`; NaN where no eigenvalue lies above.

    Raises:
      ValueError: for a cut-off that is not positive, and for a `spectrum` that is no `Spectrum`.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = jnp.asarray([0.5, 1.0])
      >>> density = spectrum(lambda v: diagonal * v, jnp.zeros(2), key=0, num_samples=400)
      >>> value, error = arithmetic_mean(density, jnp.asarray([0.1, 0.7]))
      >>> abs(float(value[0]) - 0.75) < 3 * float(error[0]), round(float(value[1]), 4)
      (True, 1.0)
    """
    above, total = _moments_above(spectrum, cutoff, 1)
    return _ratio(total, above)


def _moments_above(
    spectrum: Spectrum, cutoff: ArrayLike, power: int
) -> tuple[jax.Array, jax.Array]:
    """Of every sample: the share of eigenvalues above the cut-off, and their power's integral."""
    if not isinstance(spectrum, Spectrum):
        raise checks.refusal("spectrum", "what entropix.landscape.spectrum returns", spectrum)
    if is_concrete(cutoff) and not np.all(np.asarray(cutoff) > 0):
        raise checks.refusal("cutoff", "> 0, since 1/eigenvalue has no bound without one", cutoff)
    cutoff = jnp.asarray(cutoff, spectrum.nodes.dtype)
    cutoff = cutoff[..., None, None]
    leading = tuple(range(cutoff.ndim - 2))
    nodes = jnp.expand_dims(spectrum.nodes, leading)
    weights = jnp.expand_dims(spectrum.weights, leading)
    counted = nodes > cutoff
    weights = jnp.where(counted, weights, 0)
    powers = jnp.where(counted, nodes, 1) ** power
    share, moment = jnp.sum(weights, axis=-1), jnp.sum(weights * powers, axis=-1)
    return jnp.moveaxis(share, -1, 0), jnp.moveaxis(moment, -1, 0)


def _ratio(above: jax.Array, below: jax.Array) -> Estimate:
    """The ratio of two means over the first axis; to first order in their fluctuations."""
    mean = jnp.mean(below, axis=0, keepdims=True)
    value = jnp.mean(above, axis=0, keepdims=True) / mean
    _, error = mean_of_samples((above - value * below) / mean)
    rounding = float(jnp.finfo(value.dtype).eps) * jnp.abs(value[0])
    return Estimate(value[0], jnp.maximum(error, rounding))
