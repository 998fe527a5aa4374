"""Products of Hessian and Gauss-Newton matrix against matrices written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from entropix import landscape

COPIES = 8


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0], np.float64)


def random_like(tree, seed=1):
    vector, unravel = ravel_pytree(tree)
    return unravel(jnp.asarray(np.random.default_rng(seed).normal(size=vector.size), vector.dtype))


def test_a_quadratics_hessian_is_its_matrix(quadratic):
    f = quadratic(np.linspace(-1, 5, 7))
    v = np.random.default_rng(0).normal(size=7).astype(np.float32)
    found = landscape.hvp(f.loss, jnp.ones(7), v, f.batches)
    np.testing.assert_allclose(found, f.Q @ v, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_products_are_those_of_the_dense_matrices(x64, classifier, dtype):
    net = classifier(dtype)
    v = random_like(net.params)
    bound = 1e-4 if dtype == jnp.float32 else 1e-12
    found = landscape.hvp(net.loss, net.params, v, net.batches)
    np.testing.assert_allclose(flat(found), net.dense_hessian() @ flat(v), rtol=0, atol=bound)
    found = landscape.ggn_vp(net.outputs, net.cross_entropy, net.params, v, net.batches)
    np.testing.assert_allclose(flat(found), net.dense_ggn() @ flat(v), rtol=0, atol=bound)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}


def test_operators_are_the_products(classifier):
    net = classifier()
    v = random_like(net.params)
    operator = landscape.hessian(net.loss, net.params, net.batches)
    expected = landscape.hvp(net.loss, net.params, v, net.batches)
    np.testing.assert_array_equal(flat(operator(v)), flat(expected))
    operator = landscape.gauss_newton(net.outputs, net.cross_entropy, net.params, net.batches)
    expected = landscape.ggn_vp(net.outputs, net.cross_entropy, net.params, v, net.batches)
    np.testing.assert_array_equal(flat(operator(v)), flat(expected))


def test_relative_is_the_hessian_of_multiplied_weights(x64, classifier):
    net = classifier(jnp.float64)
    x, unravel = ravel_pytree(net.params)
    v = random_like(net.params)
    hessian = landscape.hessian(net.loss, net.params, net.batches)
    found = landscape.relative(hessian, net.params)(v)
    expected = np.asarray(x) * (net.dense_hessian() @ (np.asarray(x) * flat(v)))
    np.testing.assert_allclose(flat(found), expected, rtol=0, atol=1e-12)


def test_one_batch_of_all_is_the_mean_over_batches(classifier):
    net = classifier()
    v = random_like(net.params)
    whole = jax.tree.map(lambda leaf: leaf.reshape(1, 40, *leaf.shape[2:]), net.batches)
    for product in (
        functools.partial(landscape.hvp, net.loss),
        functools.partial(landscape.ggn_vp, net.outputs, net.cross_entropy),
    ):
        one, many = product(net.params, v, whole), product(net.params, v, net.batches)
        np.testing.assert_allclose(flat(one), flat(many), rtol=0, atol=1e-6)


def test_leaves_that_cannot_move_reach_the_loss_and_stay_zero():
    params = {
        "w": np.ones(3, np.float32),
        "scale": 2.0,
        "count": jnp.asarray(3),
        "mask": np.asarray([True, False, True]),
        "key": jax.random.key(0),
        "none": None,
    }

    def loss(p, batch):
        jax.random.bits(p["key"])
        return p["count"] * p["scale"] * jnp.sum(p["mask"] * p["w"] ** 2) * batch

    found = landscape.hvp(loss, params, params, jnp.ones(2))
    # f = 3 s sum(m w^2): with v = (w, s) the product is 6 s m w + 6 w m s, and 6 sum(m w^2).
    np.testing.assert_allclose(found["w"], [24.0, 0.0, 24.0])
    assert float(found["scale"]) == 12.0
    assert found["count"].dtype == jnp.int32
    assert int(found["count"]) == 0
    assert found["mask"].dtype == bool
    assert not found["mask"].any()
    values, _ = landscape.eigenvalues(landscape.hessian(loss, params, jnp.ones(2)), params, 4, 0)
    dense = jax.hessian(lambda x: 3 * x[3] * (x[0] ** 2 + x[2] ** 2))(jnp.asarray([1.0, 1, 1, 2]))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(dense)[::-1], rtol=0, atol=1e-4)


def test_narrow_parameters_are_measured_in_float32(classifier):
    wide = classifier()
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), wide.params)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow)
    v = random_like(wide.params)
    found = landscape.hvp(wide.loss, narrow, v, wide.batches)
    expected = landscape.hvp(wide.loss, rounded, v, wide.batches)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(flat(found), flat(expected))


def test_strict_promotion(quadratic):
    f = quadratic([1.0, 2.0])
    with jax.numpy_dtype_promotion("strict"):
        landscape.hvp(f.loss, jnp.ones(2), jnp.ones(2), f.batches)
        landscape.eigenvalues(f.matvec, jnp.ones(2), 1, 0)


def test_strict_promotion_of_leaves_of_two_precisions():
    """f = |a|^2/2 + 4|b|^2/2, whose eigenvalues are 1, 1, 4, 4, 4."""

    def loss(x, batch):
        return jnp.sum(x["a"] ** 2).astype(jnp.float64) / 2 + 2 * jnp.sum(x["b"] ** 2)

    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        x, batches = {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros(3)}, jnp.ones(1)
        A = landscape.hessian(loss, x, batches)
        np.testing.assert_allclose(landscape.trace(A, x, 0, 6).value, 14, rtol=1e-6)
        for method in ("hutchinson", "hutch++"):
            size = landscape.frobenius_norm(A, x, 0, 15, method=method).value
            np.testing.assert_allclose(size, 50**0.5, rtol=1e-6)
        values, _, vectors = landscape.eigenpairs(A, x, 1, 0)
        np.testing.assert_allclose(values, [4], rtol=1e-6)
        np.testing.assert_allclose(vectors["a"], 0, atol=1e-4)
        np.testing.assert_allclose(landscape.sharpness(loss, x, 0.1, batches), 0.02, rtol=1e-4)
        for method in ("quadratic", "integration"):
            found, error = landscape.local_entropy(loss, x, 0.5, 0.1, batches, 0, method=method)
            assert abs(found - 0.05 * (2 * np.log(1.5) + 3 * np.log(3.0))) < 4 * error
        nodes = landscape.spectrum(A, x, 0, num_steps=2, num_samples=2).nodes
        np.testing.assert_allclose(nodes, [[1, 4]] * 2, rtol=1e-5)


def test_seeds_can_be_vmapped(classifier, row):
    net = classifier()
    params = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), net.params)
    product = lambda p: landscape.hvp(net.loss, p, p, net.batches)  # noqa: E731
    together = jax.vmap(product)(params)
    for seed in range(2):
        alone = product(row(params, seed))
        np.testing.assert_allclose(flat(row(together, seed)), flat(alone), rtol=0, atol=1e-5)


def test_other_values_compile_nothing(classifier, compilations):
    net, other = classifier(), classifier(seed=1)
    for product in (
        lambda n: landscape.hvp(net.loss, n.params, n.params, n.batches),
        lambda n: landscape.eigenvalues(
            landscape.hessian(net.loss, n.params, n.batches), n.params, 2, 0
        ),
    ):
        product(net)
        before = len(compilations)
        product(other)
        assert len(compilations) == before


class Network(dict):
    """Sizes of the paper's `mnistfc`, as plain arrays."""

    widths = (784, 1024, 1024, 10)

    @classmethod
    def loss(cls, params, batch):
        inputs, labels = batch
        for n, layer in enumerate(params):
            inputs = inputs @ layer["w"] + layer["b"]
            inputs = jax.nn.relu(inputs) if n < 2 else inputs
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(inputs), labels[:, None], axis=1))

    @classmethod
    def shapes(cls, batches=4, size=64):
        struct = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
        params = [
            {"w": struct(m, n), "b": struct(n)}
            for m, n in zip(cls.widths, cls.widths[1:], strict=False)
        ]
        labels = jax.ShapeDtypeStruct((batches, size), jnp.int32)
        return params, (struct(batches, size, 784), labels)


def copies(function, *arguments):
    """Memory of a compiled program in copies of its first argument, data not counted."""
    used = jax.jit(function).lower(*arguments).compile().memory_analysis()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arguments[0]))
    params = used.argument_size_in_bytes / size
    data = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arguments[1])) / size
    return params - data + (used.temp_size_in_bytes + used.output_size_in_bytes) / size


def test_memory_of_products_is_a_few_copies_of_the_parameters():
    params, batches = Network.shapes()
    key = jax.random.key(0)
    product = lambda p, b: landscape.hvp(Network.loss, p, p, b)  # noqa: E731
    trace = lambda p, b: landscape.trace(  # noqa: E731
        landscape.hessian(Network.loss, p, b), p, key, 10
    )
    energy = lambda p, b: landscape.local_energy(Network.loss, p, 0.1, b, key)  # noqa: E731
    ball = lambda p, b: landscape.sharpness(Network.loss, p, 0.1, b)  # noqa: E731
    for function in (product, trace, energy, ball):
        assert copies(function, params, batches) <= COPIES


@pytest.mark.parametrize("num", [20, 80])
def test_memory_of_lanczos_is_little_more_than_its_vectors(num):
    params, batches = Network.shapes()
    key = jax.random.key(0)

    def values(p, b):
        operator = landscape.hessian(Network.loss, p, b)
        return landscape.eigenvalues(operator, p, 10, key, num_steps=num)

    def density(p, b):
        operator = landscape.hessian(Network.loss, p, b)
        return landscape.spectrum(operator, p, key, num_steps=num, num_samples=4)

    assert copies(values, params, batches) <= num + COPIES
    assert copies(density, params, batches) <= num + COPIES


def test_memory_does_not_grow_with_the_number_of_batches():
    key = jax.random.key(0)
    ball = lambda p, b: landscape.sharpness(Network.loss, p, 0.1, b)  # noqa: E731
    few, many = (copies(ball, *Network.shapes(batches=count)) for count in (2, 40))
    assert many < few + 0.5
    del key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": 3.0}, "loss must be a function of parameters and a batch; got loss=3.0"),
        (
            {"loss": lambda p, b: p},
            r"loss must return one floating-point number; got 'float32\[2\]'",
        ),
        ({"loss": lambda p, b: 1}, "loss must return one floating-point number"),
        ({"params": jnp.arange(2)}, "params must have at least one floating-point leaf"),
        (
            {"params": jnp.ones(2) * 1j},
            "params must have real leaves; got complex64 at the only leaf",
        ),
        ({"v": {"w": 1.0}}, "v must have the structure of the parameters"),
        ({"v": jnp.ones(3)}, r"v must have the shapes .* expected \(2,\), got \(3,\)"),
        ({"batches": ()}, r"batches must be a tree of arrays with one common leading axis"),
        ({"batches": 1.0}, r"common leading axis of size >= 1; got shapes \[\(\)\]"),
        ({"batches": jnp.ones((0, 3))}, "common leading axis of size >= 1"),
        ({"batches": (jnp.ones(2), jnp.ones(3))}, r"got shapes \[\(2,\), \(3,\)\]"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {
        "loss": lambda p, b: jnp.sum(p**2),
        "params": jnp.ones(2),
        "v": jnp.ones(2),
        "batches": jnp.ones(2),
    }
    with pytest.raises(ValueError, match=message):
        landscape.hvp(**(arguments | change))


def test_parameters_over_explicit_axes_are_refused():
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    spread = jax.device_put(jnp.ones((4, 2)), NamedSharding(mesh, PartitionSpec("d")))
    loss, batches = lambda x, batch: jnp.sum(x**2) * jnp.mean(batch), jnp.ones((2, 3))
    matvec = landscape.hessian(loss, spread, batches)
    message = r"over Explicit axes .*; got the only leaf with .*'d'.*AxisType.Auto"
    for measure in (
        lambda: landscape.trace(matvec, spread, 0, 4),
        lambda: landscape.eigenvalues(matvec, spread, 2, 0),
        lambda: landscape.spectrum(matvec, spread, 0),
        lambda: landscape.local_entropy(loss, spread, 1.0, 0.1, batches, 0),
        lambda: landscape.pruned(spread, 0.5),
    ):
        with pytest.raises(ValueError, match=message):
            measure()


def test_bad_batch_sizes():
    with pytest.raises(ValueError, match="divide the number of examples, 10; got batch_size=4"):
        landscape.batched(jnp.ones((10, 2)), 4)
    with pytest.raises(ValueError, match="batch_size must be a static integer >= 1"):
        landscape.batched(jnp.ones((10, 2)), 0)


@pytest.mark.parametrize("scale", [1e-12, 1e-10, 1e9, 1e12])
def test_a_standard_error_has_the_scale_of_its_samples(scale):
    matrix = jnp.asarray([[2.0, 1.0], [1.0, 3.0]])
    one, other = (
        landscape.frobenius_norm(lambda z, s=s: s * (matrix @ z), jnp.zeros(2), 0, 100)
        for s in (1.0, scale)
    )
    np.testing.assert_allclose(np.asarray(other) / scale, np.asarray(one), rtol=1e-4)
