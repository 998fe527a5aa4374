"""Tests that need eight devices; `test_sharding.py` runs them in a process that has so many."""

import jax
import jax.numpy as jnp
import optax
import pytest
from contract_cases import CASES, assert_close, run
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import entropix

# Without the replicas: in JAX 0.10 neither a psum over a vmapped axis (under jit) nor a vmapped
# cond accepts explicitly sharded arrays, whoever calls them.
ALONE = {name: case for name, case in CASES.items() if not case.replicated}
every_case = pytest.mark.parametrize("case", ALONE.values(), ids=ALONE)


@pytest.fixture
def explicit():
    """A mesh under which shardings are part of the types."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        yield mesh


@pytest.fixture
def automatic():
    """A mesh under which the compiler chooses the shardings."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        yield mesh


def objective(params):
    return jnp.sum(jnp.cos(params) ** 2)


def parameters(dtype="float32"):
    """An array with one of its axes over the devices."""
    return jnp.ones((2, 8, 4), dtype, out_sharding=P(None, "x"))


def types(tree):
    """Shape, dtype and sharding of every leaf."""
    return jax.tree.map(jax.typeof, tree)


@every_case
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_update_keeps_the_shardings_of_init(case, explicit, dtype):
    tx = case.make()
    params = parameters(dtype)
    state = tx.init(params)
    assert types(jax.jit(tx.init)(params)) == types(state)
    assert types(jax.jit(case.step(tx, objective))(params, state)) == types((params, state))


@every_case
def test_eager_update_keeps_the_shardings_of_init(case, explicit):
    tx = case.make()
    params = parameters()
    state = tx.init(params)
    assert types(case.step(tx, objective)(params, state)) == types((params, state))


@every_case
def test_the_walk_does_not_depend_on_the_sharding(case, explicit):
    tx = case.make()
    walks = []
    for params in (parameters(), jax.device_put(parameters(), P())):
        walked, _ = run(case.step(tx, objective), params, tx.init(params), length=9)
        assert jax.typeof(walked) == jax.typeof(params)
        walks.append(jax.device_get(walked))
    assert_close(*walks, rtol=1e-5, atol=1e-6)


REPLICATED = {
    "elastic": entropix.elastic_sgd(0.05, 1.0, "x"),
    "elastic-period_4": entropix.elastic_sgd(0.05, 1.0, "x", period=4),
    "noisy": entropix.entropy_sgd(0.1, 1.0, temperature=0.1, axis_name="x", stepwise=True),
    "parle": optax.chain(
        entropix.relax(entropix.local_entropy(1.0, temperature=0.1, axis_name="x")),
        entropix.elastic_coupling(1.0, "x"),
        entropix.sgd(0.1),
    ),
}


@pytest.mark.parametrize("tx", REPLICATED.values(), ids=REPLICATED)
def test_replicas_on_devices_are_replicas_in_a_vmap(automatic, tx):
    starts = jnp.arange(24.0).reshape(8, 3) / 12
    gradient = jax.grad(objective)

    def train(params):
        def step(params, state):
            grads, grad_fn = gradient(params), lambda params, i: gradient(params)
            updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
            return optax.apply_updates(params, updates), state

        return run(step, params, tx.init(params), length=9)[0]

    expected = jax.vmap(train, axis_name="x")(starts)
    one_a_device = jax.shard_map(lambda x: train(x[0])[None], in_specs=P("x"), out_specs=P("x"))
    placed = jax.device_put(starts, NamedSharding(automatic, P("x")))
    assert_close(jax.jit(one_a_device)(placed), expected, rtol=1e-4, atol=1e-5)
