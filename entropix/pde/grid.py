"""Uniform grids in one and two dimensions: nodes, sampling, interpolation, differences."""

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import ndimage
from jax.typing import ArrayLike

from entropix.pde.checks import check_float64, function_of, real

Function = Callable[[jax.Array], jax.Array]


class Relaxed(NamedTuple):
    """A relaxed loss at some points.

    Attributes:
      value: u(x, t). shape=(...,).
      gradient: of u in x. shape=(..., *point_shape).
    """

    value: jax.Array
    gradient: jax.Array


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Grid:
    """A uniform grid on a box of one or two dimensions, both ends included.

    A *point* is a number in 1-D and an array of shape (2,) in 2-D, in every function of
    `entropix.pde`: so f takes a number in 1-D, `jax.grad(f)` is shaped like the point, and 1-D
    code needs no `[..., 0]`. What belongs to the grid alone (`axes`, `points`, `spacing`) is
    NumPy, hence static inside `jax.jit`; values are JAX arrays. Grids are hashable, and may be
    arguments of compiled functions.

    A function f is compiled when a solver first sees it, as by `jax.jit`: a number that f reads
    from outside counts as it was then. Where it has changed, hand over a new function.

    Attributes:
      lower, upper: corners of the box; tuples of one float per dimension, or a number in 1-D.
      shape: nodes along each dimension, three at least; a tuple, or an integer in 1-D.

    Raises:
      ValueError: for anything else.

    Example:
      >>> import entropix, jax
      >>> grid = entropix.pde.Grid(lower=-1.0, upper=1.0, shape=5)
      >>> with jax.enable_x64(True):
      ...     values = grid.sample(lambda x: x**2)
      ...     slope = grid.gradient(values)
      >>> values.tolist()
      [1.0, 0.25, 0.0, 0.25, 1.0]
      >>> slope.tolist()  # the differences are exact for quadratics, at the ends too
      [-2.0, -1.0, 0.0, 1.0, 2.0]
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    shape: tuple[int, ...]

    if TYPE_CHECKING:  # what is accepted, and made the tuples above

        def __init__(
            self,
            lower: float | Sequence[float],
            upper: float | Sequence[float],
            shape: int | Sequence[int],
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, kind in (("lower", float), ("upper", float), ("shape", operator.index)):
            value = getattr(self, name)
            try:
                value = tuple(kind(v) for v in np.atleast_1d(np.asarray(value)))
            except (TypeError, ValueError):
                raise ValueError(
                    f"{name} must be one number per dimension, in a tuple; got {value!r}"
                ) from None
            object.__setattr__(self, name, value)
        if not len(self.lower) == len(self.upper) == len(self.shape) or self.ndim not in (1, 2):
            raise ValueError(
                "lower, upper and shape must have one entry per dimension, for 1 or 2 dimensions; "
                f"got {self.lower}, {self.upper} and {self.shape}"
            )
        if not all(
            math.isfinite(a) and math.isfinite(b) and a < b
            for a, b in zip(self.lower, self.upper, strict=True)
        ):
            raise ValueError(
                "lower must be below upper in every dimension, and both finite; "
                f"got {self.lower} and {self.upper}"
            )
        if min(self.shape) < 3:
            raise ValueError(f"shape must be 3 or more in every dimension; got {self.shape}")

    @property
    def ndim(self) -> int:
        """Dimensions: 1 or 2."""
        return len(self.shape)

    @property
    def point_shape(self) -> tuple[int, ...]:
        """Shape of a point: () in 1-D, (2,) in 2-D."""
        return () if self.ndim == 1 else (self.ndim,)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbours, along each dimension."""
        return tuple(
            (b - a) / (n - 1) for a, b, n in zip(self.lower, self.upper, self.shape, strict=True)
        )

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """Coordinates of the nodes along each dimension, float64, ends exact."""
        return tuple(
            np.linspace(a, b, n) for a, b, n in zip(self.lower, self.upper, self.shape, strict=True)
        )

    @property
    def points(self) -> np.ndarray:
        """All nodes, float64: shape (n,) in 1-D, (n, m, 2) in 2-D, indexed [first, second]."""
        if self.ndim == 1:
            return self.axes[0]
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1)

    def sample(self, f: Function | ArrayLike) -> jax.Array:
        """Values of f at the nodes.

        Args:
          f: a JAX function of one point, with one number as its value; or values already, of the
            grid's shape, which are only checked.

        Returns:
          Array of the grid's shape, float64.

        Raises:
          ValueError: for complex values, or of another shape, and without float64.
        """
        check_float64()
        if callable(f):
            points = jnp.asarray(self.points).reshape(-1, *self.point_shape)
            values = jax.vmap(function_of("f", f))(points)
            self.check_value(values)
            return values.reshape(self.shape)
        try:
            values = real("values", jnp.asarray(f))
        except TypeError:
            raise ValueError(
                f"f must be a JAX function, or numbers at the nodes; got {f!r:.100}"
            ) from None
        if values.shape != self.shape:
            raise ValueError(
                f"values must have the grid's shape {self.shape}; got shape {values.shape}"
            )
        return values

    def check_value(self, values: Any) -> None:
        """Raises a ValueError unless values at many points are one number each."""
        if not isinstance(values, jax.Array):
            raise ValueError(f"f must return one number; got {type(values).__name__}")
        if values.shape[1:] != ():
            raise ValueError(
                f"f must map a point of shape {self.point_shape} to one number; its value has "
                f"shape {values.shape[1:]}"
            )

    def rows(self, points: ArrayLike | None) -> jax.Array:
        """The points, or all nodes, as rows of shape (count, ndim), for loops over points.

        Args:
          points: shape (..., *point_shape); None for the nodes.
        """
        check_float64()
        points = jnp.asarray(self.points if points is None else points, jnp.float64)
        if self.ndim > 1 and points.shape[-1:] != self.point_shape:
            raise ValueError(f"points must have shape (..., {self.ndim}); got {points.shape}")
        return points.reshape(-1, self.ndim)

    def relaxed(self, value: jax.Array, gradient: jax.Array, points: ArrayLike | None) -> Relaxed:
        """Gives results for `rows(points)` the shape of the points."""
        shape = np.shape(self.points if points is None else points)
        return Relaxed(
            value.reshape(shape[: len(shape) - (self.ndim > 1)]), gradient.reshape(shape)
        )

    def interpolate(self, values: ArrayLike, points: ArrayLike) -> jax.Array:
        """Linear (in 2-D: bilinear) interpolation; outside, the value at the nearest edge.

        Args:
          values: shape (*grid.shape, *rest): one number a node, or a gradient, ...
          points: shape (..., *point_shape).

        Returns:
          Array of shape (..., *rest).
        """
        values, points = jnp.asarray(values, float), jnp.asarray(points)
        if values.shape[: self.ndim] != self.shape:
            raise ValueError(
                f"values must have a shape beginning with {self.shape}; got {values.shape}"
            )
        if self.ndim == 1:
            points = points[..., None]
        elif points.shape[-1:] != self.point_shape:
            raise ValueError(f"points must have shape (..., {self.ndim}); got {points.shape}")
        n = self.shape  # one cell outside is as far as any point, and no fraction is infinite
        index = [
            jnp.clip((points[..., i] - self.lower[i]) / self.spacing[i], -1, n[i])
            for i in range(self.ndim)
        ]
        at_index = lambda v: ndimage.map_coordinates(v, index, order=1, mode="nearest")  # noqa: E731
        rest = values.shape[self.ndim :]
        flat = jax.vmap(at_index, in_axes=-1, out_axes=-1)(values.reshape(*self.shape, -1))
        return flat.reshape(*points.shape[:-1], *rest)

    def gradient(self, values: ArrayLike) -> jax.Array:
        """Second-order differences: central inside, one-sided at the ends.

        Args:
          values: shape (*grid.shape,).

        Returns:
          Array of shape (*grid.shape, *point_shape): (n,) in 1-D, (n, m, 2) in 2-D.
        """
        values = self.sample(values)
        slopes = [self.difference(values, axis) for axis in range(self.ndim)]
        return slopes[0] if self.ndim == 1 else jnp.stack(slopes, axis=-1)

    def difference(self, values: jax.Array, axis: int) -> jax.Array:
        """The derivative along one dimension, as in `gradient`."""
        v = jnp.moveaxis(values, axis, 0)
        first = -3 * v[0] + 4 * v[1] - v[2]
        last = 3 * v[-1] - 4 * v[-2] + v[-3]
        slope = jnp.concatenate([first[None], v[2:] - v[:-2], last[None]]) / (
            2 * self.spacing[axis]
        )
        return jnp.moveaxis(slope, 0, axis)
