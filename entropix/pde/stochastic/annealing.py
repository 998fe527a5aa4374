"""Simulated annealing and scoping, written out in their plainest form, to be compared."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jax.typing import ArrayLike

from entropix.pde.checks import (
    check_all,
    check_count,
    check_float64,
    check_positive,
    function_of,
    key_of,
    not_negative,
)
from entropix.pde.grid import Function, Grid
from entropix.pde.stochastic.bellman import feedback
from entropix.pde.stochastic.sde import Drift, simulate
from entropix.pde.viscous import cole_hopf

Gradient = Callable[[jax.Array], jax.Array]


def logarithmic_cooling(depth: float, num_steps: int, *, step_size: float) -> jax.Array:
    r"""The slow schedule with which annealing reaches the lowest minimum (section 2.4).

    .. math:: T_k = c / \log(e + \eta k), \qquad k = 0, 1, \ldots

    Annealed paths end in the lowest minimum with probability 1 if c exceeds the depth of the
    deepest other well, and may not otherwise. Cooling is exponentially slow: to halve T takes the
    square of the time.

    Args:
      depth: c > 0, of the dimension of f.
      num_steps: temperatures.
      step_size: eta > 0, so that eta k is the time.

    Returns:
      Temperatures, shape (num_steps,), for `simulated_annealing`; the first is c.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax
      >>> with jax.enable_x64(True):
      ...     T = entropix.pde.logarithmic_cooling(0.3, 10_001, step_size=0.1)
      >>> round(float(T[0]), 3), round(float(T[-1]), 3)
      (0.3, 0.043)

    References:
      Chiang, Hwang and Sheu, `Diffusion for global optimization in R^n
      <https://doi.org/10.1137/0325042>`_, 1987.
    """
    check_float64()
    check_positive(depth=depth, step_size=step_size)
    check_count(num_steps=num_steps)
    return depth / jnp.log(jnp.e + step_size * jnp.arange(num_steps, dtype=float))


def simulated_annealing(
    gradient: Gradient,
    start: ArrayLike,
    key: jax.Array | int,
    *,
    step_size: float,
    schedule: ArrayLike,
) -> jax.Array:
    r"""Simulated annealing: one noisy gradient step for each temperature of a schedule.

    .. math:: x \leftarrow x - \eta \nabla f(x) + \sqrt{2 \eta T_k}\,\xi

    Args:
      gradient: of f, for an array of paths at once.
      start: shape (paths,).
      key: a JAX key, or a seed.
      step_size: eta > 0.
      schedule: temperatures T_k >= 0 and finite, shape (gradients,), such as
        `logarithmic_cooling` returns.

    Returns:
      The last x of every path, shape (paths,).

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> slope = lambda x: 4 * x * (x**2 - 1) + 0.5  # of two wells, of which the left is lower
      >>> with jax.enable_x64(True):
      ...     T = entropix.pde.logarithmic_cooling(1.0, 2000, step_size=0.05)
      ...     x = entropix.pde.simulated_annealing(slope, jnp.ones(200), jax.random.key(0),
      ...                                          step_size=0.05, schedule=T)
      ...     int((x < 0).sum()) > 160  # of 200 paths that began in the right one
      True

    References:
      Chiang, Hwang and Sheu, `Diffusion for global optimization in R^n
      <https://doi.org/10.1137/0325042>`_, 1987.
    """
    check_float64()
    check_positive(step_size=step_size)
    start = jnp.asarray(start, jnp.float64)
    schedule = _listed(schedule, not_negative, "finite temperatures >= 0")
    slope = function_of("gradient", gradient)
    return _annealed(slope, start, key_of(key), step_size, schedule)


def _listed(
    schedule: ArrayLike, good: Callable[[np.ndarray], np.ndarray], accepted: str
) -> jax.Array:
    """A schedule in float64; refused unless it is a list of accepted numbers."""
    listed = jnp.asarray(schedule, jnp.float64)
    if listed.ndim != 1:
        raise ValueError(
            f"schedule must be a list of numbers, one for each step; got shape {listed.shape}"
        )
    check_all("schedule", listed, good, accepted)
    return listed


@functools.partial(jax.jit, static_argnames=("gradient",))
def _annealed(
    gradient: Gradient, start: jax.Array, key: jax.Array, step_size: jax.Array, schedule: jax.Array
) -> jax.Array:
    def step(x: jax.Array, level: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        T, k = level
        noise = jax.random.normal(jax.random.fold_in(key, k), x.shape, x.dtype)
        return x - step_size * gradient(x) + jnp.sqrt(2 * step_size * T) * noise, None

    return lax.scan(step, start, (schedule, jnp.arange(len(schedule))))[0]


def scoped_descent(
    gradient: Gradient,
    start: ArrayLike,
    key: jax.Array | int,
    *,
    step_size: float,
    schedule: ArrayLike,
    temperature: float,
    num_steps: int = 20,
) -> jax.Array:
    r"""Entropy-SGD (31)-(33) with x <- <y>, L gradients for each scope of a schedule.

    .. math:: y \leftarrow y - \eta_y \Big[\nabla f(y) + \frac{y - x}{\gamma_k}\Big]
        + \sqrt{2 \eta_y T}\,\xi, \qquad x \leftarrow \langle y \rangle

    Args:
      gradient: of f, for an array of paths at once.
      start: shape (paths,).
      key: a JAX key, or a seed.
      step_size: eta_y > 0, below 2 gamma_k for every scope.
      schedule: scopes gamma_k > 0, shape (outer steps,).
      temperature: T >= 0 of the inner chain.
      num_steps: L >= 1; y starts at x, and <y> is the mean of the L iterates.

    Returns:
      The last x of every path, shape (paths,).

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> with jax.enable_x64(True):  # f = x^2/2: <y> tends to x/(1 + gamma) for many steps
      ...     x = entropix.pde.scoped_descent(
      ...         lambda x: x, jnp.ones(1), jax.random.key(0), step_size=0.1, schedule=[1.0, 0.5],
      ...         temperature=0.0, num_steps=2000)
      >>> round(float(x[0]), 2)  # 1/2 times 2/3
      0.33

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, equations (31),
      (32) and (33).
    """
    check_float64()
    check_positive(step_size=step_size)
    check_count(num_steps=num_steps)
    check_all("temperature", temperature, not_negative)
    start = jnp.asarray(start, jnp.float64)
    accepted = f"scopes above step_size/2 = {step_size / 2}, or inner steps diverge"
    schedule = _listed(schedule, lambda gamma: gamma > step_size / 2, accepted)
    slope, key = function_of("gradient", gradient), key_of(key)
    return _descended(slope, num_steps, start, key, step_size, schedule, temperature)


@functools.partial(jax.jit, static_argnames=("gradient", "num_steps"))
def _descended(
    gradient: Gradient,
    num_steps: int,
    start: jax.Array,
    key: jax.Array,
    step_size: jax.Array,
    schedule: jax.Array,
    temperature: jax.Array,
) -> jax.Array:
    def outer(x: jax.Array, level: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        gamma, k = level

        def inner(y: jax.Array, i: jax.Array) -> tuple[jax.Array, jax.Array]:
            xi = jax.random.normal(jax.random.fold_in(key, k * num_steps + i), x.shape, x.dtype)
            pull = gradient(y) + (y - x) / gamma
            y = y - step_size * pull + jnp.sqrt(2 * step_size * temperature) * xi
            return y, y

        return lax.scan(inner, x, jnp.arange(num_steps))[1].mean(axis=0), None

    return lax.scan(outer, start, (schedule, jnp.arange(len(schedule))))[0]


def scoped_flow(
    grid: Grid,
    f: Function,
    start: ArrayLike,
    *,
    beta: float,
    horizon: float,
    key: jax.Array | int | None = None,
    num_levels: int = 50,
    num_steps: int = 400,
) -> jax.Array:
    r"""Scoping in continuous time: the flow of local entropy while its scope falls to 0.

    .. math:: dx = -\nabla u(x, S - s)\,ds \quad (+\ \beta^{-1/2} dW), \qquad 0 \le s \le S

    with u the local entropy of f. It is the optimal control of section 5 for the drift 0 and the
    terminal cost V = f, whose least cost from x is u(x, S). With noise it is that controlled
    process; without a key it is the deterministic flow.

    Args:
      grid: nodes on which u is computed, as for `cole_hopf`; paths outside take the gradient of the
        nearest edge.
      f: a JAX function of a point.
      start: x(0) for every path, shape (paths, *point_shape).
      beta: inverse temperature of u and of the noise, > 0.
      horizon: S > 0, the first scope.
      key: a JAX key, or a seed, of the noise; None for none.
      num_levels: K, intervals between the scopes at which u is computed.
      num_steps: steps of the paths (Heun's).

    Returns:
      x(S), shaped as `start`.

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> grid = entropix.pde.Grid(-6.0, 6.0, 241)
      >>> with jax.enable_x64(True):  # f = x^2/2: x' = -x/(1 + S - s), so x(S) = x(0)/(1 + S)
      ...     x = entropix.pde.scoped_flow(grid, lambda x: x**2 / 2, jnp.ones(1), beta=5.0,
      ...                                  horizon=1.0, num_levels=10)
      >>> round(float(x[0]), 2)
      0.5
    """
    check_positive(beta=beta, horizon=horizon)
    check_count(num_levels=num_levels, num_steps=num_steps)
    shares = 1 - np.arange(num_levels) / num_levels  # NumPy's: `jax.jit` would trace JAX's
    solved = [cole_hopf(grid, f, horizon * share, beta).value for share in shares]
    control = feedback(grid, jnp.stack([*solved, grid.sample(f)]), horizon=horizon)
    return simulate(
        Partial(_against, control), start, jax.random.key(0) if key is None else key,
        sigma=0.0 if key is None else beta**-0.5, horizon=horizon, num_steps=num_steps,
    )[-1]  # fmt: skip


def _against(control: Drift, x: jax.Array, s: jax.Array) -> jax.Array:
    return -control(x, s)
