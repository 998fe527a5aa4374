"""The inner loop spread over many updates: one gradient each, for any training loop."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, agreed, check_optional_axis_name, vary_like
from entropix.transforms.eager import cond, is_concrete, is_data
from entropix.transforms.numerics import (
    changed,
    copy_tree,
    inexact_leaves,
    inexact_part,
    is_abstract,
    landed,
    rounded,
    wide,
    with_rest,
)
from entropix.transforms.parts import RelaxedOptimizer
from entropix.transforms.probe import refuse_incomplete
from entropix.transforms.relaxation import (
    Relaxation,
    check_relaxation,
    check_state,
    restart,
)

# Extra arguments that speak of the point where the loop took its gradient. A line search would take
# them for those of x.
_OF_THE_POINT = ("grad", "value_fn")
_UPDATE_CALL = "updates, state = tx.update(grads, state, params)"


class StepwiseState(NamedTuple):
    """State between two gradients.

    Attributes:
      gradient_count: gradients seen in the current outer step, 0 ... L-1. shape=(), dtype=int32.
      inner: the relaxation's inner state; `inner.params` is x, `inner.outer` its outer state.
      optimizer_state: state of the outer optimiser.
      emitted: where the last update has put the parameters, in their dtypes; None where that is the
        rounded `inner.y`. Elements of the parameters that are elsewhere were moved by the caller.
    """

    gradient_count: jax.Array
    inner: Any
    optimizer_state: Any
    emitted: Any = None


def stepwise(
    relaxation: Relaxation,
    optimizer: optax.GradientTransformation,
    *,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Runs a relaxation one gradient per `update`, in a training loop that knows nothing of it.

    The parameters walk along the points where the relaxation wants gradients; every L-th update
    hands the relaxed gradient to `optimizer` and moves x. The trajectory of x is that of
    `optax.chain(relax(relaxation), optimizer)`. Read x with `entropix.eval_params`: the
    parameters themselves are the inner iterate, so batch-norm statistics gathered by the training
    loop are collected along y, as in the paper.

    The parameters belong to the caller. What a loop does to them between two updates (loading,
    clipping, projecting, pruning) counts from the next update on: elements that are not where the
    last update has put them restart the outer step from where they are, x = y = <y>. A loop that
    moves an element at *every* call (a projection, or a link of the chain behind this one that
    rescales or decays) therefore makes plain inner steps there: what scales or decays belongs into
    `optimizer` or into the relaxation's `inner`. (With `sharpness` and `heat` the parameters are no
    descent's iterate, and x would climb or wander.)

    Args:
      relaxation: from `entropix.local_entropy`, `hamilton_jacobi`, `heat` or `sharpness`. (The very
        first gradient of `heat` is taken wherever the loop starts, which is x itself; to sample
        even that one, start the loop at `relaxation.point(state.inner)` of the state that `init`
        returned, before any `entropix.reseed`: the points of other keys count as moves of x.)
      optimizer: the outer optimiser, complete, with its learning rate and minus sign. Its schedules
        count outer steps.
      axis_name: named axis (or axes) of replicas that count alike. Under `vmap` they then move x
        together and, if `optimizer` couples them, communicate in every L-th update alone; without
        it `vmap` runs the outer step at every update and throws all but the L-th away.

    Returns:
      A transformation with `update(grads, state, params)`; extra arguments reach both the inner
      transformation (every call) and `optimizer` (every L-th), but for `grad` and `value_fn`, which
      are those of the parameters, not of x: a line search goes behind `entropix.relax`.

    Raises:
      ValueError: for an optimiser whose updates point along the gradient, or a bad `axis_name`;
        from `update`, without `params`, if gradients do not look like them, or outside the named
        axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp, optax
      >>> tx = entropix.stepwise(entropix.hamilton_jacobi(gamma=1.0), optax.sgd(0.5))
      >>> w = jnp.asarray([3.0, -3.0])
      >>> state = tx.init(w)
      >>> update = jax.jit(tx.update)
      >>> for _ in range(20 * 5):
      ...   updates, state = update(jax.grad(lambda w: jnp.sum(w**2))(w), state, w)
      ...   w = optax.apply_updates(w, updates)
      >>> bool(jnp.max(jnp.abs(entropix.eval_params(state, w))) < 0.01)
      True
    """
    check_relaxation(relaxation)
    refuse_incomplete("optimizer", optimizer)  # nothing behind this link could give the sign
    check_optional_axis_name(axis_name)
    parts = _Parts(relaxation, optax.with_extra_args_support(optimizer), axis_name)
    advance = functools.partial(_advance, parts)
    compiled_advance = jax.jit(advance)

    def init(params: optax.Params) -> StepwiseState:
        if is_abstract(params):
            return jax.eval_shape(init, params)
        params = inexact_leaves(params)
        inner = relaxation.begin(params, relaxation.init(params))
        return StepwiseState(
            gradient_count=jnp.zeros([], jnp.int32),
            inner=inner,
            optimizer_state=parts.optimizer.init(params),
            emitted=None if relaxation.point_is_y else _first_point(relaxation, inner),
        )

    def update(
        updates: optax.Updates,
        state: StepwiseState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StepwiseState]:
        checks.check_params(params, _UPDATE_CALL)
        check_state(state, StepwiseState)
        checks.check_like(updates, params, "The gradients passed to update")
        leaves, grads = inexact_leaves(params), inexact_part(updates, params)
        once = is_concrete(updates, state, params, extra_args) and is_data(extra_args)
        run = compiled_advance if once else advance
        try:
            moves, state = run(grads, state, leaves, extra_args)
        except (AttributeError, TypeError, ValueError) as error:
            _check_own_state(state, init, error)
            raise
        return with_rest(moves, params), state

    link = optax.GradientTransformationExtraArgs(init, update)
    return RelaxedOptimizer.of(link, relaxation, optimizer)


class _Parts(NamedTuple):
    """What `stepwise` was given, checked."""

    relaxation: Relaxation
    optimizer: optax.GradientTransformationExtraArgs
    axis_name: AxisName | None


def _advance(
    parts: _Parts, grads: Any, state: StepwiseState, params: Any, extra_args: dict[str, Any]
) -> tuple[Any, StepwiseState]:
    """One inner step, and the outer step where it is the L-th: the parameters' moves, the state."""
    relaxation = parts.relaxation
    checks.check_like(params, state.inner.params, "Parameters", "those that init got")
    inner = _as_the_caller_left(relaxation, state, params)
    inner = relaxation.step(grads, inner, **extra_args)
    state = state._replace(gradient_count=state.gradient_count + 1, inner=inner)

    count = state.gradient_count
    count = count if parts.axis_name is None else agreed(count, parts.axis_name)
    state = cond(
        count >= relaxation.num_steps,  # beyond it where a larger L began the outer step
        lambda state: _outer_step(parts, state, extra_args),
        lambda state: state,
        state,
    )
    # Differences to the parameters as they are, so that rounding never accumulates.
    moves = jax.tree.map(_difference, relaxation.point(state.inner), params)
    arrived = jax.tree.map(landed, params, moves)
    if relaxation.point_is_y:
        return moves, state._replace(inner=_follow(state.inner, arrived))
    return moves, state._replace(emitted=arrived)


def _outer_step(parts: _Parts, state: StepwiseState, extra_args: dict[str, Any]) -> StepwiseState:
    """Moves x by the relaxed gradient, and begins the next inner loop."""
    x = state.inner.params
    relaxed, outer = parts.relaxation.finish(state.inner, state.inner.outer)
    moves, optimizer_state = _moved(parts.optimizer, relaxed, state.optimizer_state, x, extra_args)
    inner = parts.relaxation.begin(optax.apply_updates(x, moves), outer)
    count = jnp.zeros_like(state.gradient_count)
    new = StepwiseState(count, inner, optimizer_state, state.emitted)
    return jax.tree.map(vary_like, new, state)


def _moved(
    optimizer: optax.GradientTransformationExtraArgs,
    grads: Any,
    state: Any,
    x: Any,
    extra_args: dict[str, Any],
) -> tuple[Any, Any]:
    """The outer optimiser's update, with the extra arguments that speak of x too."""
    about_x = {name: v for name, v in extra_args.items() if name not in _OF_THE_POINT}
    try:
        return optimizer.update(grads, state, x, **about_x)
    except TypeError as error:
        if len(about_x) == len(extra_args):
            raise
        raise ValueError(
            f"optimizer must do without {' and '.join(_OF_THE_POINT)}, which are those of the "
            f"inner iterate in this loop, not of x; got one that wants them ({error}). A line "
            "search goes behind entropix.relax, or into the relaxation's inner."
        ) from error


def _check_own_state(state: StepwiseState, init: Any, error: Exception) -> None:
    """Raises `ValueError` if an update failed because its state is that of another optimiser.

    Asked after a failure alone, so that no state is refused that an update can work with.
    """
    given: Any = jax.tree.structure(state)
    expected: Any = jax.tree.structure(jax.eval_shape(init, state.inner.params))
    if given != expected:
        raise ValueError(
            "update needs the state of this transformation, from tx.init(params) or the last "
            f"update; got that of another optimiser: {given}, where this one has {expected}."
        ) from error


def emitted(state: StepwiseState) -> Any:
    """Where the last update has put the parameters, in their dtypes."""
    if state.emitted is not None:
        return state.emitted
    return jax.tree.map(lambda y, p: rounded(y, p.dtype), state.inner.y, state.inner.params)


def _as_the_caller_left(relaxation: Relaxation, state: StepwiseState, params: Any) -> Any:
    """The inner state, restarted at the elements of the parameters that the caller has moved.

    At every update: the selections melt into the inner step's own programs. To ask first whether
    any element has moved takes a reduction and a conditional, which cost more than they save.
    """
    inner = _follow(state.inner, params) if state.emitted is None else state.inner
    moved = jax.tree.map(changed, params, emitted(state))
    return restart(relaxation, inner, params, moved)


def _first_point(relaxation: Relaxation, inner: Any) -> Any:
    """The first point; x where it depends on the index of a replica and states are made outside."""
    try:
        return copy_tree(jax.jit(relaxation.point)(inner))
    except ValueError:
        return copy_tree(inner.params)


def _difference(point: jax.Array, params: jax.Array) -> jax.Array:
    return rounded(wide(point) - wide(params), point.dtype)


def _follow(inner: Any, params: Any) -> Any:
    """Puts y where the parameters are, which rounding may have kept off it."""

    def follow(y: jax.Array, p: jax.Array) -> jax.Array:
        return p if y.dtype == p.dtype else jnp.where(changed(rounded(y, p.dtype), p), wide(p), y)

    return inner._replace(y=jax.tree.map(follow, inner.y, params))
