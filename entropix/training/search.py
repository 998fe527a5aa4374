"""Where to look for hyper-parameters: ranges, and the trials drawn from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from entropix.training.names import check_name, check_options

Ranges = dict[str, tuple[float, float]]

# Options that one compiled program can be called with, and that take any number > 0. Their order
# is that of the draws' columns: append only, or the trials of a search change.
SEARCHABLE = ("learning_rate", "gamma", "temperature", "step_size")

# Log-uniform, and wide on purpose. The learning rates are for the gradient output: a displacement
# is about min(gamma, L step_size) gradients long. The useful eta of a relaxation grows with gamma
# up to about 1/curvature, as Example 13 shows.
_RATE = (1e-2, 3.0)
_GAMMA = (3e-2, 30.0)
RANGES: dict[str, Ranges] = {
    "sgd": {"learning_rate": _RATE},
    "entropy_sgd": {"learning_rate": _RATE, "gamma": _GAMMA, "temperature": (1e-10, 1e-4)},
    "hj": {"learning_rate": _RATE, "gamma": _GAMMA},
    # Only gamma T matters; its square root, the smoothing's width, spans 2e-4 to 0.5.
    "heat": {"learning_rate": _RATE, "gamma": _GAMMA, "temperature": (1e-6, 1e-2)},
    "elastic_sgd": {"learning_rate": _RATE, "gamma": _GAMMA},
    "parle": {"learning_rate": _RATE, "gamma": _GAMMA, "temperature": (1e-10, 1e-4)},
}


def make_search(
    optimizers: Mapping[str, Mapping[str, Any]], given: Mapping[str, dict]
) -> dict[str, Ranges]:
    """Makes the ranges of an experiment from what differs from the defaults.

    Args:
      optimizers: algorithm -> all its options.
      given: algorithm -> option -> (low, high).

    Returns:
      Algorithm of `optimizers` -> option -> (low, high).

    Raises:
      ValueError: for an unknown algorithm or option, with the nearest known one.

    Example:
      >>> make_search({"sgd": {"learning_rate": 0.1}}, {"sgd": {"learning_rate": (0.1, 1.0)}})
      {'sgd': {'learning_rate': (0.1, 1.0)}}
    """
    for algorithm, ranges in given.items():
        check_name("algorithm of search", algorithm, optimizers)
        known = [name for name in SEARCHABLE if name in optimizers[algorithm]]
        check_options(f"search {algorithm}", ranges, known)
    return {algorithm: RANGES[algorithm] | given.get(algorithm, {}) for algorithm in optimizers}


def check_search(search: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises `ValueError` unless every range is a pair 0 < low <= high < infinity."""
    for algorithm, ranges in search.items():
        for name, pair in ranges.items():
            try:
                low, high = pair
                good = bool(0 < low <= high < np.inf)
            except (TypeError, ValueError):
                good = False
            if not good:
                raise ValueError(
                    f"a search range must be (low, high) with 0 < low <= high < infinity; got "
                    f"config.search.{algorithm}.{name}={pair!r}. To keep an option at one value, "
                    f"give it twice."
                )


def ranges_of(config: ConfigDict, algorithm: str) -> Ranges:
    """What to search for one algorithm, in the order of `SEARCHABLE`.

    An option whose value is 0 is switched off, as a temperature may be, and is not searched.
    """
    optimizer = config.optimizer if "optimizer" in config else config.optimizers[algorithm]
    ranges = config.search[algorithm]
    used = [name for name in SEARCHABLE if name in ranges and optimizer[name] != 0]
    return {name: (float(ranges[name][0]), float(ranges[name][1])) for name in used}


def draw(ranges: Ranges, trials: int, seed: int) -> list[dict[str, float]]:
    """Draws trials, log-uniform in `ranges`, from the same uniform numbers for all algorithms.

    Args:
      ranges: option of `SEARCHABLE` -> (low, high).
      trials: >= 0. More trials begin with the same ones.
      seed: of the search.

    Returns:
      Option -> value, for each trial.

    Example:
      >>> draw({"gamma": (2.0, 2.0)}, trials=2, seed=0)
      [{'gamma': 2.0}, {'gamma': 2.0}]
    """
    uniform = np.random.default_rng(seed).uniform(size=(trials, len(SEARCHABLE)))
    drawn = []
    for row in uniform:
        place = dict(zip(SEARCHABLE, row, strict=True))
        drawn.append(
            {name: float(low * (high / low) ** place[name]) for name, (low, high) in ranges.items()}
        )
    return drawn
