"""Calls outside of `jax.jit`, which must not compile anything anew at every call.

JAX compiles a loop or a conditional whenever it is called eagerly, and keeps the program. Compiled
once per transformation instead are the functions of its relaxation, which close over nothing of the
caller's.
"""

from typing import Any

import jax
import numpy as np

from entropix.transforms.relaxation import Relaxation


def is_concrete(*trees: Any) -> bool:
    """Whether all leaves are values, as outside of `jax.jit`, `jax.vmap` and `jax.grad`."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def is_data(*trees: Any) -> bool:
    """Whether all leaves are numbers or arrays, which a compiled function takes."""
    numbers = (jax.Array, np.ndarray, np.generic, int, float, complex)
    return all(isinstance(leaf, numbers) for leaf in jax.tree.leaves(trees))


def compiled(relaxation: Relaxation) -> Relaxation:
    """The relaxation with its functions compiled, each when it is first called."""
    return relaxation._replace(
        begin=jax.jit(relaxation.begin),
        point=jax.jit(relaxation.point),
        step=jax.jit(relaxation.step),
        finish=jax.jit(relaxation.finish),
    )
