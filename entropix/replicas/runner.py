"""From a step for one replica to the step of all of them, in any layout."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from entropix.replicas.layout import Layout
from entropix.replicas.trees import check_leading
from entropix.transforms.checks import check_flag, check_function, refusal

Step = Callable[[Any, Any], tuple[Any, Any]]


def runner(step: Step, layout: Layout, *, shared: bool = False) -> Step:
    """Makes the step of all replicas from the step of one.

    A `lax.cond` or `lax.switch` of the step whose predicate differs from replica to replica becomes
    a selection where replicas share a device: both branches are computed at every step, and a
    collective in either of them is carried out at every step. The links of this package keep what
    they do every `period`-th update, or every L-th, inside a conditional. A step of your own does
    so if its predicate comes from a batch that is `shared`, or from
    `lax.pmax(count, layout.axis_name)`, a number that is the same for all. A `lax.while_loop` runs
    until the last replica of a device has finished; with a collective inside, its condition has to
    be the same for all replicas.

    Args:
      step: `step(state, batch) -> (state, out)` for one replica. Collectives over
        `layout.axis_name` (`lax.pmean`, `lax.psum`, `lax.axis_index` and so on) reach all
        replicas, wherever they live. With a further mesh axis it sees its share of the batch, and
        averages what depends on it: `lax.pmean(grads, "data")`.
      layout: from `entropix.replicas.layout`.
      shared: whether all replicas are given the same `batch` (a data set, say, from which each
        draws its own mini-batches), which then has no replica axis.

    Returns:
      `run(states, batches) -> (states, outs)`, whose trees have a leading axis of p replicas.
      Like `jax.vmap`'s result it is to be called inside `jax.jit`, loops included; donate the
      states there. Results agree between layouts but for the rounding of sums in another order.

    Raises:
      ValueError: from `run`, if a leading axis is not p, or a transformation of this package was
        built with another `axis_name` than `layout.axis_name`.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> from entropix import replicas
      >>> layout = replicas.layout(4, "vmap")
      >>> tx = entropix.elastic_sgd(0.1, gamma=1.0, axis_name=layout.axis_name)
      >>> def step(state, batch):
      ...   w, opt_state = state
      ...   loss, grads = jax.value_and_grad(lambda w: jnp.mean((w - batch) ** 2))(w)
      ...   updates, opt_state = tx.update(grads, opt_state, w)
      ...   return (w + updates, opt_state), loss
      >>> run = jax.jit(replicas.runner(step, layout))
      >>> w = jnp.zeros(3)
      >>> states = replicas.replicate((w, tx.init(w)), 4)
      >>> states, losses = run(states, jnp.ones((4, 8, 3)))    # each replica has its own batch
      >>> losses.shape, replicas.centre(states)[0].shape
      ((4,), (3,))
    """
    check_function("step", step, "a function, step(state, batch) -> (state, out)")
    if not isinstance(layout, Layout):
        raise refusal("layout", "a Layout, from entropix.replicas.layout", layout)
    shared = check_flag("shared", shared)
    mapped = _MAPS[layout.kind](_explained(step, layout), layout, shared)

    def run(states: Any, batches: Any) -> tuple[Any, Any]:
        check_leading("states", states, layout.replicas)
        if not shared:
            check_leading("batches", batches, layout.replicas)
            _check_shards(batches, layout)
        return mapped(states, batches)

    return run


def _vmap(step: Step, layout: Layout, shared: bool) -> Step:
    """All replicas on one device."""
    return jax.vmap(step, _in_axes(shared), axis_name=layout.device_axis)


def _shard_map(step: Step, layout: Layout, shared: bool) -> Step:
    """Replicas over the devices of a mesh, each device with its share of them."""
    axis, data = layout.device_axis, tuple(layout.data_axes) or None

    def spec(leaf: jax.Array) -> P:
        return P() if shared else P(axis, data) if leaf.ndim > 1 else P(axis)

    def run(states: Any, batches: Any) -> tuple[Any, Any]:
        return jax.shard_map(
            _on_device(step, layout, shared),
            mesh=layout.mesh,
            in_specs=(P(axis), jax.tree.map(spec, batches)),
            out_specs=P(axis),
            # JAX cannot check how values vary over an axis of vmap inside shard_map; and with the
            # check, gradients would be summed over "data" unasked: the step says what it sums.
            check_vma=False,
        )(states, batches)

    return run


def _pmap(step: Step, layout: Layout, shared: bool) -> Step:
    """As `_shard_map`; pmap wants an axis whose size is the number of devices."""
    assert layout.mesh is not None
    local, devices = layout.per_device, list(layout.mesh.devices.flat)
    fn = _on_device(step, layout, shared)
    mapped = jax.pmap(fn, layout.device_axis, in_axes=_in_axes(shared), devices=devices)

    def over_devices(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1, local, *x.shape[1:]), tree)

    def run(states: Any, batches: Any) -> tuple[Any, Any]:
        found = mapped(over_devices(states), batches if shared else over_devices(batches))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    return run


_MAPS: dict[str, Callable[[Step, Layout, bool], Step]] = {
    "vmap": _vmap,
    "shard_map": _shard_map,
    "pmap": _pmap,
}


def _in_axes(shared: bool) -> tuple[int, int | None]:
    return 0, None if shared else 0


def _on_device(step: Step, layout: Layout, shared: bool) -> Step:
    """The step of the replicas that share a device; of the only one, without a vmap."""
    if isinstance(layout.axis_name, tuple):
        return jax.vmap(step, _in_axes(shared), axis_name=layout.axis_name[1])

    def alone(states: Any, batches: Any) -> tuple[Any, Any]:
        only = lambda tree: jax.tree.map(lambda x: x[0], tree)  # noqa: E731
        found = step(only(states), batches if shared else only(batches))
        return jax.tree.map(lambda x: jnp.expand_dims(x, 0), found)

    return alone


def _explained(step: Step, layout: Layout) -> Step:
    """Says in JAX's error for an unknown axis what the replicas' axis is called."""

    def explained(state: Any, batch: Any) -> tuple[Any, Any]:
        try:
            return step(state, batch)
        except NameError as error:
            if error.name is None:  # no misspelt variable
                error.add_note(
                    f"The replicas' axis in this layout is layout.axis_name={layout.axis_name!r}."
                )
            raise

    return explained


def _check_shards(batches: Any, layout: Layout) -> None:
    shards = math.prod(layout.data_axes.values())
    for leaf in jax.tree.leaves(batches) if shards > 1 else ():
        if leaf.ndim < 2 or leaf.shape[1] % shards:
            raise ValueError(
                f"batches must have shape (p, B, ...) with B a multiple of the {shards} "
                f"devices along {', '.join(layout.data_axes)}; got {leaf.shape}."
            )
