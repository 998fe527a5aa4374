"""A state as arrays on the host, by name: what is written, compared and put on devices again."""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import tree_util

from entropix.transforms.keys import generator_of
from entropix.transforms.numerics import is_key


def to_host(tree: Any) -> Any:
    """Copies arrays to NumPy, keys as their data: free of devices, and safe from donation."""
    return jax.tree.map(lambda leaf: np.array(leaf), optax.tree.unwrap_random_key_data(tree))


def from_host(template: Any, state: Any) -> Any:
    """Puts what `to_host` made on the default device, in the structure of `template`.

    Raises:
      ValueError: if `state` has not just the arrays of `template`, by name, shape and dtype.
    """
    found = named(state)

    def place(path: Any, like: Any) -> jax.Array:
        name = tree_util.keystr(path, simple=True, separator="/")
        leaf = found.pop(name, None)
        if is_key(like) and leaf is not None:
            leaf = jax.random.wrap_key_data(leaf, impl=generator_of(like))
        if leaf is None or (leaf.shape, leaf.dtype) != (like.shape, like.dtype):
            saved = "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
            raise ValueError(
                f"the checkpoint holds {saved} where this config needs {name} to be "
                f"{like.dtype}{list(like.shape)}: the model, the number of seeds or the algorithm "
                "is another. Choose another workdir."
            )
        return jnp.array(leaf)

    placed = tree_util.tree_map_with_path(place, template)
    if found:
        raise ValueError(
            f"the checkpoint holds {', '.join(sorted(found)[:3])}, which this config does not "
            "know: the model or the algorithm is another. Choose another workdir."
        )
    return placed


def named(tree: Any) -> dict[str, Any]:
    """Leaves by path, written alike for the tuples that are saved and the dictionaries read."""
    leaves = tree_util.tree_leaves_with_path(tree)
    return {tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def digest(state: Any, record: dict[str, Any]) -> str:
    """SHA-256 of the record and of every array's name, dtype, shape and bits."""
    sha = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, array in sorted(named(state).items()):
        sha.update(f"{name} {array.dtype} {array.shape}".encode())
        # As bytes: arrays of bfloat16 have no buffer of their own.
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()
