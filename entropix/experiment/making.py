"""The runs of a comparison that is written in Python."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optax

from entropix.experiment.algorithms import ALGORITHMS, Algorithm
from entropix.experiment.fields import check_replicas
from entropix.experiment.names import check_name, check_run_name, folder_name
from entropix.experiment.problem import Problem
from entropix.experiment.run import Run
from entropix.experiment.settings import Budget, Settings
from entropix.transforms.checks import check_count, refusal


def make_runs(
    problem: Problem,
    algorithms: Mapping[str, Any],
    budget: Budget,
    seeds: int | Sequence[int],
    replicas: int | Sequence[int] = 3,
    settings: Settings | None = None,
) -> list[Run]:
    """Makes the runs of a comparison on a problem; see `entropix.experiment.compare`."""
    if not isinstance(problem, Problem):
        raise refusal("problem", "an entropix.experiment.Problem", problem)
    if not isinstance(budget, Budget):
        raise refusal("budget", "an entropix.experiment.Budget", budget)
    if not isinstance(settings, Settings | None):
        accepted = "an entropix.experiment.Settings, such as Settings(layout='vmap')"
        raise refusal("settings", accepted, settings)
    if not isinstance(algorithms, Mapping) or not algorithms:
        accepted = "run -> an Optax transformation or an Algorithm, and not empty"
        raise refusal("algorithms", accepted, algorithms)
    for name in algorithms:
        if not isinstance(name, str) or name.splitlines() not in ([], [name]):  # no line breaks
            raise refusal("a run", "called by a string of one line", name)
    made = {name: as_algorithm(name, given) for name, given in algorithms.items()}
    numbers = check_replicas(replicas)
    runs = []
    for name, algorithm in made.items():
        several = algorithm.replicated and len(numbers) > 1
        for p in numbers if algorithm.replicated else (None,):
            tag = f", p = {p}" if several else ""
            runs.append(
                Run(
                    name=_folder(name + tag),
                    label=name + tag,
                    algorithm=algorithm,
                    problem=problem,
                    budget=budget,
                    seeds=check_seeds(seeds),
                    replicas=p,
                    settings=settings or Settings(),
                )
            )
    if len({run.name for run in runs}) < len(runs):
        raise refusal("algorithms", "called by names that differ as folders", list(algorithms))
    for run in runs:
        run.check()
    return runs


def as_algorithm(name: str, given: Any) -> Algorithm:
    """An `Algorithm`: as it is, by its name in the registry, or around an Optax transformation."""
    if isinstance(given, Algorithm):
        return given
    if isinstance(given, str):
        check_name("algorithm", given, ALGORITHMS)
        return ALGORITHMS[given]
    if not isinstance(given, optax.GradientTransformation):
        accepted = "an Optax transformation, an entropix.experiment.Algorithm or the name of one"
        raise refusal(f"algorithms[{name!r}]", accepted, given)
    return Algorithm(_folder(name), lambda: given, label=name)


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Returns the seeds: 0 ... n-1 for a number n."""
    if isinstance(seeds, np.ndarray) and seeds.ndim == 1:
        seeds = list(seeds)
    if isinstance(seeds, list | tuple | range):
        known = tuple(seeds)
        whole = [isinstance(s, int | np.integer) and not isinstance(s, bool) for s in known]
        if not known or not all(whole) or len(set(known)) < len(known) or not _of_32_bits(known):
            accepted = "a number >= 1, or different whole numbers >= 0 and < 2**32"
            raise refusal("seeds", accepted, seeds)
        return tuple(int(s) for s in known)
    return tuple(range(check_count("seeds", seeds)))


def _of_32_bits(seeds: Sequence[int]) -> bool:
    """Whether JAX tells the seeds apart, of which it takes 32 bits."""
    return min(seeds) >= 0 and max(seeds) < 2**32


def _folder(name: str) -> str:
    """A run's name as that of a folder."""
    kept = folder_name("a run", name)
    check_run_name(kept)
    return kept
