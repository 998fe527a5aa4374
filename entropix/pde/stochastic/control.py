"""Theorem 12 by Monte Carlo: the gain of controlling gradient descent, and its cost."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from entropix.pde.checks import check_positive, function_of
from entropix.pde.grid import Function, Grid
from entropix.pde.stochastic.bellman import feedback, value_function
from entropix.pde.stochastic.sde import Drift, Estimate, estimate, simulate


class ControlGap(NamedTuple):
    """Both sides of Theorem 12, by paths with common Brownian motions.

    Attributes:
      controlled: E V(x_csgd(S)), the left side.
      uncontrolled: E V(x_sgd(S)).
      effort: 1/2 E int |a|^2 ds.
      right: uncontrolled - effort, the right side.
      gap: right - left, whose standard error the common noise makes small.
      cost: controlled + effort, which the value u(x, 0) predicts.
      value: the mean of u(x, 0) over the starts.
      points: x_csgd(S) of every path. shape=(paths, *point).
    """

    controlled: Estimate
    uncontrolled: Estimate
    effort: Estimate
    right: Estimate
    gap: Estimate
    cost: Estimate
    value: jax.Array
    points: jax.Array


def control_gap(
    grid: Grid,
    f: Function,
    V: Function,
    start: ArrayLike,
    key: jax.Array | int,
    *,
    beta: float,
    horizon: float,
    num_steps: int = 200,
    values: ArrayLike | None = None,
) -> ControlGap:
    r"""Both sides of Theorem 12 by Monte Carlo: the gain of a control, and its effort.

    .. math:: \mathbb E V(x_{csgd}(S)) \le \mathbb E V(x_{sgd}(S))
        - \tfrac12 \mathbb E \int_0^S |a(x_{csgd}(s), s)|^2 ds

    Args:
      grid: on which the control is computed; paths outside take the control of the nearest edge.
      f: the loss, a JAX function of a point.
      V: the terminal cost, likewise.
      start: x(0) for every path, shape (paths, *grid.point_shape).
      key: a JAX key, or a seed.
      beta: the paper's inverse temperature, > 0.
      horizon: S > 0.
      num_steps: steps of the paths.
      values: the value function, as from `value_function`, which is called if None.

    Returns:
      Both sides, the gap and their standard errors.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from entropix import pde
      >>> well = lambda x: (x**2 - 1) ** 2 + 0.3 * x
      >>> with jax.enable_x64(True):
      ...     gap = pde.control_gap(pde.Grid(-3.0, 3.0, 121), well, well, jnp.full(1000, 1.0),
      ...                           jax.random.key(0), beta=2.0, horizon=1.0).gap
      ...     bool(gap.mean > 4 * gap.error)
      True

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, Theorem 12.
    """
    check_positive(beta=beta, horizon=horizon)
    f, V = function_of("f", f), function_of("V", V)
    start = jnp.asarray(start, jnp.float64)
    if start.shape[1:] != grid.point_shape or start.ndim == 0:
        raise ValueError(
            f"start must have shape (paths, *{grid.point_shape}); got shape {start.shape}"
        )
    if values is None:
        values = value_function(grid, f, V, beta=beta, horizon=horizon)
    paths, d = len(start), grid.ndim
    control = feedback(grid, values, horizon=horizon)
    drift = Partial(_drift, grid, Partial(f), control)

    # Controlled point, uncontrolled point and effort are one state; the points share their noise.
    flat = start.reshape(paths, d)
    state = jnp.concatenate([flat, flat, jnp.zeros((paths, 1))], axis=1)
    sigma = jnp.concatenate([jnp.eye(d), jnp.eye(d), jnp.zeros((1, d))]) / beta**0.5
    end = simulate(drift, state, key, sigma=sigma, horizon=horizon, num_steps=num_steps)[-1]

    x, z = end[:, :d].reshape(start.shape), end[:, d : 2 * d].reshape(start.shape)
    left, plain, effort = jax.vmap(V)(x), jax.vmap(V)(z), end[:, -1]
    return ControlGap(
        controlled=estimate(left),
        uncontrolled=estimate(plain),
        effort=estimate(effort),
        right=estimate(plain - effort),
        gap=estimate(plain - effort - left),
        cost=estimate(left + effort),
        value=grid.interpolate(jnp.asarray(values)[0], start).mean(),
        points=x,
    )


def _drift(grid: Grid, f: Function, control: Drift, state: jax.Array, s: jax.Array) -> jax.Array:
    """Of the controlled point, of the uncontrolled one, and of the effort."""
    d, slope = grid.ndim, jax.grad(f)
    x = state[:d].reshape(grid.point_shape)
    z = state[d : 2 * d].reshape(grid.point_shape)
    a = control(x, s)
    parts = -slope(x) - a, -slope(z), jnp.sum(a**2) / 2
    return jnp.concatenate([part.reshape(-1) for part in parts])
