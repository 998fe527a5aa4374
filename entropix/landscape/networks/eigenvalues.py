"""Extreme eigenvalues of an operator, by Lanczos."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from entropix.landscape.networks.estimate import Estimate
from entropix.landscape.networks.lanczos import ROUNDING, ritz, tridiagonalise
from entropix.landscape.networks.parameters import (
    Tree,
    as_vector,
    flattened,
    movable,
    raveled,
    size,
)
from entropix.landscape.networks.products import MatVec
from entropix.transforms import checks
from entropix.transforms.eager import as_partial
from entropix.transforms.keys import one_key
from entropix.transforms.random import normal

ORDERS = ("largest", "smallest", "magnitude")


class Eigenpairs(NamedTuple):
    """Eigenvalues, bounds of their errors, and eigenvectors.

    Attributes:
      value: shape=(num,).
      standard_error: a bound, see `eigenvalues`. shape=(num,).
      vectors: a tree like the parameters, with an axis of `num` before every leaf's own; of
        length 1 over the whole tree.
    """

    value: jax.Array
    standard_error: jax.Array
    vectors: Any


def eigenvalues(
    matvec: MatVec,
    params: Tree,
    num: int,
    key: jax.Array | int,
    *,
    num_steps: int | None = None,
    which: str = "largest",
) -> Estimate:
    r"""The extreme eigenvalues of a symmetric operator, by Lanczos.

    With u the unit vector that belongs to a value :math:`\theta`, A has an eigenvalue in
    :math:`\theta \pm |A u - \theta u|`. This distance, or ten roundings of the largest value where
    that is more, is a bound, no statistical error, and is far too large where the value has
    converged: the error is of the order of its square.

    What this cannot do: a repeated eigenvalue shows once in exact arithmetic, unless A has fewer
    distinct eigenvalues than steps. With `num_steps` = n all eigenvalues are exact up to rounding.

    Args:
      matvec: `v -> A v` for trees like `params`, such as `hessian(loss, params, batches)`, or a
        lambda around `hvp` or `ggn_vp`.
      params: a tree of n movable numbers, whose form the vectors have.
      num: how many eigenvalues, 1 <= num <= n.
      key: for the start vector.
      num_steps: products with A, num <= num_steps; by default 4 num + 40. Never more than n are
        made. All vectors are kept: num_steps copies of the parameters.
      which: "largest" (descending), "smallest" (ascending) or "magnitude" (descending in |.|).

    Returns:
      An `Estimate`: values of shape (num,), and the bound for each.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = jnp.arange(1.0, 8.0)
      >>> values, bounds = eigenvalues(lambda v: diagonal * v, jnp.zeros(7), 2, key=0)
      >>> [round(float(value), 4) for value in values]
      [7.0, 6.0]

    References:
      Golub and Van Loan, Matrix computations, 2013, ch. 10.
    """
    found = _eigenpairs(*_arguments(matvec, params, num, key, num_steps, which), vectors=False)
    return Estimate(found.value, found.standard_error)


def eigenpairs(
    matvec: MatVec,
    params: Tree,
    num: int,
    key: jax.Array | int,
    *,
    num_steps: int | None = None,
    which: str = "largest",
) -> Eigenpairs:
    r"""Extreme eigenvalues of a symmetric operator together with their eigenvectors, by Lanczos.

    .. math:: A u_k \approx \theta_k u_k, \qquad |u_k| = 1

    Args:
      matvec: as of `eigenvalues`.
      params: as of `eigenvalues`.
      num: as of `eigenvalues`.
      key: as of `eigenvalues`.
      num_steps: as of `eigenvalues`.
      which: as of `eigenvalues`.

    Returns:
      `Eigenpairs`: the values and bounds of `eigenvalues`, and a unit vector for each value.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> diagonal = jnp.arange(1.0, 8.0)
      >>> pairs = eigenpairs(lambda v: diagonal * v, jnp.zeros(7), 2, key=0)
      >>> abs(pairs.vectors).argmax(axis=1).tolist()
      [6, 5]

    References:
      Golub and Van Loan, Matrix computations, 2013, ch. 10.
    """
    return _eigenpairs(*_arguments(matvec, params, num, key, num_steps, which), vectors=True)


def _arguments(
    matvec: MatVec, params: Tree, num: int, key: Any, num_steps: int | None, which: str
) -> tuple[Any, ...]:
    checks.check_function("matvec", matvec, "a function of a vector")
    num, which = checks.check_count("num", num), checks.check_choice("which", which, ORDERS)
    n = size(params)
    if num > n:
        raise checks.refusal("num", f"at most the number of parameters, {n}", num)
    steps = checks.check_count("num_steps", 4 * num + 40 if num_steps is None else num_steps)
    if steps < num:
        raise checks.refusal("num_steps", f"at least num={num}", steps)
    return as_partial(matvec), params, num, one_key(key), min(steps, n), which


@functools.partial(jax.jit, static_argnames=("num", "num_steps", "which", "vectors"))
def _eigenpairs(
    matvec: MatVec,
    params: Tree,
    num: int,
    key: jax.Array,
    num_steps: int,
    which: str,
    vectors: bool,
) -> Eigenpairs:
    product, point = flattened(matvec, params)
    at_start, later = jax.random.split(key)
    start = normal(at_start, point.shape, point.dtype)
    krylov = tridiagonalise(product, start, num_steps, later)
    found = ritz(krylov)
    rank = {"largest": -found.values, "smallest": found.values, "magnitude": -jnp.abs(found.values)}
    chosen = jnp.argsort(rank[which])[:num]
    # Of the narrowest leaf: the products are computed in the leaves' own precision.
    eps = max(jnp.finfo(leaf.dtype).eps for leaf in jax.tree.leaves(movable(params)))
    rounding = ROUNDING * float(eps) * jnp.max(jnp.abs(found.values))
    trees = None
    if vectors:
        _, unravel = raveled(movable(params))
        rows = found.coefficients[chosen] @ krylov.basis
        trees = jax.vmap(lambda row: as_vector(unravel(row), params))(rows)
    return Eigenpairs(found.values[chosen], jnp.maximum(found.residuals[chosen], rounding), trees)
