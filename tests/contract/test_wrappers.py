"""Every optimiser inside Optax's wrappers, found there again, and inside Flax's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import (
    AXIS,
    CASES,
    assert_close,
    drive,
    filled,
    mixed_tensors,
    parabola,
    punched,
    rosenbrock,
    some_cases,
)
from contract_matrix import separable

import entropix

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
SCAN = ("entropy_sgd", "hj_sgd-gradient", "heat_sgd", "relax-adam", "sam")
STEPWISE = (
    "entropy_sgd-stepwise",
    "hj_sgd-gradient-stepwise",
    "heat_sgd-stepwise",
    "stepwise-adamw",
    "snoo-adam-stepwise",
    "sam-stepwise",
)


@every_case
def test_chains_nest(case):
    target = rosenbrock()
    tx = case.make()
    nested = optax.named_chain(
        ("first", optax.identity()), ("second", optax.chain(optax.chain(tx), optax.identity()))
    )
    start = case.spread(target.start)
    params, state = drive(case.step(tx, target.objective), start, tx.init(start), 9)
    expected = params, case.solution(state, params)
    params, state = drive(case.step(nested, target.objective), start, nested.init(start), 9)
    assert_close((params, case.solution(state, params)), expected, rtol=1e-6)


@every_case
def test_a_nan_gradient_is_skipped_and_training_goes_on(case):
    target = rosenbrock()
    tx = optax.apply_if_finite(case.make(), max_consecutive_errors=3)
    extra = case.extra(target.objective)

    @jax.jit
    def step(params, state, factor):
        grads = jax.tree.map(lambda g: factor * g, case.gradient(target.objective)(params))
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state, updates

    params = case.spread(target.start)
    state = tx.init(params)
    for _ in range(9):
        params, state, _ = step(params, state, 1.0)
        _, skipped, updates = step(params, state, jnp.nan)
        assert_close(updates, jnp.zeros_like(params))
        assert int(skipped.total_notfinite) == 1
        assert_close(skipped.inner_state, state.inner_state)
    # From the skipped state the next step is what it would have been without the interruption.
    assert_close(step(params, skipped, 1.0)[0], step(params, state, 1.0)[0])


PARAMS = {"relaxed": {"w": jnp.asarray([[1.0, -2.0]]), "b": jnp.asarray([0.5])}, "plain": 3.0}
LABELS = {"relaxed": {"w": "relaxed", "b": "relaxed"}, "plain": "plain"}


def start():
    return jax.tree.map(jnp.asarray, PARAMS)


def split_step(case, tx):
    """A training step on a tree with two labels, as the user of `optax.partition` writes it."""

    def step(params, state):
        def grad_fn(masked, i):
            return punched(jax.grad(separable)(filled(masked, params)), masked)

        grads = jax.grad(separable)(params)
        extra = {"grad_fn": grad_fn} if case.face == "scan" else {}
        updates, state = tx.update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    return step


@functools.cache
def alone(name):
    """The relaxed part by itself: its parameters and its solution."""
    case = CASES[name]
    tx, part = case.make(), start()["relaxed"]
    part, state = drive(case.step(tx, separable), part, tx.init(part), 9)
    return part, case.solution(state, part)


@functools.cache
def adam_alone():
    part, adam = start()["plain"], optax.adam(0.1)
    return drive(CASES["sgd"].step(adam, separable), part, adam.init(part), 9)[0]


@pytest.mark.parametrize("name", [*SCAN, *STEPWISE])
def test_partition_is_two_optimizers_side_by_side(name):
    case = CASES[name]
    both = optax.partition({"relaxed": case.make(), "plain": optax.adam(0.1)}, LABELS)
    params, state = drive(split_step(case, both), start(), both.init(start()), 9)
    relaxed, solution = alone(name)
    plain = adam_alone()
    assert_close(params, {"relaxed": relaxed, "plain": plain}, rtol=1e-5, atol=1e-6)
    expected = {"relaxed": solution, "plain": plain}
    assert_close(case.solution(state, params), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*SCAN, *STEPWISE])
def test_masked_leaves_pass_through(name):
    case = CASES[name]
    mask = jax.tree.map(lambda label: label == "relaxed", LABELS)
    masked = optax.masked(case.make(), mask)
    params, state = drive(split_step(case, masked), start(), masked.init(start()), 9)
    solution = case.solution(state, params)
    assert_close(solution["relaxed"], alone(name)[1], rtol=1e-5, atol=1e-6)
    assert_close(solution["plain"], params["plain"])


def test_partition_of_two_relaxations():
    relaxed = CASES["entropy_sgd-stepwise"].make()
    plain = CASES["heat_sgd-stepwise"].make(learning_rate=0.1)
    tx = optax.partition({"relaxed": relaxed, "plain": plain}, LABELS)
    params, state = drive(CASES["sgd"].step(tx, separable), start(), tx.init(start()), 12)
    solution = entropix.eval_params(state, params)
    for label, one in (("relaxed", relaxed), ("plain", plain)):
        part = start()[label]
        part, part_state = drive(CASES["sgd"].step(one, separable), part, one.init(part), 12)
        expected = entropix.eval_params(part_state, part)
        assert_close(solution[label], expected, rtol=1e-5, atol=1e-6)


WRAPPERS = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 1),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(lambda scale: tx)(scale=1.0),
    "masked": lambda tx: optax.masked(tx, True),
    "skip_not_finite": lambda tx: optax.MultiSteps(
        tx, 1, should_skip_update_fn=optax.skip_not_finite
    ).gradient_transformation(),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@some_cases(*STEPWISE)
def test_eval_params_sees_through_wrappers(case, wrap):
    target = parabola()
    tx = wrap(optax.chain(optax.identity(), case.make()))
    params, state = drive(case.step(tx, target.objective), target.start, tx.init(target.start), 25)
    (link,) = [
        node
        for node in jax.tree.leaves(state, is_leaf=lambda n: isinstance(n, entropix.StepwiseState))
        if isinstance(node, entropix.StepwiseState)
    ]
    assert_close(entropix.eval_params(state, params), link.inner.params)
    assert not np.allclose(link.inner.params, target.start)


def test_eval_params_refuses_a_state_that_is_not_ours():
    params = jnp.zeros(2)
    with pytest.raises(ValueError, match=r"no state of entropix\.stepwise or entropix\.relax"):
        entropix.eval_params(optax.adam(0.1).init(params), params)


FINDABLE = [
    ("entropy_sgd", entropix.RelaxationState),
    ("heat_sgd", entropix.RelaxationState),
    ("relax-adam", entropix.RelaxationState),
    ("parle", entropix.RelaxationState),
    ("parle", entropix.ElasticState),
    ("easgd", entropix.ElasticAveragingState),
    ("diloco", entropix.RelaxationState),
    ("diloco-stepwise", entropix.RelaxationState),
    ("elastic_sgd-period_4", entropix.ElasticState),
    *((name, entropix.StepwiseState) for name in STEPWISE),
    *((name, entropix.RelaxationState) for name in STEPWISE),
]


@pytest.mark.parametrize(("name", "kind"), FINDABLE)
def test_states_and_their_fields_are_found_by_name(name, kind):
    case = CASES[name]
    tx = optax.chain(optax.clip(1.0), case.factory(**case.arguments), optax.identity())
    state = tx.init(mixed_tensors().start)
    found = optax.tree.get(state, kind.__name__)
    assert isinstance(found, kind)
    for field in kind._fields:
        assert optax.tree.get(state, field) is getattr(found, field)


def test_the_outer_count_can_be_set():
    # To enter the scoping schedule where another run left it.
    tx = entropix.entropy_sgd(0.1, entropix.scoping(10.0, 0.5), stepwise=True, num_steps=1)
    params = jnp.zeros(2)
    state = optax.tree.set(tx.init(params), outer_count=jnp.asarray(100, jnp.int32))
    _, state = tx.update(params, state, params)
    assert int(optax.tree.get(state, "outer_count")) == 101


@some_cases(
    "entropy_sgd", "hj_sgd", "heat_sgd-stepwise", "entropy_sgd-authors-stepwise", "stepwise-adamw"
)
def test_nnx_optimizer_walks_like_a_bare_tree(case):
    nnx = pytest.importorskip("flax.nnx")
    inputs = jax.random.normal(jax.random.key(0), (16, 3))
    targets = jnp.sin(inputs @ jnp.ones((3, 2)))
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, case.make(), wrt=nnx.Param)
    bare = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tx = case.make()

    def loss(params):
        return jnp.mean((inputs @ params["kernel"] + params["bias"] - targets) ** 2)

    @nnx.jit
    def train(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean((model(inputs) - targets) ** 2))(model)
        optimizer.update(model, grads, **case.extra(loss))

    for _ in range(20):
        train(model, optimizer)
    params = nnx.as_pure(nnx.state(model, nnx.Param))
    solution = case.solution(nnx.as_pure(optimizer.opt_state), params)

    bare, state = drive(case.step(tx, loss), bare, tx.init(bare), 20)
    close = {"rtol": 1e-4, "atol": 1e-6}
    assert_close(nnx.to_pure_dict(params), bare, **close)
    assert_close(nnx.to_pure_dict(solution), case.solution(state, bare), **close)


def test_elastic_coupling_outside_its_axis_says_what_to_write():
    tx = entropix.elastic_sgd(0.1, 1.0, AXIS)
    params = jnp.zeros(2)
    with pytest.raises(ValueError, match=r"jax\.vmap\(step, axis_name='replica'\)"):
        tx.update(params, tx.init(params), params)
