r"""Random numbers that the compiler can fuse: JAX's own bits, and a cheaper law of noise.

A Langevin step adds one random number to every parameter, so in a small network the generator can
cost more than the gradient. On CPU `jax.random` cannot be fused: its threefry is a loop of its own
that writes every number to memory. Here the same threefry is written out in `jax.numpy`; the
numbers are equal to the last bit, and they are made inside the loop that consumes them.

To add a law, write `law(key, shape, dtype) -> array` of mean 0 and variance 1, derive its moments
in the docstring, enter it in `NOISE_LAWS`, and the way its leaves get their keys in `_LEAF_KEYS`.
The tests run over `NOISE_LAWS`.
"""

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from entropix.transforms.checks import check_choice
from entropix.transforms.numerics import is_static, wide_dtype

Shape = tuple[int, ...]


@functools.partial(jax.jit, static_argnames="shape")
def random_bits(key: jax.Array, shape: Shape) -> jax.Array:
    """Draws uniform 32-bit words, bit-identical to `jax.random.bits(key, shape, jnp.uint32)`.

    Word i is the exclusive or of the two words of threefry-2x32(key, i).

    Args:
      key: a single key, typed or legacy. Keys of another implementation than threefry-2x32,
        `jax_threefry_partitionable=False` and more than 2^32 numbers are left to `jax.random`.
      shape: shape of the result.

    Returns:
      A uint32 array.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> key = jax.random.key(0)
      >>> bool((random_bits(key, (3, 5)) == jax.random.bits(key, (3, 5), jnp.uint32)).all())
      True

    References:
      Salmon et al, `Parallel random numbers: as easy as 1, 2, 3
      <https://doi.org/10.1145/2063384.2063405>`_, 2011.
    """
    words = _threefry_words(key, shape)
    if words is None:
        return jax.random.bits(key, shape, jnp.uint32)
    left, right = _threefry_2x32(words, _count_from(words[1], shape))
    return left ^ right


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def normal(key: jax.Array, shape: Shape, dtype: DTypeLike = jnp.float32) -> jax.Array:
    r"""Draws standard normal numbers, in float32 bit-identical to `jax.random.normal`.

    .. math:: \sqrt2\,\mathrm{erf}^{-1}(u),\qquad u \text{ uniform on } (-1, 1)

    Args:
      key: a single key, typed or legacy.
      shape: shape of the result.
      dtype: a real or complex dtype. Those narrower than float32 are drawn in float32 and rounded,
        since JAX's own bfloat16 normals take only 128 distinct values. Wider and complex ones, and
        whatever `random_bits` cannot reproduce, are left to `jax.random.normal`.

    Returns:
      An array of `dtype`. The 23 random bits of float32 end the tails at 5.4 standard deviations.

    Example:
      >>> import jax
      >>> key = jax.random.key(0)
      >>> bool((normal(key, (8,)) == jax.random.normal(key, (8,))).all())
      True
    """
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
        return normal(key, shape).astype(dtype)
    if dtype != jnp.float32 or _threefry_words(key, shape) is None:
        return jax.random.normal(key, shape, dtype)
    mantissa = (random_bits(key, shape) >> 9) | 0x3F800000  # 23 bits behind the exponent of 1.0
    fraction = lax.bitcast_convert_type(mantissa, jnp.float32) - 1
    lowest = 2.0**-24 - 1  # the float32 next to -1, where erf_inv is infinite
    return math.sqrt(2) * lax.erf_inv(jnp.maximum(2 * fraction + lowest, lowest))


@functools.partial(jax.jit, static_argnames="shape")
def bernoulli(key: jax.Array, p: ArrayLike, shape: Shape) -> jax.Array:
    """Draws True with probability p, bit-identical to `jax.random.bernoulli(key, p, shape)`.

    Args:
      key: a single key, typed or legacy.
      p: probability in [0, 1], a float; it is resolved to multiples of 2^-23. Arrays and dtypes
        other than float32 are left to `jax.random`.
      shape: shape of the result.

    Returns:
      A boolean array, for instance a dropout mask that is never written to memory.

    Example:
      >>> import jax
      >>> bernoulli(jax.random.key(0), 0.2, (10, 100)).sum(axis=1).shape
      (10,)
    """
    p = jnp.asarray(p)
    if p.dtype != jnp.float32 or p.ndim or _threefry_words(key, shape) is None:
        return jax.random.bernoulli(key, p, shape)
    # JAX's u < p with both sides times 2^23, which is exact and saves making a float of the bits.
    return (random_bits(key, shape) >> 9).astype(jnp.float32) < p * 2.0**23


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def popcount(key: jax.Array, shape: Shape, dtype: DTypeLike = jnp.float32) -> jax.Array:
    r"""Draws nearly normal numbers of mean 0 and variance 1 by counting fair bits.

    .. math:: \varepsilon = (256 B + U - 3199.5)/\sigma,\qquad
      \sigma^2 = 256^2\cdot 6 + (256^2 - 1)/12

    where B ~ Binomial(24, 1/2) is the number of ones among 24 bits of one hashed word, and U,
    uniform on 0 ... 255, the other 8 bits. B has variance 6 and fourth cumulant -3, U has variance
    (256^2 - 1)/12 and fourth cumulant -(256^4 - 1)/120; both are symmetric. Hence mean 0,
    variance 1 and skewness 0 exactly, and excess kurtosis
    [-3 256^4 - (256^4 - 1)/120]/sigma^4 = -0.0813. The distribution function is within 0.0037 of
    the normal one.

    What it cannot do: the density is a staircase of 25 steps, each 0.405 wide; the tails end at
    5.07 and are thin before that (beyond 4: 2.4e-5 instead of 6.3e-5); a leaf of more than 2^32
    numbers repeats itself. For a Langevin chain, which adds up many of them, this is nothing; for
    rare events, take "normal".

    Args:
      key: a single key of any implementation, typed or legacy. The two words of a threefry key are
        the keys of the hash.
      shape: shape of the result.
      dtype: a real dtype.

    Returns:
      An array of `dtype`.

    Example:
      >>> import jax
      >>> noise = popcount(jax.random.key(0), (1000, 100))
      >>> bool(abs(noise.mean()) < 0.01), bool(abs(noise.var() - 1) < 0.015)
      (True, True)
    """
    bits = _hashed_bits(key, shape)
    level = (lax.population_count(bits >> 8) << 8) | (bits & 255)  # 256 B + U < 2^13
    sigma = math.sqrt(256**2 * 6 + (256**2 - 1) / 12)
    compute = wide_dtype(dtype)
    return ((level.astype(jnp.int32).astype(compute) - 3199.5) * (1 / sigma)).astype(dtype)


NOISE_LAWS: Mapping[str, Callable[..., jax.Array]] = MappingProxyType(
    {"normal": normal, "popcount": popcount}
)
"""Accepted names of noise and their samplers `(key, shape, dtype) -> array`."""


def check_noise(noise: Any) -> None:
    """Raises `ValueError` unless `noise` names one of `NOISE_LAWS`."""
    check_choice(
        "noise",
        noise,
        tuple(NOISE_LAWS),
        ". 'normal' is the exact law, 'popcount' a cheaper one of the same mean and variance; for "
        "none at all set temperature=0.0.",
    )


def noise_like(key: jax.Array, tree: Any, law: str = "normal") -> Any:
    """Draws independent noise of unit variance for every element of every leaf.

    Under "normal" leaf j, in the order of `jax.tree.leaves`, draws from
    `jax.random.split(key, n_leaves)[j]`; on float32 trees the noise is therefore bit-identical to
    `optax.tree.random_like(key, tree)`. Under "popcount" leaf j draws from two random words of
    `key` plus the j-th of a fixed sequence of constants, so that the program stays small.

    Args:
      key: a single key, typed or legacy.
      tree: any pytree of arrays and numbers; only shapes, dtypes and shardings are read.
      law: a name in `NOISE_LAWS`.

    Returns:
      A tree of the same structure, shapes and shardings. The noise is float32 for real leaves of
      at most 32 bits (bfloat16 and float8 among them), float64 for float64 leaves, and complex for
      complex leaves, whose real *and* imaginary parts have unit variance (Langevin dynamics in
      R^2, whereas `jax.random.normal` shares one unit between them). Leaves that are neither real
      nor complex, such as counters, masks and keys, get zeros of their dtype; the noise of the
      other leaves is the same as if they were real. Leaves on a mesh with explicit axes need that
      mesh in context (`jax.set_mesh`); each device then draws its own shard.

    Raises:
      ValueError: for an unknown law.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> noise = noise_like(jax.random.key(0), {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)})
      >>> jax.tree.map(jnp.shape, noise)
      {'b': (2,), 'w': (3, 2)}
    """
    check_noise(law)
    leaves, structure = jax.tree.flatten(tree)
    keys = _LEAF_KEYS[law](key, len(leaves))
    noise = [_leaf_noise(k, leaf, NOISE_LAWS[law]) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)


def _leaf_noise(key: jax.Array, leaf: ArrayLike, law: Callable[..., jax.Array]) -> jax.Array:
    kind = jax.typeof(leaf)
    if not jnp.issubdtype(kind.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    dtype = kind.dtype if kind.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)

    def draw(key: jax.Array) -> jax.Array:
        if not jnp.issubdtype(dtype, jnp.complexfloating):
            return law(key, kind.shape, dtype)
        real, imaginary = law(key, (2, *kind.shape), jnp.finfo(dtype).dtype)
        return lax.complex(real, imaginary)

    explicit = kind.sharding.mesh.explicit_axes
    if explicit:
        draw = jax.sharding.auto_axes(draw, axes=explicit, out_sharding=kind.sharding)
    return draw(key)


def _displaced_keys(key: jax.Array, num: int) -> list[jax.Array]:
    """Derives `num` keys from one draw of two words, by adding a constant to them for each key.

    A split makes an array of keys, of which every leaf then cuts its slice at another place: no two
    leaves have the same loop, and the compiler compiles one for each. An array of constants is an
    operand, so that all leaves of one shape share a compiled loop. The constants are uniform random
    words (those of NumPy's PCG64, whose stream is guaranteed), which keeps the counters and the
    second keys of any two leaves far apart.
    """
    words = jax.random.bits(key, (2,), jnp.uint32)
    constants = np.random.PCG64(0).random_raw(num).view(np.uint32).reshape(num, 2)
    return [jax.random.wrap_key_data(words + c, impl="threefry2x32") for c in constants]


_LEAF_KEYS: Mapping[str, Callable[[jax.Array, int], Any]] = MappingProxyType(
    {"normal": jax.random.split, "popcount": _displaced_keys}
)


def _threefry_words(key: jax.Array, shape: Shape) -> tuple[jax.Array, jax.Array] | None:
    """Returns the two words of `key` if we can reproduce its bits for this shape, else None."""
    if (
        jax.random.key_impl(key) != "threefry2x32"
        or not getattr(jax.config, "jax_threefry_partitionable", True)
        or not is_static(shape)
        or math.prod(shape) > 2**32  # the upper word of the counter is taken to be 0
    ):
        return None
    words = jax.random.key_data(key)
    return (words[0], words[1]) if words.shape == (2,) else None


def _threefry_2x32(
    key: tuple[jax.Array, jax.Array], keyed_count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The 20 rounds of threefry-2x32 of the counter (0, keyed_count - key[1])."""
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    schedule = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    left, right = key[0], keyed_count
    for block in range(5):
        for distance in rotations[block % 2]:
            left = left + right
            right = left ^ ((right << distance) | (right >> (32 - distance)))
        left = left + schedule[(block + 1) % 3]
        right = right + schedule[(block + 2) % 3] + (block + 1)
    return left, right


def _count_from(start: jax.Array, shape: Shape) -> jax.Array:
    """Returns start + the row-major index of every element of `shape`, modulo 2^32.

    Counting on from a key, axis by axis, leaves the compiler no array of plain indices: such an
    array, as large as the parameters, it would move out of a training loop and keep in memory.
    """
    count = start
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        index = lax.broadcasted_iota(jnp.uint32, shape[: axis + 1], axis)
        count = count[..., None] + index * jnp.uint32(stride)
    return count


def _hashed_bits(key: jax.Array, shape: Shape) -> jax.Array:
    """Draws 32-bit words as keyed hashes of the element's index: 13 operations, threefry 120.

    Each line is a bijection of 32-bit words that spreads one changed bit over the word; shifts and
    multipliers are those of Wellons' "triple32" (nullprogram.com/blog/2018/07/31). Two lines would
    be too few: with the best pair known, elements 2^13 apart correlate by -0.002. The first word of
    the key is where the index starts; the second enters half way, which keeps the streams of two
    keys from being shifts of one another.
    """
    words = _threefry_words(key, shape)
    first, second = jax.random.bits(key, (2,), jnp.uint32) if words is None else words
    x = _count_from(first, shape)
    x = (x ^ (x >> 17)) * jnp.uint32(0xED5AD4BB) ^ second
    x = (x ^ (x >> 11)) * jnp.uint32(0xAC4C1B51)
    x = (x ^ (x >> 15)) * jnp.uint32(0x31848BAB)
    return x ^ (x >> 14)
