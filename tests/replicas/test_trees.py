"""Copies, means, joining and leaving."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entropix
from entropix import replicas


def state(seed=0):
    tx = entropix.entropy_sgd(0.1, 1.0)
    w = {"w": jax.random.normal(jax.random.key(seed), (2, 3)), "h": jnp.ones(4, jnp.bfloat16)}
    return w, tx.init(w), jax.random.key(seed)


def test_replicas_are_copies_with_keys_of_their_own():
    one = state()
    many = replicas.replicate(one, 5)
    for leaf, copy in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        assert (copy.shape, copy.dtype) == ((5, *leaf.shape), leaf.dtype)
        if entropix.transforms.keys.is_key(leaf):
            data = jax.random.key_data(copy)
            assert len(np.unique(data, axis=0)) == 5
            expected = jax.random.key_data(jax.random.fold_in(leaf, 3))
            np.testing.assert_array_equal(data[3], expected)
        else:
            np.testing.assert_array_equal(copy, np.broadcast_to(leaf, copy.shape))
    np.testing.assert_array_equal(replicas.unreplicate(many)[0]["w"], one[0]["w"])


def test_a_replicas_key_does_not_depend_on_how_many_there_are():
    few, many = (replicas.replicate(jax.random.key(1), p) for p in (2, 7))
    np.testing.assert_array_equal(jax.random.key_data(few), jax.random.key_data(many)[:2])


def test_copies_can_be_donated():
    many = replicas.replicate((jnp.ones(3), jnp.ones(3)), 2)
    moved = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)(many)
    np.testing.assert_array_equal(moved[0], 2 * np.ones((2, 3)))


def test_centre_is_the_mean_of_what_has_one():
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state(n) for n in range(3)))
    mean, opt_state, _ = replicas.centre(states)
    expected = np.mean([state(n)[0]["w"] for n in range(3)], axis=0)
    np.testing.assert_allclose(mean["w"], expected, rtol=1e-6)
    assert mean["h"].dtype == jnp.bfloat16
    assert opt_state[0].outer_count.dtype == jnp.int32


@pytest.mark.parametrize("later", [1, 2, 3, 4, 6])
def test_joining_and_leaving(later):
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state(n) for n in range(3)))
    resized = replicas.resize(states, later)
    mean = replicas.centre(states)
    for a in range(later):
        own = jax.tree.map(lambda leaf, a=a: leaf[a], resized)
        before = jax.tree.map(lambda leaf, a=a: leaf[a], states) if a < 3 else mean
        np.testing.assert_array_equal(own[0]["w"], before[0]["w"])
        np.testing.assert_array_equal(own[1][0].outer_count, before[1][0].outer_count)
    keys = jax.random.key_data(resized[2])
    assert len(np.unique(keys, axis=0)) == later
    assert keys.shape[0] == later


@pytest.mark.parametrize("fn", [replicas.replicate, replicas.resize])
def test_no_replicas_are_refused(fn):
    with pytest.raises(ValueError, match="replicas must be .*>= 1.*; got replicas=0"):
        fn(jnp.ones(3), 0)


@pytest.mark.parametrize(
    "fn", [replicas.centre, replicas.unreplicate, lambda states: replicas.resize(states, 4)]
)
@pytest.mark.parametrize(
    "one", [{"w": jnp.ones((7, 2)), "b": jnp.ones(2)}, {"w": jnp.ones(2), "n": jnp.asarray(3)}, 1.0]
)
def test_the_state_of_one_replica_is_refused(fn, one):
    """Its rows are no replicas: their mean had no meaning."""
    with pytest.raises(ValueError, match="a leading axis of p replicas in every array"):
        fn(one)
    fn(replicas.replicate(one, 3))


@pytest.mark.parametrize("p", [2, 3, 5, 6, 7])
def test_new_replicas_of_equal_ones_are_equal_to_the_bit(p):
    x = jax.random.normal(jax.random.key(0), (1000,)) / 3
    states = jnp.stack([x] * p)
    np.testing.assert_array_equal(replicas.resize(states, p + 1), jnp.stack([x] * (p + 1)))
    np.testing.assert_array_equal(replicas.centre(states), x)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38])
def test_infinite_and_huge_numbers_of_equal_replicas_stay(value):
    """Such as the best loss so far of a schedule that waits for a plateau."""
    states = jnp.full((3, 2), value)
    np.testing.assert_array_equal(replicas.resize(states, 5), jnp.full((5, 2), value))
    np.testing.assert_array_equal(replicas.centre(states), states[0])
    opposite = jnp.asarray([[1e38], [-1e38]])
    np.testing.assert_array_equal(replicas.centre(opposite), [0.0])


def test_arrays_of_numpy_have_the_dtype_that_jax_gives_them():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        states = {"w": np.asarray([[1.0], [3.0]])}  # float64
        assert replicas.centre(states)["w"].tolist() == [2.0]
        assert replicas.resize(states, 3)["w"].tolist() == [[1.0], [3.0], [2.0]]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "bfloat16", "complex64", "float32"])
def test_the_mean_is_of_any_precision_under_strict_promotion(dtype):
    x = jnp.asarray([[1.0, 2.0], [3.0, 6.0]]).astype(dtype)
    with jax.numpy_dtype_promotion("strict"):
        centre = replicas.centre({"w": x})["w"]
        grown = replicas.resize({"w": x}, 3)["w"]
    assert centre.dtype == grown.dtype == dtype
    np.testing.assert_array_equal(centre.astype(jnp.complex64), [2.0, 4.0])
    np.testing.assert_array_equal(grown[2].astype(jnp.complex64), [2.0, 4.0])
