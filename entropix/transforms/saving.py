"""States as plain arrays, for savers that refuse random keys or forget the names of dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.transforms.keys import generator_of
from entropix.transforms.numerics import dtype_of, is_abstract, is_key


def to_arrays(state: Any) -> Any:
    """Turns a state into arrays that every saver takes: typed random keys become integers.

    Orbax and `pickle` save the states of this package as they are. `flax.serialization`,
    `equinox.tree_serialise_leaves`, `numpy.savez` and `multihost_utils.broadcast_one_to_all` refuse
    typed keys, and `numpy.savez` forgets the name of bfloat16. For these savers, save
    `to_arrays(state)` and give what they load to `entropix.from_arrays`.

    Args:
      state: any pytree, such as an optimiser's state or a pair `(params, state)`. Leaves may be
        abstract (`jax.ShapeDtypeStruct`).

    Returns:
      The same pytree with dtypes that NumPy has itself: a typed key becomes its words (uint32, with
      one axis more), a number of bfloat16 or float8 the unsigned integer of the same bits, and
      one of fewer than eight bits, whole or not, an integer of eight. All others stay as they are.

    Example:
      >>> import entropix, io, jax, jax.numpy as jnp, numpy as np
      >>> tx = entropix.entropy_sgd(0.1, gamma=1.0)
      >>> state, file = tx.init(jnp.ones(3, jnp.bfloat16)), io.BytesIO()
      >>> np.savez(file, *jax.tree.leaves(entropix.to_arrays(state)))
      >>> loaded = list(np.load(io.BytesIO(file.getvalue())).values())
      >>> state = entropix.from_arrays(loaded, like=tx.init(jnp.zeros(3, jnp.bfloat16)))
    """
    return jax.tree.map(_to_array, state)


def from_arrays(arrays: Any, like: Any) -> Any:
    """Turns what `entropix.to_arrays` has made into the state again, bit for bit.

    Args:
      arrays: the pytree from `to_arrays`, or the flat list of its leaves; JAX or NumPy arrays.
      like: any state of the same structure, shapes, dtypes and kinds of keys, such as
        `tx.init(params)` or `jax.eval_shape(tx.init, params)`. Its numbers do not matter.

    Returns:
      The state, with JAX arrays and typed keys.

    Raises:
      ValueError: if `arrays` do not fit `like`.

    Example:
      >>> import entropix, jax
      >>> state = {"key": jax.random.key(3), "count": 5}
      >>> arrays = entropix.to_arrays(state)
      >>> arrays["key"].dtype.name
      'uint32'
      >>> entropix.from_arrays(arrays, like=state)["key"] == state["key"]
      Array(True, dtype=bool)
    """
    paths, structure = jax.tree.flatten_with_path(like)
    found: Any = jax.tree.structure(arrays)
    flat = isinstance(arrays, list) and found == jax.tree.structure([0] * len(paths))
    if not flat and found != structure:
        raise ValueError(
            f"arrays must have the structure of like, {structure}, or be the list of its "
            f"{len(paths)} leaves; got {found}."
        )
    leaves = [
        _from_array(jax.tree_util.keystr(path), array, leaf)
        for (path, leaf), array in zip(paths, jax.tree.leaves(arrays), strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def _to_array(leaf: Any) -> Any:
    if not (is_key(leaf) or _is_unknown_to_numpy(leaf)):
        return leaf
    return jax.eval_shape(_words, leaf) if is_abstract(leaf) else _words(leaf)


def _words(leaf: Any) -> jax.Array:
    """The bits of a leaf as unsigned integers."""
    if is_key(leaf):
        return jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jnp.asarray(leaf, _byte(leaf.dtype))
    bits = lax.bitcast_convert_type(leaf, _same_bits(leaf.dtype))
    return bits.astype(jnp.uint8) if bits.dtype == jnp.uint4 else bits


def _same_bits(dtype: Any) -> Any:
    """The unsigned integer of as many bits as a real dtype, uint4 or more."""
    return jnp.dtype(f"uint{jnp.finfo(dtype).bits}")


def _byte(dtype: Any) -> Any:
    """The dtype of eight bits for whole numbers of fewer, such as int4."""
    return jnp.int8 if jnp.issubdtype(dtype, jnp.signedinteger) else jnp.uint8


def _from_array(name: str, array: Any, like: Any) -> Any:
    if not hasattr(like, "dtype"):
        return array  # a Python number, or whatever else is no array
    words: Any = jax.eval_shape(_to_array, like)
    array = jnp.asarray(array)
    if (array.shape, array.dtype) != (words.shape, words.dtype):
        raise ValueError(
            f"arrays{name} must have shape {words.shape} and dtype {words.dtype}, as "
            f"to_arrays(like) has; got shape {array.shape} and dtype {array.dtype}."
        )
    if is_key(like):
        return jax.random.wrap_key_data(array, impl=generator_of(like))
    if words.dtype == dtype_of(like):
        return array
    if jnp.issubdtype(like.dtype, jnp.integer):
        return array.astype(like.dtype)
    return lax.bitcast_convert_type(array.astype(_same_bits(like.dtype)), like.dtype)


def _is_unknown_to_numpy(leaf: Any) -> bool:
    """Whether a leaf holds numbers such as bfloat16 and int4, which NumPy has from elsewhere.

    (`isbuiltin` is 2 for these, and 0 for NumPy's own in another order of bytes.)
    """
    if not hasattr(leaf, "dtype") or np.dtype(leaf.dtype).isbuiltin != 2:
        return False
    return any(jnp.issubdtype(leaf.dtype, kind) for kind in (jnp.integer, jnp.floating))
