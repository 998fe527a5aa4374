"""Expected values of noisy gradient descent: its generator (8), and the backward equation (9)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from entropix.pde.checks import check_positive
from entropix.pde.grid import Function, Grid
from entropix.pde.stochastic.bellman import uncontrolled, value_function
from entropix.pde.stochastic.exchange import rates
from entropix.pde.stochastic.fokker_planck import sampled_finite


def generator(
    grid: Grid, f: Function | ArrayLike, values: Function | ArrayLike, *, beta: float
) -> jax.Array:
    r"""Applies the generator (8) of dX = -grad f ds + beta^{-1/2} dW.

    .. math:: \mathcal L v = -\nabla f\cdot\nabla v + \frac1{2\beta}\Delta v
        = \frac{d}{ds}\, \mathbb E[v(X(s)) \mid X(0) = x] \Big|_{s=0}

    By the rates of exchange between neighbouring nodes, with reflecting walls: second order in the
    spacing, constants give exactly 0, and the mean over the Gibbs density (10) is 0 to rounding.

    Args:
      grid: of one or two dimensions.
      f: the loss, a function or values at the nodes.
      values: v, likewise.
      beta: the paper's inverse temperature, > 0.

    Returns:
      L v at the nodes.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import jax
      >>> from entropix import pde
      >>> grid = pde.Grid(-3.0, 3.0, 601)
      >>> with jax.enable_x64(True):  # for f = x^2/2 and v = x^2: -2 x^2 + 1/beta
      ...     change = pde.generator(grid, lambda x: x**2 / 2, lambda x: x**2, beta=2.0)
      >>> round(float(change[400]), 3)  # at x = 1
      -1.5
    """
    check_positive(beta=beta)
    potential, v = sampled_finite(grid, "f", f), grid.sample(values)
    total = jnp.zeros_like(v)
    for axis in range(grid.ndim):
        right, left, cell = rates(grid, potential, axis, diffusion=1 / (2 * beta))
        difference = jnp.diff(jnp.moveaxis(v, axis, -1))
        none = jnp.zeros_like(difference[..., :1])
        up = jnp.concatenate([right * difference, none], axis=-1)
        down = jnp.concatenate([none, left * difference], axis=-1)
        total += jnp.moveaxis((up - down) / cell, -1, axis)
    return total


def backward_kolmogorov(
    grid: Grid,
    f: Function | ArrayLike,
    V: Function | ArrayLike,
    *,
    beta: float,
    horizon: float,
    num_levels: int = 100,
    num_steps: int | None = None,
) -> jax.Array:
    r"""Solves the backward Kolmogorov equation (9): the expected V of uncontrolled paths.

    .. math:: -v_s = -\nabla f\cdot\nabla v + \frac1{2\beta}\Delta v, \quad v(x, S) = V(x),
        \qquad v(x, s) = \mathbb E[V(X(S)) \mid X(s) = x]

    for dX = -grad f ds + beta^{-1/2} dW, reflected at the walls. Implicit steps: first order in
    time, second in space, monotone for every step size. The value of the controlled problem,
    `value_function`, is nowhere above it (27).

    Args:
      grid: of one or two dimensions, its box so large that paths rarely meet a wall.
      f: the loss, whose gradient is the drift; a function, values at the nodes, or values at K' + 1
        equally spaced times, shape (K' + 1, *grid.shape), for a drift that changes.
      V: a function whose expectation is wanted, or values at the nodes.
      beta: the paper's inverse temperature, > 0.
      horizon: S > 0.
      num_levels: K, the number of intervals between the times kept.
      num_steps: steps, a multiple of K; by default K.

    Returns:
      v at the times 0, S/K, ..., S: shape (K + 1, *grid.shape), the last being V.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import jax
      >>> from entropix import pde
      >>> grid = pde.Grid(-5.0, 5.0, 401)
      >>> with jax.enable_x64(True):  # f = x^2/2 from x = 1: E X = exp(-S)
      ...     v = pde.backward_kolmogorov(grid, lambda x: x**2 / 2, lambda x: x, beta=2.0,
      ...                                 horizon=1.0, num_steps=2000)[0]
      ...     round(float(grid.interpolate(v, 1.0)), 3)
      0.368

    References:
      Pavliotis, Stochastic processes and applications, 2014, ch. 2 and 4.
    """
    return value_function(
        grid, f, V, beta=beta, horizon=horizon, num_levels=num_levels, num_steps=num_steps,
        method=uncontrolled,
    )  # fmt: skip
