"""One trial of a search: trains an algorithm with given values, and measures the result."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from entropix.experiment.run import Run
from entropix.report.tuning import is_finite
from entropix.runs.trials import Trial
from entropix.training.devices import layout_of
from entropix.training.evaluation import (
    evaluation_data,
    make_evaluate,
    measured,
)
from entropix.training.programs import initial_points
from entropix.training.state import centre, init_state
from entropix.training.step import NEVER, Advance, make_advance, make_step


def make_score(run: Run) -> Callable[[Trial, int], Trial]:
    """Makes `score(values, num_steps) -> measures` of one trial, means over seeds."""
    problem, layout = run.problem, layout_of(run)
    data = layout.share(problem.data)
    starts = initial_points(run)

    def walk(values: dict[str, jax.Array], num_steps: jax.Array, data: Any) -> Any:
        method = run.method(axis_name=layout.axis_name, traced=values)
        states = [
            init_state(method, of_seed, seed)
            for seed, of_seed in zip(run.seeds, starts, strict=True)
        ]
        advance = make_advance(make_step(problem, method, layout), method.relaxation.num_steps)
        zero = jnp.zeros([]), jnp.asarray(NEVER, jnp.int32), jnp.zeros([], jnp.int32)

        def train(state: Any) -> Any:
            after = advance(Advance(state, *zero), (num_steps, data))
            return centre(after.state, method), after.bad

        return jax.lax.map(train, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))

    walk = jax.jit(walk, out_shardings=layout.common)
    examples = evaluation_data(problem, run.settings.eval_train_examples)
    evaluate = make_evaluate(problem)
    measure = jax.jit(lambda points, data: jax.lax.map(lambda p: evaluate(p, data), points))

    def score(values: Trial, num_steps: int) -> Trial:
        if not _accepted(run, values):
            return dict.fromkeys(measured(problem), math.inf)
        given = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
        points, bad = layout.local(walk(given, jnp.asarray(num_steps, jnp.int32), data))
        found = {name: float(jnp.mean(v)) for name, v in measure(points, examples).items()}
        sound = bool(jnp.all(bad == NEVER)) and is_finite(found)
        return found if sound else dict.fromkeys(found, math.inf)

    return score


def _accepted(run: Run, values: Trial) -> bool:
    """Whether a run with a trial's values may be trained: no search recommends another."""
    try:
        dataclasses.replace(run, algorithm=run.algorithm.with_options(**values)).check()
    except ValueError:
        return False
    return True
