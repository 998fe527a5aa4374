"""Digests of data and functions: what an experiment was run on, in sixteen characters."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ADDRESS = re.compile(r"0x[0-9a-f]+")  # of functions, in the text of a program


def digest_arrays(tree: Any) -> str:
    """Returns a digest of the names, shapes, types and values of arrays.

    Example:
      >>> digest_arrays({"x": np.ones(2)}) == digest_arrays({"x": np.ones(3)})
      False
    """
    found = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        found.update(array.view(np.uint8).data if array.size else b"")
    return found.hexdigest()


def digest_program(function: Callable[..., Any], *arguments: Any) -> str:
    """Returns a digest of what a function computes: its program and the constants in it.

    Args:
      function: of arrays, that JAX can trace.
      *arguments: arrays or `jax.ShapeDtypeStruct`s to trace it with.

    Returns:
      Sixteen hexadecimal characters. Functions that compute the same may have several digests; a
      changed constant, such as a learning rate, always gives another one.

    Example:
      >>> x = jax.ShapeDtypeStruct((2,), jnp.float32)
      >>> digest_program(lambda x: 2 * x, x) == digest_program(lambda y: 2 * y, x)
      True
      >>> digest_program(lambda x: 2 * x, x) == digest_program(lambda x: 3 * x, x)
      False
    """
    program = jax.make_jaxpr(function)(*arguments)
    text = _ADDRESS.sub("", str(program.jaxpr))
    constants = [c for c in program.consts if hasattr(c, "dtype")]
    return hashlib.blake2b((text + digest_arrays(constants)).encode(), digest_size=8).hexdigest()
