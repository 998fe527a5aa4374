"""Elastic coupling: replicas on a named axis, each pulled towards their mean."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from optax import ScalarOrSchedule

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, agreed, check_axis_name, mapped, vary_like
from entropix.transforms.numerics import (
    as_real,
    at,
    dtype_of_update,
    factor,
    inexact_leaves,
    inexact_part,
    scalar,
    wide,
    wide_copy,
    wide_dtype,
    with_rest,
)
from entropix.transforms.relaxation import check_state

UPDATE_CALL = (
    "updates, state = tx.update(grads, state, params), inside jax.vmap(..., axis_name={axis!r})"
)


class ElasticState(NamedTuple):
    """State of the coupling.

    Attributes:
      update_count: updates seen. shape=(), dtype=int32.
      centre: the mean x-bar when it was last computed, in float32 or wider; None for period 1,
        which needs no memory of it.
    """

    update_count: jax.Array
    centre: Any


def elastic_coupling(
    gamma: ScalarOrSchedule, axis_name: AxisName, *, period: int = 1
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the pull towards the replicas' mean to the gradients (Elastic-SGD, (20)-(21)).

    .. math:: g^a \leftarrow g^a + (x^a - \bar x)/\gamma, \qquad \bar x = \frac1p \sum_a x^a

    Followed by SGD this is Elastic-SGD; after `entropix.relax` it is Parle. Around a given centre
    the replicas sample what Entropy-SGD's inner loop samples, so that their average does for its
    average over time (22). Their own mean, if it is the centre at every step, descends another
    function with the same critical points: local entropy is its Moreau envelope.

    A mean over p replicas is known up to p eps |x|, with eps = 1.2e-7 in float32: smaller
    differences count as none, so that equal replicas stay equal to the bit.

    Args:
      gamma: scope, in (0, inf]; a float or a schedule of the update count.
      axis_name: named axis (or axes) over which `update` runs, by `vmap`, `pmap` or `shard_map`.
      period: the mean is computed at every `period`-th update, from the first on; in between the
        pull is towards a stale one and nothing is communicated. (EASGD instead keeps a slow
        centre and does not pull in between: `entropix.elastic_averaging`.)

    Returns:
      A transformation. For period 1 the pull is exactly zero where the replicas agree, hence with
      one replica; a stale centre pulls even then.

    Raises:
      ValueError: for an argument outside its range; from `update`, without `params` or outside
        the named axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> tx = entropix.elastic_coupling(gamma=2.0, axis_name="replica")
      >>> x = jnp.asarray([0.0, 4.0])            # two replicas of a scalar
      >>> update = jax.vmap(tx.update, axis_name="replica")
      >>> pull, _ = update(jnp.zeros(2), jax.vmap(tx.init)(x), x)
      >>> pull.tolist()
      [-1.0, 1.0]

    References:
      Zhang et al, `Elastic averaging SGD <https://arxiv.org/abs/1412.6651>`_, 2015;
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, (20)-(22).
    """
    gamma = checks.check_positive("gamma", gamma, infinite=True)
    period = checks.check_count("period", period)
    check_axis_name(axis_name)

    # Compiled once also where the update is mapped without `jax.jit`.
    @functools.partial(jax.jit, inline=True)
    def recalled(count: jax.Array, leaves: Any, centre: Any) -> Any:
        return lax.cond(
            agreed(count, axis_name) % period == 0,
            lambda: vary_like_tree(replica_mean(leaves, axis_name), leaves),
            lambda: centre,
        )

    def init(params: optax.Params) -> ElasticState:
        centre = wide_copy(inexact_leaves(params)) if period > 1 else None
        return ElasticState(update_count=jnp.zeros([], jnp.int32), centre=centre)

    def update(
        updates: optax.Updates,
        state: ElasticState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ElasticState]:
        del extra_args
        checks.check_params(params, UPDATE_CALL.format(axis=axis_name))
        check_state(state, ElasticState)
        checks.check_like(updates, params, "The gradients passed to update")
        leaves = inexact_leaves(params)
        if period > 1 and state.centre is None:
            raise ValueError(
                f"update with period={period} needs the centre of the last exchange, and the state "
                "that was passed has none: a coupling of period 1 made that state. Start from "
                "tx.init(params)."
            )
        if period == 1:
            centre = replica_mean(leaves, axis_name)
        else:
            centre = recalled(state.update_count, leaves, state.centre)
        scope, size = at(gamma, state.update_count), lax.axis_size(axis_name)
        pulled = jax.tree.map(
            lambda g, x, c: moved_by(g, elastic_force(x, c, scope, size), x),
            jax.tree.map(as_real, inexact_part(updates, params), leaves), leaves, centre,
        )  # fmt: skip
        memory = centre if period > 1 else None
        state = ElasticState(optax.safe_increment(state.update_count), memory)
        return with_rest(pulled, params), state

    return optax.GradientTransformationExtraArgs(init, update)


def moved_by(grad: jax.Array, force: jax.Array, x: jax.Array) -> jax.Array:
    """The gradient plus a force on x, added in float32 or wider, in the dtype of updates of x.

    That is no narrower than x: a pull is lost in the digits of a narrow gradient.
    """
    dtype = dtype_of_update(grad, x)
    precision = wide_dtype(dtype)
    return (grad.astype(precision) + force.astype(precision)).astype(dtype)


def elastic_force(x: jax.Array, centre: jax.Array, gamma: Any, size: int) -> jax.Array:
    """The pull (x - centre)/gamma for one array, in float32 or wider.

    A mean over `size` replicas is only known up to its rounding error, about size eps |x|. A
    difference below that is no difference: identical replicas feel no force at all, to the bit.
    (Subtracted, not selected, so that the derivative of the force is that of x - centre there too.)
    """
    x = wide(x)
    difference = x - wide(centre)
    rounding = scalar(size * float(jnp.finfo(x.dtype).eps), x) * jnp.abs(x)
    no_more = jnp.where(jnp.abs(difference) <= rounding, difference, jnp.zeros_like(difference))
    return (difference - lax.stop_gradient(no_more)) / factor(gamma, x)


def replica_mean(params: Any, axis_name: AxisName) -> Any:
    """The mean of `params` over the named axes, computed in float32 or wider.

    Raises:
      ValueError: outside the named axes.
    """
    with mapped(axis_name):
        return jax.tree.map(lambda x: lax.pmean(wide(x), axis_name), params)


def vary_like_tree(mean: Any, params: Any) -> Any:
    """A mean over replicas, by its type as different from device to device as `params` are."""
    return jax.tree.map(vary_like, mean, params)
