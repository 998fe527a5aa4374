"""The compiled parts of a run, and the states that they take."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from entropix.experiment.method import Method
from entropix.experiment.problem import Problem
from entropix.experiment.run import Run
from entropix.replicas import Layout
from entropix.training.devices import layout_of
from entropix.training.evaluation import (
    Evaluation,
    evaluation_data,
    make_estimate,
    make_evaluate,
)
from entropix.training.keys import split_seed
from entropix.training.state import Point, TrainState, centre, init_state
from entropix.training.step import NEVER, Advance, make_advance, make_step, over_seeds


class Starter(NamedTuple):
    """What a run's states are made of; nothing is compiled yet.

    Attributes:
      init: `init() -> Advance`, before the first step, to be placed; seeds along the first axis.
      centres: `states -> Point`, what is evaluated.
      points: `states -> Point`, with the model state of x where the problem says how: at which an
        evaluation measures. Compiled when it is first called.
      method: what the run steps.
      layout: where the replicas are; states are placed, and data shared, as it says.
      run: what is trained.
    """

    init: Callable[[], Advance]
    centres: Callable[[TrainState], Point]
    points: Callable[[TrainState], Point]
    method: Method
    layout: Layout
    run: Run

    def place(self, arrays: Advance) -> Advance:
        """Puts a state where `Programs.advance` wants it."""
        return Advance(self.layout.place(arrays.state, axis=1), *self.layout.share(arrays[1:]))


class Programs(NamedTuple):
    """The compiled parts of a run; all take states with a leading axis of seeds.

    Attributes:
      starter: makes the first state; has the method and the layout.
      advance: `(before, (num_steps, data)) -> after`; donates `before`.
      evaluate: `states -> Evaluation`, at the starter's `points`.
      data: the training set, where `advance` wants it; None for a loader on the host.
    """

    starter: Starter
    advance: Callable[[Advance, tuple[Array, Any]], Advance]
    evaluate: Callable[[TrainState], Evaluation]
    data: Any


def make_starter(run: Run) -> Starter:
    """Builds the first state of a run, and how to read the points to evaluate.

    Raises:
      ValueError: if the run's layout cannot be had, or a loader on the host is to feed replicas.
    """
    layout = layout_of(run)
    if run.problem.on_host and run.replicas is not None:
        raise ValueError(
            f"{run.name} has replicas, which draw batches of their own from arrays on the device; "
            "the data are a loader on the host. Give the problem arrays."
        )
    method = run.method(axis_name=layout.axis_name)
    starts = initial_points(run)

    def init() -> Advance:
        states = [
            init_state(method, of_seed, seed)
            for seed, of_seed in zip(run.seeds, starts, strict=True)
        ]
        zeros = jnp.zeros(len(run.seeds))
        return Advance(
            state=jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
            loss_sum=zeros,
            bad=jnp.full_like(zeros, NEVER, jnp.int32),
            done=jnp.zeros_like(zeros, jnp.int32),
        )

    centres = jax.jit(jax.vmap(lambda state: centre(state, method)), out_shardings=layout.common)
    estimate = jax.jit(over_seeds(make_estimate(run.problem), "map"))

    def points(states: TrainState) -> Point:
        found: Point = layout.local(centres(states))
        if run.problem.estimate is None:
            return found
        return estimate(found, evaluation_data(run.problem, run.settings.eval_train_examples))

    return Starter(init, centres, points, method, layout, run)


def make_programs(run: Run) -> Programs:
    """Builds and compiles a run.

    Args:
      run: what to train.

    Returns:
      The `Programs`, compiled for all of the run's seeds: what follows can be timed.

    Raises:
      ValueError: if the run's layout cannot be had, a loader on the host is to feed replicas, an
        array has no elements or the name of another.
    """
    starter, problem = make_starter(run), run.problem
    method, layout = starter.method, starter.layout
    num_steps = method.relaxation.num_steps
    step = make_step(problem, method, layout)
    advance = over_seeds(make_advance(step, num_steps), run.settings.seed_layout)
    start = _placed(jax.eval_shape(starter.init), layout)
    _refuse_unsavable(run, start)
    data = _stacked(problem, num_steps) if problem.on_host else problem.data
    common = jax.tree.map(lambda x: _like(x, layout.common), (jnp.zeros([], jnp.int32), data))
    places = None if layout.mesh is None else jax.tree.map(lambda x: x.sharding, start)
    compiled = jax.jit(advance, donate_argnums=0, out_shardings=places).lower(start, common)
    return Programs(
        starter=starter,
        advance=compiled.compile(),
        evaluate=_make_evaluate(starter, start.state),
        data=None if problem.on_host else layout.share(problem.data),
    )


def _refuse_unsavable(run: Run, start: Advance) -> None:
    """Raises `ValueError` for what checkpoints cannot hold.

    Those are arrays without elements, and two of one name: of the storage library, which joins the
    names along a path by dots, or of this package, which joins them by slashes.
    """
    named: dict[str, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(start.state):
        where = jax.tree_util.keystr(path)
        for separator in "./":
            name = separator + jax.tree_util.keystr(path, simple=True, separator=separator)
            if named.setdefault(name, where) != where:
                raise ValueError(
                    f"{run.name}: arrays of the parameters, of the model's state and of the "
                    f"optimiser must have different names in a checkpoint; got {named[name]} and "
                    f"{where}, both {name[1:]}. Take '.' and '/' out of the names."
                )
        if leaf.size == 0:
            raise ValueError(
                f"{run.name}: arrays of the parameters, of the model's state and of the optimiser "
                f"must have elements, to be saved; got shape {leaf.shape[1:]} at "
                f"{where}. Leave the leaf out, or put None there."
            )


def initial_points(run: Run) -> list[list[tuple[Any, Any]]]:
    """For every seed the points at which its replicas start: one for all, or one for each."""
    several = run.settings.replica_start == "different" and run.replicas is not None
    points = (run.replicas or 1) if several else 1
    return [
        [
            run.problem.init(jax.random.fold_in(split_seed(seed).model, replica))
            for replica in range(points)
        ]
        for seed in run.seeds
    ]


def _stacked(problem: Problem, num_steps: int) -> Any:
    """The shapes of the batches of one outer step, of a loader on the host."""

    def stack(leaf: Any) -> jax.ShapeDtypeStruct:
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct((num_steps, *leaf.shape), dtype)

    return jax.tree.map(stack, problem.first_batch())


def _make_evaluate(starter: Starter, states: Any) -> Callable[[TrainState], Evaluation]:
    """Evaluates all seeds on one device (of each process): dividing it would make others wait."""
    settings, layout, problem = starter.run.settings, starter.layout, starter.run.problem
    data = layout.local(layout.share(evaluation_data(problem, settings.eval_train_examples)))
    evaluate = over_seeds(make_evaluate(problem), settings.seed_layout)
    points = jax.tree.map(lambda x: _like(x, None), jax.eval_shape(starter.centres, states))
    take_centres = starter.centres.lower(states).compile()  # type: ignore[attr-defined]
    measured = jax.jit(evaluate).lower(points, data).compile()

    def evaluation(states: TrainState) -> Evaluation:
        found: Evaluation = measured(layout.local(take_centres(states)), data)
        return found

    return evaluation


def _placed(arrays: Advance, layout: Layout) -> Advance:
    """Shapes with the places that `Starter.place` gives to arrays."""
    state = jax.tree.map(lambda x: _like(x, layout.sharding(axis=1)), arrays.state)
    return Advance(state, *jax.tree.map(lambda x: _like(x, layout.common), arrays[1:]))


def _like(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
