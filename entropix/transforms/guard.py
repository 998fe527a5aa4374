"""A guard against relaxed gradients that are not finite: such an outer step leaves no trace."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, mapped
from entropix.transforms.numerics import is_inexact, on_inexact_leaves


class GuardedState(NamedTuple):
    """State of a guarded relaxation and of the optimiser behind it.

    Attributes:
      relaxation_state: state of the relaxation after the last finite outer step.
      optimizer_state: state of the optimiser after the last finite outer step.
      num_skipped: outer steps left out because they were not finite. shape=(), dtype=int32.
    """

    relaxation_state: Any
    optimizer_state: Any
    num_skipped: jax.Array


def guarded(
    link: optax.GradientTransformationExtraArgs,
    optimizer: optax.GradientTransformation,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Runs `optimizer` behind `link`, and takes both back where the result is not finite.

    A link of a chain cannot hold back the links behind it, whose momentum would keep the NaN; hence
    the guard has both inside. Both are run in any case, and a selection follows: a conditional
    whose predicate differs from replica to replica must not have communication inside.

    Args:
      link: whose outgoing gradients are looked at, with its extra arguments.
      optimizer: any Optax transformation; its updates are looked at too, since those of replicas
        that average may bring in what is not finite elsewhere.
      axis_name: named axis of replicas that leave steps out together, or None.

    Returns:
      A transformation whose state is a `GuardedState`.
    """
    checks.check_transformation("if_finite", optimizer, "optax.adam(1e-3)")
    optimizer = on_inexact_leaves(optimizer)

    def init(params: optax.Params) -> GuardedState:
        return GuardedState(link.init(params), optimizer.init(params), jnp.zeros([], jnp.int32))

    def update(
        updates: optax.Updates,
        state: GuardedState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GuardedState]:
        relaxed, relaxation_state = link.update(
            updates, state.relaxation_state, params, **extra_args
        )
        moves, optimizer_state = optimizer.update(
            relaxed, state.optimizer_state, params, **extra_args
        )
        finite = jnp.logical_and(_all_finite(relaxed), _all_finite(moves))
        if axis_name is not None:
            with mapped(axis_name):
                finite = lax.pmin(finite.astype(jnp.int32), axis_name) == 1
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        still = lambda move: keep(move, jnp.zeros_like(move)) if is_inexact(move) else move  # noqa: E731
        kept = GuardedState(
            relaxation_state=jax.tree.map(keep, relaxation_state, state.relaxation_state),
            optimizer_state=jax.tree.map(keep, optimizer_state, state.optimizer_state),
            num_skipped=keep(state.num_skipped, optax.safe_increment(state.num_skipped)),
        )
        return jax.tree.map(still, moves), kept

    return optax.GradientTransformationExtraArgs(init, update)


def _all_finite(tree: Any) -> jax.Array:
    """Whether every element is; other leaves than real and complex ones are."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]
    return functools.reduce(jnp.logical_and, leaves, jnp.asarray(True))
