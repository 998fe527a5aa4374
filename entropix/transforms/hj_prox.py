r"""Zeroth order: prox, value and gradient of the relaxed loss from values of f alone.

Lemma 1 of Deep Relaxation writes the gradient of the local entropy as an average over
exp{-[f(y) + |x-y|^2/(2t)]/T}. Its Gaussian factor can be sampled, so that what is left is a ratio
of two expectations, and no gradient of f is needed (Osher, Heaton and Wu Fung, 2023).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from entropix.transforms import checks
from entropix.transforms.eager import as_partial
from entropix.transforms.keys import one_key, step_key
from entropix.transforms.numerics import mean_dtype, scalar, wide
from entropix.transforms.random import noise_like


class HJProx(NamedTuple):
    """What `hj_prox` estimates; trees are like x, numbers are in the dtype of f's values.

    Attributes:
      prox: the Gibbs mean <y>, which tends to prox_{tf}(x) as T -> 0.
      gradient: (x - <y>)/t, the gradient of u at x.
      value: u(x, t), the local entropy.
      prox_error: standard error of each element of `prox`.
      gradient_error: standard error of each element of `gradient`.
      value_error: standard error of `value`.
      effective_sample_size: 1/sum w_i^2, between 1 and `num_samples`. Near 1 a single sample has
        all the weight: nothing here, the standard errors included, is to be believed.
    """

    prox: Any
    gradient: Any
    value: jax.Array
    prox_error: Any
    gradient_error: Any
    value_error: jax.Array
    effective_sample_size: jax.Array


class _Sums(NamedTuple):
    """Sums over the samples seen; W_i = exp(-(f_i - low)/T), so that the largest is 1."""

    low: jax.Array  # lowest f seen
    weight: jax.Array  # sum W
    square: jax.Array  # sum W^2
    first: Any  # sum W eps
    square_first: Any  # sum W^2 eps
    square_second: Any  # sum W^2 eps^2


def hj_prox(
    f: Callable[[Any], ArrayLike],
    x: Any,
    t: ArrayLike,
    *,
    temperature: ArrayLike,
    num_samples: int = 1000,
    batch_size: int | None = None,
    key: jax.Array | int = 0,
) -> HJProx:
    r"""Estimates prox, gradient and value of the relaxed loss without gradients of f (Lemma 1).

    .. math::
      y_i = x + \sqrt{tT}\,\varepsilon_i,\quad w_i = \frac{e^{-f(y_i)/T}}{\sum_j e^{-f(y_j)/T}},
      \quad \langle y\rangle = \sum_i w_i y_i,\quad \nabla u = (x - \langle y\rangle)/t,
      \quad u = -T \log \frac1n \sum_i e^{-f(y_i)/T}

    with u(x, t) the solution of u_t = -|grad u|^2/2 + (T/2) Laplacian u, u(., 0) = f, the local
    entropy whose gradient `entropix.local_entropy` estimates from gradients of f.

    Standard errors are those of a self-normalised ratio by the delta method, with the sample
    correction of a variance carried over to unequal weights (n/(n-1) for equal ones):
    se(<y>)^2 = sum w_i^2 (y_i - <y>)^2 / (1 - sum w_i^2). They leave out the bias, of order
    T/ESS in u (upwards: the logarithm is concave) and smaller than the error by the square root
    of ESS in the gradient.

    What it cannot do: samples lie within a few sqrt(tT) of x, so weights degenerate where f
    varies by much more than T over that distance. On a slope ESS/n = exp(-t |grad f|^2/T); at the
    minimum of c|x|^2/2 in N dimensions ESS/n = [(1 + 2ct)/(1 + ct)^2]^(N/2). If
    `effective_sample_size` is near 1, <y> is the lowest of the points sampled, and all errors
    come out too small: take a larger T, a smaller t or many more samples. Below ten, errors are
    a rough guide only.

    f sees x + sqrt(tT) z in the dtype of x. Where sqrt(tT) is not well above the spacing of numbers
    at x, 2^-8 |x| in bfloat16 and 2^-24 |x| in float32, samples round back to x, and neither the
    errors nor `effective_sample_size` tell: give x in float32.

    As under `jax.jit`, f is compiled when it is first seen: what it reads from outside counts as it
    was then. Bind what changes: `jax.tree_util.Partial(f, value)`.

    Args:
      f: maps a tree like x to a real scalar; any dtype, steps and values of +infinity (a
        constraint) included; a single one of -infinity makes all NaN. It is vmapped; a function
        that is not JAX can be wrapped in `jax.pure_callback(..., vmap_method="sequential")`. No
        gradient of f is taken.
      x: any pytree of real arrays.
      t: time of the PDE, the gamma of the relaxations; > 0.
      temperature: T = 1/beta > 0, the convention of `entropix.local_entropy`.
      num_samples: n >= 2.
      batch_size: points evaluated at once, by default all of them. Memory is that of
        `batch_size` copies of x; the samples are the same whatever it is.
      key: typed key, legacy key or integer seed of the samples.

    Returns:
      An `HJProx`. Samples where f is +infinity have no weight; if they all are, so is the value,
      and the rest is NaN, as it is wherever f is NaN.

    Raises:
      ValueError: for an argument outside its range, or an f whose value is no real scalar.

    Example:
      >>> import entropix, jax.numpy as jnp
      >>> f = lambda y: jnp.floor(jnp.abs(y))    # a staircase: its derivative is 0 or infinite
      >>> estimate = entropix.hj_prox(f, jnp.asarray(3.0), 1.0, temperature=0.5)
      >>> bool(abs(estimate.gradient - 1.0) < 4 * estimate.gradient_error)    # that of |x|
      True
      >>> bool(estimate.effective_sample_size > 100)
      True

    References:
      Osher, Heaton, Wu Fung, `A Hamilton-Jacobi-based proximal operator
      <https://arxiv.org/abs/2211.12997>`_, 2023;
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, Lemma 1.
    """
    checks.check_function("f", f, "a function of a tree like x")
    t = checks.check_positive("t", t, schedule=False)
    temperature = checks.check_positive("temperature", temperature, schedule=False)
    n = checks.check_count("num_samples", num_samples)
    if n < 2:
        raise ValueError(f"num_samples must be >= 2, for a standard error; got num_samples={n}.")
    size = n if batch_size is None else min(n, checks.check_count("batch_size", batch_size))
    key = one_key(key)
    x = jax.tree.map(jnp.asarray, x)
    dtype = _check_real(f, x)

    # In JAX's default precision, whatever that of a traced number is.
    t, temperature = (jnp.asarray(v).astype(jnp.result_type(float)) for v in (t, temperature))
    width = jnp.sqrt(t) * jnp.sqrt(temperature)
    heat = scalar(temperature, jnp.zeros([], dtype))
    sums = _sampled(as_partial(f), x, width, heat, key, n=n, size=size)
    return _estimate(sums, x, t, heat, width, n)


@functools.partial(jax.jit, static_argnames=("n", "size"))
def _sampled(
    f: Callable[[Any], ArrayLike], x: Any, width: jax.Array, temperature: jax.Array,
    key: jax.Array, *, n: int, size: int,
) -> _Sums:  # fmt: skip
    """The sums over n samples, `size` at a time; compiled once for one function f."""
    dtype = temperature.dtype

    def sample(i: jax.Array) -> tuple[Any, jax.Array]:
        noise = noise_like(step_key(key, i), x)
        point = jax.tree.map(
            lambda x, e: (wide(x) + scalar(width, e) * e).astype(x.dtype), x, noise
        )
        # Past the last sample, where a batch is not full, nothing has weight.
        return noise, jnp.where(i < n, jnp.asarray(f(point)).astype(dtype), jnp.inf)

    def add(sums: _Sums, indices: jax.Array) -> tuple[_Sums, None]:
        return _add(sums, *jax.vmap(sample)(indices), temperature), None

    batches = jnp.arange(-(-n // size) * size).reshape(-1, size)
    return lax.scan(add, _no_sums(x, dtype), batches)[0]


def _check_real(f: Callable[[Any], ArrayLike], x: Any) -> Any:
    """Returns the dtype of the weights: that of f's values, float32 or wider."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                "x must be a tree of real floating-point arrays; got "
                f"{leaf.dtype} at x{jax.tree_util.keystr(path)}. Cast it to float32."
            )
    if not jax.tree.leaves(x):
        raise ValueError(f"x must have at least one array; got x={x!r}.")
    out = jax.eval_shape(f, x)
    if not isinstance(out, jax.ShapeDtypeStruct) or out.shape != () or _is_complex(out.dtype):
        raise ValueError(f"f must map a tree like x to one real number, of shape (); got {out}.")
    return mean_dtype(out.dtype)


def _is_complex(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.complexfloating)


def _no_sums(x: Any, dtype: Any) -> _Sums:
    zeros = jax.tree.map(lambda leaf: jnp.zeros_like(wide(leaf)), x)
    zero = jnp.zeros([], dtype)
    return _Sums(zero + jnp.inf, zero, zero, zeros, zeros, zeros)


def _add(sums: _Sums, noise: Any, values: jax.Array, temperature: jax.Array) -> _Sums:
    """Adds a batch of samples; all sums are brought to the lowest value seen so far."""
    low = jnp.minimum(sums.low, jnp.min(values))

    def weight(value: jax.Array) -> jax.Array:
        # The difference first: f/T alone may overflow, and loses the digits that matter. None is
        # infinite, also where the weight is 0: a derivative by T would be infinity times 0.
        none = value == jnp.inf
        above = jnp.where(none, 0, value - low)
        return jnp.where(none, 0, jnp.exp(-above / temperature))

    old, new = weight(sums.low), weight(values)

    def add(sum_: jax.Array, factor: jax.Array, weights: jax.Array, e: jax.Array) -> jax.Array:
        return sum_ * scalar(factor, e) + jnp.tensordot(weights.astype(e.dtype), e, axes=1)

    return _Sums(
        low,
        sums.weight * old + jnp.sum(new),
        sums.square * old**2 + jnp.sum(new**2),
        jax.tree.map(lambda s, e: add(s, old, new, e), sums.first, noise),
        jax.tree.map(lambda s, e: add(s, old**2, new**2, e), sums.square_first, noise),
        jax.tree.map(lambda s, e: add(s, old**2, new**2, e**2), sums.square_second, noise),
    )


def _estimate(
    sums: _Sums, x: Any, t: jax.Array, temperature: jax.Array, width: jax.Array, n: int
) -> HJProx:
    concentration = sums.square / sums.weight**2  # sum w_i^2
    # Bessel's n/(n - 1) for equal weights. One sample with all the weight has no known error.
    rest = 1 - concentration
    correction = jnp.where(rest > 0, 1 / jnp.where(rest > 0, rest, 1), jnp.inf)
    correction = jnp.where(jnp.isnan(rest), jnp.nan, correction)

    def moments(first: jax.Array, square_first: jax.Array, square_second: jax.Array) -> Any:
        mean = first / scalar(sums.weight, first)
        spread = square_second - 2 * mean * square_first + mean**2 * scalar(sums.square, first)
        spread = jnp.maximum(spread, 0) / scalar(sums.weight, first) ** 2  # rounding may be < 0
        bad = jnp.isinf(correction)
        error = jnp.where(bad, jnp.inf, jnp.sqrt(spread * scalar(correction, first)))
        return mean, error

    pairs = jax.tree.map(moments, sums.first, sums.square_first, sums.square_second)
    mean, error = jax.tree.transpose(jax.tree.structure(x), jax.tree.structure((0, 0)), pairs)

    def scaled(tree: Any, factor: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: leaf * scalar(factor, leaf), tree)

    shift, prox_error = scaled(mean, width), scaled(error, width)
    slope = -width / t
    relative = jnp.maximum(concentration - 1 / n, 0) * (n / (n - 1))  # variance of log mean W
    estimate = HJProx(
        prox=jax.tree.map(lambda x, d: wide(x) + d, x, shift),
        gradient=scaled(mean, slope),
        value=sums.low - temperature * jnp.log(sums.weight / n),
        prox_error=prox_error,
        gradient_error=scaled(error, -slope),
        value_error=temperature * jnp.sqrt(relative),
        effective_sample_size=1 / concentration,
    )
    trees = ("prox", "gradient", "prox_error", "gradient_error")
    return estimate._replace(
        **{name: optax.tree.cast_like(getattr(estimate, name), x) for name in trees}
    )
