"""The state of every optimiser: made from anything, saved, donated, reseeded."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import AXIS, CASES, assert_close, mixed_tensors, rosenbrock, run

import entropix

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def of(*names):
    """A representative few, for what is slow or alike."""
    return pytest.mark.parametrize("case", [CASES[name] for name in names], ids=names)


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def keys_in(state):
    return [leaf for leaf in jax.tree.leaves(state) if is_key(leaf)]


def layout(tree):
    """Structure, shapes and dtypes, of arrays or of their abstract descriptions."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


@every_case
def test_init_is_the_same_eagerly_compiled_and_abstractly(case):
    tx = case.make()
    params = case.spread(mixed_tensors().start)
    state = tx.init(params)
    assert_close(jax.jit(tx.init)(params), state)
    assert layout(jax.eval_shape(tx.init, params)) == layout(state)


@every_case
def test_init_from_abstract_parameters(case):
    tx = case.factory(**case.arguments)
    params = mixed_tensors().start
    assert layout(tx.init(jax.eval_shape(lambda: params))) == layout(tx.init(params))


@every_case
@pytest.mark.parametrize("empty", [{}, [], None, {"layer": {}}], ids=repr)
def test_a_tree_without_leaves(case, empty):
    # `optax.partition` makes one for a label that no parameter has.
    tx = case.factory(**case.arguments)
    extra = {"grad_fn": lambda params, i: params} if case.face == "scan" else {}
    state = tx.init(empty)
    if case.replicated or empty is None:  # a vmap needs leaves, and None means "not passed"
        return
    updates, _ = jax.jit(lambda s: tx.update(empty, s, empty, **extra))(state)
    assert updates == empty


@every_case
@pytest.mark.parametrize("jit_init", [False, True], ids=["eager_init", "jit_init"])
def test_parameters_and_state_can_be_donated(case, jit_init):
    target = rosenbrock()
    tx = case.make()
    step = case.step(tx, target.objective)
    start = case.spread(target.start)
    init = jax.jit(tx.init) if jit_init else tx.init
    expected = run(step, start, init(start), length=9)
    donating = jax.jit(step, donate_argnums=(0, 1))
    params = jnp.copy(start)
    state = init(params)
    for _ in range(9):
        old = params
        params, state = donating(params, state)
        assert old.is_deleted()
    assert_close((params, state), expected, rtol=1e-5, atol=1e-6)


def continue_from(case, carry, length):
    """Runs a fresh optimiser from a saved (params, state), as a resumed program would."""
    target = mixed_tensors()
    return run(case.step(case.make(), target.objective), *carry, length)


@every_case
def test_pickle_resumes_to_the_same_bits(case):
    params = case.spread(mixed_tensors().start)
    # Seven steps: most stepwise cases are then in the middle of an outer step.
    saved = continue_from(case, (params, case.make().init(params)), 7)
    restored = pickle.loads(pickle.dumps(saved))
    assert_close(restored, saved)
    assert_close(continue_from(case, restored, 5), continue_from(case, saved, 5))


@of("entropy_sgd", "entropy_sgd-authors-stepwise", "heat_sgd-stepwise", "elastic_sgd-period_4")
def test_orbax_resumes_to_the_same_bits(case, tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    params = case.spread(mixed_tensors().start)
    fresh = params, case.make().init(params)
    saved = continue_from(case, fresh, 7)
    with checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", saved)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "checkpoint", fresh)
    assert_close(restored, saved)
    assert_close(continue_from(case, restored, 5), continue_from(case, saved, 5))


NOISY = ("entropy_sgd", "entropy_sgd-stepwise", "heat_sgd", "heat_sgd-stepwise")


def walk(case, state=None, length=16, **changes):
    """Parameters after a few steps at a temperature at which the noise is seen."""
    target = rosenbrock()
    tx = case.make(temperature=0.1, **changes)
    state = tx.init(target.start) if state is None else state
    params, state = run(case.step(tx, target.objective), target.start, state, length)
    return case.solution(state, params)


@of(*NOISY)
def test_every_spelling_of_a_key_gives_the_same_walk(case):
    expected = walk(case, key=3)
    for key in (jax.random.key(3), jax.random.PRNGKey(3), np.int32(3), jnp.asarray(3)):
        assert_close(walk(case, key=key), expected)
    assert not np.allclose(walk(case, key=4), expected)


@of(*NOISY)
def test_a_bad_key_is_refused_with_the_accepted_spellings(case):
    for key in ("seed", 1.5, True, jnp.zeros(2)):
        with pytest.raises(ValueError, match=r"key must be an integer seed, jax\.random\.key"):
            case.make(key=key).init(rosenbrock().start)


@of(*NOISY)
def test_reseed_is_the_key_argument(case):
    state = case.make(temperature=0.1).init(rosenbrock().start)
    assert_close(walk(case, entropix.reseed(state, 5)), walk(case, key=5))


@every_case
def test_reseed_changes_the_keys_and_nothing_else(case):
    state = case.make().init(case.spread(mixed_tensors().start))
    reseeded = entropix.reseed(optax.chain(optax.identity()).init(None) + (state,), 7)[-1]
    assert layout(reseeded) == layout(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(reseeded), strict=True):
        if is_key(old):
            different = jax.random.key_data(old) != jax.random.key_data(new)
            assert np.all(np.any(different, axis=-1))
        else:
            assert old is new


@of(*NOISY)
def test_reseed_gives_vmapped_copies_their_own_noise(case):
    target = rosenbrock()
    tx = case.make(temperature=0.1)
    starts = jnp.stack([target.start] * 3)
    step = case.step(tx, target.objective)

    def walks(states):
        one = lambda params, state: run(step, params, state, 16)  # noqa: E731
        return jax.vmap(case.solution)(*reversed(jax.vmap(one)(starts, states)))

    copies = jax.vmap(tx.init)(starts)
    alike = walks(copies)
    assert_close(alike[1:], alike[:-1])
    for key in (7, jax.random.key(7), jax.random.split(jax.random.key(7), 3)):
        own = walks(entropix.reseed(copies, key))
        for n, one_key in enumerate(jax.random.split(jax.random.key(7), 3)):
            assert_close(own[n], walk(case, key=one_key), rtol=1e-4, atol=1e-5)


def test_reseed_gives_every_key_in_a_state_its_own():
    noise = entropix.local_entropy(1.0, temperature=0.1)
    tx = optax.chain(entropix.relax(noise), entropix.relax(entropix.heat(1.0)), optax.sgd(0.1))
    state = tx.init(jnp.zeros(2))
    first, second = keys_in(entropix.reseed(state, 7))
    assert_close((first, second), (jax.random.key(7), jax.random.fold_in(jax.random.key(7), 1)))
    stacked = keys_in(entropix.reseed(jax.vmap(tx.init)(jnp.zeros((3, 2))), 7))
    words = np.concatenate([jax.random.key_data(key) for key in stacked])
    assert len(np.unique(words, axis=0)) == 6


def test_reseed_refuses_what_does_not_fit():
    state = entropix.entropy_sgd(0.1, 1.0).init(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(\), the shape of the keys in the state"):
        entropix.reseed(state, jax.random.split(jax.random.key(0), 3))
    with pytest.raises(ValueError, match="key must be an integer seed"):
        entropix.reseed(state, "seven")


@of(*NOISY)
def test_replicas_with_the_same_key_draw_different_noise(case):
    start = jnp.zeros((4, 3))  # four replicas at the same point of a flat loss

    def walk_flat(axis_name):
        tx = case.factory(**case.arguments | {"temperature": 0.1, "axis_name": axis_name})
        step = case.step(tx, lambda x: 0.0 * jnp.sum(x))
        one = lambda params, state: run(step, params, state, length=12)[0]  # noqa: E731
        return jax.vmap(one, axis_name=AXIS)(start, jax.vmap(tx.init)(start))

    if case.factory is entropix.heat_sgd and case.face == "scan":
        pytest.skip("on a flat loss the average of gradients at noisy points does not move")
    alike = walk_flat(axis_name=None)
    assert_close(alike[1:], alike[:-1])
    assert len(np.unique(np.asarray(walk_flat(AXIS)), axis=0)) == 4


@every_case
def test_no_key_is_used_twice(case):
    target = rosenbrock()
    tx = case.make()
    params = case.spread(target.start)
    with jax.debug_key_reuse(True):
        state = tx.init(params)
        step = jax.jit(case.step(tx, target.objective))
        for _ in range(9):
            params, state = step(params, state)


def test_the_key_checker_sees_reuse():
    with (
        jax.debug_key_reuse(True),
        pytest.raises(jax.errors.KeyReuseError, match="already consumed"),
    ):
        key = jax.random.key(0)
        jax.random.normal(key) + jax.random.normal(key)
