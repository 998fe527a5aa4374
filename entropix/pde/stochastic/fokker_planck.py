"""The density of noisy gradient descent, and the Gibbs density (10) that it tends to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from entropix.pde.checks import check_all, check_finite, check_float64, check_positive
from entropix.pde.grid import Function, Grid
from entropix.pde.stochastic.exchange import cells, implicit_step
from entropix.pde.stochastic.stepping import NumberedStep, check_saves, saved_steps


def fokker_planck(
    grid: Grid,
    potential: Function | ArrayLike,
    density: Function | ArrayLike,
    *,
    beta: float,
    horizon: float,
    num_steps: int,
    num_saves: int = 1,
) -> jax.Array:
    r"""The density of dX = -grad V ds + beta^{-1/2} dW, reflected at the edges of the grid.

    .. math:: \rho_s = \nabla\cdot(\rho\,\nabla V) + \frac{1}{2\beta}\Delta\rho

    The noise is the paper's of section 5, so that the temperature of the Gibbs measure, T in
    sqrt(2T) dW, is 1/(2 beta): the stationary state is exp(-2 beta V). Finite volumes with the
    rates of `entropix.pde.stochastic.exchange` and implicit steps: mass is kept to rounding,
    positivity for every step size, the Gibbs state is exactly stationary. First order in time,
    second in space.

    Args:
      grid: of one or two dimensions; no mass leaves it.
      potential: V; a function of a point, values at the nodes, or for a V that changes values of
        shape (K + 1, *grid.shape) at K + 1 equally spaced times, first and last included. For the
        density of the pair (26), that of optimally controlled paths, it is f + u.
      density: rho at s = 0, as a function or values at the nodes.
      beta: the paper's inverse temperature, > 0.
      horizon: final time, > 0.
      num_steps: implicit steps, a multiple of `num_saves`.
      num_saves: how many equally spaced times are returned, the last being the horizon.

    Returns:
      Densities of shape (num_saves, *grid.shape).

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax
      >>> from entropix import pde
      >>> grid = pde.Grid(-3.0, 3.0, 61)
      >>> with jax.enable_x64(True):
      ...     rho = pde.fokker_planck(grid, lambda x: x**2 / 2, lambda x: 1 / 6, beta=2.0,
      ...                             horizon=20.0, num_steps=100)[-1]
      ...     gap = abs(rho - pde.gibbs(grid, lambda x: x**2 / 2, beta=2.0)).max()
      ...     (float(gap) < 1e-12, round(float(pde.mass(grid, rho)), 12))
      (True, 1.0)

    References:
      Scharfetter and Gummel, `doi:10.1109/T-ED.1969.16566
      <https://doi.org/10.1109/T-ED.1969.16566>`_, 1969;
      Chang and Cooper, `doi:10.1016/0021-9991(70)90001-X
      <https://doi.org/10.1016/0021-9991(70)90001-X>`_, 1970.
    """
    check_positive(beta=beta, horizon=horizon)
    check_saves(num_steps, num_saves)
    arrays = in_time(grid, "potential", potential, horizon), beta, horizon / num_steps
    start = sampled_finite(grid, "density", density)
    return saved_steps(_step, (grid,), arrays, start, num_steps=num_steps, num_saves=num_saves)


def _step(grid: Grid, potential: "InTime", beta: Any, dt: Any) -> NumberedStep:
    """An implicit step of the density, in the potential at the middle of the step."""

    def step(rho: jax.Array, n: jax.Array) -> jax.Array:
        V = potential((n.astype(float) + 0.5) * dt)
        return implicit_step(grid, rho, V, diffusion=1 / (2 * beta), dt=dt)

    return step


def sampled_finite(grid: Grid, name: str, values: Function | ArrayLike) -> jax.Array:
    """`Grid.sample` of a potential, which must be finite: the edge of the grid is its wall.

    Raises:
      ValueError: for a value that is not finite.
    """
    sampled = grid.sample(values)
    check_finite(name, sampled, grid.points)
    return sampled


def sampled_density(grid: Grid, density: Function | ArrayLike) -> jax.Array:
    """`Grid.sample` of a density, which must be finite and have mass.

    Raises:
      ValueError: for a value that is not finite, or a mass that is not positive.
    """
    sampled = sampled_finite(grid, "density", density)
    check_all("mass of density", mass(grid, sampled), lambda total: total > 0, "> 0")
    return sampled


class InTime(NamedTuple):
    """Values at the nodes as a function of time: linear between equally spaced times.

    Attributes:
      levels: the values at the times 0, ..., horizon, along the first axis; one level is a
        constant.
      horizon: the last time.
    """

    levels: jax.Array
    horizon: Any

    def __call__(self, s: ArrayLike) -> jax.Array:
        """The values at time s."""
        K = len(self.levels) - 1
        if K == 0:
            return self.levels[0]
        index = jnp.clip(jnp.asarray(s) / self.horizon * K, 0, K)
        k = jnp.minimum(index.astype(int), K - 1)
        return self.levels[k] + (index - k.astype(float)) * (self.levels[k + 1] - self.levels[k])


def in_time(grid: Grid, name: str, values: Function | ArrayLike, horizon: float) -> InTime:
    """A function of time from a function or values at the nodes, or at the nodes and K + 1 times.

    Args:
      grid: the nodes.
      name: of the argument that has the values.
      values: numbers at the nodes, or vectors at the nodes and times.
      horizon: the last time.

    Raises:
      ValueError: for values of another shape, and for numbers that are not finite.
    """
    check_float64()
    if callable(values) or jnp.ndim(values) == grid.ndim:
        return InTime(sampled_finite(grid, name, values)[None], horizon)
    levels = jnp.asarray(values, jnp.float64)
    if levels.shape[1 : 1 + grid.ndim] != grid.shape or len(levels) < 2:
        raise ValueError(
            f"{name} must have the shape {grid.shape}, or (K + 1, *{grid.shape}) with K + 1 >= 2 "
            f"times; got shape {levels.shape}"
        )
    if levels.ndim == 1 + grid.ndim and not isinstance(levels, jax.core.Tracer):
        for level in np.asarray(levels):
            check_finite(name, level, grid.points)
    return InTime(levels, horizon)


def mass(grid: Grid, density: Function | ArrayLike) -> jax.Array:
    r"""The integral of a density over the grid, by the trapezoidal rule.

    .. math:: \int \rho(x)\,dx

    Args:
      grid: of one or two dimensions.
      density: rho, a function or values at the nodes.

    Returns:
      The mass, a number.

    Raises:
      ValueError: for values of another shape, and without float64.

    Example:
      >>> import entropix, jax
      >>> with jax.enable_x64(True):  # the rule is exact for straight lines
      ...     float(entropix.pde.mass(entropix.pde.Grid(0.0, 2.0, 5), lambda x: 3 * x))
      6.0
    """
    total = grid.sample(density)
    for axis in reversed(range(grid.ndim)):
        total = total @ cells(grid, axis)
    return total


def gibbs(grid: Grid, potential: Function | ArrayLike, *, beta: float) -> jax.Array:
    r"""The stationary density (10) of `fokker_planck`, of mass 1.

    .. math:: \rho(x) = \frac{e^{-2\beta V(x)}}{\int e^{-2\beta V}}

    Args:
      grid: of one or two dimensions.
      potential: V, as a function or values at the nodes; +infinite behind walls.
      beta: the paper's inverse temperature, > 0.

    Returns:
      The density at the nodes.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-3.0, 3.0, 301)
      >>> with jax.enable_x64(True):  # for V = x^2/2 a Gaussian of variance 1/(2 beta)
      ...     rho = entropix.pde.gibbs(grid, lambda x: x**2 / 2, beta=2.0)
      ...     round(float(entropix.pde.mass(grid, rho * grid.points**2)), 4)
      0.25

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, equation (10).
    """
    check_positive(beta=beta)
    V = grid.sample(potential)
    check_finite("potential", V, grid.points, besides=np.inf)
    density = jnp.exp(-2 * beta * (V - V.min()))
    return density / mass(grid, density)
