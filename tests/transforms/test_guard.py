"""Relaxed gradients that are not finite: with the guard, such an outer step leaves no trace."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix

NAN, INF = float("nan"), float("inf")
L = 4
PARAMS = {"w": jnp.asarray([1.0, -2.0, 0.5]), "n": jnp.asarray([1, 2])}

RELAXATIONS = {
    "local_entropy": entropix.local_entropy(1.0, num_steps=L, temperature=1e-3),
    "cold": entropix.local_entropy(1.0, num_steps=L, temperature=0, averaging=0),
    "adam": entropix.local_entropy(1.0, num_steps=L, inner=optax.scale_by_adam()),
    "memory": entropix.local_entropy(
        1.0, num_steps=L, inner=optax.trace(0.9), reset_inner=False, averaging="linear"
    ),
    "adam_memory": entropix.local_entropy(
        1.0, num_steps=L, inner=optax.scale_by_adam(), reset_inner=False
    ),
    "proximal": entropix.hamilton_jacobi(1.0, num_steps=L),
    "gradient": entropix.hamilton_jacobi(1.0, num_steps=L, form="gradient"),
    "heat": entropix.heat(1.0, num_steps=L),
    "sharpness": entropix.sharpness(0.1, num_ascents=L - 1),
}
every_relaxation = pytest.mark.parametrize("name", RELAXATIONS)


def stepper(tx):
    """One compiled update; the gradient of inner step `bad` has one element that is `value`."""

    @jax.jit
    def step(params, state, bad, value):

        def grad_fn(p, i):
            grads = {"w": p["w"].at[0].set(jnp.where(i == bad, value, p["w"][0]))}
            return grads | {k: np.zeros(2, jax.dtypes.float0) for k in p if k == "n"}

        first = grad_fn(params, 0)
        updates, state = tx.update(first, state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    return step


def assert_same(actual, expected):
    numbers = lambda leaf: (  # noqa: E731
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    )
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(numbers(a)), np.asarray(numbers(e)))


def is_finite(tree):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree["w"]))


class TestGuard:
    @every_relaxation
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_a_bad_outer_step_leaves_no_trace(self, name, optimizer):
        behind = entropix.sgd(0.1) if optimizer == "sgd" else optax.masked(
            optax.adam(0.1), {"w": True, "n": False}
        )  # fmt: skip
        tx = entropix.relax(RELAXATIONS[name], if_finite=behind)
        step = stepper(tx)
        good = step(PARAMS, tx.init(PARAMS), -1, 0.0)
        after = step(*good, -1, 0.0)
        for bad in [0] if name == "sharpness" else range(L):
            if name == "heat" and bad == 0:
                continue  # never asked for
            for value in (NAN, INF):
                params, state = step(*good, bad, value)
                assert int(state.num_skipped) == 1
                assert_same(params, good[0])
                assert_same(state._replace(num_skipped=good[1].num_skipped), good[1])
                params, state = step(params, state, -1, 0.0)
                assert_same((params, state._replace(num_skipped=0 * state.num_skipped)), after)

    @every_relaxation
    def test_good_outer_steps_are_those_of_the_chain(self, name):
        guarded = entropix.relax(RELAXATIONS[name], if_finite=entropix.sgd(0.1))
        chain = optax.chain(entropix.relax(RELAXATIONS[name]), entropix.sgd(0.1))
        runs = []
        for tx in (guarded, chain):
            run = PARAMS, tx.init(PARAMS)
            for _ in range(3):
                run = stepper(tx)(*run, -1, 0.0)
            runs.append(run)
        np.testing.assert_allclose(runs[0][0]["w"], runs[1][0]["w"], rtol=1e-6)
        assert int(runs[0][1].num_skipped) == 0

    def test_off_it_is_not_in_the_program(self):
        text = lambda tx: str(  # noqa: E731
            jax.make_jaxpr(lambda p: tx.update(p, tx.init(p), p, grad_fn=lambda q, i: q))(1.0)
        )
        relaxation, sgd = RELAXATIONS["memory"], entropix.sgd(0.1)
        assert "is_finite" in text(entropix.relax(relaxation, if_finite=sgd))
        assert "is_finite" not in text(optax.chain(entropix.relax(relaxation), sgd))

    def test_replicas_that_average_skip_together(self):
        relaxation = entropix.hamilton_jacobi(1.0, num_steps=2)
        behind = optax.chain(entropix.average_updates("r"), optax.sgd(0.1, 0.9))
        tx = entropix.relax(relaxation, if_finite=behind)
        x = jnp.asarray([[1.0, 2.0], [1.0, 2.0]])

        def step(x, state, shift):
            return tx.update(x, state, x, grad_fn=lambda p, i: p + shift)

        step = jax.jit(jax.vmap(step, axis_name="r"))
        updates, state = step(x, jax.vmap(tx.init)(x), jnp.asarray([0.0, NAN]))
        assert state.num_skipped.tolist() == [1, 1]
        np.testing.assert_array_equal(updates, np.zeros((2, 2)))

    def test_eval_params_and_check_see_through(self):
        tx = entropix.relax(RELAXATIONS["memory"], if_finite=optax.sgd(0.1))
        x = PARAMS["w"]
        assert entropix.eval_params(tx.init(x), x) is x
        assert entropix.check(tx, 10) == pytest.approx(0.1)

    def test_the_optimiser_is_checked(self):
        with pytest.raises(ValueError, match="if_finite must be an Optax transformation.*=True"):
            entropix.relax(RELAXATIONS["heat"], if_finite=True)


class TestComposition:
    """What `relax` says of `optax.apply_if_finite`."""

    @pytest.mark.parametrize("name", ["local_entropy", "proximal", "memory"])
    def test_around_the_chain_it_lets_nan_through(self, name):
        chain = optax.chain(entropix.relax(RELAXATIONS[name]), entropix.sgd(0.1))
        tx = optax.apply_if_finite(chain, 5)
        params = {"w": PARAMS["w"]}  # apply_if_finite takes no gradients of integers
        params, _ = stepper(tx)(params, tx.init(params), 2, NAN)
        assert not is_finite(params)

    @pytest.mark.parametrize("name", ["local_entropy", "memory"])
    def test_behind_the_link_it_protects_all_but_the_memory(self, name):
        behind = optax.apply_if_finite(entropix.sgd(0.1), 5)
        tx = optax.chain(entropix.relax(RELAXATIONS[name]), behind)
        step = stepper(tx)
        params, state = step(PARAMS, tx.init(PARAMS), 2, NAN)
        assert_same(params, PARAMS)
        params, state = step(params, state, -1, 0.0)
        moved = bool(jnp.any(params["w"] != PARAMS["w"]))
        assert moved == (name != "memory")

    def test_around_stepwise_it_sees_every_gradient(self):
        tx = optax.apply_if_finite(entropix.stepwise(RELAXATIONS["memory"], optax.sgd(0.1)), 5)
        w = PARAMS["w"]
        state = tx.init(w)
        for n in range(2 * L + 1):
            updates, state = tx.update(jnp.where(n == 2, NAN, w), state, w)
            w = optax.apply_updates(w, updates)
        assert bool(jnp.all(jnp.isfinite(entropix.eval_params(state, w))))
        assert int(state.inner_state.gradient_count) == 0  # the bad one did not count


@pytest.mark.parametrize("name", ["elastic_sgd", "easgd"])
def test_replicas_leave_a_step_out_together(name):
    """And count alike afterwards: their exchanges stay common, and so does EASGD's centre."""
    gamma = {"gamma": 1.0} if name == "elastic_sgd" else {}
    behind = getattr(entropix, name)(0.1, axis_name="r", period=3, **gamma)
    tx = entropix.relax(entropix.hamilton_jacobi(1.0, num_steps=2), if_finite=behind, axis_name="r")

    def step(x, state, bad):
        grad_fn = lambda x, i: x + jnp.where(bad, jnp.nan, 0.0)  # noqa: E731
        updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
        return optax.apply_updates(x, updates), state

    run = jax.jit(jax.vmap(step, axis_name="r"))
    x = jnp.asarray([[1.0, -0.5], [2.0, 0.5]])
    state = jax.vmap(tx.init)(x)
    for k in range(7):
        bad = jnp.asarray([False, k in (0, 3)])
        before = x
        x, state = run(x, state, bad)
        assert (x == before).all() == (k in (0, 3))
    assert state.num_skipped.tolist() == [2, 2]
    for leaf in jax.tree.leaves(optax.tree.get_all_with_path(state, "update_count")):
        if hasattr(leaf, "shape"):
            assert (leaf == leaf[0]).all()
    if name == "easgd":
        centre = optax.tree.get(state, "centre")
        np.testing.assert_array_equal(centre[0], centre[1])


def test_the_axis_must_be_there():
    tx = entropix.relax(entropix.heat(1.0), if_finite=optax.sgd(0.1), axis_name="r")
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="names no mapped axis"):
        tx.update(x, tx.init(x), x, grad_fn=lambda x, i: x)
