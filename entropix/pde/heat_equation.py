"""The heat equation v_t = (1/2 beta) Laplacian v, by exact convolution with a Gaussian."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import (
    check_count,
    check_finite,
    check_float64,
    check_positive,
    function_of,
)
from entropix.pde.grid import Function, Grid, Relaxed

_WIDTH = 9.0  # in standard deviations; the density there is 1e-18
_FEWEST = 19  # nodes one standard deviation apart: 3e-9 of a Gaussian's mass is missed
_BATCH = 64


def heat_equation(
    grid: Grid,
    f: Function,
    t: float,
    beta: float,
    points: ArrayLike | None = None,
    *,
    num_nodes: int = 121,
) -> Relaxed:
    r"""Solves the heat equation on the whole space, at any points (23).

    .. math:: v(x, t) = \mathbb E f(x + s z), \quad \nabla v = \tfrac1s \mathbb E\, z f(x + s z),
        \quad z \sim N(0, I), \; s = \sqrt{t/\beta}

    The expectations are trapezoidal sums over nine standard deviations to either side (in 2-D: a
    product of two), which converge faster than any power for smooth f: to rounding, for the
    default, if no wavelength is shorter than s/5. For a kink the error is O((s/num_nodes)^2).

    Args:
      grid: its dimension is that of f, and its nodes are the default points. There is no boundary:
        f is evaluated outside the box, too.
      f: a JAX function of one point (see `Grid`).
      t: time, > 0.
      beta: inverse temperature, > 0.
      points: where v is wanted. shape (..., *point_shape).
      num_nodes: of the sum, in each dimension; at least 19, one in a standard deviation.

    Returns:
      Value and gradient, shapes (...,) and (..., *point_shape); of the grid's shape by default.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-1.0, 1.0, 3)
      >>> with jax.enable_x64(True):
      ...     v = entropix.pde.heat_equation(grid, lambda x: x**2, t=0.5, beta=2.0)
      >>> v.value.round(12).tolist()  # x^2 + t/beta
      [1.25, 0.25, 1.25]

    References:
      Trefethen and Weideman, `The exponentially convergent trapezoidal rule
      <https://doi.org/10.1137/130932132>`_, 2014.
    """
    check_positive(t=t, beta=beta)
    check_count(num_nodes=num_nodes, least=_FEWEST)
    if not callable(f):
        raise ValueError(
            "f must be a function of a point; for values use entropix.pde.heat_on_grid"
        )
    rows = grid.rows(points)
    value, gradient = _expectations(grid, function_of("f", f), num_nodes, rows, jnp.sqrt(t / beta))
    return grid.relaxed(value, gradient, points)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _expectations(
    grid: Grid, f: Function, num_nodes: int, rows: jax.Array, s: jax.Array
) -> tuple[jax.Array, jax.Array]:
    axis = np.linspace(-_WIDTH, _WIDTH, num_nodes)
    z = np.stack(np.meshgrid(*[axis] * grid.ndim, indexing="ij"), axis=-1).reshape(-1, grid.ndim)
    weights = np.exp(-np.sum(z**2, axis=-1) / 2)
    weights /= weights.sum()

    def at(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = jax.vmap(lambda z: f((x + s * z).reshape(grid.point_shape)))(jnp.asarray(z))
        grid.check_value(values)
        mean = weights @ values
        return mean, weights @ (z * (values - mean)[:, None]) / s  # E z = 0: less cancellation

    return lax.map(at, rows, batch_size=_BATCH)


def heat_on_grid(grid: Grid, values: ArrayLike | Function, t: float, beta: float) -> jax.Array:
    r"""Solves the heat equation for grid values, with walls that let no heat through.

    .. math:: v(\cdot, t) = \exp\!\Big(\frac{t}{2\beta} \Delta_h\Big) v(\cdot, 0)

    with the second-order difference Laplacian, values mirrored at the walls, and the exponential
    taken exactly, by FFT. Its kernel (the discrete Gaussian) is positive, so maxima and minima
    never grow, and the trapezoidal mass is conserved to rounding; the error is O(h^2). The whole
    space's solution, away from the walls by some sqrt(t/beta), is the same.

    Args:
      grid: the nodes.
      values: v at time 0, of the grid's shape; or a function, to be sampled.
      t: time, > 0.
      beta: inverse temperature, > 0.

    Returns:
      v at time t, of the grid's shape.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> grid = entropix.pde.Grid(0.0, jnp.pi, 101)
      >>> with jax.enable_x64(True):  # cos(x) decays by exp(-t/(2 beta))
      ...     v = entropix.pde.heat_on_grid(grid, jnp.cos, t=1.0, beta=0.5)
      >>> round(float(v[0]), 3)
      0.368

    References:
      Lindeberg, `Scale-space for discrete signals <https://doi.org/10.1109/34.49051>`_, 1990.
    """
    check_float64()
    check_positive(t=t, beta=beta)
    v = grid.sample(values)
    check_finite("values", v, grid.points)
    for axis, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
        frequency = np.arange(n)  # of the mirrored, hence periodic, signal of 2 (n - 1) nodes
        eigenvalues = -((2 / h * np.sin(np.pi * frequency / (2 * (n - 1)))) ** 2)
        v = jnp.moveaxis(v, axis, -1)
        mirrored = jnp.concatenate([v, v[..., -2:0:-1]], axis=-1)
        decay = jnp.exp(t / (2 * beta) * eigenvalues)
        spectrum = jnp.fft.rfft(mirrored) * decay.astype(complex)
        v = jnp.moveaxis(jnp.fft.irfft(spectrum, n=2 * (n - 1))[..., :n], -1, axis)
    return v
