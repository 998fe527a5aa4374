"""Keys: accepted spellings, reseeding, and noise that is new wherever it has to be."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix
from entropix.transforms.keys import canonical_key, step_key
from entropix.transforms.numerics import is_key

SIZE = 400
X = {"a": jnp.zeros(SIZE), "b": jnp.zeros(SIZE)}  # equal shapes: equal keys would show
L = 3


def local_entropy_noise(key, axis_name=None):
    """A relaxation whose iterates are sums of unit noise, and how to undo the sums."""
    relaxation = entropix.local_entropy(
        float("inf"), num_steps=L + 1, step_size=0.5, averaging=0, temperature=1.0, key=key,
        output="displacement", axis_name=axis_name,
    )  # fmt: skip
    return relaxation, lambda y: np.diff(np.asarray(y, np.float64), axis=0)


def heat_noise(key, axis_name=None):
    """A relaxation whose points are unit noise."""
    relaxation = entropix.heat(1.0, num_steps=L, temperature=1.0, key=key, axis_name=axis_name)
    return relaxation, lambda y: np.asarray(y, np.float64)


MAKERS = {"local_entropy": local_entropy_noise, "heat": heat_noise}
over_makers = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture
def draws(points):
    """Makes a function (key, outer count) -> all noise of that outer step, one array a leaf."""

    def make(name):
        relaxation, undo = MAKERS[name](0)
        run = points(relaxation, lambda p, i: optax.tree.zeros_like(p))

        def draw(key, outer):
            state = entropix.reseed(relaxation.init(X), key)
            state = state._replace(outer_count=jnp.asarray(outer, jnp.int32))
            return [undo(leaf) for leaf in jax.tree.leaves(run(X, state)[1])]

        return draw

    return make


def assert_unrelated(vectors):
    """All correlations of independent vectors lie within a few standard errors of zero."""
    vectors = np.concatenate([v.reshape(-1, SIZE) for v in vectors])
    correlation = np.corrcoef(vectors) - np.eye(len(vectors))
    assert np.abs(correlation).max() < 5 / np.sqrt(SIZE)


class TestNoise:
    @over_makers
    def test_is_new_for_every_seed_outer_step_inner_step_and_leaf(self, draws, name):
        draw = draws(name)
        steps = itertools.product((0, 1), (0, 1, 2))
        vectors = [leaf for key, outer in steps for leaf in draw(key, outer)]
        assert sum(len(v) for v in vectors) == 2 * 3 * L * 2
        assert_unrelated(vectors)
        pooled = np.concatenate(vectors)
        assert abs(pooled.mean()) < 4 / np.sqrt(pooled.size)
        assert abs(pooled.var() - 1) < 4 * np.sqrt(2 / pooled.size)

    @pytest.mark.parametrize("form", ["proximal", "gradient"])
    def test_of_inner_is_new_for_every_outer_step(self, points, form):
        noisy = optax.add_noise(1.0, 0.0, key=0)
        relaxation = entropix.hamilton_jacobi(1e3, num_steps=2, inner=noisy, form=form)
        run, state = points(relaxation, lambda p, i: optax.tree.zeros_like(p)), relaxation.init(X)
        vectors = []
        for outer in (0, 1, 2):
            _, seen = run(X, state._replace(outer_count=jnp.asarray(outer, jnp.int32)))
            vectors += [np.asarray(leaf[1]) for leaf in jax.tree.leaves(seen)]
        assert_unrelated(vectors)

    @over_makers
    def test_is_a_function_of_key_and_step(self, draws, name):
        # What makes a resumed run draw the noise of the uninterrupted one.
        first, second = draws(name)(5, 7), draws(name)(5, 7)
        jax.tree.map(np.testing.assert_array_equal, first, second)

    @over_makers
    def test_resumed_run_continues_as_the_uninterrupted(self, regression, name):
        problem = regression(seed=1)
        relaxation = {
            "local_entropy": entropix.local_entropy(0.5, num_steps=3, temperature=0.1, key=9),
            "heat": entropix.heat(0.5, num_steps=3, temperature=0.1, key=9),
        }[name]
        fn = jax.jit(entropix.relaxed_grad(relaxation, problem.grad))

        def run(x, state, steps):
            for _ in range(steps):
                relaxed, state = fn(x, state)
                x = optax.tree.add_scale(x, -0.1, relaxed)
            return x, state

        x, state = run(problem.params, relaxation.init(problem.params), 4)
        z, saved = run(problem.params, relaxation.init(problem.params), 2)
        restored = relaxation.init(z)._replace(outer_count=saved.outer_count)
        z, restored = run(z, restored, 2)
        jax.tree.map(np.testing.assert_array_equal, z, x)
        assert int(restored.outer_count) == int(state.outer_count) == 4

    @over_makers
    def test_differs_between_replicas_on_a_named_axis(self, name):
        self.check_replicas(name, axis_name="replica", reseeded=False)

    @over_makers
    def test_differs_between_reseeded_replicas(self, name):
        self.check_replicas(name, axis_name=None, reseeded=True)

    def check_replicas(self, name, axis_name, reseeded):
        relaxation, _ = MAKERS[name](0, axis_name)
        fn = entropix.relaxed_grad(relaxation, lambda p, i: p)
        x = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (3, SIZE)), X)
        states = jax.vmap(relaxation.init)(x)
        if reseeded:
            states = entropix.reseed(states, 3)
        relaxed, _ = jax.jit(jax.vmap(fn, axis_name="replica"))(x, states)
        assert_unrelated(jax.tree.leaves(relaxed))

    @over_makers
    def test_is_shared_by_replicas_that_were_told_nothing(self, name):
        # The trap that `axis_name` and `reseed` are there for.
        relaxation, _ = MAKERS[name](0)
        fn = entropix.relaxed_grad(relaxation, lambda p, i: p)
        x = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2, SIZE)), X)
        relaxed, _ = jax.vmap(fn)(x, jax.vmap(relaxation.init)(x))
        np.testing.assert_array_equal(relaxed["a"][0], relaxed["a"][1])

    def test_differs_over_a_tuple_of_axes(self):
        keys = jax.vmap(
            lambda _: jax.vmap(
                lambda _: step_key(jax.random.key(0), 1, 2, axis_name=("host", "device")),
                axis_name="device",
            )(jnp.arange(3)),
            axis_name="host",
        )(jnp.arange(2))
        assert len(np.unique(jax.random.key_data(keys).reshape(6, 2), axis=0)) == 6

    def test_order_of_the_indices_matters(self):
        key = jax.random.key(0)
        words = [
            jax.random.key_data(step_key(key, *ij)) for ij in itertools.product(range(4), repeat=2)
        ]
        assert len(np.unique(np.stack(words), axis=0)) == 16


class TestCanonicalKey:
    def test_spellings_of_a_seed(self):
        expected = jax.random.key_data(jax.random.key(7))
        legacy = jax.random.PRNGKey(7)
        for spelling in (
            7, np.int64(7), jnp.asarray(7), np.asarray(7), jax.random.key(7), legacy,
            np.asarray(legacy),
        ):  # fmt: skip
            key = canonical_key(spelling)
            assert is_key(key)
            np.testing.assert_array_equal(jax.random.key_data(key), expected)

    def test_traced_seeds_and_batches(self):
        words = jax.jit(lambda seed: jax.random.key_data(canonical_key(seed)))(7)
        np.testing.assert_array_equal(words, jax.random.key_data(jax.random.key(7)))
        legacy = jnp.stack([jax.random.PRNGKey(s) for s in range(3)])
        assert canonical_key(legacy).shape == (3,)

    @pytest.mark.parametrize("spelling", [3, jax.random.key(3), jax.random.PRNGKey(3)])
    def test_relaxations_store_a_typed_key(self, spelling):
        for relaxation in (
            entropix.local_entropy(1.0, key=spelling), entropix.heat(1.0, key=spelling),
        ):  # fmt: skip
            key = relaxation.init(X).key
            assert is_key(key)
            expected = jax.random.key_data(jax.random.key(3))
            np.testing.assert_array_equal(jax.random.key_data(key), expected)


class TestReseed:
    def test_sets_one_key_and_nothing_else(self):
        tx = entropix.entropy_sgd(0.1, gamma=1.0, key=0)
        state = tx.init(X)
        reseeded = entropix.reseed(state, 7)
        assert jax.tree.structure(reseeded) == jax.tree.structure(state)
        for new, old in zip(jax.tree.leaves(reseeded), jax.tree.leaves(state), strict=True):
            if is_key(old):
                np.testing.assert_array_equal(
                    jax.random.key_data(new), jax.random.key_data(jax.random.key(7))
                )
            else:
                np.testing.assert_array_equal(new, old)

    def test_reseeding_equals_starting_with_that_key(self, regression):
        problem = regression(seed=2)
        relaxed = []
        for key, seed in ((0, 5), (5, 5)):
            tx = entropix.relax(entropix.local_entropy(1.0, num_steps=3, temperature=0.1, key=key))
            state = entropix.reseed(tx.init(problem.params), seed)
            grads = problem.grad(problem.params, 0)
            relaxed.append(tx.update(grads, state, problem.params, grad_fn=problem.grad)[0])
        jax.tree.map(np.testing.assert_array_equal, *relaxed)

    def test_vmapped_states_get_different_keys(self):
        tx = entropix.heat_sgd(0.1, gamma=1.0, stepwise=True)
        states = jax.vmap(tx.init)(jnp.zeros((4, 3)))
        words = self.words(entropix.reseed(states, 7))
        assert words.shape == (4, 2)
        assert len(np.unique(words, axis=0)) == 4
        given = jax.random.split(jax.random.key(1), 4)
        np.testing.assert_array_equal(
            self.words(entropix.reseed(states, given)), jax.random.key_data(given)
        )

    def test_several_links_get_different_keys(self):
        link = entropix.relax(entropix.local_entropy(1.0))
        states = entropix.reseed((link.init(X), link.init(X), link.init(X)), 7)
        assert len({self.words(state).tobytes() for state in states}) == 3
        given = jax.random.split(jax.random.key(1), 2)
        pair = jax.vmap(lambda x: (link.init(x), link.init(x)))(jnp.zeros((2, 3)))
        words = [self.words(state) for state in entropix.reseed(pair, given)]
        assert len(np.unique(np.concatenate(words), axis=0)) == 4

    def test_states_without_keys_come_back_unchanged(self):
        state = entropix.hj_sgd(0.1, gamma=1.0).init(X)
        jax.tree.map(np.testing.assert_array_equal, entropix.reseed(state, 7), state)

    def words(self, state):
        (key,) = [leaf for leaf in jax.tree.leaves(state) if is_key(leaf)]
        return np.asarray(jax.random.key_data(key))
