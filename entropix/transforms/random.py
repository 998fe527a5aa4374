r"""Random numbers that the compiler can fuse: JAX's own bits, and cheaper laws of noise.

A Langevin step adds one random number to every parameter, so on a small network the generator can
cost more than the gradient. `jax.random` writes its numbers to memory before they are used, since
its threefry is opaque to XLA's fusion on CPU. Here the same threefry is written out in `jax.numpy`:
the numbers are equal to the last bit, and they are made inside the loop that consumes them.

How to add a law: write `law(key, shape, dtype) -> array` with mean 0 and variance 1, derive its
moments in the docstring, and enter it in `NOISE_LAWS`; the tests run over that table.
"""

import functools
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike

Shape = tuple[int, ...]

# Rotation distances and key-schedule parity of threefry-2x32 (Salmon et al, 2011, table 2).
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _threefry_2x32(
    key: tuple[jax.Array, jax.Array], high: ArrayLike, low_plus_key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The 20 rounds of threefry-2x32; the second counter word comes with key[1] already added."""
    schedule = (*key, key[0] ^ key[1] ^ _PARITY)
    left, right = high + key[0], low_plus_key
    for block in range(5):
        for distance in _ROTATIONS[block % 2]:
            left = left + right
            right = left ^ ((right << distance) | (right >> (32 - distance)))
        left = left + schedule[(block + 1) % 3]
        right = right + schedule[(block + 2) % 3] + (block + 1)
    return left, right


def _count_from(start: jax.Array, shape: Shape) -> jax.Array:
    """Returns start + row-major index of every element of `shape`, modulo 2^32.

    Counting from a key, axis by axis, leaves the compiler no key-free array of indices: it would
    move that array out of a training loop and keep it in memory, as large as the parameters.
    """
    count = start
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        steps = lax.broadcasted_iota(jnp.uint32, shape[: axis + 1], axis)
        count = count[..., None] + steps * jnp.uint32(stride)
    return count


def _fused_words(key: jax.Array, shape: Shape) -> tuple[jax.Array, jax.Array] | None:
    """Returns the two words of a key whose bits of this shape we can reproduce, else None."""
    fused = (
        str(jax.random.key_impl(key)) == "threefry2x32"
        and jax.config.jax_threefry_partitionable
        and math.prod(shape) <= 2**32  # the upper counter word is then 0
    )
    words = jax.random.key_data(key) if fused else None
    return None if words is None or words.ndim != 1 else (words[0], words[1])


@functools.partial(jax.jit, static_argnames="shape")
def random_bits(key: jax.Array, shape: Shape) -> jax.Array:
    """Draws uniform 32-bit words, equal to `jax.random.bits(key, shape, jnp.uint32)`.

    Word i is the exclusive or of the two halves of threefry-2x32(key, i), which fuses into its
    consumer. Keys of another implementation, `jax_threefry_partitionable=False` and more than
    2^32 numbers go to `jax.random`.

    Args:
      key: a single key, typed or legacy.
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
    words = _fused_words(key, shape)
    if words is None:
        return jax.random.bits(key, shape, jnp.uint32)
    left, right = _threefry_2x32(words, jnp.uint32(0), _count_from(words[1], shape))
    return left ^ right


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def normal(key: jax.Array, shape: Shape, dtype: DTypeLike = jnp.float32) -> jax.Array:
    r"""Draws standard normal numbers, equal to `jax.random.normal` in float32, at half the cost.

    .. math:: \sqrt2\,\mathrm{erf}^{-1}(u),\qquad u\ \text{uniform on}\ (-1, 1)\ \text{with 23 bits}

    Args:
      key: a single key, typed or legacy.
      shape: shape of the result.
      dtype: a real or complex dtype. Dtypes narrower than float32 are drawn in float32 and rounded:
        JAX's own bfloat16 normals take only 128 distinct values. Wider and complex ones, and all
        that `random_bits` cannot reproduce, are `jax.random.normal`'s.

    Returns:
      An array of `dtype`. With 23 bits the tails end at 5.4 standard deviations.

    Example:
      >>> import jax
      >>> key = jax.random.key(0)
      >>> bool((normal(key, (8,)) == jax.random.normal(key, (8,))).all())
      True
    """
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
        return normal(key, shape).astype(dtype)
    if dtype != jnp.float32 or _fused_words(key, shape) is None:
        return jax.random.normal(key, shape, dtype)
    mantissa = (random_bits(key, shape) >> 9) | 0x3F800000  # 23 bits behind the exponent of 1
    fraction = lax.bitcast_convert_type(mantissa, jnp.float32) - 1
    above_minus_one = 2.0**-24 - 1  # erf_inv(-1) is infinite
    uniform = jnp.maximum(above_minus_one, 2 * fraction + above_minus_one)
    return math.sqrt(2) * lax.erf_inv(uniform)


@functools.partial(jax.jit, static_argnames="shape")
def bernoulli(key: jax.Array, p: ArrayLike, shape: Shape) -> jax.Array:
    """Draws True with probability p, equal to `jax.random.bernoulli(key, p, shape)`.

    Args:
      key: a single key, typed or legacy.
      p: probability in [0, 1], a float; it is resolved to 2^-23.
      shape: shape of the result.

    Returns:
      A boolean array, for instance a dropout mask that is never stored.

    Example:
      >>> import jax
      >>> float(bernoulli(jax.random.key(0), 0.2, (1000,)).mean()) < 0.25
      True
    """
    p = jnp.asarray(p)
    if p.dtype != jnp.float32 or _fused_words(key, shape) is None:
        return jax.random.bernoulli(key, p, shape)
    # Both sides of u < p times 2^23, which is exact: a conversion instead of three operations.
    return (random_bits(key, shape) >> 9).astype(jnp.float32) < p * 2.0**23


def _hashed_bits(key: jax.Array, shape: Shape) -> jax.Array:
    """Draws 32-bit words from a keyed integer hash of the element's index.

    Every multiplication by an odd number and every `x ^ (x >> r)` is a bijection that spreads a
    change of one bit over the word. Threefry makes the two key words out of `key`, so that small
    seeds and consecutive counters are as good as any; the second enters between two mixings,
    which keeps the streams of two keys from being shifts of each other.
    """
    first, second = random_bits(key, (2,))
    x = _count_from(first, shape)
    x = (x ^ (x >> 16)) * jnp.uint32(0x21F0AAAD)
    x = x ^ second
    x = (x ^ (x >> 15)) * jnp.uint32(0xD35A2D97)
    return x ^ (x >> 15)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def popcount(key: jax.Array, shape: Shape, dtype: DTypeLike = jnp.float32) -> jax.Array:
    r"""Draws nearly normal numbers from a count of fair bits.
    """
    n = popcounts(key, shape)
    scale = 2/ math.sqrt(4*(6 * 2**16 + (2**16 - 1) / 12))
    return (n.astype(dtype) - 3199.5) * scale

def popcounts(key, shape):
    bits = _hashed_bits(key, shape)
    return ((lax.population_count(bits >> 8) << 8) | (bits & 255)).astype(jnp.int32)


def _noise_for(leaf: Any, key: jax.Array, law: Callable[..., jax.Array]) -> jax.Array:
    kind = jax.typeof(leaf)
    dtype = jnp.promote_types(kind.dtype, jnp.float32)

    def draw(key: jax.Array) -> jax.Array:
        if not jnp.issubdtype(dtype, jnp.complexfloating):
            return law(key, kind.shape, dtype)
        real, imaginary = jax.random.split(key)
        part = jnp.finfo(dtype).dtype
        return lax.complex(law(real, kind.shape, part), law(imaginary, kind.shape, part))

    axes = kind.sharding.mesh.explicit_axes
    if axes:
        draw = jax.sharding.auto_axes(draw, axes=axes, out_sharding=kind.sharding)
    return draw(key)


NOISE_LAWS: Mapping[str, Callable[..., jax.Array]] = MappingProxyType(
    {"normal": normal, "popcount": popcount}
)


def check_noise(law: Any) -> None:
    """X."""
    if law not in NOISE_LAWS:
        raise ValueError(f"noise must be one of {sorted(NOISE_LAWS)}")


def noise_like(key: jax.Array, tree: Any, law: str = "normal") -> Any:
    """X."""
    check_noise(law)
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    noise = [_noise_for(leaf, k, NOISE_LAWS[law]) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noise)
