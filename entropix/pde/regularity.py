"""What relaxation does to curvature: the formulas of the paper's section 6."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from entropix.pde.checks import (
    check_all,
    check_count,
    check_float64,
    check_line,
    check_positive,
    function_of,
    not_negative,
)
from entropix.pde.grid import Function, Grid

Array = TypeVar("Array", np.ndarray, jax.Array)
_AT_AN_END = 0.02  # of an interval's length: how near to an end a zero of f'' must be


def hessian(grid: Grid, values: Function | ArrayLike) -> jax.Array:
    """Second derivatives at the nodes: exact for a function, differences inside for values.

    Args:
      grid: the nodes.
      values: a twice differentiable JAX function, or values of the grid's shape.

    Returns:
      Shape (*nodes, ndim, ndim): all nodes for a function; for values those inside, one fewer at
      each end, with an error O(h^2).

    Raises:
      ValueError: for an f whose value is not one number, for values of another shape, and without
        float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-1.0, 1.0, 3)
      >>> with jax.enable_x64(True):
      ...     entropix.pde.hessian(grid, lambda x: x**3)[:, 0, 0].tolist()
      [-6.0, 0.0, 6.0]
    """
    if callable(values):
        grid.sample(values)
        rows = grid.rows(None).reshape(-1, *grid.point_shape)
        second = jax.vmap(jax.hessian(function_of("f", values)))(rows)
        return second.reshape(*grid.shape, grid.ndim, grid.ndim)
    differences = second_differences(grid, grid.sample(values))
    return jnp.stack([jnp.stack(row, axis=-1) for row in differences], axis=-2)


def second_differences(grid: Grid, u: Array) -> list[list[Array]]:
    """The entries of the Hessian at the inner nodes, by central differences.

    Args:
      grid: the nodes.
      u: values of the grid's shape, of NumPy or JAX.

    Returns:
      A list of `ndim` rows of `ndim` arrays, each two nodes shorter than u in every dimension.
    """
    if grid.ndim == 1:
        return [[(u[2:] - 2 * u[1:-1] + u[:-2]) / grid.spacing[0] ** 2]]
    h, k = grid.spacing
    xx = (u[2:, 1:-1] - 2 * u[1:-1, 1:-1] + u[:-2, 1:-1]) / h**2
    yy = (u[1:-1, 2:] - 2 * u[1:-1, 1:-1] + u[1:-1, :-2]) / k**2
    xy = (u[2:, 2:] - u[2:, :-2] - u[:-2, 2:] + u[:-2, :-2]) / (4 * h * k)
    return [[xx, xy], [xy, yy]]


def difference_rounding(grid: Grid, values: np.ndarray) -> float:
    """How far second differences of values may be off by the values' rounding.

    Values are known to some units in the last place, which differences divide by h^2.
    """
    largest = np.abs(values[np.isfinite(values)]).max(initial=0)
    return float(64 * np.finfo(float).eps * largest / min(grid.spacing) ** 2)


def _known_hessian(grid: Grid, f: Function | ArrayLike) -> jax.Array:
    """`hessian`, refused where no eigenvalue is known: no comparison would notice.

    That is where an entry is not a number or, in two dimensions, infinite.
    """
    second = hessian(grid, f)
    known = np.isfinite(second) if grid.ndim > 1 else ~np.isnan(second)
    bad = np.argwhere(~known.all(axis=(-2, -1)))
    if bad.size:
        node = tuple(bad[0]) if callable(f) else tuple(bad[0] + 1)  # values: without the ends
        raise ValueError(
            "f must have second derivatives at all nodes; the one at "
            f"{grid.points[node].tolist()} is not a number. Take nodes without that point, or "
            "write f so that JAX can differentiate it there (jnp.sinc for sin(x)/x)."
        )
    return second


def shock_time(grid: Grid, f: Function | ArrayLike) -> float:
    r"""When Hamilton-Jacobi first forms a shock (29), and Remark 6's critical scope.

    .. math:: t^* = -1 / \min_x \lambda_{\min}(D^2 f(x))

    For t (gamma) below it, f(y) + |x - y|^2/(2t) is convex in y, the inner loop has one steady
    state, and u is smooth. The minimum runs over the grid's nodes; more nodes give it more exactly.

    Args:
      grid: the nodes.
      f: a twice differentiable JAX function, or values of the grid's shape.

    Returns:
      The time; infinite for convex f, and 0 where a second derivative is -infinity.

    Raises:
      ValueError: where a second derivative is not a number or, in 2-D, infinite; without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> with jax.enable_x64(True):
      ...     entropix.pde.shock_time(entropix.pde.Grid(-1.0, 1.0, 3), lambda x: 2 * jnp.cos(x))
      0.5
    """
    second = _known_hessian(grid, f)
    lowest = float((second if grid.ndim == 1 else jnp.linalg.eigvalsh(second)).min())
    if not callable(f):  # below what differences of rounded values are known to, f is convex
        lowest = lowest if lowest < -difference_rounding(grid, np.asarray(f)) else 0.0
    return -1 / lowest if lowest < 0 else float("inf")


def convex_interval(grid: Grid, f: Function | ArrayLike, minimum: float) -> tuple[float, float]:
    """The interval [x-, x+] around a local minimum on which f is convex (Example 16), in 1-D.

    The ends are the zeros of f'' next to `minimum`, linearly interpolated between nodes.

    Args:
      grid: one-dimensional, fine enough to tell the zeros of f'' apart.
      f: a twice differentiable JAX function, or values.
      minimum: where f'' > 0.

    Returns:
      x- and x+; the grid's edge where f is convex up to the edge (`widened_interval` tells which).

    Raises:
      ValueError: in 2-D, if f is not convex at `minimum`, or where f'' is not a number.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> with jax.enable_x64(True):
      ...     ends = entropix.pde.convex_interval(
      ...         entropix.pde.Grid(-4.0, 4.0, 401), lambda x: -jnp.cos(x), 0.0)
      >>> [round(end, 4) for end in ends]
      [-1.5708, 1.5708]
    """
    check_line(grid.shape)
    curvature = np.asarray(_known_hessian(grid, f))[:, 0, 0]
    x, edges = grid.axes[0] if callable(f) else grid.axes[0][1:-1], grid.axes[0][[0, -1]]
    if not edges[0] <= minimum <= edges[1]:
        raise ValueError(
            f"minimum must lie on the grid, in [{edges[0]:g}, {edges[1]:g}]; got {minimum!r}"
        )
    if not np.interp(minimum, x, curvature) > 0:
        raise ValueError(f"f must be convex at minimum={minimum!r}; its curvature there is <= 0")
    concave = np.flatnonzero(curvature <= 0)

    def zero(i: int, j: int) -> float:
        weight = curvature[j] / (curvature[j] - curvature[i])
        return float(weight * x[i] + (1 - weight) * x[j])

    left, right = concave[x[concave] < minimum], concave[x[concave] > minimum]
    return (
        zero(left[-1], left[-1] + 1) if left.size else float(edges[0]),
        zero(right[0], right[0] - 1) if right.size else float(edges[1]),
    )


def widened_interval(f: Function, interval: tuple[float, float], t: float) -> tuple[float, float]:
    r"""Moves the ends of a convex interval by t f', as they move before the shock (Example 16).

    .. math:: x_\pm(t) = x_\pm(0) + t f'(x_\pm(0))

    So moves an end at which f'' changes its sign. An end at which f'' is positive is only the edge
    of the grid that `convex_interval` looked at, and stays where it is: u is convex there too, but
    how far beyond is not known.

    Args:
      f: a twice differentiable JAX function of a number.
      interval: x- and x+ at time 0, as from `convex_interval`.
      t: time, > 0. The ends are right before a shock forms (`shock_time`), which is not checked.

    Returns:
      x- and x+ at time t.

    Raises:
      ValueError: for a t that is not positive, an interval that is not low < high, and without
        float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> with jax.enable_x64(True):  # f'' is positive up to 1, the edge of the grid
      ...     entropix.pde.widened_interval(lambda x: -jnp.cos(x), (-jnp.pi / 2, 1.0), t=0.5)
      (-2.0707963267948966, 1.0)
    """
    check_float64()
    check_positive(t=t)
    ends = np.ravel(interval)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(f"interval must be two numbers, low < high; got {interval!r}")
    low, high = map(float, ends)
    slope = jax.grad(function_of("f", f))

    def moved(x: float) -> float:
        point = jnp.asarray(x, jnp.float64)
        second, third = jax.grad(slope)(point), jax.grad(jax.grad(slope))(point)
        zero_is_near = jnp.abs(second) <= _AT_AN_END * (high - low) * jnp.abs(third)
        return x + t * float(slope(point)) if zero_is_near else x

    return moved(low), moved(high)


def curvature_bound(curvature: ArrayLike, t: ArrayLike, ndim: int = 1) -> jax.Array:
    r"""The bound of relaxed curvatures, whatever beta (Lemma 18).

    .. math:: \sup_x u_{kk}(x, t) \le \frac1{1/C + t}, \qquad
        \sup_x \Delta u(x, t) \le \frac1{1/C_\Delta + t/N}

    The first has C = sup f_{kk} and ndim = 1, the second C = sup Laplacian f and ndim = N. For
    f = c|x|^2/2 both are attained: the curvature is c/(1 + ct) (Example 13).

    Args:
      curvature: C >= 0, a number or an array.
      t: time, >= 0.
      ndim: 1 for one second derivative, N for the Laplacian.

    Returns:
      The bound, shaped as `curvature` and `t` together.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix
      >>> float(entropix.pde.curvature_bound(2.0, t=1.5))  # 1/(1/2 + 3/2)
      0.5

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, Lemma 18.
    """
    check_all("curvature", curvature, not_negative)
    check_all("t", t, not_negative)
    check_count(ndim=ndim)
    return 1 / (1 / jnp.asarray(curvature) + jnp.asarray(t) / ndim)


def heat_curvature(curvature: ArrayLike, t: ArrayLike, eigenvalue: ArrayLike) -> jax.Array:
    r"""The curvature that the heat equation leaves an eigenfunction (Example 14).

    .. math:: c(t) = c\, e^{-\lambda t}, \qquad -\tfrac1{2\beta} \Delta f = \lambda f

    Args:
      curvature: c, at time 0.
      t: time, >= 0.
      eigenvalue: lambda >= 0; |k|^2/(2 beta) for a wave of number k.

    Returns:
      The curvature at time t, shaped as the arguments together.

    Raises:
      ValueError: for a t or an eigenvalue outside its range.

    Example:
      >>> import entropix
      >>> round(float(entropix.pde.heat_curvature(2.0, t=1.0, eigenvalue=0.5)), 4)
      1.2131

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, Example 14.
    """
    check_all("t", t, not_negative)
    check_all("eigenvalue", eigenvalue, not_negative)
    return jnp.asarray(curvature) * jnp.exp(-jnp.asarray(eigenvalue) * jnp.asarray(t))


def harmonic_mean(values: ArrayLike, axis: int = -1) -> jax.Array:
    r"""The harmonic mean of positive numbers along an axis.

    .. math:: HM(a) = \frac{N}{\sum_{k=1}^N 1/a_k}

    Lemma 19: for a symmetric positive definite matrix the eigenvalues' harmonic mean is at most
    the diagonal's.

    Args:
      values: positive numbers.
      axis: along which the mean is taken.

    Returns:
      The means, shaped as `values` without the axis.

    Raises:
      ValueError: for a number that is not positive.

    Example:
      >>> import entropix, jax.numpy as jnp
      >>> round(float(entropix.pde.harmonic_mean(jnp.asarray([1.0, 0.5]))), 6)
      0.666667

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, Lemma 19.
    """
    check_all("values", values, lambda a: a > 0, "> 0")
    return 1 / jnp.mean(1 / jnp.asarray(values), axis=axis)


def minimum_bound(curvatures: ArrayLike, t: ArrayLike) -> jax.Array:
    r"""The bound of the harmonic mean of curvatures at a local minimum of u(., t) (Lemma 20).

    .. math:: HM\big(\lambda(D^2 u(x, t))\big) \le \frac1{t + 1/HM(C)}, \qquad
        C_k = \sup_x f_{kk}(x)

    Args:
      curvatures: C_k > 0. shape=(..., N).
      t: time, >= 0.

    Returns:
      The bound. shape=(...,).

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix, jax.numpy as jnp
      >>> round(float(entropix.pde.minimum_bound(jnp.asarray([1.0, 0.5]), t=0.5)), 6)
      0.5

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, Lemma 20.
    """
    check_all("t", t, not_negative)
    check_all("curvatures", curvatures, lambda C: C > 0, "> 0")
    return 1 / (jnp.asarray(t) + 1 / harmonic_mean(curvatures))
