"""Where replicas live: side by side on one device, over devices, or both."""

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from entropix.replicas.meshes import (
    automatic,
    check_alone,
    check_devices,
    check_mesh,
    check_processes,
    make_mesh,
    too_few,
)
from entropix.transforms.checks import check_choice, check_count, refusal
from entropix.transforms.numerics import is_key

LAYOUT_KINDS = ("auto", "vmap", "pmap", "shard_map")


class Layout(NamedTuple):
    """Where p replicas live.

    Attributes:
      replicas: p.
      kind: "vmap" for replicas on one device; "pmap" or "shard_map" for replicas over devices.
      axis_name: what transformations and collectives of the step are to be given: the replicas'
        axis; or a pair of axes, over devices and within a device, where several devices hold
        several replicas each.
      mesh: devices, `p / per_device` of them along `device_axis`, and as many along every further
        axis as work on one replica together; None for the default device.
    """

    replicas: int
    kind: str
    axis_name: str | tuple[str, str]
    mesh: Mesh | None

    @property
    def device_axis(self) -> str:
        """The axis of replicas in the mesh."""
        return self.axis_name if isinstance(self.axis_name, str) else self.axis_name[0]

    @property
    def per_device(self) -> int:
        """Replicas that share a device."""
        return self.replicas // (1 if self.mesh is None else self.mesh.shape[self.device_axis])

    @property
    def data_axes(self) -> dict[str, int]:
        """The mesh's further axes, over which a replica's batch is divided, with their sizes."""
        axes = {} if self.mesh is None else dict(self.mesh.shape)
        return {name: size for name, size in axes.items() if name != self.device_axis}

    def sharding(self, axis: int = 0) -> NamedSharding | None:
        """Where arrays live whose axis `axis` is the replicas'."""
        return self._named(*[None] * axis, self.device_axis)

    @property
    def common(self) -> NamedSharding | None:
        """Where arrays live that all replicas share: on every device."""
        return self._named()

    def place(self, tree: Any, axis: int = 0) -> Any:
        """Puts states on their devices, so that no later step has to move them.

        Args:
          tree: of arrays with a replica axis of size p; in a run of several processes each of them
            has all of it.
          axis: which one it is.
        """
        return tree if self.mesh is None else _put(tree, self.sharding(axis))

    def share(self, tree: Any) -> Any:
        """Puts a copy of arrays that all replicas use, such as a data set, on every device."""
        return tree if self.mesh is None else _put(tree, self.common)

    def local(self, tree: Any) -> Any:
        """This process's first copy of what all devices have, on one device."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

    def gather(self, tree: Any) -> Any:
        """Copies states to one device of this process; all processes have to ask for it."""
        if self.mesh is None:
            return tree
        return self.local(jax.jit(_same, out_shardings=self.common)(tree))

    def _named(self, *spec: str | None) -> NamedSharding | None:
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(*spec))


def layout(
    replicas: int,
    kind: str = "auto",
    *,
    each: str = "vmap",
    axis_name: str = "replica",
    devices: int | Sequence[jax.Device] | None = None,
    mesh: Mesh | None = None,
) -> Layout:
    """Decides where p replicas live.

    Args:
      replicas: p >= 1.
      kind: "vmap": all side by side on the default device; "pmap" or "shard_map": over devices, p
        a multiple of their number. "auto" takes what is fastest: several devices if p is a
        multiple of more than one of them, one device otherwise. (On a CPU, `jax.devices()` has as
        many devices as the environment variable `JAX_NUM_CPU_DEVICES` says. A device for each
        replica is faster there than a vmap, whose convolutions are grouped.)
      each: "vmap", how replicas on the same device share it.
      axis_name: the replicas' axis. Where several devices hold several replicas each,
        `Layout.axis_name` is a pair of other names, "replica_across_devices" and
        "replica_within_device": give `layout.axis_name` to transformations, whatever the layout.
      devices: how many, or which. By default as many as divide p.
      mesh: instead of `devices`: its axis `axis_name` is over replicas, and over any further one
        ("data", say) a replica's batch is divided; the step averages its gradients over it.
        `Layout.mesh` has the same devices, automatic axes, and for `axis_name` the first name of
        the pair where a device holds several replicas; write `jax.set_mesh(layout.mesh)`, if any.

    Returns:
      A `Layout`, for `entropix.replicas.runner`.

    Raises:
      ValueError: for more devices than there are, a p that they do not divide, or unknown names.

    Example:
      >>> from entropix import replicas
      >>> layout = replicas.layout(4, "vmap")
      >>> layout.per_device, layout.axis_name
      (4, 'replica')
    """
    replicas = check_count("replicas", replicas)
    check_kind("kind", kind)
    _check_each(each)
    if not isinstance(axis_name, str):
        raise refusal("axis_name", "one name", axis_name)
    if mesh is not None and not isinstance(mesh, Mesh):
        raise refusal("mesh", "a jax.sharding.Mesh, such as jax.make_mesh makes, or None", mesh)
    devices = check_devices(devices)
    if mesh is not None and devices is not None:
        raise refusal("devices", "None with a mesh, which has devices", devices)
    if isinstance(devices, int) and devices > len(jax.devices()):
        raise ValueError(too_few(f"devices={devices} were asked for", devices))
    if kind == "vmap":
        check_alone(devices, mesh)
        check_processes(replicas, kind, jax.devices()[:1])
        return Layout(replicas, kind, axis_name, None)
    free = kind == "auto" and devices is None and mesh is None
    if mesh is None:
        mesh = make_mesh(replicas, kind, axis_name, devices)
    check_mesh(replicas, kind, axis_name, mesh)
    if mesh.axis_names == (axis_name,) and mesh.size == 1:  # one device for all
        if free and replicas > 1 and jax.default_backend() == "cpu":
            _advise_more_devices()
        default = mesh.devices.flat[0] == jax.devices()[0]
        return Layout(replicas, "vmap", axis_name, None if default else mesh)
    kind = "shard_map" if kind == "auto" else kind
    if replicas == mesh.shape[axis_name]:  # a device for each
        return Layout(replicas, kind, axis_name, automatic(mesh, mesh.axis_names))
    # The pair must not contain `axis_name`: a transformation that was built with `axis_name` would
    # average over the replicas of each device alone, or over one replica of every device.
    pair = f"{axis_name}_across_devices", f"{axis_name}_within_device"
    names = tuple(pair[0] if name == axis_name else name for name in mesh.axis_names)
    return Layout(replicas, kind, pair, automatic(mesh, names))


def check_kind(name: str, kind: str) -> None:
    """Raises `ValueError` unless `kind` is a kind of layout, for the argument called `name`."""
    if isinstance(kind, str) and kind == "map":
        raise ValueError(
            f"{name}='map' was removed: replicas that communicate cannot run one after another. "
            f"Use {name}='auto' or 'vmap'; on a CPU, the environment variable JAX_NUM_CPU_DEVICES "
            "gives every replica its own device, which is faster."
        )
    if not isinstance(kind, str) or kind not in LAYOUT_KINDS:
        raise refusal(name, f"one of {', '.join(LAYOUT_KINDS)}", kind)


def on_one_device(kind: str = "auto") -> str:
    """How programs that do not communicate (seeds) share a device, side by side or in turns.

    Args:
      kind: "vmap", "map" (in turns: `lax.map`) or "auto", what is fastest: "map" on a CPU, where
        vmapped convolutions are grouped, and "vmap" elsewhere.

    Returns:
      "vmap" or "map".

    Raises:
      ValueError: for another kind.

    Example:
      >>> from entropix import replicas
      >>> replicas.on_one_device("vmap"), replicas.on_one_device() in ("vmap", "map")
      ('vmap', True)
    """
    if check_choice("kind", kind, ("auto", "vmap", "map")) != "auto":
        return kind
    return "map" if jax.default_backend() == "cpu" else "vmap"


def host_devices(replicas: int, cores: int) -> int:
    """How many devices a CPU of so many cores should pretend to be, for p replicas.

    One for each replica or, for more replicas than four times the cores, as many as divide p and
    are at most four times the cores: more devices than cores keep the cores busy while some
    devices wait (`benchmarks/replicas.py`).

    Args:
      replicas: p >= 1.
      cores: cores of the CPU, >= 1.

    Returns:
      A number of devices, a divisor of p.

    Raises:
      ValueError: for arguments that are not integers >= 1.

    Example:
      >>> from entropix import replicas
      >>> [replicas.host_devices(p, cores=2) for p in (1, 2, 3, 6, 8, 12)]
      [1, 2, 3, 6, 8, 6]
    """
    replicas, cores = check_count("replicas", replicas), check_count("cores", cores)
    return max(n for n in range(1, min(replicas, 4 * cores) + 1) if replicas % n == 0)


@functools.cache  # says so once
def _advise_more_devices() -> None:
    logging.getLogger(__name__).warning(
        "All replicas share one CPU device, which takes up to twice as long as a device for each. "
        "To have more devices, set JAX_NUM_CPU_DEVICES to the number of replicas in the "
        "environment before Python starts."
    )


def _check_each(each: str) -> None:
    if not isinstance(each, str) or each not in ("vmap", "auto"):
        raise ValueError(
            f"each must be 'vmap', the only way in which replicas that communicate share a device; "
            f"got each={each!r}. Leave the argument out."
        )


def _put(tree: Any, sharding: Any) -> Any:
    """`jax.device_put`, which in a run of several processes takes neither keys nor all arrays."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf if leaf.sharding == sharding else jax.device_put(leaf, sharding)
        if is_key(leaf):
            words = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])

    return jax.tree.map(put, tree)


def _same(tree: Any) -> Any:
    return tree
