"""The state of every optimiser: made from anything, donated, saved, reseeded."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import (
    AXIS,
    assert_close,
    drive,
    every_case,
    is_key,
    kinds,
    mixed_tensors,
    rosenbrock,
    run,
    some_cases,
)

import entropix

NOISY = ("entropy_sgd", "entropy_sgd-stepwise", "heat_sgd", "heat_sgd-stepwise")


def keys_in(state):
    return [leaf for leaf in jax.tree.leaves(state) if is_key(leaf)]


@every_case
def test_init_is_the_same_eagerly_compiled_and_abstractly(case):
    tx = case.make()
    params = case.spread(mixed_tensors().start)
    state = tx.init(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    assert_close(jax.jit(tx.init)(params), state)
    assert kinds(jax.eval_shape(tx.init, params)) == kinds(state)


@every_case
def test_init_from_abstract_parameters(case):
    tx = case.factory(**case.arguments)
    params = mixed_tensors().start
    assert kinds(tx.init(jax.eval_shape(lambda: params))) == kinds(tx.init(params))


@every_case
@pytest.mark.parametrize("empty", [{}, [], {"layer": {}}], ids=repr)
def test_a_tree_without_leaves(case, empty):
    # `optax.partition` makes one for a label that no parameter has.
    tx = case.make()
    step = jax.jit(case.step(tx, lambda params: jnp.zeros(())))
    params, state = step(empty, tx.init(empty))
    assert params == empty
    assert kinds(state) == kinds(tx.init(empty))


@every_case
def test_parameters_and_state_can_be_donated(case):
    target = rosenbrock()
    tx = case.make()
    step = case.step(tx, target.objective)
    start = case.spread(target.start)
    expected = run(step, start, tx.init(start), length=6)
    donating = jax.jit(step, donate_argnums=(0, 1))
    for init in (tx.init, jax.jit(tx.init)):
        params = jnp.copy(start)
        state = init(params)
        for _ in range(6):
            old = params
            params, state = donating(params, state)
            assert old.is_deleted()
        assert_close((params, state), expected, rtol=1e-5, atol=1e-6)


def interrupted(case):
    """(params, state) in the middle of an outer step of most stepwise cases, and the way on."""
    target = mixed_tensors()
    tx = case.make()
    step = jax.jit(case.step(tx, target.objective))
    params = case.spread(target.start)
    fresh = params, tx.init(params)
    return fresh, drive(step, *fresh, length=7), lambda carry: drive(step, *carry, length=5)


@every_case
def test_pickle_resumes_to_the_same_bits(case):
    _, saved, resume = interrupted(case)
    restored = pickle.loads(pickle.dumps(saved))
    assert_close(restored, saved)
    assert_close(resume(restored), resume(saved))


@some_cases("entropy_sgd-authors-stepwise", "heat_sgd", "elastic_sgd-period_4")
def test_orbax_resumes_to_the_same_bits(case, tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    fresh, saved, resume = interrupted(case)
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", saved)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "checkpoint", fresh)
    assert_close(restored, saved)
    assert_close(resume(restored), resume(saved))


def walker(case, **changes):
    """An optimiser at a temperature at which noise is seen, and where it walks from a state."""
    target = rosenbrock()
    tx = case.make(temperature=0.1, **changes)
    step = case.step(tx, target.objective)

    def walk(state):
        params, state = run(step, target.start, state, length=8)
        return case.solution(state, params)

    return tx.init(target.start), jax.jit(walk)


@some_cases("entropy_sgd-stepwise", "heat_sgd")
def test_every_spelling_of_a_key_gives_the_same_walk(case):
    _, walk = walker(case)
    seeds = 3, jax.random.key(3), jax.random.PRNGKey(3), np.int32(3), jnp.asarray(3), 4
    walks = [walk(walker(case, key=key)[0]) for key in seeds]
    *alike, other = walks
    for walked in alike[1:]:
        assert_close(walked, alike[0])
    assert not np.allclose(other, alike[0])


@some_cases(*NOISY)
def test_a_bad_key_is_refused_with_the_accepted_spellings(case):
    for key in ("seed", 1.5, True, jnp.zeros(2)):
        with pytest.raises(ValueError, match=r"key must be an integer seed, jax\.random\.key"):
            case.make(key=key).init(rosenbrock().start)


@every_case
def test_reseed_changes_the_keys_and_nothing_else(case):
    state = case.make().init(case.spread(mixed_tensors().start))
    nested = {"optimizer": (optax.EmptyState(), state)}
    reseeded = entropix.reseed(nested, 7)["optimizer"][1]
    assert kinds(reseeded) == kinds(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(reseeded), strict=True):
        if is_key(old):
            different = jax.random.key_data(old) != jax.random.key_data(new)
            assert np.all(np.any(different, axis=-1))
        else:
            assert old is new


@some_cases(*NOISY)
def test_reseed_gives_vmapped_copies_their_own_noise(case):
    state, walk = walker(case)
    copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)  # what vmap(tx.init) makes
    walk_all = jax.jit(jax.vmap(walk))
    alike = walk_all(copies)
    assert_close(alike[1:], alike[:-1])
    split = jax.random.split(jax.random.key(7), 3)
    for key in (7, jax.random.key(7), jax.random.PRNGKey(7), split):
        own = walk_all(entropix.reseed(copies, key))
        for n in range(3):
            assert_close(own[n], walk(entropix.reseed(state, split[n])), rtol=1e-4, atol=1e-5)
    assert len(np.unique(np.asarray(own), axis=0)) == 3


@some_cases(*NOISY)
def test_reseed_is_the_key_argument(case):
    state, walk = walker(case)
    other_state, other_walk = walker(case, key=5)
    assert_close(walk(entropix.reseed(state, 5)), other_walk(other_state))


def test_reseed_gives_every_key_in_a_state_its_own():
    noise = entropix.local_entropy(1.0)
    tx = optax.chain(entropix.relax(noise), entropix.relax(entropix.heat(1.0)), optax.sgd(0.1))
    first, second = keys_in(entropix.reseed(tx.init(jnp.zeros(2)), 7))
    seven = jax.random.key(7)
    assert_close((first, second), (seven, jax.random.fold_in(seven, 1)))
    stacked = keys_in(entropix.reseed(jax.vmap(tx.init)(jnp.zeros((3, 2))), 7))
    words = np.concatenate([jax.random.key_data(key) for key in stacked])
    assert len(np.unique(words, axis=0)) == 6


def test_reseed_refuses_what_does_not_fit():
    state = entropix.entropy_sgd(0.1, 1.0).init(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(\), the shape of the keys in the state"):
        entropix.reseed(state, jax.random.split(jax.random.key(0), 3))
    with pytest.raises(ValueError, match="key must be an integer seed"):
        entropix.reseed(state, "seven")


@some_cases(*NOISY)
def test_replicas_with_the_same_key_draw_different_noise(case):
    start = jnp.zeros((4, 3))  # four replicas at the same point

    def walk(axis_name):
        tx = case.make(temperature=0.1, axis_name=axis_name)
        step = case.step(tx, lambda x: jnp.sum(x**2))
        one = lambda params, state: run(step, params, state, length=8)[0]  # noqa: E731
        return jax.vmap(one, axis_name=AXIS)(start, jax.vmap(tx.init)(start))

    alike = walk(axis_name=None)
    assert_close(alike[1:], alike[:-1])
    assert len(np.unique(np.asarray(walk(AXIS)), axis=0)) == 4


@every_case
def test_no_key_is_used_twice(case):
    target = rosenbrock()
    tx = case.make()
    params = case.spread(target.start)
    with jax.debug_key_reuse(True):
        drive(case.step(tx, target.objective), params, tx.init(params), length=9)


def test_the_key_checker_sees_reuse():
    key = jax.random.key(0)
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.random.normal(key) + jax.random.normal(key)
