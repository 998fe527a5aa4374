"""Quantised and pruned weights, against NumPy."""

import fractions
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import landscape


@pytest.fixture
def params():
    keys = jax.random.split(jax.random.key(0), 3)
    return {
        "w": jax.random.normal(keys[0], (7, 5)),
        "conv": 3 * jax.random.normal(keys[1], (2, 3, 4)),
        "half": jax.random.normal(keys[2], (4, 4)).astype(jnp.bfloat16),
        "b": jnp.asarray([1e-9, 2.0, -3.0]),
        "count": jnp.asarray([[1, 2], [3, 4]]),
        "zero": jnp.zeros((2, 2)),
    }


def numpy_quantised(leaf, bits):
    w = np.asarray(leaf, np.float32)
    scale = np.abs(w).max() / (2 ** (bits - 1) - 1)
    return np.round(w / scale) * scale


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_values_are_the_nearest_of_few(params, bits):
    found = landscape.quantised(params, bits)
    for name in ("w", "conv"):
        np.testing.assert_allclose(found[name], numpy_quantised(params[name], bits), rtol=1e-6)
        assert len(np.unique(np.abs(found[name]).round(5))) <= 2 ** (bits - 1)
        step = np.abs(params[name]).max() / (2 ** (bits - 1) - 1)
        assert np.abs(found[name] - params[name]).max() <= step / 2 * (1 + 1e-5)
    assert found["half"].dtype == jnp.bfloat16
    for name in ("b", "count", "zero"):
        np.testing.assert_array_equal(found[name], params[name])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_the_smallest_of_all_matrices_go(params, share):
    found = landscape.pruned(params, share)
    names = ("w", "conv", "half", "zero")
    sizes = np.concatenate([np.abs(np.asarray(params[n], np.float32)).ravel() for n in names])
    kept = np.concatenate([np.asarray(found[n], np.float32).ravel() for n in names])
    gone = int(share * sizes.size)
    expected = np.where(sizes > (np.sort(sizes)[gone - 1] if gone else -1.0), sizes, 0.0)
    np.testing.assert_array_equal(np.abs(kept), expected)
    for name in ("b", "count"):
        np.testing.assert_array_equal(found[name], params[name])


def test_traced_numbers_share_a_program(params):
    quantise = jax.jit(landscape.quantised)
    np.testing.assert_allclose(quantise(params, 4)["w"], landscape.quantised(params, 4)["w"])
    shares = jnp.asarray([0.25, 0.75])
    zeros = jax.vmap(lambda share: jnp.sum(landscape.pruned(params, share)["w"] == 0))(shares)
    assert zeros[0] < zeros[1]


@pytest.mark.parametrize("bits", [1, 25, "8", None, float("nan")])
def test_bits_outside_their_range_are_refused(params, bits):
    with pytest.raises(ValueError, match=r"bits must be a number of bits in \[2, 24\]; got"):
        landscape.quantised(params, bits)


@pytest.mark.parametrize("share", [1.0, -0.1, 50])
def test_shares_outside_their_range_are_refused(params, share):
    with pytest.raises(ValueError, match=r"share must be a number in \[0, 1\)"):
        landscape.pruned(params, share)


def test_a_tree_without_matrices_cannot_be_pruned():
    with pytest.raises(ValueError, match="needs a leaf with two axes or more"):
        landscape.pruned({"b": jnp.ones(3)}, 0.5)


@pytest.mark.parametrize(
    ("weights", "share", "zeros"),
    [
        (jnp.full((2, 4), 0.5), 0.25, 2),
        (jnp.arange(1, 101.0).reshape(1, 100), 0.53, 53),
        (jnp.arange(1, 101.0).reshape(1, 100), 0.29, 29),
        (jnp.repeat(jnp.arange(1, 6.0), 8).reshape(5, 8), 0.5, 20),
    ],
)
def test_the_share_is_exact_where_sizes_tie(weights, share, zeros):
    for prune in (landscape.pruned, jax.jit(landscape.pruned)):
        found = prune({"a": weights, "b": jnp.ones(3)}, share)
        assert int((found["a"] == 0).sum()) == zeros
        assert jnp.abs(found["a"][found["a"] != 0]).min() >= jnp.sort(jnp.ravel(weights))[zeros - 1]


def test_a_matrix_without_elements_stays():
    assert landscape.quantised({"w": jnp.zeros((0, 3))}, 4)["w"].shape == (0, 3)


def test_weights_of_numpy_in_double_precision():
    weights = np.random.default_rng(0).normal(size=(4, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = landscape.quantised({"w": weights}, 4)["w"]
    np.testing.assert_allclose(found, numpy_quantised(weights, 4), rtol=1e-6)


@pytest.mark.parametrize("prune", [landscape.pruned, jax.jit(landscape.pruned)])
@pytest.mark.parametrize(
    ("count", "share"),
    [
        *((2, 0.995), (5, 0.999), (3, 0.333), (3, 1 / 3), (100, 0.29), (100, 0.9999)),
        *((100, np.float32(0.29)), (5, 0), (1_863_690, 0.75), (3_000_000, 0.9)),
    ],
)
def test_as_many_go_as_the_formula_says(prune, count, share):
    exact = fractions.Fraction(float(share)).limit_denominator(10_000) * count
    expected = count - math.floor(exact)
    assert int(jnp.count_nonzero(prune(jnp.arange(1.0, count + 1)[None], share))) == expected
