r"""Trace and Frobenius norm of an operator, from products with random signs.

One probe is in memory at a time. matfree's estimators draw all probes at once, as many copies of
the parameters as there are samples, its integrands flatten probe and product into two more, and its
standard error divides by the number of samples instead of one less. Its XTrace and this Hutch++ are
of one family; the latter's standard error comes from independent samples.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from entropix.landscape.networks.estimate import Estimate, mean_of_samples
from entropix.landscape.networks.parameters import (
    Tree,
    as_vector,
    check_automatic,
    inner_product,
    movable,
    raveled,
    size,
    vector_part,
)
from entropix.landscape.networks.products import MatVec
from entropix.landscape.networks.spectrum import check_samples
from entropix.transforms import checks
from entropix.transforms.eager import as_partial
from entropix.transforms.keys import one_key
from entropix.transforms.numerics import norm_squared

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
    is estimated, and of rounding.

    Args:
      matvec: `v -> A v` for trees like `params`, A symmetric.
      params: a tree of n movable numbers.
      key: for the probes.
      num_samples: products with A, >= 2; for "hutch++" >= 6, and about 3 n at most.
        The latter keeps about as many copies of the parameters.
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
    return run(_form, as_partial(matvec), params, one_key(key))


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

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> A = jnp.asarray([[2.0, 1.0], [1.0, 3.0]])
      >>> value, error = frobenius_norm(lambda v: A @ v, jnp.zeros(2), key=0, num_samples=400)
      >>> abs(float(value) - 15**0.5) < 3 * float(error)
      True
    """
    run = _arguments(matvec, params, num_samples, method)
    square, error = run(_square, as_partial(matvec), params, one_key(key))
    norm = jnp.sqrt(square)
    return Estimate(norm, error / jnp.where(norm > 0, 2 * norm, 1))


def _arguments(
    matvec: MatVec, params: Tree, num_samples: int, method: str
) -> Callable[..., Estimate]:
    """Checks the arguments; the compiled estimator for that many samples."""
    checks.check_function("matvec", matvec, "a function of a vector")
    check_automatic(params)
    num_samples = check_samples(num_samples)
    if checks.check_choice("method", method, METHODS) == "hutchinson":
        return functools.partial(_estimate, rank=0, num_samples=num_samples)
    rank, n = num_samples // 3, size(params)
    if not 2 <= rank <= n:
        if n < 2:
            raise checks.refusal("method", "'hutchinson' for a single parameter", method)
        accepted = f"in [6, {3 * n + 2}] for method='hutch++' and {n} parameters"
        raise checks.refusal("num_samples", accepted, num_samples)
    return functools.partial(_estimate, rank=rank, num_samples=num_samples - 2 * rank)


def _form(matvec: MatVec, vector: Tree) -> jax.Array:
    return inner_product(vector, matvec(vector))


def _square(matvec: MatVec, vector: Tree) -> jax.Array:
    return norm_squared(matvec(vector))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("rank", "num_samples"))
def _estimate(
    integrand: Callable[[MatVec, Tree], jax.Array],
    matvec: MatVec,
    params: Tree,
    key: jax.Array,
    *,
    rank: int,
    num_samples: int,
) -> Estimate:
    """The integrand's sum over a basis of the sketched range, and its estimate for the rest."""
    x = movable(params)
    for_sketch, for_rest = jax.random.split(key)

    def product(vector: Tree) -> Tree:
        result = matvec(as_vector(vector, params))
        return vector_part(result, params, "matvec's result")

    def probe(key: jax.Array) -> Tree:
        return optax.tree.random_like(key, x, jax.random.rademacher)

    if not rank:
        samples = lax.map(
            lambda key: integrand(product, probe(key)), jax.random.split(for_rest, num_samples)
        )
        return mean_of_samples(samples)

    _, unravel = raveled(x)
    flat = lambda tree: raveled(tree)[0]  # noqa: E731
    sketch = lax.map(lambda key: flat(product(probe(key))), jax.random.split(for_sketch, rank))
    basis = jnp.linalg.qr(sketch.T)[0].T
    known = lax.map(lambda row: integrand(product, unravel(row)), basis)
    rounding = jnp.finfo(known.dtype).eps * jnp.sum(jnp.abs(known))

    def outside(key: jax.Array) -> jax.Array:
        vector = flat(probe(key))
        return integrand(product, unravel(vector - (basis @ vector) @ basis))

    mean, error = mean_of_samples(lax.map(outside, jax.random.split(for_rest, num_samples)))
    return Estimate(jnp.sum(known) + mean, jnp.hypot(error, rounding))
