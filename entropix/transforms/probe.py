"""Which way an Optax transformation points: along the gradient, or against it.

A complete optimiser has a learning rate and a minus sign, the `inner` of a relaxation has neither.
One in the place of the other climbs without a word, so both are tried on a small tree when they are
built.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from entropix.transforms.checks import check_transformation

_NUM_UPDATES = 4


def refuse_complete(inner: optax.GradientTransformation) -> None:
    """Raises `ValueError` if `inner` is a complete optimiser, whose updates oppose the gradient."""
    check_transformation("inner", inner, "optax.scale_by_adam()")
    if _sign(inner) < 0:
        raise ValueError(
            "inner must come without learning rate and minus sign, such as optax.scale_by_adam() "
            "or optax.trace(0.9); got a complete optimiser, whose updates oppose the gradient. "
            "Write inner=optax.scale_by_adam(), step_size=... instead of inner=optax.adam(...); or "
            "entropix.outer(optimizer), which takes complete optimisers."
        )


def refuse_incomplete(name: str, optimizer: optax.GradientTransformation) -> None:
    """Raises `ValueError` if an optimiser points along the gradient, as a part of a chain does."""
    check_transformation(name, optimizer, "optax.adamw(1e-3)")
    if _sign(optimizer) > 0:
        raise ValueError(
            f"{name} must be complete, with its learning rate and minus sign, such as "
            "optax.adamw(1e-3); got a transformation whose updates point along the gradient. Write "
            "optax.chain(transformation, optax.scale_by_learning_rate(...)); to climb, negate the "
            "loss."
        )


def _sign(tx: optax.GradientTransformation) -> int:
    """-1 if every update that is not zero opposes the gradient, 1 if none does, else 0.

    0 is also the answer where nothing can be said: the transformation waits (`optax.MultiSteps`),
    wants leaves by name or further arguments, or depends on traced numbers.
    """
    try:
        with jax.ensure_compile_time_eval():
            signs = {sign for sign in _products(tx) if sign}
    except Exception:  # whatever a foreign transformation raises for a tree it was not made for
        return 0
    return signs.pop() if len(signs) == 1 else 0


def _products(tx: optax.GradientTransformation) -> list[int]:
    """Signs of <update, gradient> for every leaf of a few updates at nearly zero parameters.

    `value` is for those who scale their steps by the loss, such as `optax.polyak_sgd`.
    """
    grads = {"w": jnp.asarray([[1.0, -2.0, 0.5], [-1.5, 0.7, 2.0]]), "b": jnp.asarray([1.0, -0.5])}
    params = jax.tree.map(lambda g: 1e-3 * g, grads)
    tx, signs = optax.with_extra_args_support(tx), []
    state: Any = tx.init(params)
    for _ in range(_NUM_UPDATES):
        updates, state = tx.update(grads, state, params, value=jnp.asarray(1.0))
        signs += [
            int(np.sign(np.vdot(np.asarray(u), np.asarray(g))))
            for u, g in zip(jax.tree.leaves(updates), jax.tree.leaves(grads), strict=True)
        ]
    return signs
