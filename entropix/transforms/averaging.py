"""Averages over replicas: of updates (DiLoCo), and of parameters in a slow centre (EASGD)."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, agreed, check_axis_name
from entropix.transforms.coupling import (
    UPDATE_CALL,
    elastic_force,
    moved_by,
    replica_mean,
    vary_like_tree,
)
from entropix.transforms.numerics import (
    as_real,
    cast_like,
    copy_tree,
    factor,
    filled,
    inexact_leaves,
    inexact_part,
    wide,
    wide_copy,
    with_rest,
)
from entropix.transforms.relaxation import check_state


def average_updates(axis_name: AxisName) -> optax.GradientTransformationExtraArgs:
    r"""Replaces the updates by their mean over the replicas.

    .. math:: g^a \leftarrow \frac1p \sum_b g^b

    Of mini-batch gradients this is data parallelism; of the displacements of replicas that walked
    on their own it is DiLoCo. Replicas that start together stay together, to the bit.

    Args:
      axis_name: named axis (or axes) over which `update` runs, by `vmap`, `pmap` or `shard_map`.

    Returns:
      A transformation without state.

    Raises:
      ValueError: for a bad `axis_name`; from `update`, outside the named axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> tx = entropix.average_updates("replica")
      >>> average = jax.vmap(lambda g: tx.update(g, tx.init(g))[0], axis_name="replica")
      >>> average(jnp.asarray([1.0, 3.0])).tolist()
      [2.0, 2.0]

    References:
      Douillard et al, `DiLoCo <https://arxiv.org/abs/2311.08105>`_, 2023.
    """
    check_axis_name(axis_name)

    def init(params: optax.Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args
        leaves = inexact_leaves(updates)
        mean = vary_like_tree(cast_like(replica_mean(leaves, axis_name), leaves), leaves)
        return filled(mean, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


class ElasticAveragingState(NamedTuple):
    """State of elastic averaging.

    Attributes:
      update_count: updates seen. shape=(), dtype=int32.
      centre: the centre variable, the point to evaluate: the same on all replicas from the first
        update on, in float32 or wider, so that a slow average of bfloat16 parameters moves.
    """

    update_count: jax.Array
    centre: Any


def elastic_averaging(
    moving_rate: float, axis_name: AxisName, *, period: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Exchanges a share of the replicas' distance with a slow centre, every `period`-th update.

    .. math::
      x^a \leftarrow x^a - \alpha\,(x^a - \tilde x), \qquad
      \tilde x \leftarrow \tilde x + \beta\,(\bar x - \tilde x), \qquad \alpha = \beta/p,

    both from the values before the update. Put it *last* in the chain: it acts on the parameters,
    not through the optimiser's momentum. At the first update the centre is the replicas' mean.

    It differs from `elastic_coupling(period=...)`, which adds a force to every gradient, between
    two communications towards a mean that is `period` steps old at most: here the centre is a
    moving average of all past means, and between two exchanges the replicas are free.

    Args:
      moving_rate: beta in (0, 1]; with 1 the centre is the last exchange's mean.
      axis_name: named axis (or axes) over which `update` runs, by `vmap`, `pmap` or `shard_map`.
      period: updates between two exchanges, the first one included; in between nothing is
        communicated.

    Returns:
      A transformation; its centre is `optax.tree.get(state, "centre")`.

    Raises:
      ValueError: for an argument outside its range; from `update`, without `params` or outside
        the named axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> tx = entropix.elastic_averaging(0.5, "replica")
      >>> x = jnp.asarray([0.0, 4.0])            # two replicas of a scalar
      >>> update = jax.vmap(tx.update, axis_name="replica")
      >>> moves, state = update(jnp.zeros(2), jax.vmap(tx.init)(x), x)
      >>> moves.tolist(), state.centre.tolist()
      ([0.5, -0.5], [2.0, 2.0])

    References:
      Zhang et al, `Elastic averaging SGD <https://arxiv.org/abs/1412.6651>`_, 2015.
    """
    moving_rate = checks.check_rate("moving_rate", moving_rate)
    period = checks.check_count("period", period)
    check_axis_name(axis_name)

    def exchange(count: jax.Array, leaves: Any, centre: Any) -> tuple[Any, Any]:
        """What the replicas are pulled towards, and the next centre."""
        mean, first = replica_mean(leaves, axis_name), count == 0
        old = jax.tree.map(lambda m, c: jnp.where(first, m, c), mean, centre)
        new = jax.tree.map(lambda c, m: c + factor(moving_rate, c) * (m - c), old, mean)
        return vary_like_tree(old, leaves), vary_like_tree(new, leaves)

    # Compiled once also where the update is mapped without `jax.jit`.
    @functools.partial(jax.jit, inline=True)
    def exchange_if_due(count: jax.Array, leaves: Any, centre: Any) -> tuple[Any, Any]:
        return lax.cond(
            agreed(count, axis_name) % period == 0,
            lambda: exchange(count, leaves, centre),
            # The target is the replica itself: no force, to the bit.
            lambda: (jax.tree.map(wide, leaves), centre),
        )

    def init(params: optax.Params) -> ElasticAveragingState:
        centre = filled(wide_copy(inexact_leaves(params)), copy_tree(params))
        return ElasticAveragingState(jnp.zeros([], jnp.int32), centre)

    def update(
        updates: optax.Updates,
        state: ElasticAveragingState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ElasticAveragingState]:
        del extra_args
        checks.check_params(params, UPDATE_CALL.format(axis=axis_name))
        check_state(state, ElasticAveragingState)
        checks.check_like(updates, params, "The updates passed to update")

        leaves, centre = inexact_leaves(params), inexact_part(state.centre, params)

        exchanged_or_not = exchange if period == 1 else exchange_if_due
        target, centre = exchanged_or_not(state.update_count, leaves, centre)
        size = lax.axis_size(axis_name)

        def exchanged(g: jax.Array, x: jax.Array, c: jax.Array) -> jax.Array:
            scope = size / moving_rate  # the force (x - c)/scope is alpha (x - c)
            return moved_by(g, -elastic_force(x, c, scope, size), x)

        grads = jax.tree.map(as_real, inexact_part(updates, params), leaves)
        moves = jax.tree.map(exchanged, grads, leaves, target)
        state = ElasticAveragingState(
            optax.safe_increment(state.update_count), filled(centre, state.centre)
        )
        return with_rest(moves, params), state

    return optax.GradientTransformationExtraArgs(init, update)
