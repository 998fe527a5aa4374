r"""Hamilton-Jacobi: the gradient of the inviscid relaxation, by gradient descent on a proximal map.

The relaxed loss is the Moreau envelope of f (Hopf-Lax, Lemma 2 of Deep Relaxation),

.. math:: u(x, \gamma) = \min_y \{ f(y) + |x-y|^2/(2\gamma) \},

with the minimiser p = prox_{gamma f}(x) and the gradient (x - p)/gamma = grad f(p).
"""

from typing import Any, NamedTuple

import jax
import optax
from optax import ScalarOrSchedule

from entropix.transforms import checks
from entropix.transforms.keys import folded
from entropix.transforms.local_entropy import local_entropy
from entropix.transforms.numerics import (
    at,
    cast_like,
    copy_tree,
    factor,
    scalar,
    where_changed,
    wide,
    wide_zeros,
)
from entropix.transforms.probe import refuse_complete
from entropix.transforms.relaxation import (
    Pull,
    Relaxation,
    RelaxationState,
    check_state,
    init_state,
    next_state,
)
from entropix.transforms.stability import refuse_unstable


def hamilton_jacobi(
    gamma: ScalarOrSchedule,
    *,
    num_steps: int = 5,
    step_size: ScalarOrSchedule = 0.1,
    inner: optax.GradientTransformation | None = None,
    form: str = "proximal",
    output: str = "gradient",
) -> Relaxation:
    r"""The HJ relaxation: L gradients towards the proximal point, without noise or averaging.

    .. math:: y \leftarrow y - \eta_y [\nabla f_{mb}(y) + (y-x)/\gamma],\quad
        \nabla u \approx (x - y)/\gamma \qquad \text{form="proximal", y starts at x}
    .. math:: y \leftarrow y - \eta_y [y/\gamma - \nabla f_{mb}(x-y)],\quad
        \nabla u \approx \nabla f_{mb}(x-y) \qquad \text{form="gradient", y starts at 0}

    Both forms have the same limit, (x - p)/gamma = grad f(p). The gradient form ((34), HJ-2)
    spends L - 1 gradients on y and returns the L-th.

    Args:
      gamma: scope, in (0, inf]; a float or a schedule of the outer step. f + |x - .|^2/(2 gamma)
        has a single minimiser for gamma < -1/min eig D^2 f (Remark 6). The proximal form has the
        rounding of the weights over gamma, in float32 about 1.2e-7 |x|/gamma.
      num_steps: L >= 1, gradients per outer step.
      step_size: eta_y > 0; a float or a schedule of the outer step.
      inner: any Optax transformation without its learning rate; see `entropix.local_entropy`.
      form: "proximal" (33) or "gradient" (34).
      output: "gradient", or "displacement", which is gamma times it: x - y, or gamma grad f(x-y).

    Returns:
      A deterministic `Relaxation`: its state has no key.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> f = lambda x: jnp.sum(3 * x**2) / 2
      >>> hj = entropix.hamilton_jacobi(gamma=1.0, num_steps=100)
      >>> x = jnp.asarray([4.0, 0.0])
      >>> slope, _ = entropix.relaxed_grad(hj, lambda p, i: jax.grad(f)(p))(x, hj.init(x))
      >>> [round(float(s), 3) for s in slope]    # c x / (1 + c gamma) with c = 3
      [3.0, 0.0]

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, (33)-(34).
    """
    checks.check_choice("form", form, ("proximal", "gradient"))
    if form == "gradient":
        return _gradient_form(gamma, num_steps, step_size, inner, output)
    # (33) is Entropy-SGD's chain at T = 0 with <y> = y: the same code, with nothing extra stored.
    return local_entropy(
        gamma,
        num_steps=num_steps,
        step_size=step_size,
        inner=inner,
        averaging=0,
        temperature=0,
        output=output,
    )


class DisplacementInner(NamedTuple):
    """The fast variables of the gradient form; trees have the parameters' shapes.

    Attributes:
      params: x, in the parameters' dtypes.
      outer: state at the beginning of the outer step.
      y: the displacement, so that gradients are wanted at x - y; in float32 or wider.
      grads: the last gradient seen, in the parameters' dtypes.
      inner_state: state of the inner Optax transformation.
    """

    params: Any
    outer: RelaxationState
    y: Any
    grads: Any
    inner_state: Any


def displacement_step(y: jax.Array, direction: jax.Array, gamma: Any, step_size: Any) -> jax.Array:
    r"""One step y - eta_y [y/gamma - d] of (34) for one array, in float32 or wider."""
    y, direction = wide(y), wide(direction)
    pull = factor(1 / scalar(gamma, y), y)
    return y - factor(step_size, y) * (y * pull - direction)


def _gradient_form(
    gamma: ScalarOrSchedule,
    num_steps: int,
    step_size: ScalarOrSchedule,
    inner: optax.GradientTransformation | None,
    output: str,
) -> Relaxation:
    num_steps = checks.check_count("num_steps", num_steps)
    step_size = checks.check_positive("step_size", step_size)
    gamma = checks.check_scope(gamma, output, infinite_output="gradient")
    refuse_unstable(gamma, step_size, num_steps)
    if inner is not None:
        refuse_complete(inner)
    inner_tx = optax.with_extra_args_support(optax.identity() if inner is None else inner)

    def init(params: Any) -> RelaxationState:
        del params
        return init_state(key=None)

    def begin(params: Any, state: RelaxationState) -> DisplacementInner:
        state = check_state(state)
        return DisplacementInner(
            params=copy_tree(params),
            outer=state,
            y=wide_zeros(params),
            grads=optax.tree.zeros_like(params),
            inner_state=folded(inner_tx.init(params), state.outer_count),
        )

    def point(chain: DisplacementInner) -> Any:
        shifted = jax.tree.map(lambda x, y: wide(x) - y, chain.params, chain.y)
        return cast_like(shifted, chain.params)

    def step(grads: Any, chain: DisplacementInner, /, **extra_args: Any) -> DisplacementInner:
        # The L-th gradient moves y too, to no effect: one axpy is cheaper than a special case.
        values = at(gamma, chain.outer.outer_count), at(step_size, chain.outer.outer_count)
        grads = cast_like(grads, chain.params)
        direction, inner_state = inner_tx.update(
            grads, chain.inner_state, point(chain), **extra_args
        )
        direction = cast_like(direction, chain.y)
        y = jax.tree.map(lambda y, d: displacement_step(y, d, *values), chain.y, direction)
        return chain._replace(y=y, grads=grads, inner_state=inner_state)

    def finish(chain: DisplacementInner, state: RelaxationState) -> tuple[Any, RelaxationState]:
        scope = 1.0 if output == "gradient" else at(gamma, state.outer_count)
        relaxed = jax.tree.map(
            lambda g: (factor(scope, wide(g)) * wide(g)).astype(g.dtype), chain.grads
        )
        return relaxed, next_state(state)

    def restart(chain: DisplacementInner, params: Any, moved: Any) -> DisplacementInner:
        return chain._replace(
            params=where_changed(moved, params, chain.params),
            y=where_changed(moved, wide_zeros(params), chain.y),
        )

    pull = Pull(gamma, step_size)
    return Relaxation(init, begin, point, step, finish, num_steps, restart=restart, pull=pull)
