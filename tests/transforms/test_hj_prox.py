"""The zeroth-order form of Lemma 1 against quadrature, closed forms and repetition."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entropix


def rugged(y):
    """Non-convex in one dimension."""
    return y**2 / 4 + jnp.sin(4 * y)


def rugged_2d(y):
    """Non-convex, not separable."""
    return jnp.sum(y**2) / 3 + jnp.cos(3 * y[0]) * jnp.sin(2 * y[1] + y[0])


def quadrature(f, x, t, T, half=8.0, nodes=1601):
    """Value, gradient and prox by the trapezoidal rule around x, in NumPy."""
    axes = np.meshgrid(*[c + np.linspace(-half, half, nodes) for c in x], indexing="ij")
    y = np.stack([axis.ravel() for axis in axes], axis=-1)
    values = np.asarray(jax.vmap(f)(jnp.asarray(y)), np.float64)
    energy = (values + np.sum((y - x) ** 2, axis=-1) / (2 * t)) / T
    density = np.exp(-(energy - energy.min()))
    prox = density @ y / density.sum()
    cell = (2 * half / (nodes - 1)) ** len(x) / (2 * np.pi * t * T) ** (len(x) / 2)
    value = T * (energy.min() - np.log(density.sum() * cell))
    return value, (x - prox) / t, prox


def repeated(f, x, t, T, repetitions=400, **kwargs):
    """Estimates with different keys, as a tree with a leading axis, in float64."""
    keys = jax.random.split(jax.random.key(5), repetitions)
    run = jax.jit(jax.vmap(lambda key: entropix.hj_prox(f, x, t, temperature=T, key=key, **kwargs)))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), run(keys))


def assert_within(actual, expected, error, k=4.5):
    assert np.all(np.abs(np.asarray(actual) - expected) <= k * np.asarray(error)), (
        actual, expected, error,
    )  # fmt: skip


class TestTruth:
    @pytest.mark.parametrize(("x", "t", "T"), [(0.3, 0.5, 0.3), (-1.0, 2.0, 1.0), (2.0, 0.3, 0.8)])
    def test_quadrature_in_one_dimension(self, x64, x, t, T):
        got = entropix.hj_prox(rugged, jnp.asarray(x), t, temperature=T, num_samples=100_000)
        f = lambda y: rugged(y[0])  # noqa: E731
        value, gradient, prox = quadrature(f, np.asarray([x]), t, T, nodes=20_001)
        assert_within(got.gradient, gradient[0], got.gradient_error)
        assert_within(got.prox, prox[0], got.prox_error)
        assert_within(got.value, value, got.value_error)
        assert got.gradient_error < 0.02
        assert abs(gradient[0] - float(jax.grad(rugged)(x))) > 10 * got.gradient_error  # not f's

    @pytest.mark.parametrize(("t", "T"), [(0.5, 0.4), (1.5, 0.7)])
    def test_quadrature_in_two_dimensions(self, x64, t, T):
        x = np.asarray([0.4, -0.7])
        got = entropix.hj_prox(rugged_2d, jnp.asarray(x), t, temperature=T, num_samples=200_000)
        value, gradient, prox = quadrature(rugged_2d, x, t, T, half=7.0, nodes=701)
        assert_within(got.gradient, gradient, got.gradient_error)
        assert_within(got.prox, prox, got.prox_error)
        assert_within(got.value, value, got.value_error)
        assert np.all(np.asarray(got.gradient_error) < 0.02)

    def test_quadratic_in_closed_form(self, x64, quadratic):
        """Lemma 4, and u = p.x + x.Qx/2 - d.Ad/2 + T/2 log det(I + tQ) with d = A^-1 (p + Qx)."""
        f, t, T = quadratic(0, 3, 0.3, 2.0), 0.6, 0.5
        x = np.asarray([0.5, -0.2, 0.8])
        loss = lambda y: f.p @ y + y @ f.Q @ y / 2  # noqa: E731
        got = entropix.hj_prox(loss, jnp.asarray(x), t, temperature=T, num_samples=200_000)
        slope = f.grad(x)
        value = float(loss(x)) - slope @ np.linalg.solve(f.pulled(t), slope) / 2
        value += T / 2 * np.linalg.slogdet(np.eye(3) + t * f.Q)[1]
        assert_within(got.prox, f.mean(x, t), got.prox_error)
        assert_within(got.gradient, (x - f.mean(x, t)) / t, got.gradient_error)
        assert_within(got.value, value, got.value_error)

    @pytest.mark.parametrize("dim", [1, 4, 16])
    def test_effective_sample_size_of_the_docstring(self, dim):
        c, t, n = 1.0, 0.7, 200_000
        f = lambda y: c * jnp.sum(y**2) / 2  # noqa: E731
        got = entropix.hj_prox(f, jnp.zeros(dim), t, temperature=0.3, num_samples=n,
                               batch_size=20_000)  # fmt: skip
        expected = ((1 + 2 * c * t) / (1 + c * t) ** 2) ** (dim / 2)
        np.testing.assert_allclose(got.effective_sample_size / n, expected, rtol=0.02)

    def test_effective_sample_size_of_a_slope(self):
        p, t, T, n = np.asarray([0.6, -0.8]), 0.5, 0.4, 400_000
        f = lambda y: jnp.asarray(p) @ y  # noqa: E731
        got = entropix.hj_prox(f, jnp.ones(2), t, temperature=T, num_samples=n)
        np.testing.assert_allclose(got.effective_sample_size / n, np.exp(-t / T), rtol=0.05)

    def test_small_temperature_is_the_proximal_operator(self):
        """prox of t|x|_1 is soft thresholding; far from the kink its Gibbs mean is the same."""
        x = jnp.asarray([1.5, -1.5, 0.0])
        f = lambda y: jnp.sum(jnp.abs(y))  # noqa: E731
        got = entropix.hj_prox(f, x, 0.5, temperature=0.1, num_samples=400_000)
        assert_within(got.prox, np.asarray([1.0, -1.0, 0.0]), got.prox_error)
        assert np.all(np.asarray(got.prox_error) < 0.05)

    def test_gradient_that_langevin_dynamics_estimates(self, x64):
        t, T, x, chains = 0.5, 0.5, 0.8, 4000
        f = lambda y: y**2 / 4 + jnp.sin(2 * y)  # noqa: E731
        relaxation = entropix.local_entropy(
            t, num_steps=2000, step_size=0.01, averaging=0.995, temperature=T
        )
        slope = entropix.relaxed_grad(relaxation, lambda y, i: jax.vmap(jax.grad(f))(y))
        start = jnp.full(chains, x)
        samples = np.asarray(jax.jit(slope)(start, relaxation.init(start))[0])
        langevin, error = samples.mean(), samples.std(ddof=1) / np.sqrt(chains)
        got = entropix.hj_prox(f, jnp.asarray(x), t, temperature=T, num_samples=200_000)
        total = np.hypot(error, got.gradient_error)
        # The chain's own bias: 0.995^2000 of its start, and O(step size) of Euler-Maruyama.
        assert abs(langevin - got.gradient) < 4 * total + 0.01
        assert total < 0.02


class TestStandardErrors:
    """400 repetitions: errors have the size of the scatter, intervals cover the truth."""

    @pytest.mark.parametrize(("t", "T"), [(0.5, 0.5), (1.0, 0.3)])
    def test_size_and_coverage(self, x64, t, T):
        x, repetitions = np.asarray([0.4, -0.7]), 400
        got = repeated(rugged_2d, jnp.asarray(x), t, T, repetitions, num_samples=2000)
        value, gradient, prox = quadrature(rugged_2d, x, t, T, half=7.0, nodes=701)
        assert got.effective_sample_size.mean() > 100
        for name, truth in (("value", value), ("gradient", gradient), ("prox", prox)):
            estimate, error = getattr(got, name), getattr(got, f"{name}_error")
            # The ratio's own standard error is about 1/sqrt(2 * 400) = 3.5 %.
            ratio = estimate.std(axis=0, ddof=1) / error.mean(axis=0)
            np.testing.assert_allclose(ratio, 1, atol=0.15)
            covered = np.mean(np.abs(estimate - truth) < 1.96 * error, axis=0)
            assert np.all(np.abs(covered - 0.95) < 0.045), (name, covered)  # 4 se = 0.044

    def test_equal_weights_give_the_error_of_a_mean(self, x64):
        n, t, T = 50, 2.0, 0.5
        got = entropix.hj_prox(lambda y: 3.0, jnp.zeros(2), t, temperature=T, num_samples=n)
        keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(n)]
        draw = lambda key: jax.random.normal(jax.random.split(key, 1)[0], (2,))  # noqa: E731
        points = np.sqrt(t * T) * np.stack([draw(key) for key in keys])
        np.testing.assert_allclose(got.prox, points.mean(axis=0), rtol=1e-12)
        error = points.std(axis=0, ddof=1) / np.sqrt(n)
        np.testing.assert_allclose(got.prox_error, error, rtol=1e-10)
        np.testing.assert_allclose(got.effective_sample_size, n, rtol=1e-12)
        np.testing.assert_allclose([got.value, got.value_error], [3.0, 0.0], atol=1e-9)

    def test_numpy_twin(self, x64):
        n, t, T, x = 40, 0.7, 0.3, 0.4
        got = entropix.hj_prox(rugged, jnp.asarray(x), t, temperature=T, num_samples=n, key=3,
                               batch_size=7)  # fmt: skip
        keys = [jax.random.fold_in(jax.random.key(3), i) for i in range(n)]
        y = x + np.sqrt(t * T) * np.asarray(
            [jax.random.normal(jax.random.split(key, 1)[0]) for key in keys]
        )
        W = np.exp(-np.asarray(rugged(y)) / T)
        w = W / W.sum()
        mean = w @ y
        error = np.sqrt(w**2 @ (y - mean) ** 2 / (1 - w @ w))
        np.testing.assert_allclose(got.prox, mean, rtol=1e-12)
        np.testing.assert_allclose(got.gradient, (x - mean) / t, rtol=1e-10)
        np.testing.assert_allclose(got.prox_error, error, rtol=1e-10)
        np.testing.assert_allclose(got.gradient_error, error / t, rtol=1e-10)
        np.testing.assert_allclose(got.value, -T * np.log(W.mean()), rtol=1e-12)
        scatter = W.std(ddof=1) / np.sqrt(n) / W.mean()
        np.testing.assert_allclose(got.value_error, T * scatter, rtol=1e-10)
        np.testing.assert_allclose(got.effective_sample_size, 1 / (w @ w), rtol=1e-12)

    def test_one_sample_with_all_the_weight_knows_no_error(self):
        f = lambda y: 1e6 * jnp.sum(y)  # noqa: E731
        got = entropix.hj_prox(f, jnp.zeros(3), 1.0, temperature=1e-3, num_samples=100)
        assert got.effective_sample_size == 1
        assert np.all(np.isinf(got.prox_error))
        assert np.all(np.isfinite(got.prox))


class TestLogSpace:
    @pytest.mark.parametrize("offset", [1e8, -1e8, 0.0])
    @pytest.mark.parametrize("T", [1e-6, 1.0, 1e4])
    def test_huge_values_and_small_temperatures(self, x64, offset, T):
        f = lambda y: offset + jnp.sum(jnp.tanh(y))  # noqa: E731
        got = entropix.hj_prox(f, jnp.ones(2), 1.0, temperature=T, num_samples=500)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(got))
        zero = entropix.hj_prox(lambda y: f(y) - offset, jnp.ones(2), 1.0, temperature=T,
                                num_samples=500)  # fmt: skip
        # f - offset is known to 1e-8, divided by T.
        np.testing.assert_allclose(got.prox, zero.prox, atol=min(1.0, 1e-7 / T) + 1e-12)
        assert abs(got.value - offset - zero.value) < 1e-7

    @pytest.mark.parametrize("scale", [1e8, -1e8, 3e38])
    def test_float32_never_overflows(self, scale):
        f = lambda y: scale * jnp.cos(y)  # noqa: E731
        got = entropix.hj_prox(f, jnp.asarray(0.5), 1.0, temperature=1e-6, num_samples=200)
        assert np.isfinite(got.prox)
        assert np.isfinite(got.value)

    def test_derivatives_by_the_temperature(self, x64):
        """The first batch begins at an infinite lowest value, which no derivative may see."""
        value = lambda T, f: entropix.hj_prox(f, 0.5, 0.3, temperature=T).value  # noqa: E731
        by_differences = (value(0.5 + 1e-5, rugged) - value(0.5 - 1e-5, rugged)) / 2e-5
        np.testing.assert_allclose(jax.grad(value)(0.5, rugged), by_differences, rtol=1e-6)
        constrained = lambda y: jnp.where(y < 0.6, rugged(y), jnp.inf)  # noqa: E731
        assert np.isfinite(jax.grad(value)(0.5, constrained))

    def test_constraints_are_infinite_values(self):
        """f = 0 on y >= 0, infinite elsewhere: the mean of a half normal law."""
        f = lambda y: jnp.where(y >= 0, 0.0, jnp.inf)  # noqa: E731
        got = entropix.hj_prox(f, jnp.asarray(0.0), 2.0, temperature=0.5, num_samples=50_000)
        assert_within(got.prox, np.sqrt(2 / np.pi), got.prox_error)
        assert_within(got.value, 0.5 * np.log(2), got.value_error)

    def test_infinite_everywhere_and_nan(self):
        everywhere = entropix.hj_prox(lambda y: jnp.inf, jnp.zeros(2), 1.0, temperature=1.0)
        assert everywhere.value == jnp.inf
        assert np.all(np.isnan(everywhere.prox))
        bad = entropix.hj_prox(lambda y: y.sum() * jnp.nan, jnp.zeros(2), 1.0, temperature=1.0)
        assert all(np.all(np.isnan(leaf)) for leaf in jax.tree.leaves(bad))


class TestAnyFunction:
    def test_integer_valued_and_not_jax(self):
        """A black box in NumPy that counts: no derivative could be asked of it."""
        count = lambda y: np.int32(np.sum(np.floor(np.abs(y))))  # noqa: E731
        box = lambda y: jax.pure_callback(  # noqa: E731
            count, jax.ShapeDtypeStruct((), jnp.int32), y, vmap_method="sequential"
        )
        steps = lambda y: jnp.sum(jnp.floor(jnp.abs(y))).astype(jnp.int32)  # noqa: E731
        x = jnp.asarray([2.0, -3.0])
        run = functools.partial(entropix.hj_prox, x=x, t=1.0, temperature=0.5, num_samples=200)
        np.testing.assert_allclose(run(box).gradient, run(steps).gradient, rtol=1e-5)
        assert run(steps).value.dtype == jnp.float32

    def test_no_gradient_is_taken(self):
        @jax.custom_jvp
        def f(y):
            return jnp.sum(y**2)

        @f.defjvp
        def forbidden(primals, tangents):
            raise AssertionError("a derivative of f was asked for")

        assert np.isfinite(entropix.hj_prox(f, jnp.ones(2), 1.0, temperature=1.0).value)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
    def test_trees_and_dtypes(self, x64, dtype):
        x = {"w": jnp.ones((3, 2), dtype), "b": [jnp.zeros(4, dtype), jnp.asarray(1, dtype)]}
        seen = []

        def f(y):
            seen.append(y)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(y))

        got = entropix.hj_prox(f, x, 0.1, temperature=1.0, num_samples=64)
        types = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
        for tree in (got.prox, got.gradient, got.prox_error, got.gradient_error, seen[0]):
            assert types(tree) == types(x)
        assert got.value.dtype == jnp.promote_types(dtype, jnp.float32)
        assert np.all(np.isfinite(np.asarray(got.gradient["w"], np.float64)))

    def test_batches_jit_and_traced_numbers(self, x64):
        x = jnp.asarray([0.4, -0.7])

        @functools.partial(jax.jit, static_argnums=3)
        def run(x, t, T, batch_size):
            return entropix.hj_prox(rugged_2d, x, t, temperature=T, num_samples=101, key=1,
                                    batch_size=batch_size)  # fmt: skip

        whole = entropix.hj_prox(rugged_2d, x, 0.5, temperature=0.4, num_samples=101, key=1)
        for batch_size in (1, 10, 100, 101, 5000):
            got = run(x, 0.5, 0.4, batch_size)
            chex.assert_trees_all_close(got, whole, rtol=1e-9)

    def test_memory_is_that_of_a_batch(self):
        x = jnp.zeros(1000)
        f = lambda y: jnp.sum(y**2)  # noqa: E731

        def memory(batch_size):
            run = lambda x: entropix.hj_prox(f, x, 1.0, temperature=1.0, num_samples=4096,  # noqa: E731
                                             batch_size=batch_size)  # fmt: skip
            return jax.jit(run).lower(x).compile().memory_analysis().temp_size_in_bytes

        assert memory(16) < memory(None) / 20

    def test_keys(self):
        run = lambda key: entropix.hj_prox(rugged, jnp.asarray(0.1), 1.0, temperature=1.0, key=key)  # noqa: E731
        assert run(3).prox == run(jax.random.key(3)).prox == run(jax.random.PRNGKey(3)).prox
        assert run(3).prox != run(4).prox


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t": 0.0}, "t must be a number > 0; got t=0.0"),
        ({"t": jnp.ones(2)}, "t must be a number > 0"),
        ({"t": entropix.scoping(1.0)}, "t must be a number > 0"),
        ({"temperature": 0}, "temperature must be a number > 0"),
        ({"temperature": float("inf")}, "temperature must be a number > 0"),
        ({"num_samples": 1}, "num_samples must be >= 2"),
        ({"num_samples": 2.5}, "num_samples must be a static integer"),
        ({"batch_size": 0}, "batch_size must be a static integer >= 1.*; got batch_size=0"),
        ({"key": "x"}, "key must be"),
        ({"x": {"a": jnp.arange(3)}}, r"real floating-point arrays; got int32 at x\['a'\]"),
        ({"x": {}}, "x must have at least one array"),
        ({"f": lambda y: y}, r"one real number, of shape \(\); got .*shape=\(2,\)"),
        ({"f": lambda y: (1.0, y)}, "one real number"),
        ({"f": lambda y: y[0] * 1j}, "one real number.*complex64"),
    ],
)
def test_mistakes(change, message):
    given = {"f": jnp.sum, "x": jnp.zeros(2), "t": 1.0, "temperature": 1.0, **change}
    with pytest.raises(ValueError, match=message):
        entropix.hj_prox(given.pop("f"), given.pop("x"), given.pop("t"), **given)


def test_one_function_is_compiled_once(compilations):
    f = lambda y: jnp.sum(jnp.floor(jnp.abs(y)))  # noqa: E731
    x, found = jnp.asarray([1.0, 2.0]), []
    for key in range(3):
        before = len(compilations)
        found.append(entropix.hj_prox(f, x, 0.5, temperature=0.5, num_samples=50, key=key))
        new = len(compilations) - before
    assert new == 0
    assert not np.array_equal(found[0].prox, found[1].prox)


def test_a_function_without_a_hash_is_as_good():
    @dataclasses.dataclass
    class Bowl:
        size: float

        def __call__(self, y):
            return self.size * jnp.sum(y**2)

    x, options = jnp.asarray([1.0, 2.0]), {"temperature": 0.5, "num_samples": 50}
    found = entropix.hj_prox(Bowl(2.0), x, 0.5, **options)
    expected = entropix.hj_prox(lambda y: 2 * jnp.sum(y**2), x, 0.5, **options)
    np.testing.assert_array_equal(found.prox, expected.prox)


def test_strict_promotion_of_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        steps = lambda y: jnp.sum(jnp.floor(y)).astype(jnp.int32)  # noqa: E731
        assert entropix.hj_prox(steps, jnp.ones(3), 1.0, temperature=0.5).value.dtype == "float32"
        for dtype in ("bfloat16", "float8_e4m3fn"):
            found = entropix.hj_prox(jnp.sum, jnp.ones(3, dtype), 1.0, temperature=0.5)
            assert (found.value.dtype, found.prox.dtype) == ("float32", dtype)


@pytest.mark.parametrize("dtype", ["float16", "int32"])
def test_traced_numbers_of_any_dtype_are_as_good_as_known_ones(dtype):
    def slope(t, T):
        return entropix.hj_prox(jnp.sum, jnp.ones(3), t, temperature=T, num_samples=50).gradient

    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(slope)(jnp.asarray(3, dtype), jnp.float32(0.5))
    np.testing.assert_allclose(found, slope(3.0, 0.5), rtol=1e-6)
