"""Batches from a loader on the host, in the same order after a break as without one."""

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from entropix.experiment.arrays import fitting, shape_of
from entropix.experiment.problem import Problem

_log = logging.getLogger(__name__)


class Feed:
    """The batches of a problem whose data are a loader on the host; all seeds see the same.

    A loader that ends begins again. Where a run continues, the batches that it has seen are read
    and dropped, so that a loader with a fixed order gives the run the same batches as without a
    break.

    Args:
      problem: whose `data` are an iterable of batches.
      num_steps: L, batches in an outer step.
      seen: batches that were taken before.
    """

    def __init__(self, problem: Problem, num_steps: int, seen: int):
        self._batches, self._num_steps = _endless(problem.data), num_steps
        self._first = problem.first_batch()
        self._name = problem.name
        if seen:
            _log.info("%s: reading over %d batches that were seen", problem.name, seen)
        for _ in itertools.islice(self._batches, seen):
            pass

    def take(self) -> Any:
        """The batches of one outer step, stacked.

        Raises:
          ValueError: if a batch has not the shapes and dtypes of the first one, or whole numbers
            that do not fit the device's.
        """
        read = itertools.islice(self._batches, self._num_steps)
        of_loader = f"a batch of {self._name}'s loader"
        batches = [jax.tree.map(lambda leaf: fitting(of_loader, leaf), batch) for batch in read]
        for batch in batches:
            found = jax.tree.map(shape_of, batch)
            if found == self._first:
                continue
            expected, got = (jax.tree.map(lambda leaf: leaf.shape, t) for t in (self._first, found))
            what, way_out = "shapes", "Tell the loader to drop the last batch where it is smaller"
            if expected == got:
                expected, got = (
                    jax.tree.map(lambda leaf: str(leaf.dtype), t) for t in (self._first, found)
                )
                what, way_out = "dtypes", "Turn all batches' arrays into the same dtypes"
            raise ValueError(
                f"every batch of {self._name}'s loader must have the {what} {expected}; got {got}. "
                f"{way_out}."
            )
        return jax.tree.map(_stack, *batches)


def _stack(*leaves: Any) -> np.ndarray:
    stacked = np.stack([np.asarray(leaf) for leaf in leaves])
    return stacked.astype(jax.dtypes.canonicalize_dtype(stacked.dtype))


def _endless(data: Any) -> Iterator[Any]:
    while True:
        count = 0
        for batch in data:
            count += 1
            yield batch
        if not count:
            raise ValueError(
                "the problem's data gave no batch: an iterator that is read once cannot be used "
                "again. Give a loader that can be iterated several times."
            )
