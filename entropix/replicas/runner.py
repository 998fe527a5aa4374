"""From a step for one replica to the step of all of them, in any layout."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from entropix.replicas.layout import Layout
from entropix.replicas.turns import Turns, Value

Step = Callable[[Any, Any], tuple[Any, Any]]


def runner(step: Step, layout: Layout, *, shared: bool = False) -> Step:
    """Makes the step of all replicas from the step of one.

    Args:
      step: `step(state, batch) -> (state, out)` for one replica, written as under
        `jax.vmap(step, axis_name=...)`: collectives over `layout.axis_name` (`lax.pmean`, psum,
        pmax, pmin, axis_index) reach all replicas, wherever they live. With a further mesh axis it
        sees its share of the batch, and averages what depends on it: `lax.pmean(grads, "data")`.
        A `lax.cond` or `while_loop` with a collective inside has to go the same way in all.
      layout: from `entropix.replicas.layout`.
      shared: whether all replicas are given the same `batch` (a data set, say, from which each
        draws its own mini-batches), which then has no replica axis.

    Returns:
      `run(states, batches) -> (states, outs)`, whose trees have a leading axis of p replicas.
      Like `jax.vmap`'s result it is to be called inside `jax.jit`, loops included; donate the
      states there. Results agree between layouts but for the rounding of sums in another order.

    Raises:
      ValueError: from `run`, if a leading axis is not p.
      NotImplementedError: from `run`, for another collective over the replicas' axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> from entropix import replicas
      >>> tx = entropix.elastic_sgd(0.1, gamma=1.0, axis_name="replica")
      >>> def step(state, batch):
      ...   w, opt_state = state
      ...   loss, grads = jax.value_and_grad(lambda w: jnp.mean((w - batch) ** 2))(w)
      ...   updates, opt_state = tx.update(grads, opt_state, w)
      ...   return (w + updates, opt_state), loss
      >>> layout = replicas.layout(4, "map")
      >>> run = jax.jit(replicas.runner(step, layout))
      >>> w = jnp.zeros(3)
      >>> states = replicas.replicate((w, tx.init(w)), 4)
      >>> states, losses = run(states, jnp.ones((4, 8, 3)))    # each replica has its own batch
      >>> losses.shape, replicas.centre(states)[0].shape
      ((4,), (3,))
    """

    def run(states: Any, batches: Any) -> tuple[Any, Any]:
        _check_leading("states", states, layout.replicas)
        if not shared:
            _check_leading("batches", batches, layout.replicas)
        program, outputs = _trace(step, layout, states, batches, shared)
        leaves = jax.tree.leaves(states), jax.tree.leaves(batches)
        arrays = _MAPS[layout.kind](program, layout, *leaves, shared)
        return jax.tree.unflatten(jax.tree.structure(outputs), arrays)

    return run


def _trace(
    step: Step, layout: Layout, states: Any, batches: Any, shared: bool
) -> tuple[jex.ClosedJaxpr, Any]:
    """The program of the step for one replica, and what its outputs look like."""
    shards = math.prod(layout.data_axes.values())

    def one(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    def share(leaf: jax.Array) -> jax.ShapeDtypeStruct:
        shape = leaf.shape if shared else leaf.shape[1:]
        if shards > 1 and not shared:
            if not shape or shape[0] % shards:
                raise ValueError(
                    f"batches must have shape (p, B, ...) with B a multiple of the {shards} "
                    f"devices along {', '.join(layout.data_axes)}; got {leaf.shape}."
                )
            shape = (shape[0] // shards, *shape[1:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    axes = [(layout.axis_name, layout.replicas), *layout.data_axes.items()]
    trace = jax.make_jaxpr(step, axis_env=axes, return_shape=True)
    return trace(jax.tree.map(one, states), jax.tree.map(share, batches))


def _evaluate(
    program: jex.ClosedJaxpr, turns: Turns, shared: bool
) -> Callable[..., list[jax.Array]]:
    """The program as a function of constants, states and batches of the replicas on a device."""

    def evaluate(consts: Sequence[Any], states: Sequence[Any], batches: Sequence[Any]) -> Any:
        values = [Value(x, True) for x in states] + [Value(x, not shared) for x in batches]
        found = turns(jex.ClosedJaxpr(program.jaxpr, consts), values)
        return [turns.spread(value) for value in found]

    return evaluate


def _on_one_device(
    program: jex.ClosedJaxpr, layout: Layout, states: list, batches: list, shared: bool
) -> list[jax.Array]:
    turns = Turns(layout.axis_name, layout.replicas, None, layout.each)
    return _evaluate(program, turns, shared)(program.consts, states, batches)


def _shard_map(
    program: jex.ClosedJaxpr, layout: Layout, states: list, batches: list, shared: bool
) -> list[jax.Array]:
    axis = layout.axis_name
    turns = Turns(axis, layout.per_device, _device_axis(layout), layout.each)
    own = P() if shared else P(axis, tuple(layout.data_axes) or None)
    specs = [own if shared or x.ndim > 1 else P(axis) for x in batches]
    fn = jax.shard_map(
        _evaluate(program, turns, shared),
        mesh=layout.mesh,
        in_specs=(P(), P(axis), specs),
        out_specs=P(axis),
        # With the check, gradients would be summed over "data" unasked; the step says what it sums.
        check_vma=False,
    )
    return fn(program.consts, states, batches)


def _pmap(
    program: jex.ClosedJaxpr, layout: Layout, states: list, batches: list, shared: bool
) -> list[jax.Array]:
    assert layout.mesh is not None
    axis, local = layout.axis_name, layout.per_device
    turns = Turns(axis, local, _device_axis(layout), layout.each)
    over_devices = lambda x: x.reshape(-1, local, *x.shape[1:])  # noqa: E731
    states = [over_devices(x) for x in states]
    batches = batches if shared else [over_devices(x) for x in batches]
    fn = jax.pmap(
        _evaluate(program, turns, shared),
        axis_name=axis,
        in_axes=(None, 0, None if shared else 0),
        devices=list(layout.mesh.devices.flat),
    )
    found = fn(program.consts, states, batches)
    return [x.reshape(-1, *x.shape[2:]) for x in found]


def _device_axis(layout: Layout) -> str | None:
    """The axis over which devices have to communicate, if there are several."""
    return layout.axis_name if layout.per_device < layout.replicas else None


_MAPS = {
    "vmap": _on_one_device,
    "map": _on_one_device,
    "shard_map": _shard_map,
    "pmap": _pmap,
}


def _check_leading(name: str, tree: Any, replicas: int) -> None:
    for leaf in jax.tree.leaves(tree):
        if jnp.ndim(leaf) < 1 or leaf.shape[0] != replicas:
            raise ValueError(
                f"{name} must have a leading axis of {replicas} replicas in every array; got an "
                f"array of shape {jnp.shape(leaf)}. Make it with entropix.replicas.replicate, or "
                "jax.tree.map(lambda *xs: jnp.stack(xs), *trees)."
            )
