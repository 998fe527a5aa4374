"""Hamilton-Jacobi, u_t = -|grad u|^2/2, by Hopf-Lax: the lower envelope of parabolas (Lemma 2)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.pde.grid import Function, Grid, check_positive


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
      f: a function to be sampled, or values of the grid's shape; finite.
      t: time, > 0.

    Returns:
      Value, gradient and proximal point; of several minimisers one.

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
    return _by_dimension(grid, grid.sample(f), jnp.asarray(t, jnp.float64))


@functools.partial(jax.jit, static_argnums=0)
def _by_dimension(grid: Grid, u: jax.Array, t: jax.Array) -> Proximal:
    prox: list[jax.Array] = []
    for axis, (coordinates, h) in enumerate(zip(grid.axes, grid.spacing, strict=True)):
        lines = jnp.moveaxis(u, axis, -1)
        sweep = functools.partial(_lower_envelope, curvature=h**2 / t)
        for _ in range(u.ndim - 1):
            sweep = jax.vmap(sweep)
        value, index = sweep(lines)
        u, index = jnp.moveaxis(value, -1, axis), jnp.moveaxis(index, -1, axis)
        # Earlier dimensions' minimisers are those of the line that this sweep chose.
        prox = [jnp.take_along_axis(p, index, axis) for p in prox]
        prox.append(jnp.asarray(coordinates)[index])
    p = prox[0] if grid.ndim == 1 else jnp.stack(prox, axis=-1)
    return Proximal(u, (jnp.asarray(grid.points) - p) / t, p)


def _lower_envelope(f: jax.Array, curvature: jax.Array) -> tuple[jax.Array, jax.Array]:
    """min_j f_j + curvature (i - j)^2/2 for every i, and the minimising j, in linear time.

    `stack` holds the parabolas of the envelope so far, from left to right, and `start` where each
    becomes the lowest. A parabola is pushed once and popped at most once, so 2 n turns of one
    loop do, each a push or a pop; hence a loop of static length that `vmap` keeps in step.
    """
    n = len(f)
    height = f / curvature + jnp.arange(n) ** 2 / 2

    def turn(_: int, state: tuple) -> tuple:
        stack, start, top, j = state
        new = jnp.minimum(j, n - 1)
        last = stack[top]
        crossing = (height[new] - height[last]) / jnp.maximum(new - last, 1)
        pop = (top > 0) & (crossing <= start[top])
        push = (j < n) & ~pop
        place = jnp.minimum(top + 1, n - 1)  # a scalar in bounds is updated in place
        stack = stack.at[place].set(jnp.where(push, new, stack[place]))
        start = start.at[place].set(jnp.where(push, crossing, start[place]))
        top = jnp.where(j < n, jnp.where(pop, top - 1, top + 1), top)
        return stack, start, top, j + push

    stack = jnp.zeros(n, jnp.int64)
    start = jnp.full(n, jnp.inf).at[0].set(-jnp.inf)
    stack, start, top, _ = lax.fori_loop(1, 2 * n, turn, (stack, start, 0, 1))
    start = jnp.where(jnp.arange(n) <= top, start, jnp.inf)  # what was popped is no part of it
    index = stack[jnp.searchsorted(start, jnp.arange(n), side="right") - 1]
    return f[index] + curvature * (jnp.arange(n) - index) ** 2 / 2, index
