"""What Optax asks of its own optimisers, asked of every public optimiser and wrapper here.

The matrix after Optax's: foreign arguments and recompilation, convergence, injected
hyperparameters, dtypes, gradient accumulation, stable states, schedules. What else a user may
expect of a good Optax citizen is in `contract/`.
"""

import inspect
import logging

import jax
import jax.numpy as jnp
import optax
import pytest
from contract_cases import CASES, TARGETS, assert_close, kinds, parabola, rosenbrock, run

import entropix

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SCHEDULABLE = ("learning_rate", "gamma", "rho", "step_size", "temperature")


def dtypes(*names):
    return pytest.mark.parametrize("dtype", names)


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


@every_case
@pytest.mark.parametrize("target", TARGETS)
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
def test_equal_under_inject_hyperparams(case):
    params = case.spread([-jnp.ones((2, 3)), jnp.ones((2, 5, 2))])
    objective = lambda tree: optax.tree.norm(tree, squared=True)  # noqa: E731
    tx = case.make()
    injected = case.place(optax.inject_hyperparams(case.factory, case.static)(**case.arguments))
    carries = []
    for which in (tx, injected):
        state = jax.jit(which.init)(params)
        carries.append(run(case.step(which, objective), params, state, length=10))
    (params, state), (params_injected, state_injected) = carries
    assert_close(params_injected, params, rtol=1e-5)
    assert_close(state_injected.inner_state, state, rtol=1e-5, atol=1e-6)


@every_case
@dtypes("bfloat16", "float32")
def test_updates_have_the_dtype_of_the_parameters(case, dtype):
    params = case.spread(jnp.asarray([1.0, 2.0], dtype))
    objective = lambda x: jnp.sum(x**2)  # noqa: E731
    tx = case.make()
    updates, _ = jax.jit(lambda g, s, p: tx.update(g, s, p, **case.extra(objective)))(
        case.gradient(objective)(params), jax.jit(tx.init)(params), params
    )
    assert kinds(updates) == kinds(params)


@every_case
@dtypes("bfloat16", "float32")
def test_gradient_accumulation(case, dtype):
    start = case.spread(jnp.asarray([1.0, 2.0], dtype))
    objective = lambda x: jnp.sum(x**2)  # noqa: E731
    tx = case.make()
    every_fourth = optax.MultiSteps(tx, every_k_schedule=4).gradient_transformation()
    step = jax.jit(case.step(every_fourth, objective))
    params, state = start, jax.jit(every_fourth.init)(start)
    for _ in range(3):
        params, state = step(params, state)
        assert_close(params, start)
    params, _ = step(params, state)
    # Four equal gradients are one.
    expected, _ = jax.jit(case.step(tx, objective))(start, tx.init(start))
    assert_close(params, expected, rtol=1e-6 if dtype == "float32" else 1e-2)


@every_case
@dtypes("float16", "bfloat16", "float32", "float64")
def test_state_keeps_structure_shapes_and_dtypes(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        target = parabola(dtype)
        tx = case.make()
        # A loss in another dtype than the parameters must not leak into the state.
        confusing = jnp.asarray(1.5, jnp.bfloat16 if dtype == "float16" else jnp.float16)
        update = case.step(tx, target.objective, value=confusing)

        @jax.jit
        def step(now, params, state):
            return jax.lax.cond(now, update, lambda *unchanged: unchanged, params, state)

        params = case.spread(target.start)
        carry = params, tx.init(params)
        before = kinds(carry)
        for now in (True, False, True):
            carry = step(now, *carry)
            assert kinds(carry) == before
            assert carry[0].dtype == dtype


def scheduled(case):
    """Names of the arguments of a case's factory that are annotated as possible schedules."""
    parameters = inspect.signature(case.factory).parameters
    return [n for n, p in parameters.items() if p.annotation is optax.ScalarOrSchedule]


@pytest.mark.parametrize("name", entropix.__all__)
def test_numbers_that_may_be_scheduled_are_annotated(name):
    # Optax's own tests find schedulable arguments by comparing the annotation, as an object.
    public = getattr(entropix, name)
    if not inspect.isfunction(public) or name == "scoping":
        pytest.skip("takes no schedules")
    for argument in SCHEDULABLE:
        parameter = inspect.signature(public).parameters.get(argument)
        assert parameter is None or parameter.annotation is optax.ScalarOrSchedule


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
