"""The fast-slow systems of section 3, which homogenise to the flows of relaxed losses."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_count, check_float64, check_positive
from entropix.pde.grid import Function
from entropix.pde.sde import simulate

FORMS = ("proximal", "gradient", "heat")


def fast_slow(
    f: Function,
    start: ArrayLike,
    key: jax.Array,
    *,
    gamma: float,
    temperature: float,
    epsilon: float,
    horizon: float,
    num_steps: int,
    num_saves: int = 1,
    form: str = "proximal",
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
      key: a JAX key.
      gamma: scope, > 0.
      temperature: T > 0.
      epsilon: ratio of the time scales, > 0.
      horizon: final time, > 0.
      num_steps: steps; horizon / num_steps must resolve epsilon / (f'' + 1/gamma).
      num_saves: equally spaced times returned.
      form: one of the three above.

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
    if form not in FORMS:
        raise ValueError(f"form must be one of {FORMS}; got form={form!r}")
    check_float64()
    start, slope = jnp.asarray(start, jnp.float64), jax.grad(f)
    point = start.shape[1:]
    flat = start.reshape(len(start), -1)
    d = flat.shape[1]

    def drift(state: jax.Array, s: jax.Array) -> jax.Array:
        x, y = state[:d].reshape(point), state[d:].reshape(point)
        if form == "proximal":
            slow, fast = (x - y) / gamma, slope(y) + (y - x) / gamma
        else:
            slow = slope(x - y)
            fast = y / gamma - (slow if form == "gradient" else 0)
        return -jnp.concatenate([slow.reshape(-1), fast.reshape(-1) / epsilon])

    state = jnp.concatenate([flat, flat if form == "proximal" else 0 * flat], axis=1)
    size = (2 * temperature / epsilon) ** 0.5
    sigma = size * jnp.concatenate([jnp.zeros((d, d)), jnp.eye(d)])
    paths = simulate(
        drift, state, key, sigma=sigma, horizon=horizon, num_steps=num_steps, num_saves=num_saves
    )
    shape = (num_saves, *start.shape)
    return paths[..., :d].reshape(shape), paths[..., d:].reshape(shape)


def gradient_flow(
    gradient: Function, start: ArrayLike, *, horizon: float, num_steps: int
) -> jax.Array:
    """The flow dX = -gradient(X) ds by fourth-order Runge-Kutta steps.

    Args:
      gradient: a JAX function of an array like `start`.
      start: X(0), of any shape.
      horizon: final time, > 0.
      num_steps: steps.

    Returns:
      X at the times 0, ..., horizon: shape (num_steps + 1, *start.shape).

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

    def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        a = -gradient(x)
        b = -gradient(x + h / 2 * a)
        c = -gradient(x + h / 2 * b)
        d = -gradient(x + h * c)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
        return x, x

    return jnp.concatenate([start[None], lax.scan(step, start, length=num_steps)[1]])
