"""Hamilton-Jacobi, u_t = -|grad u|^2/2, by Hopf-Lax: the lower envelope of parabolas (Lemma 2)."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.checks import check_finite, check_positive
from entropix.pde.grid import Function, Grid

_HIGHEST = 1e200  # in the place of +infinity


class Proximal(NamedTuple):
    """Hopf-Lax at the nodes.

    Attributes:
      value: u(x, t). shape=grid.shape.
      gradient: (x - prox)/t. shape=grid.points.shape.
      prox: the minimising node. shape=grid.points.shape.
    """

    value: jax.Array
    gradient: jax.Array
    prox: jax.Array


def hopf_lax(grid: Grid, f: Function | ArrayLike, t: float) -> Proximal:
    r"""Solves Hamilton-Jacobi by the Hopf-Lax formula, exactly for the grid's nodes, in O(nodes).

    .. math:: u(x, t) = \min_y f(y) + \frac{|x - y|^2}{2t}, \qquad
        \nabla u = \frac{x - p}{t}, \; p = \mathrm{prox}_{tf}(x)

    A sweep along a line keeps the parabolas f(y) + (x - y)^2/(2t) that are lowest somewhere; in
    2-D the sweeps along one dimension, then the other, give the minimum over the plane. The
    minimum runs over nodes only: u's error is O(h^2) and the gradient's O(h/t), and the time is
    linear in the number of nodes, so take many.

    Args:
      grid: the nodes, both of x and of y.
      f: a function to be sampled, or values of the grid's shape; +infinity
        where y is not allowed to be.
      t: time, > 0.

    Returns:
      Value, gradient and proximal point; of several minimisers one. Derivatives by t and f are
      those for a fixed minimiser, which is right for the value (the envelope theorem).

    Raises:
      ValueError: for an argument outside its range, and without float64.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> grid = entropix.pde.Grid(-2.0, 2.0, 5)
      >>> with jax.enable_x64(True):
      ...     u = entropix.pde.hopf_lax(grid, jnp.abs, t=1.0)
      >>> u.value.tolist(), u.prox.tolist()  # Huber's function; soft thresholding
      ([1.5, 0.5, 0.0, 0.5, 1.5], [-1.0, 0.0, 0.0, 0.0, 1.0])

    References:
      Felzenszwalb and Huttenlocher, `Distance transforms of sampled functions
      <https://doi.org/10.4086/toc.2012.v008a019>`_, 2012.
    """
    check_positive(t=t)
    values = grid.sample(f)
    check_finite("f", values, grid.points, besides=math.inf)
    return _by_dimension(grid, values, jnp.asarray(t, jnp.float64))


@functools.partial(jax.jit, static_argnums=0)
def _by_dimension(grid: Grid, u: jax.Array, t: jax.Array) -> Proximal:
    prox: list[jax.Array] = []
    for axis, (coordinates, h) in enumerate(zip(grid.axes, grid.spacing, strict=True)):
        lines = jnp.moveaxis(u, axis, -1)
        sweep = functools.partial(_lower_envelope, curvature=h**2 / t)
        if grid.ndim == 1:
            value, index = sweep(lines)
        else:
            value, index = lax.map(sweep, lines)  # not vmap, which would copy the stacks each turn
        u, index = jnp.moveaxis(value, -1, axis), jnp.moveaxis(index, -1, axis)
        # Earlier dimensions' minimisers are those of the line that this sweep chose.
        prox = [jnp.take_along_axis(p, index, axis) for p in prox]
        prox.append(jnp.asarray(coordinates)[index])
    p = prox[0] if grid.ndim == 1 else jnp.stack(prox, axis=-1)
    return Proximal(u, (jnp.asarray(grid.points) - p) / t, p)


def _lower_envelope(f: jax.Array, curvature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """min_j f_j + curvature (i - j)^2/2 for every i, and the minimising j, in linear time.

    `stack` has a row (j, where parabola j becomes the lowest) for each parabola of the envelope
    so far, from left to right. A parabola is pushed once and popped at most once. A turn of the
    loop writes one row, then reads the top: in that order XLA updates the stack in place.
    """
    n = len(f)
    position = jnp.arange(n, dtype=float)
    # Finite, since two infinite parabolas would cross nowhere. The loop finds the minimisers, which
    # are fixed for derivatives.
    height = lax.stop_gradient(jnp.minimum(f, _HIGHEST) / curvature + position**2 / 2)

    def turn(state: tuple) -> tuple:
        stack, top, (last, start), j = state
        crossing = (height[j] - height[last.astype(int)]) / (j.astype(float) - last)
        pop = crossing <= start  # never of the first, which starts at -infinity
        place = jnp.where(pop, n, top + 1)  # row n is scratch
        stack = lax.dynamic_update_index_in_dim(
            stack, jnp.stack([j.astype(float), crossing]), place, 0
        )
        top = jnp.where(pop, top - 1, top + 1)
        return (
            stack,
            top,
            lax.dynamic_index_in_dim(stack, top, 0, keepdims=False),
            jnp.where(pop, j, j + 1),
        )

    first = jnp.asarray([0.0, -jnp.inf])
    stack = jnp.zeros((n + 1, 2)).at[0].set(first)
    state = stack, jnp.asarray(0), first, jnp.asarray(1)
    stack, top, *_ = lax.while_loop(lambda state: state[-1] < n, turn, state)
    start = jnp.where(position <= top, stack[:n, 1], jnp.inf)
    lowest = stack[jnp.searchsorted(start, position, side="right") - 1, 0]
    index = lowest.astype(int)
    return f[index] + curvature * (position - lowest) ** 2 / 2, index
