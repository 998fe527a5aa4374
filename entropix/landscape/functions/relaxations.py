"""What relaxation does to a landscape: the data of `entropix figure1`.

Relaxations of one function at several times, where each is convex, and a descent while gamma goes
to 0 (scoping, §7.5), as NumPy arrays that can be saved.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.landscape.functions.equations import (
    EQUATIONS,
    SOLVERS,
    corners,
    curvature_bound,
    local_entropy,
    surroundings,
)
from entropix.pde.checks import check_count, check_positive
from entropix.pde.grid import Function, Grid
from entropix.pde.regularity import difference_rounding, second_differences
from entropix.pde.viscous import check_beta

_STEPS = 4  # of the descent, per frame
_MOST_STEPS = 1_000_000  # of steepest descent on f, per frame


class Relaxations(NamedTuple):
    """A function and its relaxations; `shape` is that of the nodes, (n,) or (n, m).

    Attributes:
      points: the nodes, shape (*shape, *point_shape).
      f: values at the nodes.
      values: shape (equations, times, *shape).
      convex: whether each is convex around a node; shape as `values`.
      f_convex: the same for f.
      times: those of the PDEs.
      beta: inverse temperature.
      equations: names of the relaxations.
    """

    points: np.ndarray
    f: np.ndarray
    values: np.ndarray
    convex: np.ndarray
    f_convex: np.ndarray
    times: np.ndarray
    beta: float
    equations: tuple[str, ...] = EQUATIONS


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


def relaxations(
    grid: Grid,
    f: Function,
    times: Sequence[float],
    beta: float,
    equations: Sequence[str] = EQUATIONS,
) -> Relaxations:
    """Solves viscous Hamilton-Jacobi, Hamilton-Jacobi, heat and others for f at several times.

    Beyond the grid's box f goes on as far as half a box to every side, if it is finite there;
    otherwise the box has walls: no minimiser lies outside, and no heat leaves.

    Args:
      grid: the nodes.
      f: a JAX function of a point (see `Grid`), finite in the box.
      times: t > 0 of the solutions.
      beta: inverse temperature of viscous Hamilton-Jacobi and heat, in (0, 1e12].
      equations: "viscous_hj", "hj", "heat"; "sharpness", the maximum over a ball of radius t, which
        SAM descends; "live_centre", which replicas around their own mean descend (`pde.phi`).

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
    if not np.ndim(times) == 1 or not len(times):
        raise ValueError(f"times must be a list of times > 0, one at least; got times={times!r}")
    for t in times:
        check_positive(time=t)
    check_beta(beta)
    unknown = [name for name in equations if name not in SOLVERS]
    if unknown or not equations:
        raise ValueError(f"equations must be some of {', '.join(SOLVERS)}; got {list(equations)}")
    box = surroundings(grid, f)
    at_nodes = np.asarray(grid.sample(f))
    solved = [[SOLVERS[name](box, t, beta) for t in times] for name in equations]
    return Relaxations(
        points=grid.points,
        f=at_nodes,
        values=np.asarray([[u.values for u in row] for row in solved]),
        convex=np.asarray(
            [[convex_nodes(grid, u.values, uncertain=u.uncertain) for u in row] for row in solved]
        ),
        f_convex=convex_nodes(grid, at_nodes),
        times=np.asarray(times, float),
        beta=float(beta),
        equations=tuple(equations),
    )


def descend_while_scoping(
    grid: Grid,
    f: Function,
    gamma: float,
    beta: float,
    start: Sequence[float],
    num_frames: int = 60,
) -> Scoping:
    """Follows x' = -grad u(x, gamma_k) while gamma_k falls geometrically to 0.

    A frame lasts 1/C + gamma_k, with C the largest second derivative of f: by Lemma 18 one over
    the largest curvature of u(., gamma_k). Its four steps, of a quarter each, never overshoot,
    however small gamma is. Steepest descent on f, for comparison, moves for as long a time.

    Args:
      grid: the nodes; paths end at the box.
      f: a JAX function of a point, finite in the box.
      gamma: the first scope, > 0. The last is gamma/200; in 2-D, where finer quadrature is slow,
        not less than the nodes resolve.
      beta: inverse temperature, in (0, 1e12].
      start: x at the first frame, one number a dimension.
      num_frames: scopes, >= 1.

    Returns:
      `Scoping`, in NumPy.

    Raises:
      ValueError: for an argument outside its range, an f that is not finite in the box or too steep
        for a descent, and without float64.

    Example:
      >>> import jax
      >>> from entropix import landscape, pde
      >>> with jax.enable_x64(True):
      ...     data = landscape.descend_while_scoping(
      ...         pde.Grid(-2.0, 2.0, 81), lambda x: x**2 / 2, 1.0, 50.0, [1.5], num_frames=3)
      >>> data.gammas.round(3).tolist(), data.values.shape
      ([1.0, 0.071, 0.005], (3, 81))
      >>> bool(abs(data.path[-1]) < abs(data.path[0]))
      True
    """
    check_positive(gamma=gamma)
    check_beta(beta)
    check_count(num_frames=num_frames)
    box = surroundings(grid, f)
    curvature = curvature_bound(box)
    radius = 1 / max(curvature, 1e-3)
    last = gamma / 200
    if grid.ndim == 2:
        finest = 4 / (beta * max(grid.spacing) ** 2) - curvature  # spacing = 2 sigma
        last = min(gamma, max(last, 1 / finest if finest > 0 else gamma))
    gammas = np.geomspace(gamma, last, num_frames)
    slope = grid.gradient(grid.sample(f))
    at = np.asarray(start, float)
    if at.size != grid.ndim or not np.isfinite(at).all():
        raise ValueError(f"start must be {grid.ndim} finite numbers, a point; got start={start!r}")
    x = y = jnp.clip(jnp.asarray(at).reshape(grid.point_shape), *corners(grid))
    if 2 * (radius + gamma) / radius > _MOST_STEPS:
        raise ValueError(
            f"the function must not be so steep for a descent: its curvature reaches "
            f"{curvature:.3g}. Choose another interval, or frames=0."
        )
    frames, path, plain = [], [], []
    for scope in gammas:
        u = local_entropy(box, scope, beta, apart=2.0)
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
        return jnp.clip(x - step * grid.interpolate(slope, x), *corners(grid))

    return lax.fori_loop(0, count, body, x)


def convex_nodes(grid: Grid, values: np.ndarray, *, uncertain: float = 0.0) -> np.ndarray:
    r"""Marks the nodes around which values are convex, by second differences.

    .. math:: \lambda_{\min}(D_h^2 u) > \varepsilon

    with the larger of `uncertain` and the rounding error as :math:`\varepsilon`.

    Args:
      grid: the nodes. In 2-D the smaller eigenvalue of the difference Hessian decides.
      values: at the nodes.
      uncertain: second derivatives up to this count as zero, and up to 1e-6 of the largest, for
        rounding.

    Returns:
      Booleans, shaped as the values; nodes at the edge are as their neighbours.

    Example:
      >>> from entropix import landscape, pde
      >>> grid = pde.Grid(-2.0, 2.0, 9)
      >>> landscape.convex_nodes(grid, (grid.points**2 - 1) ** 2).tolist()
      [True, True, True, False, False, False, True, True, True]
    """
    second = second_differences(grid, np.asarray(values, float))
    if grid.ndim == 1:
        smallest = second[0][0]
    else:
        (xx, xy), (_, yy) = second
        smallest = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    last_place = difference_rounding(grid, np.asarray(values, float))
    rounding = max(1e-6 * np.abs(smallest).max(), last_place)
    return np.pad(smallest > max(uncertain, rounding), 1, mode="edge")


def convex_intervals(x: np.ndarray, convex: np.ndarray) -> np.ndarray:
    """The intervals of marked nodes: first and last node of each run.

    Args:
      x: coordinates of the nodes, ascending. shape=(nodes,).
      convex: which nodes are marked, as from `convex_nodes`. Booleans, shape=(nodes,).

    Returns:
      The ends of every interval. shape=(intervals, 2).

    Example:
      >>> import numpy as np
      >>> from entropix import landscape
      >>> x = np.asarray([-2.0, -1.0, 0.0, 1.0, 2.0])
      >>> landscape.convex_intervals(x, np.asarray([True, True, False, False, True])).tolist()
      [[-2.0, -1.0], [2.0, 2.0]]
    """
    edges = np.diff(np.concatenate([[False], convex, [False]]).astype(int))
    return np.stack([x[np.flatnonzero(edges == 1)], x[np.flatnonzero(edges == -1) - 1]], axis=-1)
