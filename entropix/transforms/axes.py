"""Named axes: which names are accepted, and what to say where an axis is not mapped."""

import contextlib
from collections.abc import Iterator
from typing import Any

AxisName = str | tuple[str, ...]


def check_axis_name(axis_name: Any) -> None:
    """Raises `ValueError` unless `axis_name` is a name or a non-empty tuple of names."""
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"axis_name must be the name of a mapped axis or a tuple of names; got {axis_name!r}."
        )


@contextlib.contextmanager
def mapped(axis_name: AxisName) -> Iterator[None]:
    """Turns JAX's `NameError` for an axis that is not mapped here into a `ValueError`."""
    try:
        yield
    except NameError as error:
        raise ValueError(
            f"axis_name={axis_name!r} names no mapped axis here. Run the step under "
            f"jax.vmap(step, axis_name={axis_name!r}), or pmap or shard_map with that axis."
        ) from error
