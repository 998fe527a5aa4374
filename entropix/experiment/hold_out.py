"""A part of a problem's training set, held out for a search."""

import dataclasses
import math

import jax
import numpy as np

from entropix.experiment.arrays import evenly_spread
from entropix.experiment.problem import Problem


def hold_out(problem: Problem, fraction: float = 0.2, seed: int = 0) -> Problem:
    """The problem with a part of its training set held out, as its validation set.

    Args:
      problem: with arrays on the device.
      fraction: of the examples, in (0, 1).
      seed: of their choice. Of a problem with a `sample` of its own, whose examples may stand in
        an order that matters, the last ones are held out.

    Returns:
      A `Problem`. Of its former validation set the size alone counts: no more held-out examples are
      measured than that set has, so that a trial's evaluation costs no more than a run's.

    Raises:
      ValueError: for a loader on the host, or a single example.
    """
    if problem.num_examples is None:
        raise ValueError(
            f"{problem.name}: a search holds a part of the training set out, which a loader on the "
            "host does not allow. Give the problem arrays."
        )
    count = problem.num_examples
    if count < 2:
        raise ValueError(
            f"{problem.name}: a search holds a part of the training set out, which needs 2 "
            f"examples or more; got {count}."
        )
    held = math.ceil(fraction * count)
    order = np.arange(count)
    if problem.sample is None:
        order = np.random.default_rng(seed).permutation(count)
    kept, out = order[: count - held], order[count - held :]
    if problem.validation is not None:
        most = len(jax.tree.leaves(problem.validation)[0])
        out = out[evenly_spread(min(most, held), held)]
    return dataclasses.replace(
        problem,
        data=jax.tree.map(lambda leaf: leaf[kept], problem.data),
        validation=jax.tree.map(lambda leaf: leaf[out], problem.data),
        digest=f"{problem.identity['digest']}, a share of {fraction} held out, {len(out)} measured",
    )
