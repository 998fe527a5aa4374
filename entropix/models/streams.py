"""Random streams of NNX models: made from keys and seeds, and given other keys."""

from typing import Any

import jax
from flax import nnx

from entropix.transforms.keys import check_key
from entropix.transforms.numerics import is_key


def streams(rngs: nnx.Rngs | jax.Array | int) -> nnx.Rngs:
    """Returns the streams of a key or a seed; `nnx.Rngs` as they are.

    Raises:
      ValueError: for anything else.
    """
    return rngs if isinstance(rngs, nnx.Rngs) else nnx.Rngs(check_key(rngs, "rngs"))


def rekeyed(state: Any, key: jax.Array) -> Any:
    """The state of a model's random streams, with keys that derive from `key`."""
    leaves, structure = jax.tree.flatten(state)
    for index, leaf in enumerate(leaves):
        if is_key(leaf):
            folded = jax.random.fold_in(key, index)
            leaves[index] = jax.random.split(folded, leaf.shape) if leaf.ndim else folded
    return jax.tree.unflatten(structure, leaves)
