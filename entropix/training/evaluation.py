"""Measures at x, with the model state of x."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from entropix.experiment.problem import Measure, Problem
from entropix.training.state import Point
from entropix.transforms.checks import refusal
from entropix.transforms.numerics import is_inexact, wide

# Examples of one forward pass in a measurement. The activations of more leave a CPU's cache: LeNet
# takes 3.6 times as long with 2,000 as with 100, and All-CNN 0.8 GB for each of its first layers.
_AT_ONCE = 128

Evaluation = Mapping[str, Array]  # "train_loss", "val_error", ...: scalars, or one per seed


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """What is measured on, on the device.

    Attributes:
      train: examples of the training set.
      validation: the validation set, or None.
    """

    train: Any
    validation: Any


jax.tree_util.register_dataclass(EvaluationData, ["train", "validation"], [])


def evaluation_data(problem: Problem, train_examples: int) -> EvaluationData:
    """So many examples of the training set (0 for all; see `Problem`), and the validation set.

    Of a loader on the host, the first batches are kept.
    """
    if problem.num_examples is not None:
        some = problem.some_of_data(train_examples or problem.num_examples)
        return EvaluationData(some, problem.validation)
    if not train_examples and not _has_length(problem.data):
        way_out = ". A loader without a length may repeat for ever: say how many are measured."
        raise refusal("eval_train_examples", "a number >= 1 with such a loader", 0, way_out)
    batches: list[Any] = []
    for batch in problem.data:
        batches.append(jax.tree.map(jnp.asarray, batch))
        seen = sum(len(jax.tree.leaves(b)[0]) for b in batches)
        if train_examples and seen >= train_examples:
            break
    train = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches)
    return EvaluationData(train, problem.validation)


def _has_length(loader: Any) -> bool:
    """Whether a loader ends; some have a `__len__` that raises where there is none."""
    try:
        return len(loader) >= 0
    except (TypeError, NotImplementedError):
        return False


def measured(problem: Problem) -> dict[str, Measure]:
    """Everything that an evaluation measures, by name."""
    sets = ("train", "val") if problem.validation is not None else ("train",)
    return {f"{s}_{name}": m for s in sets for name, m in problem.measures.items()}


def make_evaluate(problem: Problem) -> Callable[[Point, EvaluationData], Evaluation]:
    """Makes the evaluation of one seed at x (see `entropix.training.state.centre`).

    Training collects batch-norm statistics along the inner iterates y, where the gradients are
    wanted, and not at x. So they are estimated anew where the problem says how: one pass over the
    training set with the weights fixed and dropout off, whose batches' statistics are averaged.

    Args:
      problem: its measures.

    Returns:
      `evaluate(point, data) -> {"train_loss": ..., ...}`.
    """
    size, estimate = problem.eval_batch_size or problem.batch_size, make_estimate(problem)

    def evaluate(point: Point, data: EvaluationData) -> dict[str, Array]:
        params, model_state = estimate(point, data)
        found: dict[str, Array] = {}
        sets = {"train": data.train}
        if data.validation is not None:
            sets["val"] = data.validation
        for name, examples in sets.items():
            values = means(problem.measures, params, model_state, examples, min(size, _AT_ONCE))
            found |= {f"{name}_{measure}": value for measure, value in values.items()}
        return found

    return evaluate


def make_estimate(problem: Problem) -> Callable[[Point, EvaluationData], Point]:
    """Makes `(point, data) -> point` with the model state of x, where the problem says how."""
    size, estimate = problem.eval_batch_size or problem.batch_size, problem.estimate

    def estimated(point: Point, data: EvaluationData) -> Point:
        if estimate is None:
            return point
        params, state = point
        batches, _ = _split(data.train, size)  # the unequal rest would need a weight
        seen = lax.map(lambda batch: estimate(params, state, batch), batches)
        return Point(params, jax.tree.map(_mean_of_floats, seen, state))

    return estimated


def _mean_of_floats(seen: Array, before: Array) -> Array:
    return jnp.mean(seen, axis=0) if jnp.issubdtype(seen.dtype, jnp.inexact) else before


def means(
    measures: Mapping[str, Measure], params: Any, state: Any, examples: Any, size: int
) -> dict[str, Array]:
    """Means over the examples, a batch at a time, in float32 or wider."""

    def of_batch(batch: Any) -> dict[str, Array]:
        values = {name: m.function(params, state, batch) for name, m in measures.items()}
        return {name: wide(v) if is_inexact(v) else v for name, v in values.items()}

    batches, rest = _split(examples, size)
    whole = lax.map(of_batch, batches)
    num = len(jax.tree.leaves(examples)[0])
    size = min(size, num)
    share = size * (num // size) / num
    found = jax.tree.map(lambda values: jnp.mean(values, axis=0), whole)
    if share == 1:
        return found
    return jax.tree.map(lambda a, b: share * a + (1 - share) * b, found, of_batch(rest))


def _split(examples: Any, size: int) -> tuple[Any, Any]:
    """Splits examples into batches of equal size, stacked, and what is left over."""
    num = len(jax.tree.leaves(examples)[0])
    size = min(size, num)
    whole = num // size * size
    batches = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), examples)
    return batches, jax.tree.map(lambda x: x[whole:], examples)
