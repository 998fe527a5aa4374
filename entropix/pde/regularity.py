"""What relaxation does to curvature: the formulas of the paper's section 6."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from entropix.pde.checks import check_positive
from entropix.pde.grid import Function, Grid


def hessian(grid: Grid, values: Function | ArrayLike) -> jax.Array:
    """Second derivatives at the nodes: exact for a function, differences inside for values.

    Args:
      grid: the nodes.
      values: a twice differentiable JAX function, or values of the grid's shape.

    Returns:
      Shape (*nodes, ndim, ndim): all nodes for a function; for values those inside, one fewer at
      each end, with an error O(h^2).
    """
    if callable(values):
        grid.sample(values)
        rows = grid.rows(None).reshape(-1, *grid.point_shape)
        return jax.vmap(jax.hessian(values))(rows).reshape(*grid.shape, grid.ndim, grid.ndim)
    u = grid.sample(values)
    if grid.ndim == 1:
        return (jnp.diff(u, 2) / grid.spacing[0] ** 2)[:, None, None]
    h, k = grid.spacing
    xx = jnp.diff(u, 2, axis=0)[:, 1:-1] / h**2
    yy = jnp.diff(u, 2, axis=1)[1:-1] / k**2
    xy = (u[2:, 2:] - u[2:, :-2] - u[:-2, 2:] + u[:-2, :-2]) / (4 * h * k)
    return jnp.stack([jnp.stack([xx, xy], -1), jnp.stack([xy, yy], -1)], -2)


def shock_time(grid: Grid, f: Function | ArrayLike) -> float:
    r"""When Hamilton-Jacobi first forms a shock (29), and Remark 6's critical scope.

    .. math:: t^* = -1 / \min_x \lambda_{\min}(D^2 f(x))

    For t (gamma) below it, f(y) + |x - y|^2/(2t) is convex in y, the inner loop has one steady
    state, and u is smooth. The minimum runs over the grid's nodes: refine to refine.

    Args:
      grid: the nodes.
      f: a twice differentiable JAX function, or values of the grid's shape.

    Returns:
      The time; infinite for convex f.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> with jax.enable_x64(True):
      ...     entropix.pde.shock_time(entropix.pde.Grid(-1.0, 1.0, 3), lambda x: 2 * jnp.cos(x))
      0.5
    """
    lowest = float(jnp.linalg.eigvalsh(hessian(grid, f)).min())
    return -1 / lowest if lowest < 0 else float("inf")


def convex_interval(grid: Grid, f: Function | ArrayLike, minimum: float) -> tuple[float, float]:
    """The interval [x-, x+] around a local minimum on which f is convex (Example 16), in 1-D.

    The ends are the zeros of f'' next to `minimum`, linearly interpolated between nodes.

    Args:
      grid: one-dimensional, fine enough to tell the zeros of f'' apart.
      f: a twice differentiable JAX function, or values.
      minimum: where f'' > 0.

    Returns:
      x- and x+; an end of the nodes where f is convex up to it.

    Raises:
      ValueError: in 2-D, or if f is not convex at `minimum`.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> with jax.enable_x64(True):
      ...     ends = entropix.pde.convex_interval(
      ...         entropix.pde.Grid(-4.0, 4.0, 401), lambda x: -jnp.cos(x), 0.0)
      >>> [round(end, 4) for end in ends]
      [-1.5708, 1.5708]
    """
    if grid.ndim != 1:
        raise ValueError(f"grid must have one dimension; got shape {grid.shape}")
    curvature = np.asarray(hessian(grid, f))[:, 0, 0]
    x = grid.axes[0] if callable(f) else grid.axes[0][1:-1]
    if not np.interp(minimum, x, curvature) > 0:
        raise ValueError(f"f must be convex at minimum={minimum!r}; its curvature there is <= 0")
    concave = np.flatnonzero(curvature <= 0)

    def zero(i: int, j: int) -> float:
        weight = curvature[j] / (curvature[j] - curvature[i])
        return float(weight * x[i] + (1 - weight) * x[j])

    left, right = concave[x[concave] < minimum], concave[x[concave] > minimum]
    return (
        zero(left[-1], left[-1] + 1) if left.size else float(x[0]),
        zero(right[0], right[0] - 1) if right.size else float(x[-1]),
    )


def widened_interval(f: Function, interval: tuple[float, float], t: float) -> tuple[float, float]:
    """Example 16: before the shock, x(t) = x(0) + t f'(x(0)) for either end.

    Args:
      f: a differentiable JAX function of a number.
      interval: x- and x+ at time 0, as from `convex_interval`.
      t: time, in (0, shock time).

    Returns:
      x- and x+ at time t.
    """
    check_positive(t=t)
    low, high = (float(x + t * jax.grad(f)(jnp.asarray(x, jnp.float64))) for x in interval)
    return low, high


def curvature_bound(curvature: ArrayLike, t: ArrayLike, ndim: int = 1) -> jax.Array:
    r"""Lemma 18: 1/(1/C + t/ndim), which bounds relaxed curvatures, whatever beta.

    With C = sup f_{kk} and ndim = 1 it bounds sup u_{kk}(., t); with C = sup Laplacian f and
    ndim = N, sup Laplacian u. For f = c|x|^2/2 it is attained: c/(1 + ct) (Example 13).

    Args:
      curvature: C > 0.
      t: time, >= 0.
      ndim: 1 for one second derivative, N for the Laplacian.
    """
    return 1 / (1 / jnp.asarray(curvature) + jnp.asarray(t) / ndim)


def heat_curvature(curvature: ArrayLike, t: ArrayLike, eigenvalue: ArrayLike) -> jax.Array:
    """Example 14: the heat equation turns an eigenfunction's curvature c into c exp(-lambda t).

    Args:
      curvature: c.
      t: time, >= 0.
      eigenvalue: lambda, of -(1/2 beta) Laplacian: |k|^2/(2 beta) for a wave of number k.
    """
    return jnp.asarray(curvature) * jnp.exp(-jnp.asarray(eigenvalue) * t)


def harmonic_mean(values: ArrayLike, axis: int = -1) -> jax.Array:
    """The harmonic mean of positive numbers along an axis.

    Lemma 19: for a symmetric positive definite matrix the eigenvalues' is at most the diagonal's.

    Example:
      >>> import entropix, jax.numpy as jnp
      >>> round(float(entropix.pde.harmonic_mean(jnp.asarray([1.0, 0.5]))), 6)
      0.666667
    """
    return 1 / jnp.mean(1 / jnp.asarray(values), axis=axis)


def minimum_bound(curvatures: ArrayLike, t: ArrayLike) -> jax.Array:
    """Lemma 20: 1/(t + 1/HM(C)) bounds HM(eigenvalues of D^2 u(., t)) at u's local minima.

    Args:
      curvatures: C_k = sup f_{kk} > 0. shape=(N,).
      t: time, >= 0.
    """
    return 1 / (jnp.asarray(t) + 1 / harmonic_mean(curvatures))
