"""The Hamilton-Jacobi-Bellman equation of controlled gradient descent, and the optimal control."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jax.typing import ArrayLike

from entropix.pde.checks import check_count, check_multiple, check_positive, chosen, hashable
from entropix.pde.grid import Function, Grid
from entropix.pde.hamiltonians import godunov, one_sided
from entropix.pde.stochastic.exchange import implicit_step
from entropix.pde.stochastic.fokker_planck import InTime, in_time, sampled_finite
from entropix.pde.stochastic.sde import Drift
from entropix.pde.stochastic.stepping import NumberedStep, saved_steps

_CFL = 0.9
_LARGEST_EXPONENT = 600.0
Linear = Callable[[jax.Array, jax.Array | float], jax.Array]


class Scheme(NamedTuple):
    """How the quadratic term is treated, the linear ones being a function `linear(values, dt)`.

    Attributes:
      start: what is stepped, at the final time; of the grid's shape.
      advance: a function of (values, dt, linear) whose value is what stands dt earlier.
      read: a function that makes u of what is stepped.
    """

    start: jax.Array
    advance: Callable[[jax.Array, float, Linear], jax.Array]
    read: Callable[[jax.Array], jax.Array]


def upwind(grid: Grid, V: jax.Array, beta: float) -> Scheme:
    """The quadratic term by Godunov's flux, explicitly, in steps as short as that needs.

    Args:
      grid: the nodes.
      V: the terminal cost at the nodes.
      beta: inverse temperature; any.
    """

    def advance(u: jax.Array, dt: float, linear: Linear) -> jax.Array:
        def shortened(loop: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            u, left = loop
            flux, rate = jnp.zeros_like(u), jnp.zeros(())
            for axis, h in enumerate(grid.spacing):
                backward, forward = one_sided(u, axis, h)
                flux += godunov(backward, forward)
                rate += jnp.abs(backward).max() / h
            step = jnp.minimum(left, _CFL / jnp.maximum(rate, 1e-300))
            return linear(u - step * flux, step), left - step

        start = u, jnp.asarray(dt)
        return lax.while_loop(lambda loop: loop[1] > 1e-12 * dt, shortened, start)[0]

    return Scheme(V, advance, lambda u: u)


def logarithmic(grid: Grid, V: jax.Array, beta: float) -> Scheme:
    """The linear backward equation for exp(-beta u): Cole-Hopf with a drift.

    Args:
      grid: the nodes.
      V: the terminal cost at the nodes.
      beta: inverse temperature; beta (max V - min V) < 600, the range of a float64.

    Raises:
      ValueError: beyond that range.
    """
    low, exponent = V.min(), beta * (V.max() - V.min())
    if not isinstance(exponent, jax.core.Tracer) and not exponent < _LARGEST_EXPONENT:
        raise ValueError(
            f"method='linear' needs beta (max V - min V) < {_LARGEST_EXPONENT:g}; got "
            f"{float(exponent):g}. Use method='upwind', a smaller grid or a smaller beta."
        )
    return Scheme(
        jnp.exp(-beta * (V - low)),
        lambda values, dt, linear: linear(values, dt),
        lambda values: low - jnp.log(values) / beta,
    )


def uncontrolled(grid: Grid, V: jax.Array, beta: float) -> Scheme:
    """No quadratic term: the backward Kolmogorov equation, of paths that nobody controls.

    Args:
      grid: the nodes.
      V: the terminal value at the nodes.
      beta: inverse temperature; any.
    """
    return Scheme(V, lambda values, dt, linear: linear(values, dt), lambda values: values)


SCHEMES = {"upwind": upwind, "linear": logarithmic}
"""The choices of `value_function`, by name."""


def value_function(
    grid: Grid,
    f: Function | ArrayLike,
    V: Function | ArrayLike,
    *,
    beta: float,
    horizon: float,
    num_levels: int = 100,
    num_steps: int | None = None,
    method: Callable[[Grid, jax.Array, float], Scheme] | str = upwind,
) -> jax.Array:
    r"""Solves the Hamilton-Jacobi-Bellman equation backwards from its terminal value.

    .. math:: -u_s = -\nabla f\cdot\nabla u - \tfrac12|\nabla u|^2 + \frac1{2\beta}\Delta u,
        \qquad u(x, S) = V(x)

    u(x, s) is the least cost (24), E[V(x(S)) + 1/2 int |a|^2], of CSGD started from x at time s.
    Two monotone schemes, both with reflecting walls, whose steps are implicit for drift and
    diffusion:

    * `upwind`: Godunov's flux, explicitly. First order in time and space, any V and beta; it has
      derivatives in forward mode alone.
    * `logarithmic` ("linear"): Cole-Hopf with a drift. Second order in space, first in time; needs
      beta (max V - min V) < 600.

    Args:
      grid: of one or two dimensions, its box so large that paths rarely meet a wall.
      f: the loss, whose gradient is the drift; a function, values at the nodes, or values at K' + 1
        equally spaced times, shape (K' + 1, *grid.shape), for a drift that changes.
      V: the terminal cost, a function or values at the nodes.
      beta: the paper's inverse temperature of the noise beta^{-1/2} dW, > 0.
      horizon: S > 0 (the paper's T).
      num_levels: K, the number of intervals between the times kept.
      num_steps: steps, a multiple of K; by default K. `upwind` takes more where it must.
      method: `upwind`, `logarithmic`, or a name: "upwind", "linear".

    Returns:
      u at the times 0, S/K, ..., S: shape (K + 1, *grid.shape), the last being V.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax
      >>> from entropix import pde
      >>> grid = pde.Grid(-4.0, 4.0, 161)
      >>> with jax.enable_x64(True):  # f = 0, V = x^2/2: the curvature is 1/(1 + S - s)
      ...     u = pde.value_function(grid, lambda x: 0 * x, lambda x: x**2 / 2, beta=2.0,
      ...                            horizon=1.0, num_steps=1000, method="linear")[0]
      ...     round(float((u[90] - 2 * u[80] + u[70]) / 0.5**2), 2)
      0.5

    References:
      Fleming and Soner, Controlled Markov processes and viscosity solutions, 2006, ch. VI (the
      logarithmic transformation) and IX (monotone schemes).
    """
    check_positive(beta=beta, horizon=horizon)
    num_steps = num_levels if num_steps is None else num_steps
    check_count(num_levels=num_levels, num_steps=num_steps)
    check_multiple("num_steps", num_steps, "num_levels", num_levels)
    V, method = sampled_finite(grid, "V", V), chosen("method", method, SCHEMES)
    scheme = method(grid, V, beta)
    arrays = V, in_time(grid, "f", f, horizon), beta, horizon / num_steps
    levels = saved_steps(
        _step, (grid, hashable(method)), arrays, scheme.start,
        num_steps=num_steps, num_saves=num_levels,
    )  # fmt: skip
    return jnp.concatenate([V[None], scheme.read(levels)])[::-1]


def _step(
    grid: Grid,
    method: Callable[[Grid, jax.Array, float], Scheme],
    V: jax.Array,
    f: InTime,
    beta: Any,
    dt: Any,
) -> NumberedStep:
    """A step back in time, in the potential at the middle of the step."""
    scheme = method(grid, V, beta)

    def step(values: jax.Array, n: jax.Array) -> jax.Array:
        potential = f(f.horizon - (n.astype(float) + 0.5) * dt)

        def linear(values: jax.Array, dt: jax.Array | float) -> jax.Array:
            diffusion = 1 / (2 * beta)
            return implicit_step(grid, values, potential, diffusion=diffusion, dt=dt, adjoint=True)

        return scheme.advance(values, dt, linear)

    return step


def feedback(grid: Grid, values: ArrayLike, *, horizon: float) -> Drift:
    r"""The optimal control (25), from `value_function`.

    .. math:: a(x, s) = \nabla u(x, s)

    Args:
      grid: that of the values.
      values: u, shape (K + 1, *grid.shape), K >= 1.
      horizon: S > 0.

    Returns:
      A function of a point and a time, interpolated linearly in both; a `jax.tree_util.Partial`,
      which compiled functions may take as an argument. CSGD's drift is -grad f - a.

    Raises:
      ValueError: for a horizon that is not positive, for values of another shape, and without
        float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-4.0, 4.0, 161)
      >>> with jax.enable_x64(True):  # f = 0, V = x^2/2: u = x^2/(2 (1 + S - s)) + a function of s
      ...     u = entropix.pde.value_function(grid, lambda x: 0 * x, lambda x: x**2 / 2, beta=2.0,
      ...                                     horizon=1.0, method="linear")
      ...     a = entropix.pde.feedback(grid, u, horizon=1.0)
      ...     round(float(a(1.0, 0.0)), 2), round(float(a(1.0, 1.0)), 2)
      (0.5, 1.0)

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, equation (25).
    """
    check_positive(horizon=horizon)
    gradients = jax.vmap(grid.gradient)(jnp.asarray(values))
    slopes = in_time(grid, "values", gradients, horizon)
    return Partial(_control, grid, slopes)


def _control(grid: Grid, slopes: InTime, x: jax.Array, s: jax.Array) -> jax.Array:
    return grid.interpolate(slopes(s), x)
