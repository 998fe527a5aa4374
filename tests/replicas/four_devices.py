"""Tests that need four devices; `test_devices.py` runs them in a process that has so many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from communication import traffic
from jax import lax
from jax.sharding import Mesh
from replicas import steps
from replicas.steps import AXIS, REPLICAS

import entropix
from entropix import replicas

# Results differ by the order of a mean's sum; a dozen steps of a contracting walk keep that small.
TOLERANCE = 2e-6
LAYOUTS = {
    "shard_map": {"kind": "shard_map"},
    "shard_map-2x2-map": {"kind": "shard_map", "devices": 2, "each": "map"},
    "shard_map-1x4-map": {"kind": "shard_map", "devices": 1},
    "pmap": {"kind": "pmap"},
    "pmap-2x2-vmap": {"kind": "pmap", "devices": 2, "each": "vmap"},
}
every_layout = pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)


def make(options, **more):
    options = options | more
    return replicas.layout(REPLICAS, options.pop("kind"), **options)


@every_layout
@pytest.mark.parametrize("name", steps.OPTIMISERS)
def test_optimisers_agree(name, options):
    step, state, _ = steps.coupled(steps.OPTIMISERS[name])
    states, batches = steps.inputs(state)
    expected = steps.walk(jax.vmap(step, axis_name=AXIS), 12)(states, batches)
    layout = make(options)
    found = steps.walk(replicas.runner(step, layout), 12)(
        layout.place(states), layout.place(batches)
    )
    assert steps.difference(found, expected) < TOLERANCE


@every_layout
@pytest.mark.parametrize("step", steps.STRUCTURES)
def test_structures_agree(step, options):
    states, batches = steps.inputs()
    expected = jax.jit(jax.vmap(step, axis_name=AXIS))(states, batches)
    run = jax.jit(replicas.runner(step, make(options)))
    tolerance = 1e-2 if step is steps.other_types else TOLERANCE  # bfloat16 means
    assert steps.difference(run(states, batches), expected) < tolerance


@every_layout
def test_states_stay_where_they_are(options, caplog):
    """Placed once, in the layout's sharding, and donated from step to step."""
    step, state, _ = steps.coupled(steps.OPTIMISERS["elastic"])
    layout = make(options)
    states, batches = (layout.place(tree) for tree in steps.inputs(state))
    run = jax.jit(replicas.runner(step, layout), donate_argnums=0)
    with jax.transfer_guard("disallow"), jax.log_compiles():
        for _ in range(3):
            before = states
            states, _ = run(states, batches)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    if layout.mesh is not None:
        for leaf in jax.tree.leaves(states):
            assert leaf.sharding.is_equivalent_to(
                jax.sharding.NamedSharding(layout.mesh, jax.P(AXIS)), leaf.ndim
            )
    assert caplog.text.count("Compiling jit(run)") == 1


@every_layout
def test_a_shared_batch(options):
    step, state, _ = steps.coupled(steps.OPTIMISERS["elastic"])
    states, batches = steps.inputs(state)
    same = jnp.broadcast_to(batches[0], batches.shape)
    layout = make(options)
    expected = jax.jit(replicas.runner(step, layout))(states, same)
    shared = layout.share(batches[0])
    found = jax.jit(replicas.runner(step, layout, shared=True))(layout.place(states), shared)
    assert steps.difference(found, expected) < TOLERANCE


def grid(replica, data):
    devices = np.asarray(jax.devices()[: replica * data]).reshape(replica, data)
    return Mesh(devices, (AXIS, "data"))


@pytest.mark.parametrize("shape", [(2, 2), (4, 1), (1, 4)])
@pytest.mark.parametrize("each", ["map", "vmap"])
def test_data_parallelism_within_a_replica(shape, each):
    """Gradients averaged over "data" are those of the whole batch, replicas apart or together."""
    tx = entropix.elastic_sgd(0.1, 0.5, AXIS)

    def gradient(w, batch):
        return jax.grad(lambda w: jnp.mean((batch @ w - 1) ** 2))(w)

    def whole(state, batch):
        w, opt_state = state
        updates, opt_state = tx.update(gradient(w, batch), opt_state, w)
        return (w + updates, opt_state), jnp.sum(w)

    def divided(state, batch):
        w, opt_state = state
        assert batch.shape[0] == 8 // shape[1]  # its share of the examples
        grads = lax.pmean(gradient(w, batch), "data")
        updates, opt_state = tx.update(grads, opt_state, w)
        return (w + updates, opt_state), jnp.sum(w)

    rng = np.random.default_rng(1)
    w = jnp.asarray(rng.normal(size=(REPLICAS, 3)), jnp.float32)
    batches = jnp.asarray(rng.normal(size=(REPLICAS, 8, 3)), jnp.float32)
    states = w, jax.vmap(tx.init)(w)
    layout = replicas.layout(REPLICAS, "shard_map", each=each, mesh=grid(*shape))
    expected = steps.walk(jax.vmap(whole, axis_name=AXIS), 10)(states, batches)
    run = replicas.runner(divided, layout)
    found = steps.walk(run, 10)(layout.place(states), batches)
    assert steps.difference(found, expected) < TOLERANCE
    if shape[1] > 1:
        with pytest.raises(ValueError, match=r"B a multiple of the \d devices along"):
            run(states, batches[:, :7])


@pytest.mark.parametrize("options", LAYOUTS.values())
@pytest.mark.parametrize("name", steps.OPTIMISERS)
def test_communication_stands_where_it_should(name, options):
    """With a period, or between outer steps, nothing is communicated: seen in the program."""
    step, state, _ = steps.coupled(steps.OPTIMISERS[name])
    layout = make(options)
    states, batches = (layout.place(tree) for tree in steps.inputs(state))
    compiled = jax.jit(replicas.runner(step, layout)).lower(states, batches).compile()
    always, sometimes = traffic(compiled.as_text())
    if layout.per_device == REPLICAS:
        assert (always, sometimes) == (0, 0)
    elif "period" in name or name == "stepwise":
        assert always == 0
        assert sometimes > 0
    else:
        assert always > 0
        assert sometimes == 0


class TestLayout:
    def test_auto_spreads_over_as_many_devices_as_divide_the_replicas(self):
        for p, kind, devices in ((1, "map", 1), (2, "shard_map", 2), (6, "shard_map", 3)):
            layout = replicas.layout(p)
            assert layout.kind == kind
            assert layout.per_device * devices == p
            assert layout.each == "map"  # on a CPU
        assert replicas.layout(8).per_device == 2
        assert replicas.layout(7).kind == "map"

    def test_more_devices_than_there_are(self):
        with pytest.raises(ValueError, match=r"devices=5 .* sees 4 cpu devices. Two ways out"):
            replicas.layout(5, "shard_map", devices=5)
        with pytest.raises(ValueError, match=r"layout='pmap' spreads replicas=7 .*CPU_DEVICES=7"):
            replicas.layout(7, "pmap")

    def test_replicas_that_devices_do_not_divide(self):
        with pytest.raises(ValueError, match="replicas=6 on 4"):
            replicas.layout(6, "shard_map", devices=4)

    def test_meshes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"an axis 'replica'.*'r', 'data'"):
            replicas.layout(2, mesh=Mesh(np.asarray(jax.devices()).reshape(2, 2), ("r", "data")))
        with pytest.raises(ValueError, match=r"pmap maps one axis.*shard_map"):
            replicas.layout(2, "pmap", mesh=grid(2, 2))
