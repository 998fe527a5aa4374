"""The evaluation in turns against JAX's own `vmap` with a named axis."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from replicas import steps
from replicas.steps import AXIS, REPLICAS

from entropix import replicas

one_device = pytest.mark.parametrize("kind", ["vmap", "map"])


@one_device
@pytest.mark.parametrize("name", steps.OPTIMISERS)
def test_optimisers_walk_as_under_vmap(name, kind):
    step, state, _ = steps.coupled(steps.OPTIMISERS[name])
    states, batches = steps.inputs(state)
    expected = steps.walk(jax.vmap(step, axis_name=AXIS), 7)(states, batches)
    run = replicas.runner(step, replicas.layout(REPLICAS, kind))
    assert steps.difference(steps.walk(run, 7)(states, batches), expected) < 2e-6
    assert np.ptp(np.asarray(expected[0][0]), axis=0).min() > 1e-3  # replicas that differ


@one_device
@pytest.mark.parametrize("step", steps.STRUCTURES)
def test_programs_are_evaluated_as_under_vmap(step, kind):
    states, batches = steps.inputs()
    expected = jax.jit(jax.vmap(step, axis_name=AXIS))(states, batches)
    run = jax.jit(replicas.runner(step, replicas.layout(REPLICAS, kind)))
    tolerance = 1e-2 if step is steps.other_types else 2e-6  # bfloat16 means
    assert steps.difference(run(states, batches), expected) < tolerance


def products(jaxpr):
    """Shapes of the matrix products anywhere in a program."""
    found = set()
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            found.add(eqn.outvars[0].aval.shape)
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            found |= products(inner)
    return found


def gradient_in_the_loop(x, batch):
    def body(y, _):
        return y - lax.axis_index(AXIS) * (batch.T @ (batch @ y)), None

    y, _ = lax.scan(body, x, None, length=3)
    return x + lax.pmean(y, AXIS), ()


def test_in_turns_the_work_of_one_replica_is_not_batched():
    """The matrix products are those of one replica, inside one loop over replicas."""
    shapes = {}
    for kind in ("vmap", "map"):
        run = replicas.runner(gradient_in_the_loop, replicas.layout(REPLICAS, kind))
        shapes[kind] = products(jax.make_jaxpr(run)(*steps.inputs()).jaxpr)
    assert shapes["map"] == {(5,), (3,)}
    assert all(REPLICAS in shape for shape in shapes["vmap"])


def test_what_a_conditional_skips_is_not_computed():
    """Under JAX's vmap a conditional on a replica's counter computes both branches."""
    seen = []

    def step(state, batch):
        count, x = state

        def meet(x):
            jax.debug.callback(lambda _: seen.append("met"), x)
            return lax.pmean(x, AXIS)

        return (count + 1, lax.cond(count % 3 == 0, meet, lambda x: x, x)), ()

    run = jax.jit(replicas.runner(step, replicas.layout(REPLICAS, "map")))
    states = jnp.zeros(REPLICAS, jnp.int32), jnp.arange(float(REPLICAS))
    for _ in range(6):
        states, _ = run(states, jnp.zeros(REPLICAS))
    jax.effects_barrier()
    assert len(seen) == 2 * REPLICAS
    np.testing.assert_allclose(states[1], np.full(REPLICAS, 1.5))


def test_unknown_collectives_are_named():
    def gather(x, batch):
        return lax.all_gather(x, AXIS).sum(0), ()

    def grouped(x, batch):
        return lax.psum(x, AXIS, axis_index_groups=[[0, 1], [2, 3]]), ()

    for step, message in ((gather, "'all_gather'.*'replica'"), (grouped, "axis_index_groups")):
        run = replicas.runner(step, replicas.layout(REPLICAS, "map"))
        with pytest.raises(NotImplementedError, match=message):
            run(*steps.inputs())


def test_shapes_without_an_axis_of_replicas_are_refused():
    run = replicas.runner(steps.in_scan, replicas.layout(REPLICAS, "map"))
    states, batches = steps.inputs()
    with pytest.raises(ValueError, match=r"states .* leading axis of 4 .* shape \(3, 3\)"):
        run(states[:3], batches)
    with pytest.raises(ValueError, match=r"batches .* shape \(\)"):
        run(states, jnp.zeros([]))


def test_a_shared_batch_has_no_replica_axis():
    step, state, _ = steps.coupled(steps.OPTIMISERS["elastic"])
    states, batches = steps.inputs(state)
    layout = replicas.layout(REPLICAS, "map")
    same = jnp.broadcast_to(batches[0], batches.shape)
    expected = jax.jit(replicas.runner(step, layout))(states, same)
    found = jax.jit(replicas.runner(step, layout, shared=True))(states, batches[0])
    assert steps.difference(found, expected) == 0
