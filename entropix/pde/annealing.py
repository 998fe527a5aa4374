"""Simulated annealing and scoping, written out in their plainest form, to be compared."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_float64

Gradient = Callable[[jax.Array], jax.Array]


def simulated_annealing(
    gradient: Gradient, start: ArrayLike, key: jax.Array, *, step_size: float, schedule: ArrayLike
) -> jax.Array:
    r"""X <- x - eta grad f(x) + sqrt(2 eta T_k) xi, one gradient for each T_k of the schedule.

    Args:
      gradient: of f, for an array of paths at once.
      start: shape (paths,).
      key: a JAX key.
      step_size: eta > 0.
      schedule: temperatures T_k >= 0, shape (gradients,).

    Returns:
      The last x of every path.
    """
    check_float64()
    start, schedule = jnp.asarray(start, jnp.float64), jnp.asarray(schedule, jnp.float64)

    def step(x: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        T, k = now
        noise = jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
        return x - step_size * gradient(x) + jnp.sqrt(2 * step_size * T) * noise, None

    return lax.scan(step, start, (schedule, jnp.arange(len(schedule))))[0]


def scoped_descent(
    gradient: Gradient,
    start: ArrayLike,
    key: jax.Array,
    *,
    step_size: float,
    schedule: ArrayLike,
    temperature: float,
    num_steps: int = 20,
) -> jax.Array:
    r"""Entropy-SGD (31)-(33) with x <- <y>, L gradients for each gamma_k of the schedule.

    Args:
      gradient: of f, for an array of paths at once.
      start: shape (paths,).
      key: a JAX key.
      step_size: eta_y > 0, below 2 gamma.
      schedule: scopes gamma_k > 0, shape (outer steps,).
      temperature: T of the inner chain.
      num_steps: L; <y> is the mean of the L iterates.

    Returns:
      The last x of every path.
    """
    check_float64()
    start, schedule = jnp.asarray(start, jnp.float64), jnp.asarray(schedule, jnp.float64)

    def outer(x: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        gamma, k = now

        def inner(y: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
            xi = jax.random.normal(jax.random.fold_in(key, k * num_steps + i), x.shape, x.dtype)
            pull = gradient(y) + (y - x) / gamma
            y = y - step_size * pull + jnp.sqrt(2 * step_size * temperature) * xi
            return y, y

        return lax.scan(inner, x, jnp.arange(num_steps))[1].mean(axis=0), None

    return lax.scan(outer, start, (schedule, jnp.arange(len(schedule))))[0]
