"""Calls as the pages have them, for the type checker: `mypy` reads this file, nothing runs it."""

from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np
import optax

import entropix
from entropix import landscape, pde
from entropix.experiment import Budget, Problem, Settings, algorithm, compare, load, runs, train
from entropix.experiment.run import Run
from entropix.rows import Row
from entropix.runs.loading import Trained


def mean_square(w: jax.Array, batch: jax.Array) -> jax.Array:
    return jnp.mean((w - batch) ** 2)


def optimisers() -> None:
    tx: optax.GradientTransformationExtraArgs = entropix.hj_sgd(0.1, gamma=1.0)
    entropix.heat_sgd(np.float32(0.1), gamma=jnp.asarray(1.0))
    entropix.entropy_sgd(
        optax.constant_schedule(0.1), gamma=entropix.scoping(1.0, 0.1), inner=optax.trace(0.9)
    )
    entropix.snoo(optax.adamw(1e-3), num_steps=10)
    w = jnp.zeros(3)
    _, state = tx.update(w, tx.init(w), w, grad_fn=lambda w, i: w)
    entropix.eval_params(state, w)


def experiments() -> None:
    problem = Problem(
        name="line",
        init=lambda key: (jnp.zeros(3), ()),
        loss=lambda w, state, batch, key: (mean_square(w, batch), state),
        data=np.zeros((8, 3)),
        batch_size=4,
        measures={
            "loss": (lambda w, state, batch: mean_square(w, batch), "lower", ""),
            "other": lambda w, state, batch: mean_square(w, batch),
        },
    )
    settings = Settings(flatness_at=1.0)
    Settings(flatness_at=(0.5, 1.0))
    train(
        problem, algorithm("hj", gamma=1.0), budget=Budget(10, 2), seeds=[0, 1], settings=settings
    )
    compare(
        problem, {"Adam": optax.adam(0.1), "SGD": "sgd"}, budget=Budget(10, 1), callbacks=[print]
    )
    # What is imported on first use has its types all the same.
    assert_type(train(problem, "sgd", budget=Budget(10, 2)), list[Row])
    assert_type(runs(problem, {"SGD": "sgd"}, budget=Budget(10, 1)), list[Run])
    assert_type(load("runs/line/sgd", seed=0), Trained)
    assert_type(
        entropix.experiment.tune(problem, {"sgd": "sgd"}), dict[str, list[dict[str, float]]]
    )
    compare(problem, {"SGD": "sgd"}, bugdet=Budget(10, 1))  # type: ignore[call-arg]


def instruments() -> None:
    batches = jnp.zeros((2, 4, 3))
    hessian = landscape.hessian(mean_square, jnp.zeros(3), batches)
    landscape.eigenvalues(hessian, jnp.zeros(3), 2, jax.random.key(0))
    line = pde.Grid(lower=-7.0, upper=7.0, shape=281)
    pde.cole_hopf(line, lambda x: x**2, t=0.4, beta=10.0)
    pde.Grid((-3.0, -3.0), (3.0, 3.0), (61, 61))
