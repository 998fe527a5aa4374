"""Tests that need eight devices; `test_sharding.py` runs them in a process that has so many."""

import jax
import jax.numpy as jnp
import optax
import pytest
from contract_cases import CASES, assert_close, run
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import entropix
from entropix.replicas.traffic import Traffic, traffic

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
    "elastic": lambda axis: entropix.elastic_sgd(0.05, 1.0, axis),
    "elastic-period_4": lambda axis: entropix.elastic_sgd(0.05, 1.0, axis, period=4),
    "noisy": lambda axis: entropix.entropy_sgd(
        0.1, 1.0, temperature=0.1, axis_name=axis, stepwise=True
    ),
    "parle": lambda axis: entropix.parle(0.1, 1.0, 1.0, axis, temperature=0.1),
    "parle-stepwise": lambda axis: entropix.parle(
        0.1, 1.0, 1.0, axis, num_steps=4, period=2, stepwise=True
    ),
    "easgd": lambda axis: entropix.easgd(0.05, axis, period=4),
    "diloco": lambda axis: entropix.diloco(0.5, axis, num_steps=5, step_size=0.01),
    "diloco-stepwise": lambda axis: entropix.diloco(
        0.5, axis, num_steps=4, step_size=0.01, stepwise=True
    ),
}


@pytest.mark.parametrize("layout", ["shard_map", "pmap", "vmap_in_shard_map"])
@pytest.mark.parametrize("make", REPLICATED.values(), ids=REPLICATED)
def test_replicas_on_devices_are_replicas_in_a_vmap(automatic, make, layout):
    number = 16 if layout == "vmap_in_shard_map" else 8
    starts = jnp.arange(3.0 * number).reshape(number, 3) / 12
    gradient = jax.grad(objective)

    def train(axis):
        tx = make(axis)

        def step(params, state):
            grads, grad_fn = gradient(params), lambda params, i: gradient(params)
            updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
            return optax.apply_updates(params, updates), state

        return lambda params: run(step, params, tx.init(params), length=9)[0]

    expected = jax.vmap(train("x"), axis_name="x")(starts)
    if layout == "pmap":
        trained = jax.pmap(train("x"), axis_name="x")(jax.device_get(starts))
    else:
        one = lambda x: train("x")(x[0])[None]  # noqa: E731
        several = jax.vmap(train(("x", "within")), axis_name="within")
        on_device = one if layout == "shard_map" else several
        placed = jax.device_put(starts, NamedSharding(automatic, P("x")))
        # JAX cannot check how values vary over an axis of vmap inside shard_map.
        options = {"in_specs": P("x"), "out_specs": P("x"), "check_vma": layout == "shard_map"}
        trained = jax.jit(jax.shard_map(on_device, **options))(placed)
    assert_close(trained, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stepwise", [False, True])
def test_the_same_parameters_on_all_devices_follow_the_mean_loss(automatic, stepwise):
    tx = entropix.entropy_sgd(0.1, 1.0, temperature=0.1, num_steps=4, stepwise=stepwise)
    shifts = jnp.arange(8.0)
    mean_on_one = lambda x: jnp.mean(jax.vmap(lambda shift: objective(x - shift))(shifts))  # noqa: E731

    def train(params, loss):
        def step(params, state):
            grad_fn = lambda params, i=0: jax.grad(loss)(params)  # noqa: E731
            updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
            return optax.apply_updates(params, updates), state

        return run(step, params, tx.init(params), length=9)[0]

    @jax.shard_map(in_specs=(P(), P("x")), out_specs=P())
    def train_on_all(params, shift):
        return train(params, lambda x: jax.lax.pmean(objective(x - shift[0]), "x"))

    params = jnp.arange(3.0)
    assert_close(jax.jit(train_on_all)(params, shifts), train(params, mean_on_one), rtol=1e-5)


SIZE = 4 * (5 * 3 + 7)  # bytes of one replica
INNER = {"num_steps": 20, "temperature": 0.1}
AUTHORS = {"inner": optax.trace(0.9, nesterov=True), "output": "displacement"}
EVERY, NEVER, SOMETIMES = Traffic(SIZE, 0), Traffic(0, 0), Traffic(0, SIZE)
# A replica's axes are called "device" and "replica"; what an update of it communicates.
COMMUNICATION = {
    "sgd": (lambda axis: entropix.sgd(0.1), NEVER),
    "data_parallel": (
        lambda axis: optax.chain(entropix.average_updates(axis), entropix.sgd(0.1)),
        EVERY,
    ),
    "elastic_sgd": (lambda axis: entropix.elastic_sgd(0.1, 1.0, axis), EVERY),
    "elastic_sgd-period_4": (
        lambda axis: entropix.elastic_sgd(0.1, 1.0, axis, period=4),
        SOMETIMES,
    ),
    "easgd-period_1": (lambda axis: entropix.easgd(0.1, axis, period=1), EVERY),
    "easgd": (lambda axis: entropix.easgd(0.1, axis), SOMETIMES),
    "entropy_sgd": (lambda axis: entropix.entropy_sgd(0.1, 1.0, axis_name=axis, **INNER), NEVER),
    "parle": (lambda axis: entropix.parle(0.1, 1.0, 1.0, axis, **INNER), EVERY),
    "parle-period_2": (lambda axis: entropix.parle(0.1, 1.0, 1.0, axis, period=2), SOMETIMES),
    "parle-stepwise": (
        lambda axis: entropix.parle(0.1, 1.0, 1.0, axis, stepwise=True, **INNER),
        SOMETIMES,
    ),
    "parle-authors": (lambda axis: entropix.parle(0.1, 1.0, 1.0, axis, **AUTHORS), EVERY),
    "parle-authors-stepwise": (
        lambda axis: entropix.parle(0.1, 1.0, 1.0, axis, stepwise=True, **AUTHORS),
        SOMETIMES,
    ),
    "diloco": (lambda axis: entropix.diloco(0.7, axis), EVERY),
    "diloco-stepwise": (lambda axis: entropix.diloco(0.7, axis, stepwise=True), SOMETIMES),
}
AXES = {"one_a_device": "device", "two_a_device": ("device", "replica")}


def compiled(tx, layout):
    """The HLO of one update of replicas on eight devices, one on each or two in a `vmap`."""

    def gradient(params):
        return jax.grad(lambda tree: sum(jnp.sum(jnp.cos(leaf)) for leaf in tree))(params)

    def step(params, state):
        grads, grad_fn = gradient(params), lambda params, i: gradient(params)
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    def alone(*trees):
        done = step(*jax.tree.map(lambda leaf: leaf[0], trees))
        return jax.tree.map(lambda leaf: leaf[None], done)

    one = layout == "one_a_device"
    number = 8 if one else 16
    params = jnp.ones((number, 5, 3)), jnp.ones((number, 7))
    run = jax.shard_map(
        alone if one else jax.vmap(step, axis_name="replica"),
        mesh=jax.make_mesh((8,), ("device",), axis_types=(AxisType.Auto,)),
        in_specs=P("device"),
        out_specs=P("device"),
        check_vma=one,
    )
    return jax.jit(run).lower(params, jax.vmap(tx.init)(params)).compile().as_text()


@pytest.mark.parametrize("layout", AXES)
@pytest.mark.parametrize(("make", "expected"), COMMUNICATION.values(), ids=COMMUNICATION)
def test_an_update_communicates_one_replica_or_nothing(make, expected, layout):
    assert traffic(compiled(make(AXES[layout]), layout)) == expected


def test_replicas_that_do_not_agree_when_communicates_at_every_update():
    # What the check above would find if `vmap` turned a conditional into a selection.
    axes = AXES["two_a_device"]
    tx = entropix.stepwise(entropix.local_entropy(1.0), entropix.elastic_sgd(0.1, 1.0, axes))
    assert traffic(compiled(tx, "two_a_device")) == EVERY


def test_what_a_loop_communicates_is_counted_every_time():
    mesh = jax.make_mesh((8,), ("device",), axis_types=(AxisType.Auto,))
    shapes = jnp.ones((8, 3)), jnp.ones((8, 2)), jnp.ones(8, bool)

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=P("device"), out_specs=P("device"))
    def run(x, y, now):
        def body(x, _):
            mean = lambda x: jax.lax.pmean(x, "device") + 0 * x  # noqa: E731
            return jax.lax.cond(now[0], mean, lambda x: x, jnp.sin(x)), None

        x, _ = jax.lax.scan(body, x, length=5)
        return x, y + jax.lax.pmax(y, "device"), now

    assert traffic(run.lower(*shapes).compile().as_text()) == Traffic(2 * 4, 5 * 3 * 4)
