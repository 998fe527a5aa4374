"""Statistics of differences between two runs, taken seed by seed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

# What single precision alone can make: a spread of differences over the largest of them, and over
# the largest of the values that were subtracted.
_ROUNDING = 1e-5
_ROUNDING_OF_VALUES = 1e-6


class Student(NamedTuple):
    """Student's paired test.

    Attributes:
      mean: of the differences.
      half: half the width of the 95 % interval around the mean; 0 for equal differences, such as
        the same few images with every seed, from which no interval follows.
      p: two-sided; of a difference as large as the mean if there is none. 1 for equal differences.
    """

    mean: float
    half: float
    p: float


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Differences, seed by seed, of the seeds that both have; equal ones are exactly equal.

    Accuracies near 100 % that differ by the same nine examples with every seed have differences
    that are equal but for the rounding of the accuracies: those are replaced by their mean.

    Args:
      ours: seed -> value of a run.
      theirs: seed -> value of the baseline.

    Example:
      >>> paired({0: 0.5, 1: 0.75, 3: 1.0}, {0: 0.25, 1: 0.25})
      [0.25, 0.5]
    """
    values = np.asarray([(ours[seed], theirs[seed]) for seed in ours if seed in theirs], float)
    if not values.size:
        return []
    differences = values[:, 0] - values[:, 1]
    if np.ptp(differences) <= _ROUNDING_OF_VALUES * np.max(np.abs(values)):
        differences[:] = np.mean(differences)
    return [float(difference) for difference in differences]


def student(differences: Sequence[float] | np.ndarray) -> Student | None:
    """Student's test of differences; None for fewer than two, whose spread is unknown.

    Example:
      >>> print(*(f"{value:.4f}" for value in student([1.0, 2.0, 3.0])))
      2.0000 2.4841 0.0742
    """
    if len(differences) < 2:
        return None
    mean = float(np.mean(differences))
    if np.ptp(differences) <= _ROUNDING * np.max(np.abs(differences)):
        return Student(mean, 0.0, 1.0)
    error, law = float(stats.sem(differences)), stats.t(len(differences) - 1)
    return Student(mean, float(law.ppf(0.975)) * error, float(2 * law.sf(abs(mean) / error)))


def holm(p_values: Sequence[float]) -> np.ndarray:
    r"""Holm's correction of m p-values: $\tilde p_{(k)} = \max_{j \le k} (m - j + 1)\, p_{(j)}$.

    The probability of one false rejection or more, over all m tests, is at most the level.

    Example:
      >>> holm([0.04, 0.01, 0.5]).tolist()
      [0.08, 0.03, 0.5]

    References:
      Holm, A simple sequentially rejective multiple test procedure. Scand. J. Statist. 6 (1979).
    """
    p = np.asarray(p_values, dtype=float)
    order, factors = np.argsort(p), np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return corrected
