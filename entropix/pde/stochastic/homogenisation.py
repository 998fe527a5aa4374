"""The fast-slow systems of section 4, which homogenise to the flows of relaxed losses."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from entropix.pde.checks import (
    check_count,
    check_float64,
    check_positive,
    chosen,
    function_of,
    hashable,
)
from entropix.pde.grid import Function
from entropix.pde.stochastic.sde import simulate
from entropix.pde.stochastic.stepping import NumberedStep, saved_steps

Velocities = Callable[[Function, float, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class Form(NamedTuple):
    """A fast-slow system dx = -slow ds, dy = -fast ds/epsilon + noise.

    Attributes:
      velocities: a function of (grad f, gamma, x, y) whose value is (slow, fast).
      starts_at_x: whether y starts at x; otherwise y starts at 0.
    """

    velocities: Velocities
    starts_at_x: bool


def _proximal(
    slope: Function, gamma: float, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return (x - y) / gamma, slope(y) + (y - x) / gamma


def _gradient(
    slope: Function, gamma: float, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    slow = slope(x - y)
    return slow, y / gamma - slow


def _heat(slope: Function, gamma: float, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return slope(x - y), y / gamma


FORMS = {
    "proximal": Form(_proximal, starts_at_x=True),
    "gradient": Form(_gradient, starts_at_x=False),
    "heat": Form(_heat, starts_at_x=False),
}
"""Entropy-SGD, Entropy-SGD-2 and HEAT."""


def fast_slow(
    f: Function,
    start: ArrayLike,
    key: jax.Array | int,
    *,
    gamma: float,
    temperature: float,
    epsilon: float,
    horizon: float,
    num_steps: int,
    num_saves: int = 1,
    form: Form | str = "proximal",
) -> tuple[jax.Array, jax.Array]:
    r"""Paths of the slow x and the fast y, T = 1/beta as in the optimisers.

    .. math:: dy = -\tfrac1\varepsilon g(x, y)\,ds + \sqrt{2T/\varepsilon}\,dW

    * "proximal", Entropy-SGD: dx = -(x - y)/gamma ds, g = grad f(y) + (y - x)/gamma;
    * "gradient", Entropy-SGD-2: dx = -grad f(x - y) ds, g = y/gamma - grad f(x - y);
    * "heat", HEAT: the same without f in g, so that y -> N(0, gamma T I).

    As epsilon -> 0 the first two follow dX = -grad f_gamma(X) ds (Theorem 5), the third
    dX = -grad v(X, gamma) ds, v the heat solution (23).

    Args:
      f: the loss, a JAX function of a point.
      start: x(0) for every path, shape (paths, *point); y starts at x, or at 0.
      key: a JAX key, or a seed.
      gamma: scope, > 0.
      temperature: T > 0.
      epsilon: ratio of the time scales, > 0.
      horizon: final time, > 0.
      num_steps: steps; horizon / num_steps must resolve epsilon / (f'' + 1/gamma).
      num_saves: equally spaced times returned.
      form: one of the three above by name, or a `Form`.

    Returns:
      x and y, each of shape (num_saves, paths, *point).

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> with jax.enable_x64(True):  # f_gamma' = x/(1 + gamma) = x/2 for this f
      ...     x, _ = entropix.pde.fast_slow(
      ...         lambda x: x**2 / 2, jnp.ones(500), jax.random.key(0), gamma=1.0,
      ...         temperature=0.01, epsilon=0.01, horizon=1.0, num_steps=1000)
      ...     abs(float(x.mean()) - 0.607) < 0.02
      True

    References:
      Pavliotis and Stuart, Multiscale methods, 2008, ch. 10 and 17.
    """
    check_positive(gamma=gamma, temperature=temperature, epsilon=epsilon)
    velocities, starts_at_x = chosen("form", form, FORMS)
    check_float64()
    start = jnp.asarray(start, jnp.float64)
    if start.ndim == 0:
        raise ValueError("start must have shape (paths, *point); got shape ()")
    flat = start.reshape(len(start), -1)
    d, point = flat.shape[1], jnp.zeros(start.shape[1:])
    functions = Partial(hashable(velocities)), Partial(function_of("f", f))
    drift = Partial(_drift, *functions, point, gamma, epsilon)
    state = jnp.concatenate([flat, flat if starts_at_x else 0 * flat], axis=1)
    size = (2 * temperature / epsilon) ** 0.5
    sigma = size * jnp.concatenate([jnp.zeros((d, d)), jnp.eye(d)])
    paths = simulate(
        drift, state, key, sigma=sigma, horizon=horizon, num_steps=num_steps, num_saves=num_saves
    )
    shape = (num_saves, *start.shape)
    return paths[..., :d].reshape(shape), paths[..., d:].reshape(shape)


def _drift(
    velocities: Velocities,
    f: Function,
    point: jax.Array,
    gamma: Any,
    epsilon: Any,
    state: jax.Array,
    s: jax.Array,
) -> jax.Array:
    """Of x and y, which are one vector; both are shaped like `point`."""
    x, y = (half.reshape(point.shape) for half in jnp.split(state, 2))
    slow, fast = velocities(jax.grad(f), gamma, x, y)
    return -jnp.concatenate([slow.reshape(-1), fast.reshape(-1) / epsilon])


def gradient_flow(
    gradient: Function, start: ArrayLike, *, horizon: float, num_steps: int
) -> jax.Array:
    r"""The flow dX = -gradient(X) ds by fourth-order Runge-Kutta steps.

    .. math:: \frac{dX}{ds} = -g(X)

    Args:
      gradient: g, a JAX function of an array like `start`.
      start: X(0), of any shape.
      horizon: final time, > 0.
      num_steps: steps, >= 1.

    Returns:
      X at the times 0, ..., horizon: shape (num_steps + 1, *start.shape).

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> with jax.enable_x64(True):
      ...     x = entropix.pde.gradient_flow(lambda x: x, 1.0, horizon=1.0, num_steps=20)
      >>> round(float(x[-1]), 5)
      0.36788
    """
    check_float64()
    check_positive(horizon=horizon)
    check_count(num_steps=num_steps)
    h, start = horizon / num_steps, jnp.asarray(start, jnp.float64)
    slope = function_of("gradient", gradient)
    later = saved_steps(
        _runge_kutta, (slope,), (h,), start, num_steps=num_steps, num_saves=num_steps
    )
    return jnp.concatenate([start[None], later])


def _runge_kutta(gradient: Function, h: jax.Array) -> NumberedStep:
    def step(x: jax.Array, n: jax.Array) -> jax.Array:
        a = -gradient(x)
        b = -gradient(x + h / 2 * a)
        c = -gradient(x + h / 2 * b)
        d = -gradient(x + h * c)
        return x + h / 6 * (a + 2 * b + 2 * c + d)

    return step
