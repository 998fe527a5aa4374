"""Stochastic control of gradient descent (section 5): value function, feedback, and its gain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_count, check_multiple, check_positive
from entropix.pde.exchange import implicit_step
from entropix.pde.fokker_planck import in_time
from entropix.pde.grid import Function, Grid
from entropix.pde.inviscid import godunov, one_sided
from entropix.pde.sde import Drift, Estimate, estimate, simulate
from entropix.pde.stepping import saved_steps

_CFL = 0.9
_LARGEST_EXPONENT = 600.0


def value_function(
    grid: Grid,
    f: Function | ArrayLike,
    V: Function | ArrayLike,
    *,
    beta: float,
    horizon: float,
    num_levels: int = 100,
    num_steps: int | None = None,
    method: str = "upwind",
) -> jax.Array:
    r"""Solves the Hamilton-Jacobi-Bellman equation (25) backwards from its terminal value.

    .. math:: -u_s = -\nabla f\cdot\nabla u - \tfrac12|\nabla u|^2 + \frac1{2\beta}\Delta u,
        \qquad u(x, S) = V(x)

    u(x, s) is the least cost E[V(x(S)) + 1/2 int |a|^2] of CSGD started from x at time s. Two
    monotone schemes, both with reflecting walls, whose steps are implicit for drift and diffusion:

    * "upwind": the quadratic term by Godunov's flux, explicitly; steps are shortened until
      dt sum_i |u_{x_i}| / h_i < 1. First order in time and space, any V and beta.
    * "linear": exp(-beta u) solves the linear backward equation (Cole-Hopf with a drift). Second
      order in space, first in time; needs beta (max V - min V) < 600, the range of a float64.

    Args:
      grid: of one or two dimensions, its box so large that paths rarely meet a wall.
      f: the loss, whose gradient is the drift; a function, or values at the nodes.
      V: the terminal cost, likewise.
      beta: the paper's inverse temperature of the noise beta^{-1/2} dW, > 0.
      horizon: S > 0 (the paper's T).
      num_levels: K, the number of intervals between the times kept.
      num_steps: steps, a multiple of K; by default K. "upwind" takes more where it must.
      method: "upwind" or "linear".

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
    if method not in ("upwind", "linear"):
        raise ValueError(f"method must be 'upwind' or 'linear'; got method={method!r}")
    f, V = grid.sample(f), grid.sample(V)
    dt = horizon / num_steps

    def linear_part(values: jax.Array, dt: jax.Array | float) -> jax.Array:
        return implicit_step(grid, values, f, diffusion=1 / (2 * beta), dt=dt, adjoint=True)

    if method == "linear":
        _check_exponent(beta, V)
        step, start = lambda phi: linear_part(phi, dt), jnp.exp(-beta * (V - V.min()))
    else:
        step, start = lambda u: _upwind(grid, u, dt, linear_part), V

    levels = saved_steps(
        lambda values, _: step(values), start, num_steps=num_steps, num_saves=num_levels
    )
    if method == "linear":
        levels = V.min() - jnp.log(levels) / beta
    return jnp.concatenate([V[None], levels])[::-1]


def _check_exponent(beta: float, V: jax.Array) -> None:
    exponent = float(beta * (V.max() - V.min()))
    if exponent > _LARGEST_EXPONENT:
        raise ValueError(
            f"method='linear' needs beta (max V - min V) < {_LARGEST_EXPONENT:g}; got "
            f"{exponent:g}. Use method='upwind', a smaller grid or a smaller beta."
        )


def _upwind(grid: Grid, u: jax.Array, dt: float, linear_part: Drift) -> jax.Array:
    """Advances u by dt, in as few equal or shortened steps as monotonicity allows."""

    def shortened(loop: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u, left = loop
        flux, rate = jnp.zeros_like(u), jnp.zeros(())
        for axis, h in enumerate(grid.spacing):
            backward, forward = one_sided(u, axis, h)
            flux += godunov(backward, forward)
            rate += jnp.abs(backward).max() / h
        step = jnp.minimum(left, _CFL / jnp.maximum(rate, 1e-300))
        return linear_part(u - step * flux, step), left - step

    return lax.while_loop(lambda loop: loop[1] > 1e-12 * dt, shortened, (u, jnp.asarray(dt)))[0]


def feedback(grid: Grid, values: ArrayLike, *, horizon: float) -> Drift:
    """The optimal control (25), a(x, s) = grad u(x, s), from `value_function`.

    Args:
      grid: that of the values.
      values: u, shape (K + 1, *grid.shape).
      horizon: S > 0.

    Returns:
      A function of a point and a time, interpolated linearly in both. CSGD's drift is
      -grad f - a.
    """
    slopes = in_time(grid, jax.vmap(grid.gradient)(jnp.asarray(values)), horizon)
    return lambda x, s: grid.interpolate(slopes(s), x)


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
    key: jax.Array,
    *,
    beta: float,
    horizon: float,
    num_steps: int = 200,
    values: ArrayLike | None = None,
) -> ControlGap:
    r"""Theorem 12 by Monte Carlo: what controlling gradient descent gains, beyond its effort.

    .. math:: \mathbb E V(x_{csgd}(S)) \le \mathbb E V(x_{sgd}(S))
        - \tfrac12 \mathbb E \int_0^S |a(x_{csgd}(s), s)|^2 ds

    Args:
      grid: on which the control is computed; paths outside take the control of the nearest edge.
      f: the loss, a JAX function of a point.
      V: the terminal cost, likewise.
      start: x(0) for every path, shape (paths, *grid.point_shape).
      key: a JAX key.
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
    start = jnp.asarray(start, jnp.float64)
    if start.shape[1:] != grid.point_shape or start.ndim == 0:
        raise ValueError(
            f"start must have shape (paths, *{grid.point_shape}); got shape {start.shape}"
        )
    if values is None:
        values = value_function(grid, f, V, beta=beta, horizon=horizon)
    paths, d = len(start), grid.ndim
    slope, control = jax.grad(f), feedback(grid, values, horizon=horizon)

    def drift(state: jax.Array, s: jax.Array) -> jax.Array:
        x = state[:d].reshape(grid.point_shape)
        z = state[d : 2 * d].reshape(grid.point_shape)
        a = control(x, s)
        parts = -slope(x) - a, -slope(z), jnp.sum(a**2) / 2
        return jnp.concatenate([part.reshape(-1) for part in parts])

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
