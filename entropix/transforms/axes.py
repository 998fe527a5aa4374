"""Named axes: which names are accepted, and what the axis of an update is mapped by."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from entropix.transforms.checks import refusal
from entropix.transforms.numerics import is_key

AxisName = str | tuple[str, ...]


def check_axis_name(axis_name: Any) -> AxisName:
    """Returns a name, or a non-empty tuple of different names."""
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    known = all(isinstance(name, str) for name in names)
    if not names or not known or len(set(names)) < len(names):
        accepted = "the name of a mapped axis or a tuple of different names"
        raise refusal("axis_name", accepted, axis_name)
    return axis_name


def check_optional_axis_name(axis_name: Any) -> AxisName | None:
    """Returns None, a name, or a non-empty tuple of different names."""
    return None if axis_name is None else check_axis_name(axis_name)


class UnmappedAxisError(ValueError):
    """An axis of replicas that no `vmap`, `pmap` or `shard_map` has named."""


@contextlib.contextmanager
def mapped(axis_name: AxisName) -> Iterator[None]:
    """Turns JAX's `NameError` for an axis that is not mapped here into a `ValueError`."""
    try:
        yield
    except NameError as error:
        raise UnmappedAxisError(
            f"axis_name={axis_name!r} names no mapped axis here. Run the step under "
            f"jax.vmap(step, axis_name={axis_name!r}), or pmap or shard_map with that axis; under "
            "entropix.replicas.runner, build the transformation with axis_name=layout.axis_name."
        ) from error


def agreed(count: jax.Array, axis_name: AxisName) -> jax.Array:
    """A counter that is the same on all replicas, as one number instead of one a replica.

    Under `vmap` a conditional on one number a replica is a selection: both branches run, and a
    collective in one of them at every step. The maximum over the vmapped axes is one number again.
    Over the axes of `shard_map` and `pmap` every device takes its own branch, and a maximum would
    itself be communication.

    Raises:
      ValueError: outside the named axes.
    """
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    on_devices = jax.sharding.get_abstract_mesh().manual_axes
    vmapped = tuple(name for name in names if name not in on_devices)
    with mapped(axis_name):
        return lax.pmax(count, vmapped) if vmapped else count


def vary_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """`x`, by its type as different from device to device as `like` is.

    `shard_map` knows that a mean, or a counter set to zero, is the same everywhere and that a state
    it was given need not be; the branches of a conditional need one type. (`lax.pcast` would say
    so directly, but refuses axes of `vmap` and values that vary already.) A random key is passed
    on and never made anew: it is left alone, and not used here.
    """
    if is_key(x):
        return x
    return jnp.where(like == like, x, x)
