"""The first outer step of an algorithm, traced: what it computes, and whether it can be run."""

from collections.abc import Callable
from typing import Any

import jax

import entropix
from entropix.experiment.algorithms import Algorithm
from entropix.experiment.fingerprint import digest_program
from entropix.experiment.method import REPLICA_AXIS, Method
from entropix.experiment.options import COMMON, OF_RATE
from entropix.transforms.axes import UnmappedAxisError
from entropix.transforms.eval_params import remembers_parameters
from entropix.transforms.probe import refuse_incomplete


def first_step(
    method: Method,
    params: Any,
    on_gradient: Callable[[Any, Any], Any] = lambda grads, _: grads,
) -> Any:
    """The first outer step from parameters at which the mini-batch gradient is the point itself.

    Returns:
      The updates, the states after them, and the point to evaluate.
    """
    relaxation, optimizer = method.relaxation.init(params), method.optimizer.init(params)
    slope = entropix.relaxed_grad(method.relaxation, lambda p, i: on_gradient(p, p))
    grads, relaxation = slope(params, relaxation)
    updates, optimizer = method.optimizer.update(grads, optimizer, params, value=0.0)
    return updates, optimizer, relaxation, method.eval_params(optimizer, params)


def on_replicas(
    step: Callable[[Any], Any], shapes: Any, replicas: int | None
) -> tuple[Callable[[Any], Any], Any]:
    """A function of parameters, for all replicas if there are some, and shapes to trace it with."""
    if replicas is None:
        return step, shapes

    def repeated(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype)

    return jax.vmap(step, axis_name=REPLICA_AXIS), jax.tree.map(repeated, shapes)


def digest_of_first_step(method: Method, shapes: Any, replicas: int | None) -> str:
    """A digest of an algorithm that is not the package's: all that its first outer step computes.

    The states too: what a rule does from the second step on is in them.
    """
    step = lambda params: first_step(method, params)  # noqa: E731
    return digest_program(*on_replicas(step, shapes, replicas))


def check_foreign(algorithm: Algorithm, method: Method, shapes: Any, replicas: int | None) -> None:
    """Raises `ValueError` for an algorithm of a user's that would climb, or fail in its first step.

    An optimiser that counts outer steps of its own, inside a chain, is one of L = 1 to the
    experiment: the experiment's schedule would count gradients, and its decay would move x at each.
    """
    refuse_incomplete("the algorithm", method.optimizer)
    state = jax.eval_shape(method.optimizer.init, shapes)
    options, arguments = algorithm.all_options, algorithm.arguments
    acting = [name for name in OF_RATE if options[name] != COMMON[name] and name not in arguments]
    if acting and method.per_count and remembers_parameters(state):
        raise ValueError(
            f"{acting[0]}={options[acting[0]]!r} acts at outer steps, and entropix.stepwise is "
            "hidden in a chain or a wrapper, where the experiment cannot count them. Return the "
            "optimiser by name, or entropix.stepwise(relaxation, optimizer), itself; links before "
            "it go into inner=, links after it into the optimiser."
        )

    def step(params: Any) -> Any:
        return method.optimizer.update(params, method.optimizer.init(params), params, value=0.0)

    traced, given = on_replicas(step, shapes, replicas)
    try:
        jax.eval_shape(traced, given)
    except UnmappedAxisError as error:
        raise ValueError(
            "its update communicates between replicas, over an axis that the experiment names. "
            "Give the experiment a function of that name: entropix.experiment.Algorithm(name, "
            "lambda axis_name: ..., replicated=True)."
        ) from error
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"its update failed ({error}). An experiment calls update(grads, state, params, "
            "value=...) with the mean mini-batch loss, and no other argument."
        ) from error
