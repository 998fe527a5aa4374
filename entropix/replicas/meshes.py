"""The devices that replicas are spread over: meshes of them, and what is refused."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from entropix.transforms.checks import check_count, refusal


def check_devices(devices: Any) -> int | list[jax.Device] | None:
    """Returns a number of devices >= 1, or at least one device."""
    if devices is None or isinstance(devices, int | np.integer):
        return None if devices is None else check_count("devices", devices)
    known = list(devices) if isinstance(devices, Iterable) else []
    several = all(isinstance(device, jax.Device) for device in known)
    if not known or not several or len(set(known)) < len(known):
        accepted = "a number >= 1, or devices from jax.devices(), each once"
        raise refusal("devices", accepted, devices)
    return known


def check_alone(devices: int | list[jax.Device] | None, mesh: Mesh | None) -> None:
    """Raises `ValueError` for devices that replicas side by side on the default one do not use."""
    way_out = ". All replicas live on the default device; other kinds spread them."
    if mesh is not None:
        raise refusal("mesh", "None with kind='vmap'", mesh, way_out)
    default = isinstance(devices, list) and devices == [*jnp.zeros(()).devices()]
    if devices not in (None, 1) and not default:
        raise refusal("devices", "None or 1 with kind='vmap'", devices, way_out)


def make_mesh(
    replicas: int, kind: str, axis_name: str, devices: int | list[jax.Device] | None
) -> Mesh:
    """A mesh of replicas alone, over the devices asked for or as many as divide p."""
    known = jax.devices()
    if devices is None:
        count = max(n for n in range(1, len(known) + 1) if replicas % n == 0)
        if kind != "auto" and count == 1 < replicas:
            asked = f"layout={kind!r} spreads replicas={replicas} over devices"
            fewest = next(n for n in range(2, replicas + 1) if replicas % n == 0)
            raise ValueError(too_few(asked, fewest))
    elif isinstance(devices, int):
        count = devices
    else:
        known, count = devices, len(devices)
    return automatic(Mesh(np.asarray(known[:count]), (axis_name,)), (axis_name,))


def automatic(mesh: Mesh, names: tuple[str, ...]) -> Mesh:
    """The mesh with these names, outside of `shard_map` with shardings that JAX chooses.

    With explicit axes (the default of `jax.make_mesh`) states and batches would have to come in the
    very shardings that the step wants.
    """
    return Mesh(mesh.devices, names, axis_types=(AxisType.Auto,) * len(names))


def too_few(asked: str, wanted: int) -> str:
    """The message for more devices than JAX sees, with the ways out."""
    known = jax.devices()
    there = f"{len(known)} {known[0].platform} device{'s' if len(known) > 1 else ''}"
    return (
        f"{asked}, and JAX sees {there}. Two ways out: layout='auto' (or 'vmap') "
        "without a number of devices runs all replicas on those that there are; or give JAX more "
        f"of them, on a CPU by setting JAX_NUM_CPU_DEVICES={wanted} in the environment before "
        "Python starts."
    )


def check_mesh(replicas: int, kind: str, axis_name: str, mesh: Mesh) -> None:
    """Raises `ValueError` for a mesh over which p replicas cannot be spread."""
    if axis_name not in mesh.axis_names:
        raise ValueError(
            f"mesh must have an axis {axis_name!r} for the replicas; it has "
            f"{', '.join(map(repr, mesh.axis_names))}."
        )
    if replicas % mesh.shape[axis_name]:
        raise ValueError(
            f"replicas must be a multiple of the devices along {axis_name!r}; got "
            f"replicas={replicas} on {mesh.shape[axis_name]}."
        )
    if kind == "pmap" and len(mesh.axis_names) > 1:
        raise ValueError(
            f"pmap maps one axis, and the mesh has {len(mesh.axis_names)}; use layout='shard_map'."
        )
    check_processes(replicas, kind, mesh.devices.flat)


def check_processes(replicas: int, kind: str, devices: Iterable[jax.Device]) -> None:
    """Raises `ValueError` for devices that leave processes of the run without replicas."""
    processes = {device.process_index for device in devices}
    if len(processes) < jax.process_count() or (kind == "pmap" and jax.process_count() > 1):
        raise ValueError(
            f"replicas={replicas} in layout={kind!r} would not spread over all "
            f"{jax.process_count()} processes. Use layout='shard_map' and a multiple of their "
            f"{jax.device_count()} devices as replicas, or run in one process."
        )
