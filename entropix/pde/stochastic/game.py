"""A small mean-field game: players whose drift and cost depend on the mean of all (Remark 11)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_count, check_positive, function_of
from entropix.pde.grid import Function, Grid
from entropix.pde.stochastic.bellman import logarithmic, value_function
from entropix.pde.stochastic.fokker_planck import (
    fokker_planck,
    mass,
    sampled_density,
    sampled_finite,
)
from entropix.pde.stochastic.mean_field import distance_squared, mean, pulled_step
from entropix.pde.stochastic.stepping import saved_steps

Cost = Callable[[jax.Array, jax.Array], jax.Array]


class Game(NamedTuple):
    """An equilibrium of the game; K intervals of time, all levels at 0, S/K, ..., S.

    Attributes:
      values: u, what a player still expects to pay. shape=(K + 1, *grid.shape).
      density: of the players who use the control grad u. shape=(K + 1, *grid.shape).
      means: m(s) of that density. shape=(K + 1, *grid.point_shape).
      free_density: of players without a control, who are pulled to their own mean; shape=density's.
      controlled: E V at S, of the players.
      uncontrolled: E V at S, of those without a control.
      effort: 1/2 E int |a|^2 ds, of the players.
      residuals: the largest change of the means in each round. shape=(rounds,).
    """

    values: jax.Array
    density: jax.Array
    means: jax.Array
    free_density: jax.Array
    controlled: jax.Array
    uncontrolled: jax.Array
    effort: jax.Array
    residuals: jax.Array

    @property
    def improvement(self) -> jax.Array:
        """The gap of Theorem 12's analogue: uncontrolled - effort - controlled."""
        return self.uncontrolled - self.effort - self.controlled


def mean_field_game(
    grid: Grid,
    f: Function,
    V: Cost,
    density: Function | ArrayLike,
    *,
    gamma: float,
    beta: float,
    horizon: float,
    num_levels: int = 200,
    num_rounds: int = 30,
    damping: float = 0.5,
) -> Game:
    r"""Solves the pair (26) with drift and cost that depend on the mean, as a fixed point.

    .. math:: dx = -\nabla f\,ds - \frac{x - m(s)}\gamma\,ds - a\,ds + \beta^{-1/2}dW, \qquad
        \min_a \mathbb E\Big[V(x(S), m(S)) + \tfrac12\int_0^S |a|^2 ds\Big], \qquad
        m(s) = \mathbb E\,x(s)

    Replicas of Elastic-SGD, each of which may pay for a control. For a given path of the mean the
    control is that of section 5, a = grad u, and the density of the players follows; a round takes
    a part of the way to the mean of that density. **For a given mean Theorem 12 holds; that players
    in equilibrium do better than uncontrolled ones, which have another mean, is conjectured in
    Remark 11, not proved**: `Game.improvement` measures it.

    Args:
      grid: of one or two dimensions, its box so large that little mass is near a wall.
      f: the loss, a JAX function of a point.
      V: the terminal cost, a JAX function of a point and of the players' mean.
      density: of the players at time 0, a function or values at the nodes; made to have mass 1.
      gamma: scope of the coupling, > 0.
      beta: the paper's inverse temperature of the noise beta^{-1/2} dW, > 0.
      horizon: S > 0.
      num_levels: K, the steps in time.
      num_rounds: rounds of the iteration; `Game.residuals` shows whether it converged.
      damping: the part of the way that a round takes, in (0, 1].

    Returns:
      `Game`.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> grid = entropix.pde.Grid(-4.0, 4.0, 81)
      >>> with jax.enable_x64(True):  # a cost that pulls players from 0 to 1
      ...     game = entropix.pde.mean_field_game(
      ...         grid, lambda x: x**2 / 2, lambda x, m: (x - 1) ** 2 / 2, lambda x: jnp.exp(-x**2),
      ...         gamma=1.0, beta=2.0, horizon=1.0, num_levels=20, num_rounds=10)
      >>> float(game.improvement) > 0, float(game.residuals[-1]) < 0.01, game.means.shape
      (True, True, (21,))

    References:
      Lasry and Lions, `Mean field games <https://doi.org/10.1007/s11537-007-0657-8>`_, 2007.
    """
    check_positive(gamma=gamma, beta=beta, horizon=horizon, damping=damping)
    check_count(num_levels=num_levels, num_rounds=num_rounds)
    if damping > 1:
        raise ValueError(f"damping must be in (0, 1]; got damping={damping!r}")
    costs = function_of("f", f), function_of("V", V)
    start = sampled_density(grid, density)
    start = start / mass(grid, start)
    first_cost = sampled_finite(grid, "V", lambda x: V(x, mean(grid, start)))
    logarithmic(grid, first_cost, beta)  # raises beyond its range
    static = grid, *costs, num_levels, num_rounds
    return _equilibrium(*static, start, gamma, beta, horizon, damping)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _equilibrium(
    grid: Grid,
    f: Function,
    V: Cost,
    num_levels: int,
    num_rounds: int,
    start: jax.Array,
    gamma: float,
    beta: float,
    horizon: float,
    damping: float,
) -> Game:
    loss, dt = sampled_finite(grid, "f", f), horizon / num_levels

    def around(centre: jax.Array) -> jax.Array:
        return loss + distance_squared(grid, centre) / (2 * gamma)

    def respond(means: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The best control against a path of the mean, and the density that it makes."""
        potential = jax.vmap(around)(means)
        cost = grid.sample(lambda x: V(x, means[-1]))
        values = value_function(
            grid, potential, cost, beta=beta, horizon=horizon, num_levels=num_levels,
            method=logarithmic,
        )  # fmt: skip
        rho = fokker_planck(
            grid, potential + values, start, beta=beta, horizon=horizon, num_steps=num_levels,
            num_saves=num_levels,
        )  # fmt: skip
        return values, jnp.concatenate([start[None], rho])

    mean_of = jax.vmap(lambda rho: mean(grid, rho))

    def play(means: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        change = mean_of(respond(means)[1]) - means
        return means + damping * change, jnp.abs(change).max()

    free = saved_steps(
        pulled_step, (grid,), (loss, gamma, 1 / (2 * beta), dt), start,
        num_steps=num_levels, num_saves=num_levels,
    )  # fmt: skip
    free = jnp.concatenate([start[None], free])
    means, residuals = lax.scan(play, mean_of(free), None, length=num_rounds)
    values, rho = respond(means)
    return Game(
        values=values,
        density=rho,
        means=means,
        free_density=free,
        controlled=_expected_cost(grid, V, rho[-1]),
        uncontrolled=_expected_cost(grid, V, free[-1]),
        effort=_effort(grid, values, rho, dt),
        residuals=residuals,
    )


def _expected_cost(grid: Grid, V: Cost, rho: jax.Array) -> jax.Array:
    centre = mean(grid, rho)
    return mass(grid, rho * grid.sample(lambda x: V(x, centre)))


def _effort(grid: Grid, values: jax.Array, rho: jax.Array, dt: float) -> jax.Array:
    """1/2 E int |grad u|^2 ds, by the trapezoidal rule in time."""

    def at(u: jax.Array, rho: jax.Array) -> jax.Array:
        slope = grid.gradient(u).reshape(*grid.shape, grid.ndim)
        return mass(grid, rho * jnp.sum(slope**2, axis=-1)) / 2

    return jnp.trapezoid(jax.vmap(at)(values, rho), dx=dt)
