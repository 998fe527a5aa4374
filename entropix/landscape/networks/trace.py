r"""Trace and Frobenius norm of an operator, from products with random signs.

Probes and integrands are matfree's. The loop over probes is written here: matfree's estimators draw
all probes at once, as many copies of the parameters as there are samples, and divide by the number
of samples where the standard error takes one less.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from matfree import stochtrace

from entropix.landscape.networks.estimate import Estimate, mean_of_samples
from entropix.landscape.networks.parameters import Product, Tree, flattened, size
from entropix.landscape.networks.products import MatVec, as_partial
from entropix.landscape.networks.spectrum import check_samples
from entropix.transforms import checks
from entropix.transforms.keys import canonical_key

METHODS = ("hutchinson", "hutch++")


def trace(
    matvec: MatVec,
    params: Tree,
    key: jax.Array | int,
    num_samples: int,
    *,
    method: str = "hutchinson",
) -> Estimate:
    r"""The trace of a symmetric operator.

    .. math:: \mathrm{tr}\, A = E\, z^\top A z,\qquad z_i = \pm 1

    "hutch++" spends a third of the products on a sketch of the range of A, with an orthonormal
    basis Q, another on :math:`\mathrm{tr}\, Q^\top A Q` and the last on the trace of
    :math:`(I - QQ^\top) A (I - QQ^\top)`: better where few eigenvalues carry most of the trace.
    Both are unbiased; the standard error of the second is that of the last part, the only one that
    is estimated.

    Args:
      matvec: `v -> A v` for trees like `params`, A symmetric.
      params: a tree of n movable numbers.
      key: for the probes.
      num_samples: products with A, >= 2; for "hutch++" >= 6, and at most 3 n. The latter keeps a
        third as many copies of the parameters.
      method: "hutchinson" or "hutch++".

    Returns:
      An `Estimate`.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> A = jnp.asarray([[2.0, 1.0], [1.0, 3.0]])
      >>> value, error = trace(lambda v: A @ v, jnp.zeros(2), key=0, num_samples=400)
      >>> abs(float(value) - 5) < 3 * float(error)
      True

    References:
      Hutchinson, `A stochastic estimator of the trace of the influence matrix
      <https://doi.org/10.1080/03610918908812806>`_, 1989; Meyer et al, `Hutch++
      <https://arxiv.org/abs/2010.09649>`_, 2021.
    """
    run = _arguments(matvec, params, num_samples, method)
    return run(_trace, as_partial(matvec), params, canonical_key(key))


def frobenius_norm(
    matvec: MatVec,
    params: Tree,
    key: jax.Array | int,
    num_samples: int,
    *,
    method: str = "hutchinson",
) -> Estimate:
    r"""The Frobenius norm of a symmetric operator, the root of the sum of squared eigenvalues.

    .. math:: |A|_F^2 = E\, |A z|^2,\qquad z_i = \pm 1

    and for "hutch++" :math:`|A|_F^2 = |A Q|_F^2 + E\, |A (I - QQ^\top) z|^2`, Q as for `trace`. The
    square is unbiased; the root is low by about a relative error of (standard error/value)^2 / 2.

    Args:
      matvec: as for `trace`.
      params: as for `trace`.
      key: as for `trace`.
      num_samples: as for `trace`.
      method: as for `trace`.

    Returns:
      An `Estimate`.

    Example:
      >>> import jax.numpy as jnp
      >>> A = jnp.asarray([[2.0, 1.0], [1.0, 3.0]])
      >>> value, error = frobenius_norm(lambda v: A @ v, jnp.zeros(2), key=0, num_samples=400)
      >>> abs(float(value) - 15**0.5) < 3 * float(error)
      True
    """
    run = _arguments(matvec, params, num_samples, method)
    square, error = run(_squares, as_partial(matvec), params, canonical_key(key))
    norm = jnp.sqrt(square)
    return Estimate(norm, error / jnp.where(norm > 0, 2 * norm, 1))


def _arguments(
    matvec: MatVec, params: Tree, num_samples: int, method: str
) -> Callable[..., Estimate]:
    """Checks the arguments; the compiled estimator for that many samples."""
    checks.check_function("matvec", matvec, "a function of a vector")
    num_samples = check_samples(num_samples)
    if checks.check_choice("method", method, METHODS) == "hutchinson":
        return functools.partial(_estimate, rank=0, num_samples=num_samples)
    rank, n = num_samples // 3, size(params)
    if not 2 <= rank <= n:
        raise checks.refusal(
            "num_samples", f"in [6, {3 * n + 2}] for method='hutch++' and {n} parameters", num_samples
        )
    return functools.partial(_estimate, rank=rank, num_samples=num_samples - 2 * rank)


def _trace(product: Product, vector: jax.Array) -> jax.Array:
    return stochtrace.monte_carlo_trace()(product, vector)


def _squares(product: Product, vector: jax.Array) -> jax.Array:
    return stochtrace.monte_carlo_frobeniusnorm_squared()(product, vector)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("rank", "num_samples"))
def _estimate(
    integrand: Callable[[Product, jax.Array], jax.Array],
    matvec: MatVec,
    params: Tree,
    key: jax.Array,
    *,
    rank: int,
    num_samples: int,
) -> Estimate:
    """The integrand's sum over a basis of the sketched range, and its estimate for the rest."""
    product, point = flattened(matvec, params)
    draw = stochtrace.sampler_signs(point, num=1)
    for_sketch, for_rest = jax.random.split(key)
    known, outside = jnp.zeros((), point.dtype), lambda vector: vector
    if rank:
        probes = jax.random.split(for_sketch, rank)
        sketch = lax.map(lambda key: product(draw(key)[0]), probes)
        basis = jnp.linalg.qr(sketch.T)[0].T
        known = jnp.sum(lax.map(lambda row: integrand(product, row), basis))
        outside = lambda vector: vector - (basis @ vector) @ basis  # noqa: E731

    def sample(key: jax.Array) -> jax.Array:
        return integrand(product, outside(draw(key)[0]))

    samples = lax.map(sample, jax.random.split(for_rest, num_samples))
    mean, error = mean_of_samples(samples)
    return Estimate(known + mean, error)
