"""Viscous Hamilton-Jacobi, u_t = -|grad u|^2/2 + (1/2 beta) Laplacian u, by Cole-Hopf."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from entropix.pde.checks import check_count, check_finite, check_positive, function_of
from entropix.pde.grid import Function, Grid, Relaxed
from entropix.pde.inviscid import inviscid_hj
from entropix.pde.quadrature import gibbs_sums
from entropix.pde.resolution import NEGLIGIBLE, Scales

_KEPT = {1: 512, 2: 2048}  # cells that are kept when all are halved, by dimension
_MORE = 4  # times as many are kept for points where those left out some of the mass
_MOST = 2**17
_LARGEST_BETA = 1e12


class MassSpreadError(ValueError):
    """The mass lies on more cells than can be kept."""


def cole_hopf(
    grid: Grid,
    f: Function | ArrayLike,
    t: float,
    beta: float,
    points: ArrayLike | None = None,
    *,
    max_halvings: int | None = None,
) -> Relaxed:
    r"""Local entropy (11) and its gradient (Lemma 1), by quadrature in log space.

    .. math:: u(x, t) = -\tfrac1\beta \log \int_{box} (2\pi t/\beta)^{-N/2}
        e^{-\beta [f(y) + |x-y|^2/(2t)]} dy, \qquad \nabla u = (x - \langle y \rangle)/t

    The integral is a sum over cells, first the grid's, which are halved until they resolve every
    well and, on a line, every layer at a wall that has mass (`entropix.pde.quadrature`). The error
    for smooth f is that of rounding. beta = 1e6 costs about ten halvings, and no accuracy. No
    cell is halved for a kink: where f is least at one, as |x| is at 0, the value is off by up to
    the slope times a cell's width; with nodes 0.05 apart by 2/beta at beta = 1e4, 21/beta at 1e6.

    Args:
      grid: its box is the domain of integration: wide enough that exp(-beta ...) has decayed at
        its ends; otherwise they are walls, with an error of up to 0.02/beta in the value (in two
        dimensions, where f falls towards a wall, of up to half its slope times a cell's width).
        Its nodes must resolve f, so that no well is missed.
      f: a function, taken inside the box alone; or values, which are interpolated linearly between
        nodes. It may be +infinity, as at a wall; where it is so at nodes, no mass is beside them.
      t: time (gamma of the optimisers), > 0.
      beta: inverse temperature 1/T, in (0, 1e12]; `hopf_lax` is the limit of large beta.
      points: where u is wanted. shape (..., *point_shape); the nodes by default.
      max_halvings: static, how often a cell may be halved; as often as it takes by default. 0, for
        nodes that resolve the wells as they are, is faster and allows reverse-mode derivatives. A
        cell is never halved more than 60 times.

    Returns:
      Value and gradient, shapes (...,) and (..., *point_shape). The Gibbs mean is x - t gradient.

    Raises:
      ValueError: for an argument outside its range; for an f that is not a number, or -infinity,
        at a node; for mass spread over more cells than can be kept (both go unseen inside
        `jax.jit`); and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-9.0, 9.0, 201)
      >>> with jax.enable_x64(True):  # curvature 1 becomes 1/(1 + t), whatever beta (Example 13)
      ...     u = entropix.pde.cole_hopf(grid, lambda x: x**2 / 2, t=1.0, beta=1e6, points=[3.0])
      >>> u.gradient.round(9).tolist()
      [1.5]
    """
    check_positive(t=t)
    check_beta(beta)
    if max_halvings is not None:
        check_count(least=0, max_halvings=max_halvings)
    values, rows = grid.sample(f), grid.rows(points)
    check_finite("f", values, grid.points, besides=math.inf)
    function, kept = function_of("f", f) if callable(f) else None, _KEPT[grid.ndim]
    scales = Scales(jnp.asarray(t, jnp.float64), jnp.asarray(beta, jnp.float64))
    solve = functools.partial(gibbs_sums, grid, function, max_halvings)
    sums = solve(kept, values, rows, scales)
    while not isinstance(sums.margin, jax.core.Tracer) and jnp.any(sums.margin < NEGLIGIBLE):
        kept *= _MORE
        if kept > _MOST:
            raise MassSpreadError(
                f"with beta={float(beta):g} the mass is spread over more than {_MOST} cells that "
                "resolve it; take a smaller box or a larger beta"
            )
        again = np.flatnonzero(sums.margin < NEGLIGIBLE)
        padded = np.resize(again, 2 ** (len(again) - 1).bit_length())  # few sizes, few programs
        better = solve(kept, values, rows[padded], scales)
        sums = jax.tree.map(lambda a, b: a.at[again].set(b[: len(again)]), sums, better)  # noqa: B023
    return grid.relaxed(sums.value, sums.gradient, points)


def check_beta(beta: float) -> None:
    """Raises a ValueError unless beta is a number in (0, 1e12]; a traced one passes."""
    check_positive(beta=beta)
    if not isinstance(beta, jax.core.Tracer) and beta > _LARGEST_BETA:
        raise ValueError(
            f"beta must be at most {_LARGEST_BETA:g}, where floats still resolve differences of "
            f"1/beta; got beta={beta!r}. Hamilton-Jacobi (hopf_lax) is the limit of large beta."
        )


def viscous_hj(
    grid: Grid, f: Function | ArrayLike, t: float, beta: float, *, num_steps: int | None = None
) -> jax.Array:
    r"""Solves viscous Hamilton-Jacobi by the monotone scheme of `inviscid_hj`.

    .. math:: u_t = -\tfrac12 |\nabla u|^2 + \tfrac1{2\beta} \Delta u, \qquad u(\cdot, 0) = f

    First order, with walls that reflect: a check of `cole_hopf` that shares nothing with it.

    Args:
      grid: as of `inviscid_hj`.
      f: as of `inviscid_hj`.
      t: as of `inviscid_hj`.
      beta: inverse temperature, > 0 and finite.
      num_steps: as of `inviscid_hj`.

    Returns:
      u(., t) at the nodes.

    Raises:
      ValueError: for an argument outside its range, too few steps, and without float64.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(-6.0, 6.0, 241)
      >>> with jax.enable_x64(True):  # curvature 1 becomes 1/(1 + t), whatever beta (Example 13)
      ...     u = entropix.pde.viscous_hj(grid, lambda x: x**2 / 2, t=1.0, beta=10.0)
      >>> round(float(u[160] - u[120]), 1)  # u(2) - u(0)
      1.0

    References:
      Oberman, `Convergent difference schemes for degenerate elliptic and parabolic equations
      <https://doi.org/10.1137/S0036142903435235>`_, 2006.
    """
    check_positive(beta=beta)
    return inviscid_hj(grid, f, t, beta=beta, num_steps=num_steps)
