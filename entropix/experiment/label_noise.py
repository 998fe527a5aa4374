"""Classification with few examples and with wrong labels, of which a network may learn by heart."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from entropix import data as datasets
from entropix.experiment.classification import classification, dataset_of
from entropix.experiment.problem import Measure, Problem
from entropix.transforms.checks import check_count, check_fraction, check_index, refusal


def noisy_labels(
    data: Any,
    model: Any,
    *,
    examples: int = 10_000,
    wrong: float = 0.4,
    label_seed: int = 0,
    batch_size: int = 128,
    data_dir: str | None = None,
) -> Problem:
    """Makes a classification from a part of a data set, a share of whose labels is wrong.

    A wrong label is any of the other classes, equally likely. Test labels stay right.

    Args:
      data: the name of a data set, a `Dataset` or arrays, as for `classification`; of two classes
        or more where labels are to be wrong.
      model: whatever `classification` takes.
      examples: of the training set, drawn without replacement; >= 1.
      wrong: share of wrong labels among them, in [0, 1).
      label_seed: of both draws, a whole number >= 0. Runs of all seeds train on the same labels.
      batch_size: examples per gradient.
      data_dir: folder of prepared data sets.

    Returns:
      A `Problem` that measures "loss" and "error" and, if labels are wrong, "memorised": the share
      of the wrong labels that the network predicts (%). The last says nothing on the test set,
      where it is 0. Where fewer examples are measured than there are, it is their wrong labels in
      per cent of as many as would be expected among them, which may be off by some per cent.

    Raises:
      ValueError: for more examples than there are, or a share outside its range.

    Example:
      >>> from entropix import data
      >>> problem = noisy_labels(data.load("digits"), {"name": "mlp", "widths": (8,)},
      ...                        examples=100, wrong=0.3)
      >>> problem.num_examples, sorted(problem.measures)
      (100, ['error', 'loss', 'memorised'])
    """
    check_fraction("wrong", wrong)
    label_seed = check_index("label_seed", label_seed)
    dataset = datasets.load(data, data_dir) if isinstance(data, str) else dataset_of(data)
    count = check_count("examples", examples)
    if count > dataset.num_train:
        raise refusal("examples", f"at most {dataset.num_train}, which the data set has", examples)
    if wrong and not np.asarray(dataset.train_labels).any():
        way_out = ". A wrong label is one of another class: give two classes or more."
        raise refusal("wrong", "0 where all labels are 0", wrong, way_out)
    kept, labels, is_wrong = _draw(np.asarray(dataset.train_labels), count, wrong, label_seed)
    part = dataset._replace(
        train_images=dataset.train_images[kept], train_labels=jnp.asarray(labels)
    )
    problem = classification(part, model, batch_size=batch_size)
    name = data if isinstance(data, str) else "classification"
    chosen = {"data": name, "examples": count, "wrong": wrong, "label_seed": label_seed}
    right = jnp.zeros(len(dataset.test_labels), bool)
    return dataclasses.replace(
        problem,
        name=f"{name}_{count}_examples_{round(100 * wrong)}_percent_wrong",
        data=(*problem.data, is_wrong),
        validation=(*problem.validation, right),
        measures={**problem.measures, **_memorised(problem, float(is_wrong.mean()))},
        arguments={**problem.arguments, **chosen},
    )


def _draw(
    labels: np.ndarray, count: int, wrong: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of the examples, their labels, and which of these are wrong."""
    classes = int(labels.max()) + 1
    rng = np.random.default_rng(seed)
    kept = rng.permutation(len(labels))[:count]
    is_wrong = np.zeros(count, bool)
    is_wrong[rng.permutation(count)[: round(wrong * count)]] = True
    shift = rng.integers(1, max(classes, 2), count)  # one class has no wrong labels
    return kept, np.where(is_wrong, (labels[kept] + shift) % classes, labels[kept]), is_wrong


def _memorised(problem: Problem, share: float) -> Mapping[str, Measure]:
    """The share of wrong labels that are predicted, as a mean over all examples."""
    apply = problem.apply
    if not share or apply is None:
        return {}

    def function(params: Any, state: Any, batch: Any) -> Array:
        inputs, labels, is_wrong = batch
        learnt = is_wrong & (jnp.argmax(apply(params, state, inputs), axis=-1) == labels)
        return 100 * jnp.mean(learnt) / share

    return {"memorised": Measure(function, "lower", "%")}
