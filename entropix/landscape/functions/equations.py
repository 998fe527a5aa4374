"""The relaxations of `entropix figure1`: one solver for each, on the nodes of a box."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from entropix.pde.grid import Function, Grid, Relaxed
from entropix.pde.heat_equation import heat_on_grid
from entropix.pde.hopf_lax import hopf_lax
from entropix.pde.live_centre import phi
from entropix.pde.sup_convolution import ball_maximum
from entropix.pde.viscous import cole_hopf

_MOST_TERMS = 4_000_000_000  # of the sums over one grid for all points: half a minute


class Box(NamedTuple):
    """A function on a box, and where the function is looked at.

    Attributes:
      grid: the nodes at which relaxations are wanted.
      wide: a box around them, or the same box, on which the function is finite.
      inside: where the nodes of `grid` are among those of `wide`.
      f: the function, a JAX function of a point.
    """

    grid: Grid
    wide: Grid
    inside: tuple[slice, ...]
    f: Function


class Solved(NamedTuple):
    """A relaxation at the nodes.

    Attributes:
      values: shape of the nodes.
      uncertain: second differences up to this size may be errors of the solver.
    """

    values: np.ndarray
    uncertain: float = 0.0


def surroundings(grid: Grid, f: Function) -> Box:
    """The box with half as much again on every side, if f is finite there; else the box alone.

    Args:
      grid: the nodes.
      f: a JAX function of a point.

    Raises:
      ValueError: for an f that is not finite at a node.
    """
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
        inside = tuple(slice(k, k + n) for k, n in zip(extra, grid.shape, strict=True))
        return Box(grid, wide, inside, f)
    return Box(grid, grid, tuple(slice(None) for _ in grid.shape), f)


def widened(grid: Grid, f: Function) -> tuple[Grid, tuple[slice, ...]]:
    """The box with half as much again on every side, if f is finite there; else the box alone.

    Relaxations of f on the given box are solved on the wider one, whose walls are further away.

    Args:
      grid: the nodes, of one or two dimensions.
      f: a JAX function of a point.

    Returns:
      The wider grid, with the same spacing, and one slice for each dimension: the nodes of `grid`
      among those of the wider grid.

    Raises:
      ValueError: for an f that is not finite at a node of `grid`, and without float64.

    Example:
      >>> import jax
      >>> from entropix import landscape, pde
      >>> with jax.enable_x64(True):
      ...     wide, inside = landscape.widened(pde.Grid(0.0, 1.0, 5), lambda x: x**2)
      >>> wide.lower, wide.upper, wide.points[inside].tolist()
      ((-0.5,), (1.5,), [0.0, 0.25, 0.5, 0.75, 1.0])
    """
    box = surroundings(grid, f)
    return box.wide, box.inside


def viscous_hj(box: Box, t: float, beta: float) -> Solved:
    """Local entropy, whose second differences below 1e-9/t may be the walls' doing.

    So much does a wall make that is 6.6 standard deviations, of sqrt(t/beta) each, away.
    """
    return Solved(np.asarray(local_entropy(box, t, beta).value), uncertain=1e-9 / t)


def hj(box: Box, t: float, beta: float) -> Solved:
    """Hopf-Lax on k times as many nodes, whose u has an error of up to (f'' + 1/t) h^2/(8 k^2).

    That is an error of 1/(4 k^2 t) in second differences, where u is not convex (f'' < 0).
    """
    wide, k = box.wide, 16 if box.grid.ndim == 1 else 4
    fine = Grid(wide.lower, wide.upper, tuple(k * (n - 1) + 1 for n in wide.shape))
    values = np.asarray(hopf_lax(fine, box.f, t).value)[(slice(None, None, k),) * fine.ndim]
    return Solved(values[box.inside], uncertain=1 / (4 * k**2 * t))


def heat(box: Box, t: float, beta: float) -> Solved:
    """Gaussian average, with walls where the wider box ends."""
    return Solved(np.asarray(heat_on_grid(box.wide, box.f, t, beta))[box.inside])


def sharpness(box: Box, t: float, beta: float) -> Solved:
    """The maximum over a ball of radius t; beyond the wider box f is as at its edge."""
    lower, upper = corners(box.wide)
    radii, angles = (1024, 1) if box.grid.ndim == 1 else (48, 192)
    found = ball_maximum(
        box.grid, lambda x: box.f(jnp.clip(x, lower, upper)), t, num_radii=radii, num_angles=angles
    )
    # A maximum between two points of the ball is missed by curvature d^2/8, d their distance.
    apart = max(t / radii, 2 * math.pi * t / angles if box.grid.ndim == 2 else 0)
    nearest = min(box.grid.spacing)
    return Solved(np.asarray(found.value), curvature_bound(box) * (apart / nearest) ** 2 / 2)


def live_centre(box: Box, t: float, beta: float) -> Solved:
    """The function that many replicas around their own mean descend."""
    found = phi(finer(box, t, beta, apart=0.5), box.f, t, beta, box.grid.points)
    return Solved(np.asarray(found.value))


SOLVERS: dict[str, Callable[[Box, float, float], Solved]] = {
    "viscous_hj": viscous_hj,
    "hj": hj,
    "heat": heat,
    "sharpness": sharpness,
    "live_centre": live_centre,
}
"""Every relaxation by name; a solver takes a box, a time and beta."""

EQUATIONS = ("viscous_hj", "hj", "heat")
"""The three of the paper, which are drawn unless others are asked for."""


def corners(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper corner of a box, shaped like points."""
    return np.reshape(grid.lower, grid.point_shape), np.reshape(grid.upper, grid.point_shape)


def curvature_bound(box: Box) -> float:
    """A bound of the curvature of f at the nodes: the sum over dimensions of the largest."""
    v = np.asarray(box.grid.sample(box.f))
    second = [np.diff(v, 2, axis=i).max() / h**2 for i, h in enumerate(box.grid.spacing)]
    return float(np.maximum(second, 0).sum())


def finer(box: Box, t: float, beta: float, *, apart: float) -> Grid:
    """The wider box with nodes at most `apart` widths of the narrowest Gaussian apart."""
    sigma = 1 / math.sqrt(beta * (curvature_bound(box) + 1 / t))
    halvings = max(0, math.ceil(math.log2(max(box.wide.spacing) / (1.001 * apart * sigma))))
    nodes = tuple(2**halvings * (n - 1) + 1 for n in box.wide.shape)
    return Grid(box.wide.lower, box.wide.upper, nodes)


def local_entropy(box: Box, t: float, beta: float, apart: float = 1.0) -> Relaxed:
    """Cole-Hopf; in 2-D by the trapezoidal sum of one finer grid for all points, if it can be.

    With nodes `apart` sigma from each other, sigma the width of the narrowest Gaussian, the
    integral has an error of 2 exp(-2 pi^2/apart^2): 5e-9 for 1, and 1.4 % for 2. The latter is an
    error of 0.014 T in the value: not seen in a film, but seen in second differences.
    """
    points = box.grid.points
    if box.grid.ndim == 2:
        grid = finer(box, t, beta, apart=apart)
        if math.prod(grid.shape) * math.prod(box.grid.shape) <= _MOST_TERMS:
            return cole_hopf(grid, box.f, t, beta, points, max_halvings=0)
    return cole_hopf(box.wide, box.f, t, beta, points)
