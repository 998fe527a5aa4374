"""Digests of data and functions: what an experiment was run on, in sixteen characters."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from entropix.transforms.numerics import is_key

_PYTHON = re.compile(r"\b(pure_callback|io_callback)\[")  # as programs are printed


def digest_arrays(tree: Any) -> str:
    """Returns a digest of the names, shapes, types and values of arrays.

    Example:
      >>> digest_arrays({"x": np.ones(2)}) == digest_arrays({"x": np.ones(3)})
      False
    """
    found = hashlib.blake2b(digest_size=8)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if is_key(leaf):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        found.update(array.view(np.uint8).data if array.size else b"")
    return found.hexdigest()


def digest_training(
    loss: Callable[..., Any], params: Any, model_state: Any, batch: Any, key: Any
) -> str:
    """Returns a digest of a problem's loss and its gradient.

    The gradient is no function of what the loss computes: a frozen layer, by
    `jax.lax.stop_gradient`, or a rule of `jax.custom_vjp` changes the gradient alone.

    Args:
      loss: as that of `entropix.experiment.Problem`.
      params: arrays or `jax.ShapeDtypeStruct`s, as all that follow.
      model_state: what the model carries along.
      batch: a mini-batch.
      key: a random key.

    Returns:
      Sixteen hexadecimal characters.

    Raises:
      ValueError: as `digest_program`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def loss(w, model_state, batch, key):
      ...   return jnp.sum(w * batch), model_state
      >>> def frozen(w, *rest):
      ...   return loss(jax.lax.stop_gradient(w), *rest)
      >>> x, key = jax.ShapeDtypeStruct((2,), jnp.float32), jax.random.key(0)
      >>> digest_training(loss, x, (), x, key) == digest_training(frozen, x, (), x, key)
      False
    """
    _refuse_python(loss, params, model_state, batch, key)  # which has no gradient either
    value_and_grad = jax.value_and_grad(loss, has_aux=True, allow_int=True)
    return digest_program(value_and_grad, params, model_state, batch, key)


def digest_program(function: Callable[..., Any], *arguments: Any) -> str:
    """Returns a digest of what a function computes: its program and the constants in it.

    Args:
      function: of arrays, that JAX can trace.
      *arguments: arrays or `jax.ShapeDtypeStruct`s to trace it with.

    Returns:
      Sixteen hexadecimal characters. Functions that compute the same may have several digests, and
      so may one function under several versions of JAX; a changed constant, such as a learning
      rate, always gives another one.

    Raises:
      ValueError: for a program that calls Python by `jax.pure_callback` or
        `jax.experimental.io_callback`: its text does not say what Python does.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jax.ShapeDtypeStruct((2,), jnp.float32)
      >>> digest_program(lambda x: 2 * x, x) == digest_program(lambda y: 2 * y, x)
      True
      >>> digest_program(lambda x: 2 * x, x) == digest_program(lambda x: 3 * x, x)
      False
    """

    def program(*arguments: Any) -> Any:  # the text has its name
        return function(*arguments)

    _refuse_python(program, *arguments)
    # For one platform, whatever the machine has: a run may go on elsewhere. The text has all
    # constants, those inside compiled functions too.
    lowered = jax.jit(program).trace(*arguments).lower(lowering_platforms=("cpu",))
    return hashlib.blake2b(lowered.as_text().encode(), digest_size=8).hexdigest()


def _refuse_python(function: Callable[..., Any], *arguments: Any) -> None:
    called = _PYTHON.search(str(jax.make_jaxpr(function)(*arguments)))
    if called:
        raise ValueError(
            f"a function calls Python by {called[1]}, and no digest can see what Python does: the "
            "results of one function would be given for those of another. Write the function with "
            "jax.numpy; or, in a problem, give Problem(digest=...) a text that changes whenever "
            "the function does. To print or log, use jax.debug.callback."
        )
