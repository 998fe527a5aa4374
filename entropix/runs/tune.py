"""Hyper-parameters by successive halving, with equal effort for every algorithm."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from tqdm import tqdm

from entropix.experiment.first_step import first_step, on_replicas
from entropix.experiment.hold_out import hold_out
from entropix.experiment.names import check_name
from entropix.experiment.problem import Problem
from entropix.experiment.run import Run
from entropix.experiment.search import Ranges, check_ends, draw
from entropix.report.tuning import is_finite
from entropix.runs.folder import claimed
from entropix.runs.log import Log
from entropix.runs.progress import in_terminal
from entropix.runs.scoring import make_score
from entropix.runs.trials import Trial, trial_log
from entropix.transforms.checks import check_count, check_index

_KEPT = 3  # one trial in so many goes on to the next rung, which is as many times longer
_RUNGS = 3  # at most
_FRESH = 10_000  # the first seed of a search: no final run has it

Judge = Callable[[Trial], tuple[float, ...]]  # what trials are sorted by, smallest best


def tune_runs(
    runs: Sequence[Run],
    search: Mapping[str, Ranges],
    workdir: str | pathlib.Path,
    *,
    trials: int = 16,
    seed: int = 0,
    objective: str | None = None,
    progress: bool | None = None,
) -> dict[str, list[Trial]]:
    """Searches options of every run by successive halving, on a held-out part of the training set.

    All trials train a ninth of the run, the best third of them a third of it, and the best ninth
    all of it (fewer rungs for fewer trials). Schedules are those of the whole run at every rung, so
    that a short trial is the beginning of a long one. Every algorithm gets the same number of
    trials and of gradients. The validation set plays no part: a fifth of the training set is held
    out. Seeds are none that a final run has. All trials of a run are one compiled program, since
    the values searched are numbers it is called with. Called again, it trains only the trials that
    are missing.

    Args:
      runs: what to search for.
      search: run -> option -> (low, high).
      workdir: gets `tune.json` and `tune_RUN.jsonl`, trial by trial.
      trials: at the first rung, >= 1.
      seed: of the search, an integer >= 0.
      objective: the measure that trials are judged by first, all others after it; None for the
        error, if the problem measures one.
      progress: whether to show progress bars; None for a terminal's.

    Returns:
      Run -> its trials, best first: those of the longest rung first, and those that are not finite
      last. A trial has the values searched, its `rung`, its `gradients` and what was measured on
      the held-out examples (means over seeds; infinite for a trial that diverged, or whose values
      a run would refuse).

    Raises:
      ValueError: for `trials` < 1, for an `objective` that is not measured, for a range with an
        end that the algorithm refuses or an option that cannot be varied, or for a `workdir` that
        holds another search.
    """
    trials, workdir = check_count("trials", trials), pathlib.Path(workdir)
    seed = check_index("seed", seed)
    judged = _judge(runs[0].problem, objective)
    for run in runs:
        check_ranges(run, search[run.name])
    progress = in_terminal() if progress is None else progress
    with claimed(workdir):
        ranges = {run.name: search[run.name] for run in runs}
        held_out = {id(r.problem): hold_out(r.problem) for r in runs}
        runs = [_for_search(run, held_out[id(run.problem)]) for run in runs]
        logs = {
            run.name: trial_log(
                workdir, run.name, _identity(run, ranges[run.name], seed, trials, objective)
            )
            for run in runs
        }  # all of them before the first trial: another search's folder is refused at once
        for run in runs:
            drawn = draw(ranges[run.name], trials, seed)
            _run_missing(logs[run.name], run, drawn, judged, progress)
    return {
        name: sorted(
            log.records, key=lambda trial: (not is_finite(trial), -trial["rung"], judged(trial))
        )
        for name, log in logs.items()
    }


def check_ranges(run: Run, ranges: Ranges) -> None:
    """Raises `ValueError` for what a search would only find out from trial to trial.

    Of a range that is not the algorithm's own, the run must accept both ends. What a trial varies
    must be a number that the compiled program is called with.
    """
    check_ends(
        run.name, run.algorithm, ranges,
        lambda algorithm: dataclasses.replace(run, algorithm=algorithm).check(),
    )  # fmt: skip
    for name in ranges:
        try:
            _trace(run, name)
        except (TypeError, ValueError) as error:
            why = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"search {run.name}: no search can vary {name}, whose value the algorithm must "
                f"know when the program is made ({type(error).__name__}: {why}). Search with one "
                f"value of {name} at a time."
            ) from error


def _trace(run: Run, name: str) -> None:
    """Traces one outer step whose option `name` has no value yet; the gradient at x is x."""

    def trace(value: jax.Array) -> None:
        method = run.method(traced={name: value})
        step = lambda params: first_step(method, params, method.on_gradient)  # noqa: E731
        jax.eval_shape(*on_replicas(step, run.shapes, run.replicas))

    jax.eval_shape(trace, jax.ShapeDtypeStruct((), jnp.float32))


def at_edges(best: Trial, ranges: Ranges) -> list[str]:
    """The options whose best value lies in the outer twentieth of its range, on a log scale."""
    found = []
    for name, (low, high) in ranges.items():
        if high > low and name in best:
            place = math.log(best[name] / low) / math.log(high / low)
            if not 0.05 <= place <= 0.95:
                found.append(name)
    return found


def _judge(problem: Problem, objective: str | None) -> Judge:
    """By the objective, or the error, if there is one; then by all else."""
    if objective is not None:
        check_name("objective", objective, problem.measures)
    first = "error" if objective is None else objective
    names = sorted(problem.measures, key=lambda name: name != first)
    signs = [1 if problem.measures[name].better == "lower" else -1 for name in names]

    def judged(trial: Trial) -> tuple[float, ...]:
        values = [trial[f"val_{name}"] for name in names]
        if not all(map(math.isfinite, values)):
            return (math.inf,) * len(values)
        return tuple(sign * value for sign, value in zip(signs, values, strict=True))

    return judged


def _for_search(run: Run, problem: Problem) -> Run:
    seeds = tuple(range(_FRESH, _FRESH + len(run.seeds)))
    settings = dataclasses.replace(run.settings, flatness_at=())  # no trial is chosen by it
    return dataclasses.replace(run, problem=problem, seeds=seeds, settings=settings)


def _identity(
    run: Run, ranges: Ranges, seed: int, trials: int, objective: str | None
) -> dict[str, Any]:
    """All that decides the trials of one run, but for the values that the search replaces."""
    identity = dict(run.identity)
    options = identity["algorithm"]["options"]
    kept = {name: value for name, value in options.items() if name not in ranges}
    identity["algorithm"] = {**identity["algorithm"], "options": kept}
    search = {name: list(pair) for name, pair in ranges.items()}
    identity |= {
        "search": search, "search_seed": seed, "seeds": len(run.seeds), "trials": trials,
        "draws": "latin hypercube",
    }  # fmt: skip
    return identity if objective is None else identity | {"objective": objective}


def rungs(trials: int) -> list[tuple[int, float]]:
    """How many trials each rung has, and which share of the run they train.

    Example:
      >>> [(count, round(share, 2)) for count, share in rungs(16)]
      [(16, 0.11), (5, 0.33), (1, 1.0)]
    """
    number = min(_RUNGS, 1 + int(math.log(trials, _KEPT) + 1e-9))
    return [(max(1, trials // _KEPT**k), 1 / _KEPT ** (number - 1 - k)) for k in range(number)]


def _run_missing(
    log: Log[Trial], run: Run, drawn: list[Trial], judged: Judge, progress: bool
) -> None:
    """Runs the trials of all rungs that are not in the log."""
    ladder = rungs(len(drawn))
    total = sum(count for count, _ in ladder)
    if len(log.records) >= total:
        return
    score, cycle = make_score(run), run.method().cycle
    candidates, before = drawn, 0
    bar = tqdm(total=total, initial=len(log.records), desc=run.name, disable=not progress)
    with bar:
        for rung, (count, share) in enumerate(ladder):
            steps = max(1, math.ceil(share * run.budget.gradients / cycle))
            candidates = candidates[:count]
            for place, values in enumerate(candidates):
                if before + place >= len(log.records):
                    spent = {"rung": float(rung), "gradients": float(steps * cycle)}
                    log.append({**values, **spent, **score(values, steps)})
                    bar.update()
            done = log.records[before : before + len(candidates)]
            order = sorted(range(len(done)), key=lambda k: judged(done[k]))
            before += len(candidates)
            candidates = [candidates[k] for k in order]
