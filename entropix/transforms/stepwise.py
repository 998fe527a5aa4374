"""The inner loop spread over many updates: one gradient each, for any training loop."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, agreed, check_axis_name, vary_like
from entropix.transforms.relaxation import Relaxation, RelaxationState

_UPDATE_CALL = "updates, state = tx.update(grads, state, params)"


class StepwiseState(NamedTuple):
    """State between two gradients.

    Attributes:
      gradient_count: gradients seen in the current outer step, 0 ... L-1. shape=(), dtype=int32.
      inner: the relaxation's inner state; `inner.params` is x, `inner.outer` its outer state.
      optimizer_state: state of the outer optimiser.
    """

    gradient_count: jax.Array
    inner: Any
    optimizer_state: Any


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

    Args:
      relaxation: from `entropix.local_entropy`, `hamilton_jacobi` or `heat`. (The very first
        gradient of `heat` is taken wherever the loop starts, which is x itself; to sample even
        that one, start the loop at `relaxation.point(state.inner)`.)
      optimizer: the outer optimiser, any Optax transformation. Its schedules count outer steps.
      axis_name: named axis (or axes) of replicas that count alike. Under `vmap` they then move x
        together and, if `optimizer` couples them, communicate in every L-th update alone; without
        it `vmap` runs the outer step at every update and throws all but the L-th away.

    Returns:
      A transformation with `update(grads, state, params)`; extra arguments reach both the inner
      transformation (every call) and `optimizer` (every L-th).

    Raises:
      ValueError: for a bad `axis_name`; from `update`, without `params`, if gradients do not look
        like them, or outside the named axis.

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
    if axis_name is not None:
        check_axis_name(axis_name)
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> StepwiseState:
        return StepwiseState(
            gradient_count=jnp.zeros([], jnp.int32),
            inner=relaxation.begin(params, relaxation.init(params)),
            optimizer_state=optimizer.init(params),
        )

    def update(
        updates: optax.Updates,
        state: StepwiseState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StepwiseState]:
        checks.check_params(params, _UPDATE_CALL)
        checks.check_like(updates, params, "The gradients passed to update")
        state = state._replace(
            gradient_count=state.gradient_count + 1,
            inner=relaxation.step(updates, state.inner, **extra_args),
        )

        def outer_step(state: StepwiseState) -> StepwiseState:
            x = state.inner.params
            relaxed, outer = relaxation.finish(state.inner, state.inner.outer)
            moves, optimizer_state = optimizer.update(
                relaxed, state.optimizer_state, x, **extra_args
            )
            inner = relaxation.begin(optax.apply_updates(x, moves), outer)
            new = StepwiseState(jnp.zeros_like(state.gradient_count), inner, optimizer_state)
            return jax.tree.map(vary_like, new, state)

        count = state.gradient_count
        count = count if axis_name is None else agreed(count, axis_name)
        state = lax.cond(count == relaxation.num_steps, outer_step, lambda state: state, state)
        # Differences to the parameters as they are: rounding never accumulates, and an update
        # that a wrapper dropped is made up for by the next.
        target = relaxation.point(state.inner)
        return jax.tree.map(lambda t, p: (t - p).astype(p.dtype), target, params), state

    return optax.GradientTransformationExtraArgs(init, update)


def eval_params(state: Any, params: Any) -> Any:
    """Returns x, the parameters to evaluate and to keep, from any optimiser state of this package.

    Args:
      state: the optimiser's state; `stepwise` links are found through any nesting of `chain`,
        `masked`, `partition`, `MultiSteps`, `inject_hyperparams` and the like. With
        `flax.nnx.Optimizer`, pass `nnx.as_pure(optimizer.opt_state)`.
      params: the current parameters. Leaves that no `stepwise` link owns are returned as they are.

    Returns:
      A tree like `params`.

    Raises:
      ValueError: if no link of this package is found in `state`.

    Example:
      >>> import entropix, jax.numpy as jnp, optax
      >>> w = jnp.asarray(1.0)
      >>> tx = optax.chain(optax.clip(1.0), entropix.entropy_sgd(0.1, gamma=1.0, stepwise=True))
      >>> updates, state = tx.update(jnp.asarray(2.0), tx.init(w), w)
      >>> y = optax.apply_updates(w, updates)    # the inner iterate has moved, x has not
      >>> round(float(y), 3), float(entropix.eval_params(state, y))
      (0.9, 1.0)
    """
    ours = (StepwiseState, RelaxationState)
    links = [
        leaf
        for leaf in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, ours))
        if isinstance(leaf, ours)
    ]
    if not links:
        raise ValueError(
            "eval_params found no state of entropix.stepwise or entropix.relax in "
            f"{jax.tree.structure(state)}. Pass the optimiser's state, not the whole training "
            "state's; for an ordinary Optax optimiser, params are what to evaluate."
        )
    for link in links:
        if isinstance(link, StepwiseState):
            params = _overlay(link.inner.params, params)
    return params


def _overlay(x: Any, params: Any) -> Any:
    """Replaces the leaves of `params` that `x` has; `optax.masked` leaves holes in `x`."""
    hole = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(lambda new, old: old if hole(new) else new, x, params, is_leaf=hole)
