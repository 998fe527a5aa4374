"""What relaxation does to a landscape: the data of `entropix figure1`.

All three relaxations of one function at several times, where each is convex, and a descent while
gamma goes to 0 (scoping, §7.5), as NumPy arrays that can be saved.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.pde.checks import check_positive
from entropix.pde.grid import Function, Grid, Relaxed
from entropix.pde.heat_equation import heat_on_grid
from entropix.pde.hopf_lax import hopf_lax
from entropix.pde.regularity import second_differences
from entropix.pde.viscous import cole_hopf

EQUATIONS = ("viscous_hj", "hj", "heat")
_STEPS = 4  # of the descent, per frame
_MOST_TERMS = 4_000_000_000  # of the sums over one grid for all points: half a minute


class Relaxations(NamedTuple):
    """A function and its relaxations; `shape` is that of the nodes, (n,) or (n, m).

    Attributes:
      points: the nodes, shape (*shape, *point_shape).
      f: values at the nodes.
      values: shape (3, times, *shape), in the order of `EQUATIONS`.
      convex: whether each is convex around a node; shape as `values`.
      f_convex: the same for f.
      times: those of the PDEs.
      beta: inverse temperature.
    """

    points: np.ndarray
    f: np.ndarray
    values: np.ndarray
    convex: np.ndarray
    f_convex: np.ndarray
    times: np.ndarray
    beta: float


class Scoping(NamedTuple):
    """A descent on u(., gamma_k), gamma_k -> 0, and one on f from the same start.

    Attributes:
      gammas: shape (frames,).
      values: u(., gamma_k), shape (frames, *shape).
      path: where the descent was at each frame, shape (frames, *point_shape).
      plain: the same for steepest descent on f.
    """

    gammas: np.ndarray
    values: np.ndarray
    path: np.ndarray
    plain: np.ndarray


def relaxations(grid: Grid, f: Function, times: Sequence[float], beta: float) -> Relaxations:
    """Solves viscous Hamilton-Jacobi, Hamilton-Jacobi and heat for f at several times.

    Beyond the grid's box f goes on as far as half a box to every side, if it is finite there;
    otherwise the box has walls: no minimiser lies outside, and no heat leaves.

    Args:
      grid: the nodes.
      f: a JAX function of a point (see `Grid`), finite in the box.
      times: t > 0 of the solutions.
      beta: inverse temperature > 0 of viscous Hamilton-Jacobi and heat.

    Returns:
      `Relaxations`, in NumPy.

    Raises:
      ValueError: for an argument outside its range, and an f that is not finite in the box.

    Example:
      >>> import jax
      >>> from entropix.pde import Grid
      >>> from entropix.landscape.functions.relaxations import relaxations
      >>> with jax.enable_x64(True):
      ...     data = relaxations(Grid(-2.0, 2.0, 81), lambda x: (x**2 - 1) ** 2, [0.2], 50.0)
      >>> bool(data.f_convex[50]), [bool(kind[0, 50]) for kind in data.convex]  # x = 0.5
      (False, [True, True, False])
    """
    if not len(times):
        raise ValueError("times must have at least one time > 0; got none")
    for t in times:
        check_positive(time=t)
    check_positive(beta=beta)
    wide, inside = widened(grid, f)
    values = [
        [np.asarray(_local_entropy(grid, wide, f, t, beta).value) for t in times],
        [_hopf_lax(wide, f, t)[inside] for t in times],
        [np.asarray(heat_on_grid(wide, f, t, beta))[inside] for t in times],
    ]
    at_nodes = np.asarray(grid.sample(f))
    convex = [[convex_nodes(grid, v) for v in kind] for kind in values]
    convex[EQUATIONS.index("hj")] = [
        convex_nodes(grid, v, uncertain=1 / (4 * _finer(grid) ** 2 * t))
        for v, t in zip(values[EQUATIONS.index("hj")], times, strict=True)
    ]
    return Relaxations(
        points=grid.points,
        f=at_nodes,
        values=np.asarray(values),
        convex=np.asarray(convex),
        f_convex=convex_nodes(grid, at_nodes),
        times=np.asarray(times, float),
        beta=float(beta),
    )


def descend_while_scoping(
    grid: Grid,
    f: Function,
    gamma: float,
    beta: float,
    start: Sequence[float],
    num_frames: int = 60,
) -> Scoping:
    r"""Follows x' = -grad u(x, gamma_k) while gamma_k falls geometrically to 0.

    A frame lasts 1/C + gamma_k, with C the largest second derivative of f: by Lemma 18 one over
    the largest curvature of u(., gamma_k). Its four steps, of a quarter each, never overshoot,
    however small gamma is. Steepest descent on f, for comparison, moves for as long a time.

    Args:
      grid: the nodes; paths end at the box.
      f: a JAX function of a point.
      gamma: the first scope, > 0. The last is gamma/200; in 2-D, where finer quadrature is slow,
        not less than the nodes resolve.
      beta: inverse temperature.
      start: x at the first frame, one number a dimension.
      num_frames: scopes.

    Returns:
      `Scoping`, in NumPy.
    """
    check_positive(beta=beta, gamma=gamma, num_frames=num_frames)
    wide, _ = widened(grid, f)
    curvature = _curvature(grid, f)
    radius = 1 / max(curvature, 1e-3)
    last = gamma / 200
    if grid.ndim == 2:
        finest = 4 / (beta * max(grid.spacing) ** 2) - curvature  # spacing = 2 sigma
        last = min(gamma, max(last, 1 / finest if finest > 0 else gamma))
    gammas = np.geomspace(gamma, last, num_frames)
    slope = grid.gradient(grid.sample(f))
    x = y = jnp.clip(jnp.asarray(start, float).reshape(grid.point_shape), *_corners(grid))
    frames, path, plain = [], [], []
    for scope in gammas:
        u = _local_entropy(grid, wide, f, scope, beta, apart=2.0)
        frames.append(np.asarray(u.value))
        path.append(np.asarray(x))
        plain.append(np.asarray(y))
        time = radius + scope
        x = _descend(grid, u.gradient, x, time / _STEPS, _STEPS)
        steps = math.ceil(2 * time / radius)
        y = _descend(grid, slope, y, time / steps, steps)
    return Scoping(gammas, np.asarray(frames), np.asarray(path), np.asarray(plain))


@functools.partial(jax.jit, static_argnums=0)
def _descend(grid: Grid, slope: jax.Array, x: jax.Array, step: float, count: int) -> jax.Array:
    def body(_: int, x: jax.Array) -> jax.Array:
        return jnp.clip(x - step * grid.interpolate(slope, x), *_corners(grid))

    return lax.fori_loop(0, count, body, x)


def _corners(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    shape = grid.point_shape
    return np.reshape(grid.lower, shape), np.reshape(grid.upper, shape)


def convex_nodes(grid: Grid, values: np.ndarray, *, uncertain: float = 0.0) -> np.ndarray:
    """Marks the nodes around which values are convex, by second differences.

    Args:
      grid: the nodes. In 2-D the smaller eigenvalue of the difference Hessian decides.
      values: at the nodes.
      uncertain: second derivatives up to this count as zero, and up to 1e-6 of the largest, for
        rounding. Hopf-Lax on nodes k times as close leaves u an error of up to
        (f'' + 1/t) h^2/(8 k^2), and u'' one of 1/(4 k^2 t) where u is not convex (f'' < 0).

    Returns:
      Booleans, shaped as the values; nodes at the edge are as their neighbours.
    """
    second = second_differences(grid, np.asarray(values, float))
    if grid.ndim == 1:
        smallest = second[0][0]
    else:
        (xx, xy), (_, yy) = second
        smallest = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    rounding = 1e-6 * np.abs(smallest).max()
    return np.pad(smallest > max(uncertain, rounding), 1, mode="edge")


def convex_intervals(x: np.ndarray, convex: np.ndarray) -> np.ndarray:
    """The intervals of marked nodes, shape (intervals, 2): first and last node of each run."""
    edges = np.diff(np.concatenate([[False], convex, [False]]).astype(int))
    return np.stack([x[np.flatnonzero(edges == 1)], x[np.flatnonzero(edges == -1) - 1]], axis=-1)


def widened(grid: Grid, f: Function) -> tuple[Grid, tuple[slice, ...]]:
    """A box with half as much again on every side, or the box itself; and the box within it."""
    values = np.asarray(grid.sample(f))
    if not np.isfinite(values).all():
        bad = grid.points.reshape(-1, grid.ndim)[np.argmin(np.isfinite(values.ravel()))]
        where = ", ".join(f"{name}={v:.6g}" for name, v in zip("xy", bad, strict=False))
        raise ValueError(f"the function is not finite at {where}; choose another interval")
    extra = [(n - 1) // 2 for n in grid.shape]
    wide = Grid(
        tuple(a - k * h for a, k, h in zip(grid.lower, extra, grid.spacing, strict=True)),
        tuple(b + k * h for b, k, h in zip(grid.upper, extra, grid.spacing, strict=True)),
        tuple(n + 2 * k for n, k in zip(grid.shape, extra, strict=True)),
    )
    if np.isfinite(np.asarray(wide.sample(f))).all():
        return wide, tuple(slice(k, k + n) for k, n in zip(extra, grid.shape, strict=True))
    return grid, tuple(slice(None) for _ in grid.shape)


def _finer(grid: Grid) -> int:
    return 16 if grid.ndim == 1 else 4


def _hopf_lax(grid: Grid, f: Function, t: float) -> np.ndarray:
    """Hopf-Lax on a finer grid, whose u is smoother, at the nodes of this one."""
    k = _finer(grid)
    fine = Grid(grid.lower, grid.upper, tuple(k * (n - 1) + 1 for n in grid.shape))
    return np.asarray(hopf_lax(fine, f, t).value)[(slice(None, None, k),) * grid.ndim]


def _curvature(grid: Grid, f: Function) -> float:
    """C, a bound of the curvature of f at the nodes: the sum over dimensions of the largest."""
    v = np.asarray(grid.sample(f))
    second = [np.diff(v, 2, axis=i).max() / h**2 for i, h in enumerate(grid.spacing)]
    return float(np.maximum(second, 0).sum())


def _local_entropy(
    grid: Grid, wide: Grid, f: Function, t: float, beta: float, apart: float = 1.0
) -> Relaxed:
    """Cole-Hopf; in 2-D by the trapezoidal sum of one finer grid for all points, if it can be.

    With nodes `apart` sigma from each other, sigma the width of the narrowest Gaussian, the
    integral has an error of 2 exp(-2 pi^2/apart^2): 5e-9 for 1, and 1.4 % for 2, which is 0.014 T
    in the value and still shows in no film, but would in second differences.
    """
    sigma = 1 / math.sqrt(beta * (_curvature(grid, f) + 1 / t))
    finer = 2 ** max(0, math.ceil(math.log2(max(wide.spacing) / (1.001 * apart * sigma))))
    nodes = tuple(finer * (n - 1) + 1 for n in wide.shape)
    if grid.ndim == 1 or math.prod(nodes) * math.prod(grid.shape) > _MOST_TERMS:
        return cole_hopf(wide, f, t, beta, grid.points)
    return cole_hopf(Grid(wide.lower, wide.upper, nodes), f, t, beta, grid.points, max_halvings=0)
