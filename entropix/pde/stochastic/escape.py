"""Escape from a well in one dimension (section 2.4): exact, asymptotic, and by paths."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import (
    check_all,
    check_count,
    check_float64,
    check_line,
    check_positive,
    function_of,
    key_of,
)
from entropix.pde.grid import Function, Grid
from entropix.pde.stochastic.fokker_planck import sampled_finite

_LARGEST_CHANGE = 0.01  # of f/T, and hence of the time's logarithm
Loop = tuple[jax.Array, jax.Array, jax.Array]


def exit_time(grid: Grid, f: Function | ArrayLike, *, temperature: float) -> jax.Array:
    r"""Mean time of dX = -f' ds + sqrt(2T) dW to reach the grid's right end, from every node.

    .. math:: \tau(x) = \frac1T \int_x^b e^{f(y)/T} \int_a^y e^{-f(z)/T}\,dz\,dy

    Trapezoidal sums, second order in h; the left end reflects. Exponents are taken relative to
    the extreme values of f: T must not be below (max f - min f)/600.

    Args:
      grid: one dimension, [a, b].
      f: the loss, a function or values at the nodes.
      temperature: T > 0.

    Returns:
      tau at the nodes; 0 at b.

    Raises:
      ValueError: for a grid of two dimensions, a T that is not positive, or one below
        (max f - min f)/600; and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(0.0, 1.0, 101)
      >>> with jax.enable_x64(True):  # no force: (1 - x^2)/2T
      ...     tau = entropix.pde.exit_time(grid, lambda x: 0 * x, temperature=0.5)
      >>> float(tau[0].round(10)), float(tau[-1])
      (1.0, 0.0)

    References:
      Gardiner, Stochastic methods, 2009, sec. 5.5.
    """
    check_positive(temperature=temperature)
    check_line(grid.shape)
    f = sampled_finite(grid, "f", f) / temperature
    exponent = f.max() - f.min()
    if not isinstance(exponent, jax.core.Tracer) and exponent > 600:
        raise ValueError(f"temperature must be above (max f - min f)/600; got {temperature}")
    inner = _cumulative(jnp.exp(f.min() - f), grid.spacing[0])
    # Summed from b: near b a difference of sums from a would be rounding of the barriers before.
    outer = _cumulative((jnp.exp(f - f.max()) * inner)[::-1], grid.spacing[0])[::-1]
    return outer * jnp.exp(f.max() - f.min()) / temperature


def _cumulative(values: jax.Array, h: float) -> jax.Array:
    halves = jnp.cumsum((values[1:] + values[:-1]) * h / 2)
    return jnp.concatenate([jnp.zeros(1), halves])


def kramers_time(f: Function, well: float, saddle: float, *, temperature: float) -> jax.Array:
    r"""Kramers' asymptotic time from a well over a saddle into the next well, T -> 0.

    .. math:: \tau \approx \frac{2\pi}{\sqrt{f''(well)\,|f''(saddle)|}} e^{(f(saddle) - f(well))/T}

    Args:
      f: a JAX function of a number.
      well: a local minimum, f'' > 0, or a point where f is above that minimum by 0.01 T at most.
      saddle: the maximum to cross, f'' < 0, or a point where f is below by 0.01 T at most.
      temperature: T > 0.

    Returns:
      The time tau, a number.

    Raises:
      ValueError: for a T that is not positive, an f that does not curve up at `well` and down at
        `saddle`, points that are not critical, and without float64.

    Example:
      >>> import entropix, jax
      >>> with jax.enable_x64(True):
      ...     f = lambda x: (x**2 - 1)**2 / 4
      ...     tau = entropix.pde.kramers_time(f, -1.0, 0.0, temperature=0.1)
      >>> round(float(tau), 2)
      54.13

    References:
      Kramers, `Brownian motion in a field of force and the diffusion model of chemical reactions
      <https://doi.org/10.1016/S0031-8914(40)90098-2>`_, 1940.
    """
    check_float64()
    check_positive(temperature=temperature)
    f = function_of("f", f)
    slope = jax.grad(f)
    curvature = jax.grad(slope)
    low, top = jnp.asarray(well, jnp.float64), jnp.asarray(saddle, jnp.float64)
    up, down = curvature(low), -curvature(top)
    traced = isinstance(up, jax.core.Tracer) or isinstance(down, jax.core.Tracer)
    if not traced and not (up > 0 and down > 0):
        raise ValueError(f"f must curve up at well={well} and down at saddle={saddle}")
    _check_critical("well", low, slope(low), up, temperature)
    _check_critical("saddle", top, slope(top), -down, temperature)
    return 2 * jnp.pi / jnp.sqrt(up * down) * jnp.exp((f(top) - f(low)) / temperature)


def _check_critical(
    name: str, point: jax.Array, slope: jax.Array, curvature: jax.Array, temperature: ArrayLike
) -> None:
    """Raises a ValueError if Newton's step to f's critical point changes f by more than 0.01 T.

    Args:
      name: of the point.
      point: near a critical point.
      slope: f' there.
      curvature: f'' there, not 0.
      temperature: T.
    """
    change = slope**2 / (2 * jnp.abs(curvature) * temperature)
    if not isinstance(change, jax.core.Tracer) and not change <= _LARGEST_CHANGE:
        raise ValueError(
            f"{name} must be where f' is 0; got {name}={float(point):g}, where f' is "
            f"{float(slope):.3g}. By Newton's method try {float(point - slope / curvature):.6g}"
        )


def first_passage(
    gradient: Callable[[jax.Array], jax.Array],
    start: ArrayLike,
    barrier: float,
    key: jax.Array | int,
    *,
    temperature: float,
    dt: float,
    max_steps: int = 1_000_000,
) -> jax.Array:
    r"""First times at which paths of dX = -f' ds + sqrt(2T) dW exceed the barrier.

    Heun steps. A path may cross between two steps and be back. Given both ends x and x' of the
    step, both below the barrier b, a Brownian bridge does so with the probability

    .. math:: \exp\Big( -\frac{(b - x)(b - x')}{T\,dt} \Big)

    by which the crossing is drawn; without it, times would be too long by O(sqrt(dt)).

    Args:
      gradient: f', a JAX function of a number.
      start: X(0) of every path, shape (paths,), below the barrier.
      barrier: b.
      key: a JAX key, or a seed.
      temperature: T > 0.
      dt: length of a step, > 0.
      max_steps: >= 1; after so many, what has not crossed is given an infinite time.

    Returns:
      Times, shape (paths,), each the middle of the step of the crossing.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> with jax.enable_x64(True):  # f = -x: paths move by 1 in a unit of time
      ...     times = entropix.pde.first_passage(
      ...         lambda x: -jnp.ones_like(x), jnp.zeros(1000), 1.0, jax.random.key(0),
      ...         temperature=0.05, dt=0.01)
      ...     round(float(times.mean()), 1)
      1.0

    References:
      Gobet, `Weak approximation of killed diffusion using Euler schemes
      <https://doi.org/10.1016/S0304-4149(99)00109-X>`_, 2000 (the bridge).
    """
    check_float64()
    check_positive(temperature=temperature, dt=dt)
    check_count(max_steps=max_steps)
    start = jnp.asarray(start, jnp.float64)
    if start.ndim != 1:
        raise ValueError(f"start must have shape (paths,); got shape {start.shape}")
    check_all("barrier - start", barrier - start, lambda gap: gap > 0, "> 0")
    slope, key = function_of("gradient", gradient), key_of(key)
    return _passage(slope, start, barrier, key, temperature, dt, max_steps)


@functools.partial(jax.jit, static_argnames=("gradient",))
def _passage(
    gradient: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    barrier: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    dt: jax.Array,
    max_steps: jax.Array,
) -> jax.Array:
    slope = jax.vmap(gradient)

    def step(loop: Loop) -> Loop:
        n, x, times = loop
        noise, bridge = jax.random.split(jax.random.fold_in(key, n))
        dw = jnp.sqrt(2 * temperature * dt) * jax.random.normal(noise, x.shape, x.dtype)
        g = slope(x)
        new = x - dt / 2 * (g + slope(x - dt * g + dw)) + dw
        between = jnp.exp(-(barrier - x) * jnp.maximum(barrier - new, 0) / (temperature * dt))
        crossed = jax.random.uniform(bridge, x.shape, x.dtype) < between
        alive = jnp.isinf(times)
        times = jnp.where(alive & crossed, (n.astype(float) + 0.5) * dt, times)
        return n + 1, jnp.where(alive & ~crossed, new, x), times

    waiting = lambda loop: (loop[0] < max_steps) & jnp.any(jnp.isinf(loop[2]))  # noqa: E731
    return lax.while_loop(waiting, step, (jnp.asarray(0), start, jnp.full(start.shape, jnp.inf)))[2]
