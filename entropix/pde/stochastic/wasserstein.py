"""The free energy of Jordan, Kinderlehrer and Otto, and the Wasserstein distance, of densities."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from entropix.pde.checks import (
    check_all,
    check_count,
    check_finite,
    check_line,
    check_positive,
    not_negative,
)
from entropix.pde.grid import Function, Grid
from entropix.pde.stochastic.exchange import cells
from entropix.pde.stochastic.fokker_planck import mass


def free_energy(
    grid: Grid, potential: Function | ArrayLike, density: Function | ArrayLike, *, beta: float
) -> jax.Array:
    r"""The functional of which Fokker-Planck is the Wasserstein gradient flow (section 2.3).

    .. math:: F(\rho) = \int V \rho + \frac1{2\beta} \int \rho \log \rho

    F never grows along `fokker_planck`, to rounding, whatever the step; the Gibbs density (10) has
    the least F.

    Args:
      grid: of one or two dimensions.
      potential: V, a function or values at the nodes; +infinite behind walls.
      density: rho >= 0, likewise.
      beta: the paper's inverse temperature, > 0.

    Returns:
      F, a number.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import jax
      >>> from entropix import pde
      >>> grid = pde.Grid(0.0, 2.0, 201)
      >>> with jax.enable_x64(True):  # a uniform density, without a potential: -log(2)/(2 beta)
      ...     F = pde.free_energy(grid, lambda x: 0 * x, lambda x: 0 * x + 0.5, beta=0.5)
      >>> round(float(F), 6)
      -0.693147

    References:
      Jordan, Kinderlehrer and Otto, `The variational formulation of the Fokker-Planck equation
      <https://doi.org/10.1137/S0036141096303359>`_, 1998.
    """
    check_positive(beta=beta)
    V, rho = grid.sample(potential), grid.sample(density)
    check_all("density", rho, not_negative)
    check_finite("potential", V, grid.points, besides=np.inf)
    V = jnp.where(rho > 0, V, 0)  # infinity times no mass is 0
    return mass(grid, V * rho + entropy_density(rho) / (2 * beta))


def entropy_density(rho: jax.Array) -> jax.Array:
    """The integrand rho log rho, and 0 where rho is 0."""
    return rho * jnp.log(jnp.where(rho > 0, rho, 1))


def wasserstein_distance(
    grid: Grid,
    density: Function | ArrayLike,
    other: Function | ArrayLike,
    *,
    num_quantiles: int = 20_000,
) -> jax.Array:
    r"""The Wasserstein-2 distance of two densities on a line, by their quantiles.

    .. math:: W_2(\rho, \sigma)^2 = \int_0^1 |F_\rho^{-1}(q) - F_\sigma^{-1}(q)|^2 dq

    Densities are constant over the cells of the nodes and are given the mass 1. The sum runs over
    the middles of equal intervals of q.

    Args:
      grid: one dimension.
      density: rho >= 0, a function or values at the nodes.
      other: sigma >= 0, likewise.
      num_quantiles: terms of the sum.

    Returns:
      W_2, a number.

    Raises:
      ValueError: for a grid of two dimensions, a negative density or one without mass, and without
        float64.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from entropix import pde
      >>> grid = pde.Grid(-6.0, 6.0, 1201)
      >>> bump = lambda centre: (lambda x: jnp.exp(-((x - centre) ** 2)))
      >>> with jax.enable_x64(True):  # a translation
      ...     round(float(pde.wasserstein_distance(grid, bump(-1.0), bump(0.5))), 4)
      1.5

    References:
      Villani, Topics in optimal transportation, 2003, sec. 2.2 (the line).
    """
    check_line(grid.shape)
    check_count(num_quantiles=num_quantiles)
    quantiles = (np.arange(num_quantiles) + 0.5) / num_quantiles
    first, second = (
        _quantile_function(grid, name, rho, quantiles)
        for name, rho in (("density", density), ("other", other))
    )
    return jnp.sqrt(jnp.mean((first - second) ** 2))


def _quantile_function(
    grid: Grid, name: str, density: Function | ArrayLike, quantiles: np.ndarray
) -> jax.Array:
    rho, lengths = grid.sample(density), cells(grid, 0)
    if not isinstance(rho, jax.core.Tracer) and not (
        bool(jnp.all(rho >= 0)) and 0 < float(rho @ lengths) < np.inf
    ):
        raise ValueError(f"{name} must be finite, nowhere negative and somewhere positive")
    edges = grid.lower[0] + np.concatenate([[0.0], np.cumsum(lengths)])
    below = jnp.concatenate([jnp.zeros(1), jnp.cumsum(rho * lengths)])
    return jnp.interp(jnp.asarray(quantiles), below / below[-1], jnp.asarray(edges))
