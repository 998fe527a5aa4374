r"""Sharpness: the gradient at the top of a small ball, for sharpness-aware minimisation.

The relaxed loss is the supremum of f over a ball (Foret et al.),

.. math:: f_\rho(x) = \max_{|\epsilon| \le \rho} f(x + \epsilon),

where Hamilton-Jacobi has an infimum: it solves :math:`u_t = +|\nabla u|`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import ScalarOrSchedule

from entropix.transforms import checks
from entropix.transforms.numerics import (
    at,
    cast_like,
    copy_tree,
    factor,
    norm_squared,
    scalar,
    where_changed,
    wide,
    wide_copy,
)
from entropix.transforms.relaxation import (
    Relaxation,
    RelaxationState,
    check_state,
    init_state,
    next_state,
)


class SharpnessInner(NamedTuple):
    """The fast variables of one outer step; trees have the parameters' shapes.

    Attributes:
      params: x, in the parameters' dtypes.
      outer: state at the beginning of the outer step.
      y: the climbing point, in float32 or wider.
      grads: the last gradient seen, in the parameters' dtypes.
    """

    params: Any
    outer: RelaxationState
    y: Any
    grads: Any


def sharpness(rho: ScalarOrSchedule, *, num_ascents: int = 1, adaptive: bool = False) -> Relaxation:
    r"""SAM's relaxation: the gradient where one or more steps of ascent of length rho lead.

    .. math:: y \leftarrow y + \rho\, g/|g|,\quad g = \nabla f_{mb}(y),\qquad
      \nabla f_\rho(x) \approx \nabla f_{mb}(y) \qquad \text{y starts at x}

    and with `adaptive=True` (ASAM) :math:`y \leftarrow y + \rho\, w^2 g/|w g|`, w being x. The norm
    is that of the whole tree. All L = num_ascents + 1 gradients of an outer step are of *one*
    mini-batch: `entropix.relax` passes i = 0 to all of them, and a loop around `entropix.stepwise`
    has to repeat its batch L times. Take batch-norm statistics from the first gradient alone, which
    is the one at x.

    Args:
      rho: length of one step of ascent, >= 0; a float or a schedule of the outer step. Customary:
        0.05 (0.5 to 2 with `adaptive`). In bfloat16 a step moves the point only where it exceeds
        half an ulp of the weights: rho/sqrt(N) of N weights of size 1 has to exceed 0.004.
      num_ascents: m >= 1.
      adaptive: whether steps scale with the weights, so that rescaled layers count alike.

    Returns:
      A deterministic `Relaxation` with L = num_ascents + 1. A gradient without a direction moves no
      point: zero, or one whose squares leave float32's range (a norm below 1e-19 or above 1e19).

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> f = lambda x: x**2
      >>> sam = entropix.sharpness(rho=0.5)
      >>> slope = entropix.relaxed_grad(sam, lambda x, i: jax.grad(f)(x))
      >>> float(slope(jnp.asarray(1.0), sam.init(1.0))[0])    # f'(1 + 0.5)
      3.0

    References:
      Foret et al, `Sharpness-aware minimization <https://arxiv.org/abs/2010.01412>`_, 2021;
      Kwon et al, `ASAM <https://arxiv.org/abs/2102.11600>`_, 2021.
    """
    rho = checks.check_non_negative("rho", rho)
    num_ascents = checks.check_count("num_ascents", num_ascents)
    adaptive = checks.check_flag("adaptive", adaptive)

    def init(params: Any) -> RelaxationState:
        del params
        return init_state(key=None)

    def begin(params: Any, state: RelaxationState) -> SharpnessInner:
        return SharpnessInner(
            params=copy_tree(params),
            outer=check_state(state),
            y=wide_copy(params),
            grads=optax.tree.zeros_like(params),
        )

    def point(ascent: SharpnessInner) -> Any:
        return cast_like(ascent.y, ascent.params)

    def step(grads: Any, ascent: SharpnessInner, /, **extra_args: Any) -> SharpnessInner:
        # The last gradient moves y too, to no effect: the compiler removes that where it sees it.
        del extra_args
        length = at(rho, ascent.outer.outer_count)
        return ascent._replace(
            y=_climb(ascent.y, ascent.params, grads, length, adaptive),
            grads=cast_like(grads, ascent.params),
        )

    def finish(ascent: SharpnessInner, state: RelaxationState) -> tuple[Any, RelaxationState]:
        return ascent.grads, next_state(state)

    def restart(ascent: SharpnessInner, params: Any, moved: Any) -> SharpnessInner:
        return ascent._replace(
            params=where_changed(moved, params, ascent.params),
            y=where_changed(moved, jax.tree.map(wide, params), ascent.y),
        )

    return Relaxation(
        init, begin, point, step, finish, num_ascents + 1,
        restart=restart, point_is_y=True, one_batch=True,
    )  # fmt: skip


def _climb(y: Any, params: Any, grads: Any, rho: Any, adaptive: bool) -> Any:
    """One step of ascent of length rho, in the norm of the whole tree."""

    def scaled(g: jax.Array, x: jax.Array) -> jax.Array:
        g = g.astype(wide(x).dtype)
        return g * factor(jnp.abs(wide(x)), g) if adaptive else g

    slopes = jax.tree.map(scaled, grads, params)
    square = norm_squared(slopes)
    # A zero gradient has no direction: the point stays. The root of 0 has no derivative either.
    norm = jnp.sqrt(jnp.where(square > 0, square, 1))
    stretch = jnp.where(square > 0, scalar(rho, norm) / norm, 0)

    def climbed(y: jax.Array, s: jax.Array, x: jax.Array) -> jax.Array:
        direction = s * factor(jnp.abs(wide(x)), s) if adaptive else s
        return y + factor(stretch, y) * direction

    return jax.tree.map(climbed, y, slopes, params)
