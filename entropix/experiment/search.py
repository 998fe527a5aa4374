"""Where to look for hyper-parameters: ranges, and the trials drawn from them."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from entropix.experiment.algorithms import ALGORITHMS, Algorithm
from entropix.experiment.names import check_name
from entropix.experiment.options import COMMON, SCOPED, SCOPES
from entropix.transforms.checks import refusal, shown

Ranges = dict[str, tuple[float, float]]
# Real numbers, whatever kind of number a record says.
_SHARED = {"learning_rate": 0.1, "gamma": 1.0, **COMMON, **SCOPED}
_TINY, _HUGE = 1e-30, 1e30  # in single precision these, and their products, are numbers


def make_search(
    optimizers: Mapping[str, Mapping[str, Any]], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Ranges]:
    """Makes the ranges of an experiment from what differs from the algorithms' own.

    Args:
      optimizers: run -> all its options, with its `algorithm`.
      given: run -> option -> (low, high).

    Returns:
      Run of `optimizers` -> option -> (low, high).

    Raises:
      ValueError: for an unknown run, or an option that is no number, with the known ones.

    Example:
      >>> options = {"algorithm": "sgd", "learning_rate": 0.1}
      >>> make_search({"sgd": options}, {"sgd": {"learning_rate": (0.1, 1.0)}})
      {'sgd': {'learning_rate': (0.1, 1.0)}}
    """
    if not isinstance(given, Mapping):
        raise refusal("search", "run -> option -> (low, high)", given)
    for run, ranges in given.items():
        check_name("algorithm of search", run, optimizers)
        if not isinstance(ranges, Mapping):
            raise refusal(f"search[{run!r}]", "option -> (low, high)", ranges)
        check_searchable(run, ranges, ALGORITHMS[optimizers[run]["algorithm"]])
    return {
        run: {**ALGORITHMS[options["algorithm"]].search, **given.get(run, {})}
        for run, options in optimizers.items()
    }


def check_searchable(run: str, options: Iterable[str], algorithm: Algorithm) -> None:
    """Raises `ValueError` for an option that the algorithm does not have, or that is no number.

    The kind of an option is that of its default: `gamma=10` is a real number all the same.
    """
    known = dataclasses.replace(algorithm, options={}).all_options
    kinds = known | {name: default for name, default in _SHARED.items() if name in known}
    numbers = [name for name, default in kinds.items() if isinstance(default, float)]
    for name in options:
        if name in known and name not in numbers:
            raise ValueError(
                f"the option of search {run} {name!r} decides what the program is, so that no "
                f"search can vary it; those that can be searched: {', '.join(numbers)}. Search "
                f"with one value of {name!r} at a time."
            )
        check_name(f"option of search {run}", name, numbers)


def check_search(search: Mapping[str, Mapping[str, Any]], name: str = "search") -> None:
    """Raises `ValueError` unless every range is a pair 0 < low <= high < infinity.

    Args:
      search: run -> option -> (low, high).
      name: what messages call it.
    """
    if not isinstance(search, Mapping):
        raise refusal(name, "run -> option -> (low, high)", search)
    for algorithm, ranges in search.items():
        for option, pair in ranges.items():
            try:
                low, high = pair
                good = bool(_TINY < low <= high < _HUGE)
            except (TypeError, ValueError):
                good = False
            if not good:
                raise ValueError(
                    "a search range must be (low, high) with 0 < low <= high < infinity; got "
                    f"{name}.{algorithm}.{option}={shown(pair)}. To keep an option at one "
                    "value, give it twice."
                )


def searched(run: str, algorithm: Algorithm, named: Mapping[str, Any]) -> Ranges:
    """What to search of one run: the ranges that are named, and the algorithm's own.

    An option whose value is 0 is switched off, and the algorithm's own range does not switch the
    option on; a range that is named does.

    Args:
      run: its name.
      algorithm: with its options.
      named: option -> (low, high).

    Returns:
      Option -> (low, high).

    Raises:
      ValueError: for an option that cannot be searched, or what is no range.

    Example:
      >>> from entropix.experiment import algorithm
      >>> searched("heat", algorithm("heat", temperature=0.0, gamma=0.0), {"gamma": (1, 2)})
      {'gamma': (1.0, 2.0), 'learning_rate': (0.01, 3.0)}
    """
    if not isinstance(named, Mapping):
        raise refusal(f"search[{run!r}]", "option -> (low, high)", named)
    values = algorithm.all_options
    usual = {name: pair for name, pair in algorithm.search.items() if values.get(name) != 0}
    ranges = {**usual, **named}
    check_searchable(run, ranges, algorithm)
    check_search({run: ranges})
    for name in SCOPES:
        end = ranges.get(f"{name}_end", (values.get(f"{name}_end", 0.0),))[-1]
        if name not in usual or name in named or not isinstance(end, int | float):
            continue
        low, high = usual[name]
        if end > high:
            way_out = f". Name a range of {name} above {name}_end={end:g}."
            raise refusal(f"search[{run!r}]", f"a range of {name} too", dict(named), way_out)
        ranges[name] = max(low, end), high  # a smaller scope would act as its end
    return {name: (float(low), float(high)) for name, (low, high) in sorted(ranges.items())}


def check_ends(
    run: str, algorithm: Algorithm, ranges: Ranges, check: Callable[[Algorithm], Any]
) -> None:
    """Raises `ValueError` unless a run accepts both ends of every range.

    Everything else is as it is. The algorithm's own ranges are not looked at.

    Args:
      run: its name.
      algorithm: with its options.
      ranges: option -> (low, high).
      check: raises `ValueError` for an algorithm with options that the run refuses.
    """
    for name, pair in ranges.items():
        for value in pair if pair != algorithm.search.get(name) else ():
            try:
                check(algorithm.with_options(**_end_of_range(name, value, ranges)))
            except ValueError as error:
                raise ValueError(
                    f"search {run}: both ends of a range must be values that the run accepts; "
                    f"got {name}={pair}. Choose another range: at {name}={value:g}, {error}"
                ) from error


def _end_of_range(name: str, value: float, ranges: Ranges) -> dict[str, float]:
    """One value; a scope and its end that are both searched are compared at their farthest."""
    farthest: dict[str, float] = {}
    for scope in SCOPES:
        end = f"{scope}_end"
        if scope in ranges and end in ranges and name in (scope, end):
            farthest = {scope: ranges[scope][1], end: ranges[end][0]}
    return {**farthest, name: value}


def named_ranges(algorithm: Algorithm, ranges: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a config's ranges that are not the algorithm's own."""
    usual = algorithm.search
    return {
        n: pair for n, pair in ranges.items() if n not in usual or tuple(pair) != tuple(usual[n])
    }


def draw(ranges: Ranges, trials: int, seed: int) -> list[dict[str, float]]:
    """Draws trials that cover every range evenly, on a log scale.

    A range is divided into as many equal parts as there are trials, and every part is drawn from
    once, uniformly in the logarithm (a Latin hypercube): few trials, drawn without regard to each
    other, would leave large gaps. An option's places in its range are the same for all algorithms.

    Args:
      ranges: option -> (low, high).
      trials: >= 0.
      seed: of the search.

    Returns:
      Option -> value, for each trial.

    Example:
      >>> tried = draw({"gamma": (1.0, 1000.0)}, trials=3, seed=0)
      >>> sorted(len(str(int(trial["gamma"]))) for trial in tried)
      [1, 2, 3]

    Reference:
      McKay, Beckman and Conover, Technometrics 21(2), 1979.
    """
    columns = {}
    for name, (low, high) in ranges.items():
        stream = np.random.default_rng([seed, *name.encode()])
        places = (stream.permutation(trials) + stream.uniform(size=trials)) / max(1, trials)
        columns[name] = low * (high / low) ** places
    return [{name: float(c[k]) for name, c in columns.items()} for k in range(trials)]
