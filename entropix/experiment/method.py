"""From a record and its options to the transformations that run it."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

import entropix
from entropix.experiment.algorithms import Algorithm
from entropix.experiment.options import (
    INNERS,
    SCOPES,
    check_common,
    learning_rate,
    left_to,
    on_gradient,
    scope,
    with_decay,
)
from entropix.transforms import Relaxation
from entropix.transforms.axes import AxisName
from entropix.transforms.checks import check_positive
from entropix.transforms.eval_params import remembers_parameters
from entropix.transforms.numerics import filled, inexact_leaves, is_hole, is_zero, on_inexact_leaves
from entropix.transforms.parts import RelaxedOptimizer

REPLICA_AXIS = "replica"


class Method(NamedTuple):
    """An algorithm, ready to be stepped.

    Attributes:
      relaxation: turns L mini-batch gradients into a relaxed one.
      optimizer: moves x by it; couples the replicas, if there are any.
      replicas: p >= 1 on a named axis; None for an algorithm without replicas.
      gamma: the scope as a schedule of outer steps, for reports; None for an algorithm without.
      eval_params: `(optimizer_state, params) -> params` to evaluate.
      on_gradient: `(grads, params) -> grads`, before the relaxation sees a mini-batch gradient.
      ema: decay of the average of x that is evaluated; 0 for none.
      per_count: gradients of one replica to one count of the learning rate's schedule; 0 where the
        algorithm has none from the experiment.
    """

    relaxation: Relaxation
    optimizer: optax.GradientTransformationExtraArgs
    replicas: int | None
    gamma: optax.Schedule | None
    eval_params: Callable[[Any, Any], Any]
    on_gradient: Callable[[Any, Any], Any]
    ema: float
    per_count: int = 0

    @property
    def cycle(self) -> int:
        """Gradients per outer step, over all replicas: L p."""
        return self.relaxation.num_steps * (self.replicas or 1)


def build(
    algorithm: Algorithm,
    *,
    gradients: float,
    replicas: int | None = None,
    axis_name: AxisName = REPLICA_AXIS,
    num_parameters: int = 1,
    traced: Mapping[str, Any] | None = None,
) -> Method:
    """Makes the transformations of an algorithm.

    Args:
      algorithm: with its options.
      gradients: of the whole run, over all replicas; schedules are fractions of it.
      replicas: p, of a replicated algorithm.
      axis_name: the replicas' axis, `layout.axis_name` of the layout that the algorithm runs in.
      num_parameters: N.
      traced: values that replace options, possibly traced by JAX: one compiled program then serves
        all values, which is how tuning runs its trials.

    Returns:
      A `Method`.

    Raises:
      ValueError: for an option outside its range.
    """
    option = algorithm.all_options | dict(traced or {})
    check_common(option)
    if "learning_rate" in option:
        check_positive("learning_rate", option["learning_rate"], schedule=False)
    scopes = [name for name in SCOPES if f"{name}_end" in option]
    for name in scopes:
        check_positive(name, option[name], schedule=False)
    per_replica = gradients / (replicas or 1)
    num_steps = _num_steps(algorithm, algorithm.all_options, axis_name)
    per_count = 1 if algorithm.counts == "gradients" else num_steps
    given, gamma = dict(option), None
    shared = option | left_to(algorithm.arguments)
    if "learning_rate" in option:
        given["learning_rate"] = learning_rate(option, max(per_replica / per_count, 1.0))
    for name in scopes:
        given[name] = scope(name, option, num_parameters)
    if "gamma" in option:
        gamma = given["gamma"]
    tx = _make(algorithm, given, axis_name)
    relaxation, optimizer = _parts(tx)
    own_decay = "weight_decay" in algorithm.arguments
    decay = 0.0 if own_decay or "learning_rate" not in given else option["weight_decay"]
    return Method(
        relaxation=relaxation,
        optimizer=on_inexact_leaves(
            with_decay(optimizer, given.get("learning_rate", 0.0), decay, num_steps // per_count)
        ),
        replicas=(replicas or 1) if algorithm.replicated else None,
        gamma=gamma,
        eval_params=_evaluated(algorithm, not is_zero(decay)),
        on_gradient=on_gradient(shared),
        ema=shared["ema"],
        per_count=per_count if "learning_rate" in option else 0,
    )


def _num_steps(algorithm: Algorithm, option: Mapping[str, Any], axis_name: AxisName) -> int:
    """L, which the lengths of schedules depend on: from a build with constants."""
    return _parts(_make(algorithm, option, axis_name))[0].num_steps


def _make(algorithm: Algorithm, option: Mapping[str, Any], axis_name: AxisName) -> Any:
    """Calls the record's `make` with what it takes of the options."""
    taken = inspect.signature(algorithm.make).parameters
    given = {name: option[name] for name in taken if name in option}
    if isinstance(given.get("inner"), str):
        given["inner"] = INNERS[given["inner"]]()
    if algorithm.takes_axis:
        given["axis_name"] = axis_name
    return algorithm.make(**given)


def _parts(tx: Any) -> tuple[Relaxation, optax.GradientTransformation]:
    """The relaxation and the optimiser behind it; a foreign transformation has the gradient's.

    The optimisers by name and `entropix.stepwise` know their parts, and all L gradients of an outer
    step then run in one scan.
    """
    if isinstance(tx, RelaxedOptimizer) and tx.relaxation is not None:
        if tx.optimizer is None:
            raise ValueError(
                "entropix.relax is a link without an optimiser, or guards one (if_finite), as "
                "experiments do themselves: they stop a seed whose loss is not finite. Give the "
                "experiment entropix.stepwise(relaxation, optimizer)."
            )
        return tx.relaxation, tx.optimizer
    if not isinstance(tx, optax.GradientTransformation):
        way_out = " Write .gradient_transformation()." if isinstance(tx, optax.MultiSteps) else ""
        raise ValueError(
            "an algorithm must be an Optax transformation, such as optax.adamw(1e-3); got "
            f"{tx!r}.{way_out}"
        )
    return plain_gradient(), tx


def plain_gradient() -> Relaxation:
    """The gradient at x itself: the relaxation with L = 1 and no noise."""
    return entropix.heat(1.0, num_steps=1, temperature=0)


def _evaluated(algorithm: Algorithm, decayed: bool) -> Callable[[Any, Any], Any]:
    """Where to read the parameters to evaluate."""

    def evaluated(state: Any, params: Any) -> Any:
        state = state[0] if decayed else state
        if algorithm.eval_params is not None:
            return filled(algorithm.eval_params(state, inexact_leaves(params)), params)
        if remembers_parameters(state):
            return entropix.eval_params(state, params)
        return _schedule_free(state, params)

    return evaluated


def _schedule_free(state: Any, params: Any) -> Any:
    """The average x of Optax's schedule-free optimisers; other optimisers move x itself."""
    kind = optax.contrib.ScheduleFreeState
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    found = [leaf for leaf in leaves if isinstance(leaf, kind)]
    if not found:
        return params
    if len(found) > 1:
        raise ValueError(
            f"{len(found)} schedule-free optimisers in one do not say where to evaluate. Give the "
            "experiment entropix.experiment.Algorithm(..., eval_params=...)."
        )
    (state,) = found  # of all parameters, or of those that it trains
    own = jax.tree.map(lambda z, p: z if is_hole(z) else p, state.z, params, is_leaf=is_hole)
    return filled(optax.contrib.schedule_free_eval_params(state, own), params)
