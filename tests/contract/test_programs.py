"""What an optimiser compiles to: its size, and the number of gradients it evaluates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract_cases import CASES, equations, mixed_tensors, parabola

import entropix

WITH_STEPS = [name for name, case in CASES.items() if "num_steps" in case.static]
RELAXATIONS = {
    "local_entropy": entropix.local_entropy,
    "local_entropy-cold": lambda **arguments: entropix.local_entropy(temperature=0, **arguments),
    "hamilton_jacobi": entropix.hamilton_jacobi,
    "hamilton_jacobi-gradient": lambda **arguments: entropix.hamilton_jacobi(
        form="gradient", **arguments
    ),
    "heat": entropix.heat,
}
every_relaxation = pytest.mark.parametrize("make", RELAXATIONS.values(), ids=RELAXATIONS)


def test_equations_of_inner_programs_are_counted():
    double = lambda x: jax.lax.cond(x > 0, lambda: x + x, lambda: x * 2)  # noqa: E731
    scan = lambda x: jax.lax.scan(lambda c, _: (double(c), None), x, length=5)[0]  # noqa: E731
    # scan 1, comparison 1, conversion to an index 1, cond 1, one equation in each branch 2
    assert equations(jax.make_jaxpr(scan)(1.0).jaxpr) == 6


@pytest.mark.parametrize("name", WITH_STEPS)
def test_the_program_does_not_grow_with_num_steps(name):
    case, target = CASES[name], mixed_tensors()

    def size(num_steps):
        tx = case.make(num_steps=num_steps)
        step, params = jax.jit(case.step(tx, target.objective)), case.spread(target.start)
        return equations(jax.make_jaxpr(step)(params, tx.init(params)).jaxpr)

    assert size(2) == size(20) == size(200)


@every_relaxation
def test_the_pure_function_does_not_grow_with_num_steps(make):
    def size(num_steps):
        relaxation = make(gamma=1.0, num_steps=num_steps)
        slope = entropix.relaxed_grad(relaxation, lambda x, i: 2 * x)
        return equations(jax.make_jaxpr(slope)(jnp.ones(3), relaxation.init(None)).jaxpr)

    assert size(2) == size(20) == size(200)


@pytest.mark.parametrize("name", [name for name in WITH_STEPS if CASES[name].face == "scan"])
@pytest.mark.parametrize("num_steps", [1, 7])
def test_one_update_evaluates_num_steps_gradients(name, num_steps):
    case, target = CASES[name], parabola()
    tx = case.make(num_steps=num_steps)
    calls = []

    def gradient(params, i=0):
        # Pure, so that the compiler may drop a gradient nobody uses, as it does in real programs.
        one = jax.pure_callback(
            lambda i: calls.append(int(i)) or np.float32(1),
            jax.ShapeDtypeStruct((), jnp.float32),
            i,
        )
        return one * jax.grad(target.objective)(params)

    @jax.jit
    def step(params, state):
        grads = jax.vmap(gradient)(params) if case.replicated else gradient(params)
        return tx.update(grads, state, params, grad_fn=gradient)

    # A callback whose argument all replicas share is called once for all of them.
    params = case.spread(target.start)
    jax.block_until_ready(step(params, tx.init(params)))
    assert calls == list(range(num_steps))


@every_relaxation
@pytest.mark.parametrize("num_steps", [1, 7])
def test_the_pure_function_evaluates_num_steps_gradients(make, num_steps):
    relaxation = make(gamma=1.0, num_steps=num_steps)

    def grad_fn(params, i, seen):
        return params, seen.at[i].add(1)

    slope = entropix.relaxed_grad(relaxation, grad_fn, has_carry=True)
    seen = jnp.zeros(num_steps + 1, jnp.int32)
    _, state, seen = jax.jit(slope)(jnp.ones(2), relaxation.init(None), seen)
    assert seen.tolist() == [1] * num_steps + [0]
    assert int(state.outer_count) == 1
