"""Tests that need four devices; `test_devices.py` runs them in a process that has so many."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from replicas import steps
from replicas.steps import AXIS, REPLICAS

import entropix
from entropix import replicas
from entropix.replicas.traffic import Traffic, traffic

# Results differ by the order of a mean's sum; a dozen steps of a contracting walk keep that small.
TOLERANCE = 2e-6
LAYOUTS = {
    "shard_map-4x1": {"kind": "shard_map"},
    "shard_map-2x2": {"kind": "shard_map", "devices": 2},
    "pmap-4x1": {"kind": "pmap"},
    "pmap-2x2": {"kind": "pmap", "devices": 2},
}
every_layout = pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
PAIR = (f"{AXIS}_across_devices", f"{AXIS}_within_device")


def make(options, **more):
    options = options | more
    return replicas.layout(REPLICAS, options.pop("kind"), **options)


def one_device(make_step):
    """The step of all replicas in a plain `vmap`, and what it starts from."""
    step, state = steps.coupled(make_step, AXIS)
    return jax.vmap(step, axis_name=AXIS), steps.inputs(state)


@every_layout
@pytest.mark.parametrize("name", steps.OPTIMISERS)
def test_optimisers_agree(name, options):
    expected, (states, batches) = one_device(steps.OPTIMISERS[name])
    layout = make(options)
    step, _ = steps.coupled(steps.OPTIMISERS[name], layout.axis_name)
    found = steps.walk(replicas.runner(step, layout), 12)(
        layout.place(states), layout.place(batches)
    )
    assert steps.difference(found, steps.walk(expected, 12)(states, batches)) < TOLERANCE


@every_layout
@pytest.mark.parametrize("step", steps.STRUCTURES)
def test_structures_agree(step, options):
    states, batches = steps.inputs()
    one = functools.partial(step, AXIS)
    expected = jax.jit(jax.vmap(one, axis_name=AXIS))(states, batches)
    layout = make(options)
    run = jax.jit(replicas.runner(functools.partial(step, layout.axis_name), layout))
    tolerance = 1e-2 if step is steps.other_types else TOLERANCE  # bfloat16 means
    assert steps.difference(run(states, batches), expected) < tolerance


@every_layout
def test_states_stay_where_they_are(options, caplog):
    """Placed once, in the layout's sharding, and donated from step to step."""
    layout = make(options)
    step, state = steps.coupled(steps.OPTIMISERS["elastic"], layout.axis_name)
    states, batches = (layout.place(tree) for tree in steps.inputs(state))
    run = jax.jit(replicas.runner(step, layout), donate_argnums=0)
    with jax.transfer_guard("disallow"), jax.log_compiles():
        for _ in range(3):
            before = states
            states, _ = run(states, batches)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    for leaf in jax.tree.leaves(states):
        assert leaf.sharding.is_equivalent_to(layout.sharding(), leaf.ndim)
    assert caplog.text.count("Compiling jit(run)") == 1


@every_layout
def test_a_shared_batch(options):
    layout = make(options)
    step, state = steps.coupled(steps.OPTIMISERS["elastic"], layout.axis_name)
    states, batches = steps.inputs(state)
    same = jnp.broadcast_to(batches[0], batches.shape)
    expected = jax.jit(replicas.runner(step, layout))(states, same)
    shared = layout.share(batches[0])
    found = jax.jit(replicas.runner(step, layout, shared=True))(layout.place(states), shared)
    assert steps.difference(found, expected) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "shard_map") for name in steps.OPTIMISERS), ("parle", "pmap")]
)
def test_a_stale_axis_name_is_refused(name, kind):
    """Where several devices hold several replicas, "replica" would be those of one device."""
    layout = replicas.layout(REPLICAS, kind, devices=2)
    assert layout.axis_name == PAIR
    step, state = steps.coupled(steps.OPTIMISERS[name], AXIS)
    with pytest.raises(ValueError, match=r"'replica' names no mapped axis.*layout\.axis_name"):
        jax.eval_shape(replicas.runner(step, layout), *steps.inputs(state))


@every_layout
def test_a_mean_is_one_all_reduce_and_replicas_are_counted_as_their_states(options):
    layout = make(options)
    axis = layout.axis_name
    step = lambda x, batch: (x - lax.pmean(x, axis), lax.axis_index(axis))  # noqa: E731
    inputs = [layout.place(tree) for tree in steps.inputs()]
    program = jax.jit(replicas.runner(step, layout)).lower(*inputs).compile()
    assert len(re.findall(r" all-reduce(?:-start)?\(", program.as_text())) == 1
    x, indices = program(*inputs)
    np.testing.assert_allclose(np.mean(x, axis=0), 0, atol=1e-6)
    assert indices.tolist() == list(range(REPLICAS))


def grid(replica, data):
    devices = np.asarray(jax.devices()[: replica * data]).reshape(replica, data)
    return Mesh(devices, (AXIS, "data"))


@pytest.mark.parametrize("shape", [(2, 2), (4, 1), (1, 4)])
def test_data_parallelism_within_a_replica(shape):
    """Gradients averaged over "data" are those of the whole batch, replicas apart or together."""
    layout = replicas.layout(REPLICAS, "shard_map", mesh=grid(*shape))
    assert layout.data_axes == {"data": shape[1]}

    def gradient(w, batch):
        return jax.grad(lambda w: jnp.mean((batch @ w - 1) ** 2))(w)

    def walker(axis, gradient):
        tx = entropix.elastic_sgd(0.1, 0.5, axis)

        def step(state, batch):
            w, opt_state = state
            updates, opt_state = tx.update(gradient(w, batch), opt_state, w)
            return (w + updates, opt_state), jnp.sum(w)

        return step, tx.init

    def divided(w, batch):
        assert batch.shape[0] == 8 // shape[1]  # its share of the examples
        return lax.pmean(gradient(w, batch), "data")

    rng = np.random.default_rng(1)
    w = jnp.asarray(rng.normal(size=(REPLICAS, 3)), jnp.float32)
    batches = jnp.asarray(rng.normal(size=(REPLICAS, 8, 3)), jnp.float32)
    whole, init = walker(AXIS, gradient)
    states = w, jax.vmap(init)(w)
    expected = steps.walk(jax.vmap(whole, axis_name=AXIS), 10)(states, batches)
    run = replicas.runner(walker(layout.axis_name, divided)[0], layout)
    found = steps.walk(run, 10)(layout.place(states), batches)
    assert steps.difference(found, expected) < TOLERANCE
    if shape[1] > 1:
        with pytest.raises(ValueError, match=r"B a multiple of the \d devices along"):
            run(states, batches[:, :7])


@every_layout
@pytest.mark.parametrize("name", ["elastic", "easgd-period_3", "parle-stepwise"])
def test_communication_stands_where_it_should(name, options):
    """With a period, or between outer steps, nothing is communicated: seen in the program."""
    layout = make(options)
    step, state = steps.coupled(steps.OPTIMISERS[name], layout.axis_name)
    states, batches = (layout.place(tree) for tree in steps.inputs(state))
    compiled = jax.jit(replicas.runner(step, layout)).lower(states, batches).compile()
    always, sometimes = traffic(compiled.as_text())
    if "period" in name or "stepwise" in name:
        assert always == 0
        assert sometimes > 0
    else:
        assert always > 0
        assert sometimes == 0


def counted(axis, predicate):
    """A step that communicates at every third step, if `predicate` says so to a conditional."""

    def step(state, _):
        count, x = state
        mean = lambda x: lax.pmean(x, axis)  # noqa: E731
        return (count + 1, lax.cond(predicate(count) % 3 == 0, mean, lambda x: x, x)), ()

    return step


def test_a_predicate_of_each_replica_communicates_at_every_step():
    """As documented, and the way out: a predicate that is the same for all."""
    layout = make(LAYOUTS["shard_map-2x2"])
    axis = layout.axis_name
    states = layout.place((jnp.zeros(REPLICAS, jnp.int32), jnp.ones((REPLICAS, 3))))
    seen = []
    for predicate in (lambda count: count, lambda count: lax.pmax(count, axis)):
        run = jax.jit(replicas.runner(counted(axis, predicate), layout))
        seen.append(traffic(run.lower(states, states[1]).compile().as_text()))
    assert seen == [Traffic(3 * 4, 0), Traffic(4, 3 * 4)]  # bytes of x, of the counter


class TestLayout:
    def test_auto_spreads_over_as_many_devices_as_divide_the_replicas(self):
        for p, kind, devices in ((1, "vmap", 1), (2, "shard_map", 2), (6, "shard_map", 3)):
            layout = replicas.layout(p)
            assert layout.kind == kind
            assert layout.per_device * devices == p
            assert layout.axis_name == (PAIR if p == 6 else AXIS)
        assert replicas.layout(8).per_device == 2
        assert replicas.layout(7).kind == "vmap"

    def test_one_device_that_is_not_the_default(self):
        layout = replicas.layout(REPLICAS, devices=jax.devices()[3:])
        assert (layout.kind, layout.axis_name) == ("vmap", AXIS)
        step = lambda x, b: (lax.pmean(x, AXIS), ())  # noqa: E731
        x, _ = jax.jit(replicas.runner(step, layout))(*map(layout.place, steps.inputs()))
        assert x.devices() == {jax.devices()[3]}
        np.testing.assert_allclose(layout.gather(x), np.mean(steps.inputs()[0], 0)[None] + 0 * x)

    @pytest.mark.parametrize("p", [2, 4])
    def test_a_mesh_of_explicit_axes_is_taken_as_well(self, p):
        layout = replicas.layout(p, mesh=jax.make_mesh((2, 2), (AXIS, "data")))
        step = lambda x, b: (lax.pmean(b.sum(), ("data", *axes)) + x, ())  # noqa: E731
        axes = (layout.axis_name,) if p == 2 else layout.axis_name
        with jax.set_mesh(layout.mesh):
            inputs = layout.place((jnp.zeros(p), jnp.ones((p, 8))))
            x, _ = jax.jit(replicas.runner(step, layout))(*inputs)
        assert x.tolist() == [4.0] * p  # the half of a batch that a device has

    def test_a_mesh_whose_devices_hold_several_replicas_has_another_name(self):
        given = grid(2, 2)
        layout = replicas.layout(REPLICAS, mesh=given)
        assert layout.mesh.axis_names == (PAIR[0], "data")
        assert (layout.mesh.devices == given.devices).all()
        assert replicas.layout(2, mesh=given).mesh == given  # one each

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
