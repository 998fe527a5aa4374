r"""The chain behind local entropy and outer optimisers: y walks around x, and is averaged.

Each of L inner steps takes a mini-batch gradient at y, lets an Optax transformation make a
direction of it, and moves y. The result is the displacement x - <y>, or that over gamma.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import ScalarOrSchedule

from entropix.transforms.axes import AxisName
from entropix.transforms.eval_params import remembers_parameters
from entropix.transforms.keys import folded, step_key
from entropix.transforms.numerics import (
    at,
    cast_like,
    copy_tree,
    factor,
    inexact_leaves,
    is_zero,
    root,
    rounded,
    scalar,
    where_changed,
    wide,
    wide_copy,
)
from entropix.transforms.random import noise_like
from entropix.transforms.relaxation import (
    Pull,
    Relaxation,
    RelaxationState,
    check_state,
    init_state,
    next_state,
)

Move = Callable[..., jax.Array]
"""`(y, x, direction, noise) -> y` for one array; noise is None where there is none."""


class LangevinInner(NamedTuple):
    """The fast variables of one outer step; trees have the parameters' shapes.

    Attributes:
      params: x, in the parameters' dtypes.
      outer: state at the beginning of the outer step.
      y: the inner iterate, in float32 or wider.
      average: the running mean <y>, in float32 or wider; None where it would be y itself
        (averaging = 0).
      inner_state: state of the inner Optax transformation.
      inner_count: inner steps done. shape=(), dtype=int32.
    """

    params: Any
    outer: RelaxationState
    y: Any
    average: Any
    inner_state: Any
    inner_count: jax.Array


def langevin_step(
    y: jax.Array,
    x: jax.Array,
    direction: jax.Array,
    gamma: Any,
    step_size: Any,
    temperature: Any = 0.0,
    noise: jax.Array | None = None,
) -> jax.Array:
    r"""One Euler-Maruyama step of the inner dynamics, for one array.

    .. math:: y - \eta_y [d + (y - x)/\gamma] + \sqrt{2\eta_y T}\,\varepsilon

    Args:
      y: inner iterate.
      x: centre of the neighbourhood.
      direction: d, the mini-batch gradient at y or what an inner optimiser made of it.
      gamma: scope > 0.
      step_size: eta_y > 0.
      temperature: T >= 0; not used without noise.
      noise: epsilon with unit variance, or None for the deterministic (proximal) step.

    Returns:
      The next y, in float32 or wider.
    """
    y, x, direction = wide(y), wide(x), wide(direction)
    step_size, pull = scalar(step_size, y), 1 / scalar(gamma, y)
    y = y - factor(step_size, y) * (direction + (y - x) * factor(pull, y))
    if noise is None:
        return y
    # Two roots: the product of a large and a large number overflows, their roots' does not.
    size = root(2 * step_size) * root(scalar(temperature, y))
    return y + factor(size, y) * noise


class Noise(NamedTuple):
    """Where the chain's noise comes from.

    Attributes:
      law: a name in `entropix.transforms.random.NOISE_LAWS`.
      key: key or integer seed.
      axis_name: named axis of replicas that hold the same key, or None.
    """

    law: str
    key: jax.Array | int
    axis_name: AxisName | None


def langevin(
    move: Callable[[jax.Array], Move],
    inner: optax.GradientTransformation | None,
    *,
    num_steps: int,
    averaging: float | str,
    noise: Noise | None,
    divisor: ScalarOrSchedule,
    reset_inner: bool,
    pull: Pull,
) -> Relaxation:
    """Makes the relaxation of a chain; its arguments are checked by the callers.

    Args:
      move: `outer_count -> Move`; reads schedules once for all arrays.
      inner: Optax transformation of the mini-batch gradients; None is the identity.
      num_steps: L >= 1.
      averaging: alpha in [0, 1), or "linear".
      noise: None for a deterministic chain, which compiles no noise code.
      divisor: of the displacement: gamma, or 1; a float or a schedule of the outer step.
      reset_inner: whether the state of `inner` starts anew at every outer step.
      pull: what `entropix.check` reads.

    Returns:
      A `Relaxation`.
    """
    averaged = not is_zero(averaging)
    inner_tx = optax.with_extra_args_support(optax.identity() if inner is None else inner)

    def init(params: Any) -> RelaxationState:
        memory = None if reset_inner else inner_tx.init(inexact_leaves(params))
        return init_state(None if noise is None else noise.key)._replace(inner_memory=memory)

    def begin(params: Any, state: RelaxationState) -> LangevinInner:
        state = check_state(state)
        memory = state.inner_memory
        if reset_inner:
            memory = folded(inner_tx.init(params), state.outer_count)
        return LangevinInner(
            params=copy_tree(params),
            # The memory moves to the chain, and back by `finish`.
            outer=state._replace(inner_memory=None),
            y=wide_copy(params),
            average=wide_copy(params) if averaged else None,
            inner_state=memory,
            inner_count=jnp.zeros([], jnp.int32),
        )

    def point(chain: LangevinInner) -> Any:
        return cast_like(chain.y, chain.params)

    def step(grads: Any, chain: LangevinInner, /, **extra_args: Any) -> LangevinInner:
        follows = remembers_parameters(chain.inner_state)
        if follows:
            chain = chain._replace(y=_as_emitted(chain.y, chain.params))
        if inner is not None:  # gradients of another dtype would change that of its state
            grads = cast_like(grads, chain.params)
        direction, inner_state = inner_tx.update(
            grads, chain.inner_state, point(chain), **extra_args
        )
        direction = cast_like(direction, chain.y)
        y = _walked(move(chain.outer.outer_count), noise, chain, direction)
        if follows:
            y = _as_emitted(y, chain.params)
        return chain._replace(
            y=y,
            average=_average(averaging, chain, y) if averaged else None,
            inner_state=inner_state,
            inner_count=optax.safe_increment(chain.inner_count),
        )

    def finish(chain: LangevinInner, state: RelaxationState) -> tuple[Any, RelaxationState]:
        mean, scope = chain.average if averaged else chain.y, at(divisor, state.outer_count)
        relaxed = jax.tree.map(
            lambda x, m: ((wide(x) - m) / factor(scope, m)).astype(x.dtype), chain.params, mean
        )
        memory = None if reset_inner else chain.inner_state
        return relaxed, next_state(state)._replace(inner_memory=memory)

    def restart(chain: LangevinInner, params: Any, moved: Any) -> LangevinInner:
        start = jax.tree.map(wide, params)
        return chain._replace(
            params=where_changed(moved, params, chain.params),
            y=where_changed(moved, start, chain.y),
            average=where_changed(moved, start, chain.average) if averaged else None,
        )

    return Relaxation(
        init,
        begin,
        point,
        step,
        finish,
        num_steps,
        restart=restart,
        point_is_y=True,
        pull=pull,
    )


def _walked(move: Move, noise: Noise | None, chain: LangevinInner, direction: Any) -> Any:
    """The next y, with noise of the chain's key and counters where there is noise."""
    if noise is None:
        quiet = lambda y, x, d: move(y, x, d, None)  # noqa: E731
        return jax.tree.map(quiet, chain.y, chain.params, direction)
    counts = chain.outer.outer_count, chain.inner_count
    key = step_key(chain.outer.key, *counts, axis_name=noise.axis_name)
    epsilon = noise_like(key, chain.y, noise.law)
    return jax.tree.map(move, chain.y, chain.params, direction, epsilon)


def _as_emitted(y: Any, params: Any) -> Any:
    """Y where the parameters' dtype has it: an optimiser inside that remembers sees no change."""
    return jax.tree.map(lambda y, x: wide(rounded(y, x.dtype)), y, params)


def _average(averaging: float | str, chain: LangevinInner, y: Any) -> Any:
    """The running mean after y: alpha <y> + (1 - alpha) y, or the mean of y_1 ... y_k."""

    def forgetting(mean: jax.Array, y: jax.Array) -> jax.Array:
        weight = factor(averaging, y)
        return weight * mean + (1 - weight) * y

    def linear(mean: jax.Array, y: jax.Array) -> jax.Array:
        return mean + (y - mean) / factor(chain.inner_count + 1, y)  # the first y replaces x

    return jax.tree.map(linear if averaging == "linear" else forgetting, chain.average, y)
