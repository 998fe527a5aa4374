r"""Lanczos' tridiagonalisation with full re-orthogonalisation, continued where it is exhausted.

.. math:: A\,Q^\top \approx Q^\top T,\qquad Q Q^\top = I

The loop is written here, and not taken from matfree, because a Krylov space can be exhausted before
its steps are done: whenever A has fewer distinct eigenvalues than steps, as the Hessian of
c|x|^2/2 or any matrix of low rank. matfree 0.6 then divides by a length that is zero up to
rounding, returns NaN or the same vector again, and with it eigenvalues that A does not have
(for 3 I in five dimensions: 1.5 to 4.5). Here a random vector, orthogonal to all before, begins
another Krylov space, so that repeated eigenvalues are found as often as there are steps for them.
The basis is also stored once, in rows; matfree returns a transposed copy besides.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from entropix.landscape.networks.parameters import Product
from entropix.transforms.random import normal

ROUNDING = 10
"""Products and lengths are known to so many roundings of the operator's norm."""


class Tridiagonal(NamedTuple):
    """The result of k steps of Lanczos on an operator of n dimensions.

    Attributes:
      basis: Q, orthonormal rows. shape=(k, n).
      diagonal: of T. shape=(k,).
      off_diagonal: of T, and the norm of the last residual. shape=(k,).
    """

    basis: jax.Array
    diagonal: jax.Array
    off_diagonal: jax.Array


class Ritz(NamedTuple):
    """Eigenvalues of T, ascending.

    Attributes:
      values: shape=(k,).
      weights: squared first components of the eigenvectors, sum 1: the weights of the Gauss
        quadrature of A's spectrum as the start vector sees it. shape=(k,).
      residuals: |A u - value u| of the vectors u = coefficients @ basis. shape=(k,).
      coefficients: the eigenvectors of T, in rows. shape=(k, k).
    """

    values: jax.Array
    weights: jax.Array
    residuals: jax.Array
    coefficients: jax.Array


def tridiagonalise(
    product: Product, start: jax.Array, num_steps: int, key: jax.Array
) -> Tridiagonal:
    """Runs Lanczos.

    Args:
      product: `v -> A v` for flat vectors, A symmetric.
      start: a vector of n numbers; if it is zero, a random one takes its place.
      num_steps: k, in [1, n]: as many products with A.
      key: for the vectors with which exhausted spaces go on.

    Returns:
      A `Tridiagonal`. Memory: the basis and a few vectors.
    """
    exhausted_at = ROUNDING * jnp.finfo(start.dtype).eps

    def noise(index: jax.Array | int) -> jax.Array:
        return normal(jax.random.fold_in(key, index), start.shape, start.dtype)

    def outside(vector: jax.Array, basis: jax.Array) -> jax.Array:
        return vector - (basis @ vector) @ basis

    def step(carry: Any, index: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        basis, vector, largest = carry
        basis = basis.at[index].set(vector)
        image = product(vector)
        largest = jnp.maximum(largest, jnp.linalg.norm(image))
        rest = outside(image, basis)
        # What is left is rounding of the image: the space is exhausted, another one begins. A
        # `lax.cond` would spare the noise, and copy the basis.
        exhausted = jnp.linalg.norm(rest) <= exhausted_at * largest
        rest = jnp.where(exhausted, noise(index), rest)
        rest = outside(outside(rest, basis), basis)
        length = jnp.linalg.norm(rest)
        entries = vector @ image, jnp.where(exhausted, 0, length)
        return (basis, rest / _positive(length), largest), entries

    # By its largest number first: the square of a small gradient is zero in single precision.
    largest = jnp.max(jnp.abs(start))
    seen = largest >= jnp.finfo(start.dtype).tiny
    first = jnp.where(seen, start / jnp.where(seen, largest, 1), noise(num_steps))
    basis = jnp.zeros((num_steps, start.size), start.dtype)
    carry: Any = (basis, first / jnp.linalg.norm(first), jnp.zeros((), start.dtype))
    (basis, *_), (diagonal, off_diagonal) = lax.scan(step, carry, jnp.arange(num_steps))
    return Tridiagonal(basis, diagonal, off_diagonal)


def ritz(tridiagonal: Tridiagonal) -> Ritz:
    """Eigenvalues of T, with the weights and the residuals that belong to them."""
    _, diagonal, off_diagonal = tridiagonal
    inner = off_diagonal[:-1]
    matrix = jnp.diag(diagonal) + jnp.diag(inner, 1) + jnp.diag(inner, -1)
    values, vectors = jnp.linalg.eigh(matrix)
    residuals = jnp.abs(off_diagonal[-1] * vectors[-1])
    return Ritz(values, vectors[0] ** 2, residuals, vectors.T)


def _positive(length: jax.Array) -> jax.Array:
    """The length, or 1 where that is 0: for a division whose result is not used then."""
    return jnp.where(length > 0, length, 1)
