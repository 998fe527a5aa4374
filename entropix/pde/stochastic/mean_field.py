"""Very many replicas around their own mean: the equation of their density (Remark 7)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from entropix.pde.checks import check_all, check_positive
from entropix.pde.grid import Function, Grid
from entropix.pde.stochastic.exchange import cells, implicit_step
from entropix.pde.stochastic.fokker_planck import mass, sampled_density, sampled_finite
from entropix.pde.stochastic.stepping import NumberedStep, check_saves, saved_steps
from entropix.pde.stochastic.wasserstein import free_energy


def mean_field(
    grid: Grid,
    f: Function | ArrayLike,
    density: Function | ArrayLike,
    *,
    gamma: float,
    temperature: float,
    horizon: float,
    num_steps: int,
    num_saves: int = 1,
) -> jax.Array:
    r"""The density of very many replicas of Elastic-SGD that are pulled to their own mean.

    .. math:: \rho_s = \nabla\cdot\Big(\rho\,\nabla
        \Big[f + \frac{|x - m(\rho)|^2}{2\gamma}\Big]\Big) + T \Delta\rho,
        \qquad m(\rho) = \int x\,\rho

    the Wasserstein gradient flow of the functional of `mean_field_energy`. Each step is implicit,
    and takes the mean at its beginning: positive, of constant mass, and the functional never grows,
    to rounding, whatever the step's length. First order in time, second in space.

    Args:
      grid: of one or two dimensions; no mass leaves it.
      f: the loss, a function or values at the nodes.
      density: rho at s = 0, likewise.
      gamma: scope of the coupling, > 0.
      temperature: T > 0, that of the optimisers: each replica has the noise sqrt(2T) dW.
      horizon: final time, > 0.
      num_steps: steps, a multiple of `num_saves`.
      num_saves: how many equally spaced times are returned, the last being the horizon.

    Returns:
      Densities of shape (num_saves, *grid.shape).

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from entropix import pde
      >>> grid = pde.Grid(-4.0, 4.0, 201)
      >>> with jax.enable_x64(True):  # f = x^2/2: the variance tends to T/(1 + 1/gamma)
      ...     rho = pde.mean_field(grid, lambda x: x**2 / 2, lambda x: 1 / 8, gamma=1.0,
      ...                          temperature=0.5, horizon=10.0, num_steps=200)[-1]
      ...     round(float(pde.mass(grid, rho * grid.points**2)), 2)
      0.25

    References:
      Carrillo, McCann and Villani, `Kinetic equilibration rates
      <https://doi.org/10.4171/RMI/376>`_, 2003.
    """
    check_positive(gamma=gamma, temperature=temperature, horizon=horizon)
    check_saves(num_steps, num_saves)
    arrays = sampled_finite(grid, "f", f), gamma, temperature, horizon / num_steps
    start = sampled_density(grid, density)
    return saved_steps(
        pulled_step, (grid,), arrays, start, num_steps=num_steps, num_saves=num_saves
    )


def pulled_step(grid: Grid, loss: jax.Array, gamma: Any, temperature: Any, dt: Any) -> NumberedStep:
    """An implicit step of a density that is pulled to its mean at the beginning of the step."""

    def step(rho: jax.Array, n: jax.Array) -> jax.Array:
        potential = loss + distance_squared(grid, mean(grid, rho)) / (2 * gamma)
        return implicit_step(grid, rho, potential, diffusion=temperature, dt=dt)

    return step


def mean_field_energy(
    grid: Grid,
    f: Function | ArrayLike,
    density: Function | ArrayLike,
    *,
    gamma: float,
    temperature: float,
) -> jax.Array:
    r"""The non-local functional that `mean_field` descends (Remark 7).

    .. math:: E(\rho) = \int f\rho + T \int \rho\log\rho
        + \frac1{4\gamma} \iint |x - y|^2 \rho(x)\rho(y)

    The free energy of Fokker-Planck, and one more term: the interaction through the mean, which is
    the variance over 2 gamma.

    Args:
      grid: of one or two dimensions.
      f: the loss, a function or values at the nodes.
      density: rho >= 0, whose mass is within 1 % of 1, likewise.
      gamma: scope of the coupling, > 0.
      temperature: T > 0.

    Returns:
      E, a number.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(0.0, 2.0, 201)
      >>> with jax.enable_x64(True):  # f = 0, a uniform density: -T log(2) + (1/3)/(2 gamma)
      ...     energy = entropix.pde.mean_field_energy(
      ...         grid, lambda x: 0 * x, lambda x: 0 * x + 0.5, gamma=1.0, temperature=0.5)
      >>> round(float(energy), 2)
      -0.18

    References:
      Carrillo, McCann and Villani, `Kinetic equilibration rates
      <https://doi.org/10.4171/RMI/376>`_, 2003.
    """
    check_positive(gamma=gamma, temperature=temperature)
    rho = grid.sample(density)
    accepted = "within 1 % of 1: divide the density by pde.mass(grid, density)"
    check_all("mass of density", mass(grid, rho), lambda total: abs(total - 1) < 0.01, accepted)
    potential = sampled_finite(grid, "f", f) + distance_squared(grid, mean(grid, rho)) / (2 * gamma)
    return free_energy(grid, potential, rho, beta=1 / (2 * temperature))


def mean(grid: Grid, density: jax.Array) -> jax.Array:
    """The mean of a density, shape (*point_shape,), by the trapezoidal rule."""
    weights = density
    for axis in range(grid.ndim):
        shape = [-1 if i == axis else 1 for i in range(grid.ndim)]
        weights = weights * cells(grid, axis).reshape(shape)
    points = jnp.asarray(grid.points)
    return jnp.tensordot(weights, points, axes=grid.ndim) / weights.sum()


def distance_squared(grid: Grid, centre: jax.Array) -> jax.Array:
    """|x - centre|^2 at the nodes."""
    square = (jnp.asarray(grid.points) - centre) ** 2
    return square if grid.ndim == 1 else square.sum(axis=-1)
