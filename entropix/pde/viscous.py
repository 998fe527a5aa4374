"""Viscous Hamilton-Jacobi, u_t = -|grad u|^2/2 + (1/2 beta) Laplacian u, by Cole-Hopf."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_positive
from entropix.pde.grid import Function, Grid, Relaxed
from entropix.pde.hamilton_jacobi import hamilton_jacobi

_KEPT = {1: 512, 2: 2048}  # cells kept by a refinement, four times as many if they do not do
_MOST = 2**17
_BATCH = 16
_NEGLIGIBLE = 34.0  # exp(-34) = 2e-15
_SAFETY = 1.25


def cole_hopf(
    grid: Grid,
    f: Function | ArrayLike,
    t: float,
    beta: float,
    points: ArrayLike | None = None,
    *,
    num_halvings: int | None = None,
) -> Relaxed:
    r"""Local entropy (11) and its gradient (Lemma 1), by quadrature in log space.

    .. math:: u(x, t) = -\tfrac1\beta \log \int_{box} (2\pi t/\beta)^{-N/2}
        e^{-\beta [f(y) + |x-y|^2/(2t)]} dy, \qquad \nabla u = (x - \langle y \rangle)/t

    The integral is a sum over cells, first the grid's. Large beta concentrates it in wells of
    width sigma = 1/sqrt(beta (f'' + 1/t)); so the cells of least energy are kept and halved until
    they resolve sigma wherever there is mass. The sum is trapezoidal for the integrand, which is
    smooth and has decayed before the kept cells end: the error for smooth f is that of rounding.
    beta = 1e6 costs about ten halvings, and no accuracy.

    Args:
      grid: its box is the domain of integration: wide enough that exp(-beta ...) has decayed at
        its ends. Its nodes must resolve f, so that no well is missed.
      f: a function; or values, which are interpolated linearly between nodes.
      t: time (gamma of the optimisers), > 0.
      beta: inverse temperature 1/T, > 0.
      points: where u is wanted. shape (..., *point_shape); the nodes by default.
      num_halvings: static, the most that a point may take; each takes what it needs. None works it
        out, for which f's values, t and beta must be known: inside `jax.jit`, give it. (Nor can it
        be checked there that the kept cells hold all mass.)

    Returns:
      Value and gradient, shapes (...,) and (..., *point_shape). The Gibbs mean is x - t gradient.

    Raises:
      ValueError: for an argument outside its range, for mass spread over more cells than can be
        kept, and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-9.0, 9.0, 201)
      >>> with jax.enable_x64(True):  # curvature 1 becomes 1/(1 + t), whatever beta (Example 13)
      ...     u = entropix.pde.cole_hopf(grid, lambda x: x**2 / 2, t=1.0, beta=1e6, points=[3.0])
      >>> u.gradient.round(9).tolist()
      [1.5]
    """
    check_positive(t=t, beta=beta)
    values, rows = grid.sample(f), grid.rows(points)
    traced = any(isinstance(x, jax.core.Tracer) for x in (values, rows, t, beta))
    numbers = (jnp.asarray(t, jnp.float64), jnp.asarray(beta, jnp.float64))
    if num_halvings is None:
        if traced:
            raise ValueError("num_halvings must be given inside jax.jit")
        num_halvings = int(_most_halvings(grid, values, rows, *numbers))
    function, kept = f if callable(f) else None, _KEPT[grid.ndim]
    while True:
        value, gradient, margin = _gibbs(grid, function, num_halvings, kept, values, rows, *numbers)
        if traced or not margin.size or float(margin.min()) > _NEGLIGIBLE:
            return grid.relaxed(value, gradient, points)
        kept *= 4
        if kept > _MOST:
            raise ValueError(
                f"with beta={float(beta):g} the mass is spread over more than {_MOST} of the cells "
                "that it needs; take a smaller box, or a larger beta"
            )


def viscous_hj(
    grid: Grid, f: Function | ArrayLike, t: float, beta: float, *, num_steps: int | None = None
) -> jax.Array:
    """Solves viscous Hamilton-Jacobi by the monotone scheme of `hamilton_jacobi`; same arguments.

    First order, with walls that reflect: a check of `cole_hopf` that shares nothing with it.

    References:
      Oberman, `Convergent difference schemes for degenerate elliptic and parabolic equations
      <https://doi.org/10.1137/S0036142903435235>`_, 2006.
    """
    check_positive(beta=beta)
    return hamilton_jacobi(grid, f, t, beta=beta, num_steps=num_steps)


def _curvature(grid: Grid, values: jax.Array) -> jax.Array:
    """The sum of f's second differences along each dimension, the largest of the neighbours'."""
    total = jnp.zeros(())
    for axis, h in enumerate(grid.spacing):
        pad = [(int(i == axis),) * 2 for i in range(grid.ndim)]
        second = jnp.pad(jnp.diff(values, 2, axis=axis) / h**2, pad, mode="edge")
        total = total + jnp.maximum(second, 0)
    window = (3,) * grid.ndim
    return lax.reduce_window(total, -jnp.inf, lax.max, window, (1,) * grid.ndim, "SAME").reshape(-1)


def _slack(curvature: jax.Array, width: np.ndarray, t: jax.Array) -> jax.Array:
    """By how much the energy in a cell may be lower than at its middle, near a minimum."""
    return (curvature + 1 / t) * np.sum((width / 2) ** 2) / 2


def _halvings(
    energy: jax.Array, curvature: jax.Array, spacing: np.ndarray, t: jax.Array, beta: jax.Array
) -> jax.Array:
    """Halvings after which cells resolve the integrand, where its mass is.

    A trapezoidal sum at distances h leaves out 2 exp(-2 pi^2 sigma^2/h^2) of a Gaussian, and that
    of a tail counts for as little as the tail does.
    """
    excess = jnp.maximum(beta * (energy - _slack(curvature, spacing, t) - energy.min()), 0)
    sigma = 1 / jnp.sqrt(beta * (curvature + 1 / t))
    share = jnp.sqrt(jnp.maximum(_NEGLIGIBLE - excess, 0) / (2 * np.pi**2)) / sigma
    needed = jnp.log2(_SAFETY * spacing.max() * share.max())
    return jnp.maximum(jnp.ceil(needed), 0).astype(int)


@functools.partial(jax.jit, static_argnums=0)
def _most_halvings(
    grid: Grid, values: jax.Array, rows: jax.Array, t: jax.Array, beta: jax.Array
) -> jax.Array:
    nodes, spacing = jnp.asarray(grid.points).reshape(-1, grid.ndim), np.asarray(grid.spacing)
    curvature = _curvature(grid, values)

    def at(x: jax.Array) -> jax.Array:
        energy = values.reshape(-1) + jnp.sum((x - nodes) ** 2, axis=-1) / (2 * t)
        return _halvings(energy, curvature, spacing, t, beta)

    return lax.map(at, rows, batch_size=_BATCH).max(initial=0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _gibbs(
    grid: Grid,
    function: Function | None,
    num_halvings: int,
    kept: int,
    values: jax.Array,
    rows: jax.Array,
    t: jax.Array,
    beta: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Value, gradient, and by what exponent all that was dropped is below the largest term."""
    f = function or (lambda y: grid.interpolate(values, y))
    nodes, spacing = jnp.asarray(grid.points).reshape(-1, grid.ndim), np.asarray(grid.spacing)
    children = np.asarray(list(itertools.product([-0.25, 0.25], repeat=grid.ndim)))
    curvatures = _curvature(grid, values)

    def at(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        energy = lambda y, f_y: f_y + jnp.sum((x - y) ** 2, axis=-1) / (2 * t)  # noqa: E731

        def sums(h: jax.Array, y: jax.Array, width: np.ndarray) -> tuple[jax.Array, jax.Array]:
            lowest = h.min()
            weights = jnp.exp(-beta * (h - lowest))
            mass = weights.sum()
            log_integral = jnp.log(mass) + np.log(width).sum()
            log_integral -= grid.ndim / 2 * jnp.log(2 * jnp.pi * t / beta)
            return lowest - log_integral / beta, weights @ (x - y) / (mass * t)

        y, width, curvature, margin = nodes, spacing, curvatures, jnp.asarray(jnp.inf)
        h = energy(y, values.reshape(-1))
        halvings, result = _halvings(h, curvature, spacing, t, beta), [*sums(h, y, width)]
        for level in range(num_halvings):
            wanted = level < halvings
            if len(y) > kept:
                least, chosen = lax.top_k(_slack(curvature, width, t) - h, kept + 1)
                beyond = beta * (-least[-1] - h.min())
                margin = jnp.where(wanted, jnp.minimum(margin, beyond), margin)
                y, curvature = y[chosen[:-1]], curvature[chosen[:-1]]
            y = (y[:, None] + width * children).reshape(-1, grid.ndim)
            curvature = jnp.repeat(curvature, len(children))
            width = width / 2
            h = energy(y, jax.vmap(lambda y: f(y.reshape(grid.point_shape)))(y))
            finer = sums(h, y, width)
            result = [jnp.where(wanted, *pair) for pair in zip(finer, result, strict=True)]
        return result[0], result[1], margin

    return lax.map(at, rows, batch_size=_BATCH)
