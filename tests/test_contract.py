"""What Optax asks of its own optimisers, asked of every public optimiser and wrapper here.

The matrix after Optax's: interface, foreign arguments and recompilation, convergence, injected and
swept hyperparameters, dtypes, gradient accumulation, stable states, schedules. What else users may
expect of an Optax transformation is in `contract/`.
"""

import inspect
import logging

import jax
import jax.numpy as jnp
import optax
import pytest
from contract_cases import (
    AXIS,
    CASES,
    TARGETS,
    assert_close,
    every_case,
    kinds,
    matrix_parabola,
    parabola,
    rosenbrock,
    run,
)

import entropix

SCHEDULES = (optax.ScalarOrSchedule, optax.ScalarOrSchedule | None)
SCHEDULABLE = ("learning_rate", "gamma", "rho", "step_size", "temperature")
FUNCTIONS = [name for name in entropix.__all__ if inspect.isfunction(getattr(entropix, name))]
LINKS = {
    "relax": entropix.relax(entropix.local_entropy(1.0)),
    "stepwise": entropix.stepwise(entropix.heat(1.0), optax.sgd(0.1)),
    "elastic_coupling": entropix.elastic_coupling(1.0, AXIS),
    "elastic_averaging": entropix.elastic_averaging(0.9, AXIS, period=2),
    "average_updates": entropix.average_updates(AXIS),
}
TRANSFORMATIONS = LINKS | {n: case.factory(**case.arguments) for n, case in CASES.items()}


def squares(tree):
    return optax.tree.norm(tree, squared=True)


def scheduled(case):
    """Names of the arguments of a case's factory that are annotated as possible schedules."""
    parameters = inspect.signature(case.factory).parameters
    return [n for n, p in parameters.items() if p.annotation in SCHEDULES]


@pytest.mark.parametrize("tx", TRANSFORMATIONS.values(), ids=TRANSFORMATIONS)
def test_interface(tx):
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    parameters = inspect.signature(tx.update).parameters
    # `optax.MultiSteps` passes params by name; under another name they would vanish in **extra.
    assert list(parameters)[:3] == ["updates", "state", "params"]
    assert parameters["params"].default is None
    assert any(p.kind is p.VAR_KEYWORD for p in parameters.values())


@every_case
def test_foreign_arguments_are_accepted_and_the_second_call_compiles_nothing(case, caplog):
    target = rosenbrock()
    tx = case.make()
    step = jax.jit(case.step(tx, target.objective, nobody_knows_this_argument=1))
    params = case.spread(target.start)
    carry = params, tx.init(params)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        carry = step(*carry)
        assert caplog.records, "the first call must compile, or this test sees nothing"
        caplog.clear()
        step(*carry)
        assert not caplog.records


# A vector and a matrix alone are what `mixed_tensors` has as leaves of one tree.
ALONE = (parabola, matrix_parabola)
MARKED = [pytest.param(t, marks=[pytest.mark.slow] * (t in ALONE), id=t.__name__) for t in TARGETS]


@every_case
@pytest.mark.parametrize("target", MARKED)
def test_converges(case, target):
    start, minimiser, objective = target()
    tx = case.make()
    params = case.spread(start)
    # A no-op over the parameter-like parts of the state, which must therefore be found in it.
    state = optax.tree.map_params(case.factory(**case.arguments), lambda p: p, tx.init(params))
    params, state = run(case.step(tx, objective), params, state, length=30_000)
    solution = case.solution(state, params)
    for x, x_min in zip(jax.tree.leaves(solution), jax.tree.leaves(minimiser), strict=True):
        assert_close(x, jnp.broadcast_to(x_min, x.shape), rtol=3e-2, atol=3e-2)


@every_case
def test_zero_gradients_at_zero_are_harmless(case):
    # No 0/0, and nothing to move for but noise and its amplification by Adam.
    params = case.spread(jnp.zeros(3)) * 0
    tx = case.make()
    walked, state = run(case.step(tx, lambda x: 0 * jnp.sum(x)), params, tx.init(params), length=8)
    assert jnp.max(jnp.abs(walked)) < 0.1
    noisy = optax.tree.get(state, "key") is not None
    if not noisy:
        assert_close(walked, params)


@every_case
def test_equal_under_inject_hyperparams(case):
    params = case.spread([-jnp.ones((2, 3)), jnp.ones((2, 5, 2))])
    tx = case.make()
    injected = case.place(optax.inject_hyperparams(case.factory, case.static)(**case.arguments))
    carries = [
        run(case.step(which, squares), params, jax.jit(which.init)(params), length=10)
        for which in (tx, injected)
    ]
    (params, state), (params_injected, state_injected) = carries
    assert_close(params_injected, params, rtol=1e-5)
    assert_close(state_injected.inner_state, state, rtol=1e-5, atol=1e-6)


@every_case
def test_numbers_may_be_traced_in_a_sweep(case):
    params = case.spread(parabola().start)
    numbers = [n for n in scheduled(case) if isinstance(case.arguments.get(n), float)]

    def train(factor):
        tx = case.make(**{name: factor * case.arguments[name] for name in numbers})
        return run(case.step(tx, squares), params, tx.init(params), length=10)[0]

    factors = jnp.asarray([0.5, 0.25])
    alone = jnp.stack([train(float(factor)) for factor in factors])
    assert_close(jax.jit(jax.vmap(train))(factors), alone, rtol=1e-5, atol=1e-6)


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_updates_have_the_dtypes_of_the_parameters(case, dtype):
    params = case.spread({"a": jnp.asarray([1.0, 2.0], dtype), "b": jnp.ones((2, 2))})
    tx = case.make()
    # Kinds are known when a program is traced: nothing has to be compiled for them.
    state = jax.eval_shape(tx.init, params)
    updates, _ = jax.eval_shape(
        lambda g, s, p: tx.update(g, s, p, **case.extra(squares)),
        jax.eval_shape(case.gradient(squares), params), state, params,
    )  # fmt: skip
    assert kinds(updates) == kinds(params)


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_gradient_accumulation(case, dtype):
    start = case.spread(jnp.asarray([1.0, 2.0], dtype))
    tx = case.make()
    every_fourth = optax.MultiSteps(tx, every_k_schedule=4).gradient_transformation()
    step = jax.jit(case.step(every_fourth, squares))
    params, state = start, jax.jit(every_fourth.init)(start)
    for _ in range(3):
        params, state = step(params, state)
        assert_close(params, start)
    params, _ = step(params, state)
    # The mean of four equal gradients is one of them.
    expected, _ = jax.jit(case.step(tx, squares))(start, tx.init(start))
    assert_close(params, expected, rtol=1e-6 if dtype == "float32" else 1e-2)


@every_case
@pytest.mark.parametrize(
    ("dtype", "x64"),
    [
        ("float16", False),
        ("bfloat16", False),
        ("float32", False),
        ("float32", True),
        ("float64", True),
    ],
)
def test_state_keeps_structure_shapes_and_dtypes(case, dtype, x64):
    with jax.enable_x64(x64):
        target = parabola(dtype)
        tx = case.make()
        # A loss in another dtype than the parameters must not leak into the state.
        confusing = jnp.asarray(1.5, jnp.bfloat16 if dtype == "float16" else jnp.float16)
        update = case.step(tx, target.objective, value=confusing)

        def step(now, params, state):
            return jax.lax.cond(now, update, lambda *unchanged: unchanged, params, state)

        # Kinds are known when a program is traced: nothing has to be compiled for them. `cond`
        # itself compares those of its branches, weak types too.
        params = case.spread(target.start)
        before = params, jax.eval_shape(tx.init, params)
        after = jax.eval_shape(step, True, *before)
        assert kinds(after) == kinds(before)
        assert kinds(jax.eval_shape(step, True, *after)) == kinds(before)
        assert after[0].dtype == dtype


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_that_may_be_scheduled_are_annotated(name):
    # Optax's own tests find schedulable arguments by comparing the annotation, as an object.
    if name in ("scoping", "hj_prox"):
        return  # plain numbers: one makes schedules, the other has no steps to count
    for argument, parameter in inspect.signature(getattr(entropix, name)).parameters.items():
        if argument in SCHEDULABLE:
            optional = parameter.default is None
            expected = optax.ScalarOrSchedule | None if optional else optax.ScalarOrSchedule
            assert parameter.annotation == expected


@pytest.mark.parametrize(
    ("case", "argument"),
    [(case, argument) for case in CASES.values() for argument in scheduled(case)],
    ids=[f"{name}-{argument}" for name, case in CASES.items() for argument in scheduled(case)],
)
def test_a_constant_schedule_is_the_constant(case, argument):
    target = parabola()
    params = case.spread(target.start)
    trajectories = []
    for value in (3e-3, optax.constant_schedule(3e-3)):
        tx = case.make(**{argument: value})
        carry = run(case.step(tx, target.objective), params, tx.init(params), length=10)
        trajectories.append(carry[0])
    assert_close(*trajectories, rtol=1e-6)
