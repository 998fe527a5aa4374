"""Replicas on one device, and what a runner refuses; `four_devices.py` has several devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from replicas import steps
from replicas.steps import AXIS, REPLICAS

import entropix
from entropix import replicas


def test_replicas_on_one_device_are_a_vmap():
    layout = replicas.layout(REPLICAS, "vmap")
    step, state = steps.coupled(steps.OPTIMISERS["elastic-period_3"], layout.axis_name)
    states, batches = steps.inputs(state)
    expected = steps.walk(jax.vmap(step, axis_name=AXIS), 7)(states, batches)
    found = steps.walk(replicas.runner(step, layout), 7)(states, batches)
    assert steps.difference(found, expected) == 0
    assert np.ptp(np.asarray(expected[0][0]), axis=0).min() > 1e-3  # replicas that differ


def test_a_conditional_whose_predicate_is_the_same_for_all_is_not_computed_where_it_is_false():
    met = []

    def step(state, batch):
        count, x = state

        def meet(x):
            jax.debug.callback(lambda _: met.append("met"), x)
            return lax.pmean(x, AXIS)

        now = lax.pmax(count, AXIS) % 3 == 0
        return (count + 1, lax.cond(now, meet, lambda x: x, x)), ()

    run = jax.jit(replicas.runner(step, replicas.layout(REPLICAS, "vmap")))
    states = jnp.zeros(REPLICAS, jnp.int32), jnp.arange(float(REPLICAS))
    for _ in range(6):
        states, _ = run(states, jnp.zeros(REPLICAS))
    jax.effects_barrier()
    assert len(met) == 2 * REPLICAS
    np.testing.assert_allclose(states[1], np.full(REPLICAS, 1.5))


def test_a_transformation_of_another_axis_says_which_to_take():
    layout = replicas.layout(REPLICAS, "vmap", axis_name="worker")
    step, state = steps.coupled(steps.OPTIMISERS["elastic"], "replica")
    with pytest.raises(ValueError, match=r"'replica' names no mapped axis.*layout\.axis_name"):
        replicas.runner(step, layout)(*steps.inputs(state))


def test_a_collective_over_another_axis_says_which_there_is():
    layout = replicas.layout(REPLICAS, "vmap", axis_name="worker")
    run = replicas.runner(functools.partial(steps.in_scan, "replica"), layout)
    with pytest.raises(NameError) as error:
        run(*steps.inputs())
    assert error.value.__notes__[0] == (
        "The replicas' axis in this layout is layout.axis_name='worker'."
    )


def test_shapes_without_an_axis_of_replicas_are_refused():
    layout = replicas.layout(REPLICAS, "vmap")
    run = replicas.runner(functools.partial(steps.in_scan, AXIS), layout)
    states, batches = steps.inputs()
    with pytest.raises(ValueError, match=r"states .* leading axis of 4 .* shape \(3, 3\)"):
        run(states[:3], batches)
    with pytest.raises(ValueError, match=r"batches .* shape \(\)"):
        run(states, jnp.zeros([]))


def test_a_shared_batch_has_no_replica_axis():
    layout = replicas.layout(REPLICAS, "vmap")
    step, state = steps.coupled(steps.OPTIMISERS["elastic"], layout.axis_name)
    states, batches = steps.inputs(state)
    same = jnp.broadcast_to(batches[0], batches.shape)
    expected = jax.jit(replicas.runner(step, layout))(states, same)
    found = jax.jit(replicas.runner(step, layout, shared=True))(states, batches[0])
    assert steps.difference(found, expected) == 0


def test_a_predicate_from_a_shared_batch_stays_a_conditional():
    """Under `vmap` a predicate that no replica changes is one number."""
    met = []

    def step(x, batch):
        def meet(x):
            jax.debug.callback(lambda _: met.append("met"), x)
            return lax.pmean(x, AXIS)

        return lax.cond(batch % 3 == 0, meet, lambda x: x, x), ()

    layout = replicas.layout(REPLICAS, "vmap")
    run = jax.jit(replicas.runner(step, layout, shared=True))
    x = jnp.arange(float(REPLICAS))
    for count in range(1, 4):
        x, _ = run(x, jnp.asarray(count))
    jax.effects_barrier()
    assert len(met) == REPLICAS


def test_the_mean_of_replicas_is_the_same_whatever_the_layout_is_called():
    """A user's axis name reaches the optimiser through `layout.axis_name` alone."""
    layout = replicas.layout(2, "vmap", axis_name="worker")
    tx = entropix.average_updates(layout.axis_name)
    run = replicas.runner(lambda g, _: (tx.update(g, tx.init(g))[0], ()), layout)
    np.testing.assert_array_equal(run(jnp.asarray([1.0, 3.0]), jnp.zeros(2))[0], [2.0, 2.0])
