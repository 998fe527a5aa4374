"""Random numbers: equal to JAX's where promised; moments and correlations within standard errors.

Statistics are z-scores (estimate minus exact value, over its standard error) of fixed seeds. The
bound 4.5 lets a correct generator fail once in about 1,000 sets of 150 statistics.
"""

import itertools
import math
import os
import subprocess
import sys
import textwrap
from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from entropix.transforms import random
from entropix.transforms.keys import step_key
from entropix.transforms.random import NOISE_LAWS, check_noise, noise_like

SHAPES = [(), (0,), (1,), (7,), (1001,), (3, 0, 2), (12, 1), (5, 5, 3, 20), (784, 300)]
LAWS = sorted(NOISE_LAWS)
KURTOSIS = {"normal": 0.0, "popcount": -0.08129}
Z_MAX = 4.5


def sum_of_products(a, b):
    return np.dot(a.ravel(), b.ravel()).astype(float)


# Equal to JAX, to the bit


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.key(2**31 + 5)], ids=["0", "big"])
def test_bits_normals_and_masks_equal_jax(shape, key):
    bits = random.random_bits(key, shape)
    assert bits.dtype == jnp.uint32
    np.testing.assert_array_equal(bits, jax.random.bits(key, shape, jnp.uint32))
    np.testing.assert_array_equal(random.normal(key, shape), jax.random.normal(key, shape))
    for p in (0.0, 0.2, jnp.float32(0.5), 1.0):
        expected = jax.random.bernoulli(key, p, shape)
        np.testing.assert_array_equal(random.bernoulli(key, p, shape), expected)


def test_normals_equal_jax_when_fused_vmapped_and_scanned():
    keys = jax.random.split(jax.random.key(3), 4)
    shape = (401, 513)
    expected = np.stack([jax.random.normal(key, shape) for key in keys])

    @jax.jit
    def scanned(keys):
        # The update consumes the numbers in the same loop; the trace returns them untouched.
        def step(total, key):
            noise = random.normal(key, shape)
            return 0.9 * total + 0.1 * noise, noise

        return lax.scan(step, jnp.zeros(shape), keys)[1]

    np.testing.assert_array_equal(scanned(keys), expected)
    np.testing.assert_array_equal(jax.vmap(lambda k: random.normal(k, shape))(keys), expected)


def test_legacy_keys_are_accepted():
    legacy, typed = jax.random.PRNGKey(4), jax.random.key(4)
    np.testing.assert_array_equal(random.random_bits(legacy, (9,)), random.random_bits(typed, (9,)))
    for law in NOISE_LAWS.values():
        np.testing.assert_array_equal(law(legacy, (9,)), law(typed, (9,)))


def test_what_cannot_be_reproduced_is_left_to_jax():
    rbg = jax.random.key(0, impl="rbg")
    np.testing.assert_array_equal(
        random.random_bits(rbg, (5,)), jax.random.bits(rbg, (5,), jnp.uint32)
    )
    np.testing.assert_array_equal(random.normal(rbg, (5,)), jax.random.normal(rbg, (5,)))
    np.testing.assert_array_equal(
        random.bernoulli(rbg, 0.3, (5,)), jax.random.bernoulli(rbg, 0.3, (5,))
    )
    assert random.popcount(rbg, (5,)).shape == (5,)
    key = jax.random.key(0)
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(random.normal(key, (7,)), jax.random.normal(key, (7,)))
    probabilities = jnp.linspace(0, 1, 5)
    np.testing.assert_array_equal(
        random.bernoulli(key, probabilities, (3, 5)),
        jax.random.bernoulli(key, probabilities, (3, 5)),
    )
    np.testing.assert_array_equal(
        random.normal(key, (6,), jnp.complex64), jax.random.normal(key, (6,), jnp.complex64)
    )
    with jax.enable_x64(True):
        key = jax.random.key(0)
        np.testing.assert_array_equal(
            random.normal(key, (6,), jnp.float64), jax.random.normal(key, (6,), jnp.float64)
        )
        np.testing.assert_array_equal(
            random.bernoulli(key, 0.3, (6,)), jax.random.bernoulli(key, 0.3, (6,))
        )


def test_several_keys_are_refused_as_jax_refuses_them():
    keys = jax.random.split(jax.random.key(0), 2)
    for draw in (random.random_bits, random.normal, random.popcount):
        with pytest.raises(ValueError, match="single key"):
            draw(keys, (3,))


def test_narrow_normals_are_rounded_float32_ones():
    key = jax.random.key(1)
    half = random.normal(key, (4000,), jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, jax.random.normal(key, (4000,)).astype(jnp.bfloat16))
    assert np.unique(np.asarray(half, np.float32)).size > 500  # JAX's own: at most 128


# The popcount law


def popcount_twin(words, shape):
    """The same law in Python's integers, one word at a time."""
    numbers = []
    for index in range(math.prod(shape)):
        x = (index + words[0]) % 2**32
        x = (x ^ (x >> 17)) * 0xED5AD4BB % 2**32 ^ words[1]
        x = (x ^ (x >> 11)) * 0xAC4C1B51 % 2**32
        x = (x ^ (x >> 15)) * 0x31848BAB % 2**32
        x = x ^ (x >> 14)
        numbers.append(256 * (x >> 8).bit_count() + x % 256 - 3199.5)
    return np.array(numbers).reshape(shape) / math.sqrt(256**2 * 6 + (256**2 - 1) / 12)


@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
def test_popcount_equals_its_numpy_twin(shape):
    key = jax.random.key(11)
    expected = popcount_twin([0, 11], shape)  # the words of key(11)
    np.testing.assert_allclose(random.popcount(key, shape), expected, rtol=3e-7)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_popcount_of_leaf_j_is_keyed_by_the_jth_constant(impl):
    key = jax.random.key(12, impl=impl)
    shapes = [(3, 4), (), (0,), (3, 4), (7,)]
    noise = noise_like(key, [jnp.zeros(shape) for shape in shapes], "popcount")
    words = np.asarray(jax.random.bits(key, (2,), jnp.uint32)).tolist()
    for leaf, shape, constant in zip(noise, shapes, np.random.PCG64(0).random_raw(5), strict=True):
        halves = int(constant) % 2**32, int(constant) >> 32
        keyed = [(word + half) % 2**32 for word, half in zip(words, halves, strict=True)]
        np.testing.assert_allclose(leaf, popcount_twin(keyed, shape), rtol=3e-7)


def test_popcount_documents_its_exact_moments():
    weights = [Fraction(math.comb(24, ones), 2**24 * 256) for ones in range(25)]
    law = [
        (weights[ones], Fraction(2 * (256 * ones + low) - 6399, 2))
        for ones, low in itertools.product(range(25), range(256))
    ]
    moments = [sum(p * value**power for p, value in law) for power in range(5)]
    assert moments[0] == 1
    assert moments[1] == moments[3] == 0
    assert moments[2] == 256**2 * 6 + Fraction(256**2 - 1, 12)
    fourth_cumulant = -3 * 256**4 - Fraction(256**4 - 1, 120)
    assert moments[4] - 3 * moments[2] ** 2 == fourth_cumulant
    assert float(fourth_cumulant / moments[2] ** 2) == pytest.approx(KURTOSIS["popcount"], abs=1e-5)
    assert 3199.5 / math.sqrt(moments[2]) == pytest.approx(5.067, abs=1e-3)


def test_popcount_has_the_binomial_law_to_the_last_level():
    draws = np.asarray(random.popcount(jax.random.key(5), (2**22,)), float)
    levels = np.rint(draws * math.sqrt(256**2 * 6 + (256**2 - 1) / 12) + 3199.5).astype(int)
    ones = np.array([math.comb(24, count) for count in range(25)]) / 2**24
    expected = levels.size * np.repeat(ones / 256, 256)
    seen = np.bincount(levels, minlength=expected.size)
    common = expected > 10  # chi-square needs some counts in a cell
    chi2 = np.sum((seen - expected)[common] ** 2 / expected[common])
    cells = common.sum() - 1
    assert abs(chi2 - cells) / math.sqrt(2 * cells) < Z_MAX


# Statistics of every law


@pytest.fixture(scope="module", params=LAWS)
def streams(request):
    """Sixteen streams of 2^20 numbers of one law, and its name."""
    keys = jax.random.split(jax.random.key(2024), 16)
    draw = jax.jit(jax.vmap(lambda key: NOISE_LAWS[request.param](key, (2**20,))))
    return request.param, np.asarray(draw(keys))


def test_moments(streams):
    law, noise = streams
    noise = noise[:8].astype(float)
    for power, exact in enumerate((0, 1, 0, 3 + KURTOSIS[law]), start=1):
        sample = noise**power
        z = (sample.mean() - exact) / (sample.std() / math.sqrt(sample.size))
        assert abs(z) < Z_MAX, (power, z)


def test_elements_do_not_correlate(streams):
    law, noise = streams
    # Powers of two and row lengths are where a weak hash shows: one of two multiplications instead
    # of three gave a correlation of -0.002 at lag 2^13, here z = -8.
    lags = [*range(1, 17), 784, 1000, *(2**power for power in range(5, 18))]
    squares = (noise**2 - 1) / np.float32(math.sqrt(2 + KURTOSIS[law]))
    for lag in lags:
        for part in (noise, squares):
            z = sum_of_products(part[:, lag:], part[:, :-lag]) / math.sqrt(part[:, lag:].size)
            assert abs(z) < Z_MAX, (lag, z)


def from_keys(law, keys, size):
    """The noise of a tree of one leaf under each of the keys."""
    return jax.vmap(lambda key: noise_like(key, jnp.zeros(size), law))(jnp.stack(keys))


def seeds(law, count, size):
    return from_keys(law, [jax.random.key(seed) for seed in range(count)], size)


def inner_steps(law, count, size):
    return from_keys(law, [step_key(jax.random.key(0), 3, inner) for inner in range(count)], size)


def outer_steps(law, count, size):
    return from_keys(law, [step_key(jax.random.key(0), outer, 3) for outer in range(count)], size)


def replicas(law, count, size):
    def noise(_):
        key = step_key(jax.random.key(0), 3, 7, axis_name="replica")
        return noise_like(key, jnp.zeros(size), law)

    return jax.vmap(noise, axis_name="replica")(jnp.arange(count))


def leaves(law, count, size):
    return jnp.stack(noise_like(jax.random.key(0), [jnp.zeros(size)] * count, law))


def standardised(noise, law):
    """The numbers and their squares, both of mean 0 and variance 1."""
    return noise, (noise**2 - 1) / np.float32(math.sqrt(2 + KURTOSIS[law]))


@pytest.mark.parametrize("family", [seeds, inner_steps, outer_steps, replicas, leaves])
@pytest.mark.parametrize("law", LAWS)
def test_streams_do_not_correlate(law, family):
    size = 2**17
    noise, squares = standardised(np.asarray(family(law, 48, size)), law)
    for first, second in (
        (noise, noise),
        (squares, squares),
        (noise, squares),
        (noise, np.roll(noise, 1, axis=1)),
    ):
        z = (first @ second.T / math.sqrt(size))[np.triu_indices(48, 1)]
        assert np.abs(z).max() < 5.5  # largest of 1,128
        assert abs(np.sum(z**2) - z.size) / math.sqrt(2 * z.size) < Z_MAX


@pytest.mark.parametrize("law", LAWS)
def test_no_pair_of_leaves_correlates_in_the_mean_over_many_steps(law):
    # The keys of two leaves differ by the same constant at every step of a run.
    size, num_leaves, num_steps = 2**12, 24, 32
    keys = jax.vmap(lambda inner: step_key(jax.random.key(1), 0, inner))(jnp.arange(num_steps))
    draw = jax.vmap(lambda key: jnp.stack(noise_like(key, [jnp.zeros(size)] * num_leaves, law)))
    for part in standardised(np.asarray(draw(keys)), law):
        z = np.einsum("sin,sjn->ij", part, part, optimize=True) / math.sqrt(size * num_steps)
        z = z[np.triu_indices(num_leaves, 1)]
        assert np.abs(z).max() < 5
        assert abs(np.sum(z**2) - z.size) / math.sqrt(2 * z.size) < Z_MAX


def test_hashed_bits_are_fair_and_independent():
    size = 2**20
    words = np.asarray(random._hashed_bits(jax.random.key(77), (size + 1,)))
    bits = 2 * (words[:, None] >> np.arange(32, dtype=np.uint32) & 1).astype(np.float32) - 1
    fair = bits.sum(axis=0) / math.sqrt(size)
    within = (bits.T @ bits / math.sqrt(size))[np.triu_indices(32, 1)]
    successive = (bits[1:].T @ bits[:-1]).ravel() / math.sqrt(size)
    for z in (fair, within, successive):
        assert np.abs(z).max() < 5.2  # largest of at most 1,024
        assert abs(np.sum(z**2) - z.size) / math.sqrt(2 * z.size) < Z_MAX


def test_sum_over_steps_is_a_random_walk(streams):
    law, noise = streams
    # Var(sum over S streams) = S: what a Langevin chain does with successive draws.
    sums = noise.sum(axis=0, dtype=float) / math.sqrt(len(noise))
    kurtosis = KURTOSIS[law] / len(noise)
    z = (np.mean(sums**2) - 1) / math.sqrt((2 + kurtosis) / sums.size)
    assert abs(z) < Z_MAX


# Trees


def tree_of(dtype=jnp.float32):
    return {
        "w": jnp.zeros((3, 4), dtype),
        "none": None,
        "b": [jnp.zeros(4, dtype), jnp.ones((), dtype)],
    }


def test_normal_noise_equals_optax():
    key = jax.random.key(8)
    expected = optax.tree.random_like(key, tree_of(), jax.random.normal)
    for draw in (noise_like, jax.jit(noise_like)):
        chex.assert_trees_all_equal(draw(key, tree_of()), expected)


@pytest.mark.parametrize("law", LAWS)
def test_leaves_without_a_gradient_get_zeros_and_change_no_other_draw(law):
    key, real = jax.random.key(8), [jnp.zeros((3, 2)) for _ in range(5)]
    counter, mask = jnp.arange(4, dtype=jnp.int8), np.ones((2, 2), bool)
    mixed = [real[0], counter, real[2], mask, real[4]]
    for draw in (noise_like, jax.jit(noise_like, static_argnums=2)):
        noise, expected = draw(key, mixed, law), noise_like(key, real, law)
        for index in (0, 2, 4):
            np.testing.assert_array_equal(noise[index], expected[index])
        for index in (1, 3):
            assert noise[index].dtype == mixed[index].dtype
            np.testing.assert_array_equal(noise[index], np.zeros_like(mixed[index]))
    assert noise_like(key, [jax.random.key(1)], law)[0].dtype == jax.random.key(1).dtype


@pytest.mark.parametrize("law", LAWS)
def test_numbers_and_numpy_arrays_are_leaves(law):
    key = jax.random.key(8)
    arrays = [jnp.zeros(()), jnp.zeros(()), jnp.zeros((2, 3)), jnp.zeros((), jnp.complex64)]
    numbers = [1.5, np.float64(2), np.ones((2, 3)), 1j]
    for drawn, expected in zip(
        noise_like(key, numbers, law), noise_like(key, arrays, law), strict=True
    ):
        assert drawn.dtype == expected.dtype
        assert not drawn.weak_type
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("law", LAWS)
def test_trees_without_arrays(law):
    assert noise_like(jax.random.key(0), {}, law) == {}
    assert noise_like(jax.random.key(0), {"a": None}, law) == {"a": None}


@pytest.mark.parametrize("law", LAWS)
def test_same_key_same_noise_other_key_other_noise(law):
    tree = {"a": jnp.zeros((64, 8)), "b": jnp.zeros((64, 8))}
    first = noise_like(jax.random.key(0), tree, law)
    again = noise_like(jax.random.key(0), tree, law)
    other = noise_like(jax.random.key(1), tree, law)
    chex.assert_trees_all_equal(first, again)
    for left, right in ((first["a"], other["a"]), (first["b"], other["b"]), tuple(first.values())):
        assert np.mean(np.asarray(left == right)) < 0.02


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float8_e4m3fn", "float32"),
        ("float8_e5m2", "float32"),
        ("float16", "float32"),
        ("bfloat16", "float32"),
        ("float32", "float32"),
        ("complex64", "complex64"),
        ("float64", "float64"),
        ("complex128", "complex128"),
    ],
)
def test_noise_is_float32_or_as_wide_as_the_leaf(law, dtype, expected):
    with jax.enable_x64(True):
        tree = tree_of(jnp.dtype(dtype))
        noise = noise_like(jax.random.key(0), tree, law)
        abstract = jax.eval_shape(lambda tree: noise_like(jax.random.key(0), tree, law), tree)
    for leaf, drawn, shape in zip(*map(jax.tree.leaves, (tree, noise, abstract)), strict=True):
        assert drawn.dtype == shape.dtype == jnp.dtype(expected)
        assert drawn.shape == shape.shape == leaf.shape
        assert not drawn.weak_type


@pytest.mark.parametrize("law", LAWS)
def test_complex_noise_has_unit_variance_in_both_parts(law):
    size = 2**18
    noise = np.asarray(noise_like(jax.random.key(6), jnp.zeros(size, jnp.complex64), law))
    for part in (noise.real, noise.imag):
        z = (np.mean(part.astype(float) ** 2) - 1) / math.sqrt((2 + KURTOSIS[law]) / size)
        assert abs(z) < Z_MAX
    assert abs(sum_of_products(noise.real, noise.imag)) / math.sqrt(size) < Z_MAX


@pytest.mark.parametrize("law", LAWS)
def test_vmap_and_scan_draw_what_single_calls_draw(law):
    keys = jax.random.split(jax.random.key(9), 3)
    single = [noise_like(key, tree_of(), law) for key in keys]
    expected = jax.tree.map(lambda *rows: np.stack(rows), *single)
    mapped = jax.vmap(lambda key: noise_like(key, tree_of(), law))(keys)
    _, scanned = lax.scan(lambda none, key: (none, noise_like(key, tree_of(), law)), None, keys)
    chex.assert_trees_all_equal(mapped, expected)
    chex.assert_trees_all_equal(scanned, expected)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="reads the CPU compiler's memory plan")
@pytest.mark.parametrize("law", LAWS)
def test_noise_in_a_loop_takes_no_memory(law):
    leaf = jax.ShapeDtypeStruct((500, 300), jnp.float32)

    def temporary_bytes(draw):
        def chain(x):
            keys = jax.random.split(jax.random.key(0), 5)
            return lax.scan(lambda x, key: (0.5 * x + draw(key, x), None), x, keys)[0]

        return jax.jit(chain).lower(leaf).compile().memory_analysis().temp_size_in_bytes

    without = temporary_bytes(lambda key, x: 1.0)
    assert temporary_bytes(lambda key, x: noise_like(key, x, law)) - without < 500 * 300 * 4 / 10


def test_using_a_key_twice_is_noticed():
    key = jax.random.key(0)
    with jax.debug_key_reuse(True):
        noise_like(key, tree_of())
        with pytest.raises(jax.errors.KeyReuseError):
            noise_like(key, tree_of())


@pytest.mark.parametrize("law", ["gaussian", "", None, 3, ["normal"]], ids=repr)
def test_unknown_laws_are_refused_by_name(law):
    with pytest.raises(ValueError, match=r"noise must be 'normal' or 'popcount'; got noise=") as e:
        check_noise(law)
    assert repr(law) in str(e.value)
    with pytest.raises(ValueError, match="noise must be"):
        noise_like(jax.random.key(0), tree_of(), law)


SHARDED = """
    import warnings

    import jax, numpy as np
    from jax import numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec as P

    from entropix.transforms.random import NOISE_LAWS, noise_like

    warnings.simplefilter("error")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    put = lambda array, *spec: jax.device_put(array, NamedSharding(mesh, P(*spec)))
    plain = {"w": jnp.zeros((16, 6)), "b": jnp.zeros(5), "c": jnp.zeros((2, 8), jnp.complex64)}
    key, keys = jax.random.key(0), jax.random.split(jax.random.key(0), 8)


    def check(noise, tree, expected):
        for drawn, leaf, values in zip(*map(jax.tree.leaves, (noise, tree, expected))):
            assert jax.typeof(drawn) == jax.typeof(leaf), (jax.typeof(drawn), jax.typeof(leaf))
            np.testing.assert_array_equal(drawn, values)


    for law in NOISE_LAWS:
        draw = lambda key, tree: noise_like(key, tree, law)
        one = jax.device_get(draw(key, plain))
        several = jax.device_get(jax.vmap(lambda k: draw(k, plain["w"]))(keys))
        with jax.set_mesh(mesh):
            specs = {"w": ("x",), "b": (), "c": (None, "x")}
            tree = {name: put(plain[name], *spec) for name, spec in specs.items()}
            check(draw(key, tree), tree, one)
            check(jax.jit(draw)(key, tree), tree, one)
            within = put(jnp.zeros((8, 16, 6)), None, "x")
            across = put(jnp.zeros((8, 16, 6)), "x")
            for mapped in (jax.vmap(draw), jax.jit(jax.vmap(draw))):
                check(mapped(keys, within), within, several)
                check(mapped(put(keys, "x"), across), across, several)
            program = jax.jit(draw).lower(key, tree["w"]).compile().as_text()
            assert "[2,6]" in program and "[16,6]" not in program  # each device its own shard
    print("sharded ok")
"""


def test_noise_follows_explicit_shardings():
    # Compiled as for users: the quick programs of tests round normals by the size of a shard.
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | flags
    program = [sys.executable, "-c", textwrap.dedent(SHARDED)]
    result = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "sharded ok" in result.stdout
