"""The convolution against `jax.lax`'s: values to the bit where promised, the rest to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from entropix.models import convolution
from entropix.models.convolution import conv_general_dilated

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")

# input, kernel, strides, padding
SHAPES = {
    "lenet_first": ((4, 28, 28, 1), (5, 5, 1, 6), (1, 1), "VALID"),
    "same": ((2, 8, 8, 3), (3, 3, 3, 4), (1, 1), "SAME"),
    "same_strided": ((2, 8, 8, 3), (3, 3, 3, 4), (2, 2), "SAME"),
    "same_lower": ((2, 7, 8, 3), (4, 2, 3, 4), (2, 1), "SAME_LOWER"),
    "all_cnn_strided": ((2, 8, 8, 3), (3, 3, 3, 4), (2, 2), [(1, 1), (1, 1)]),
    "pixels_left_over": ((3, 9, 10, 2), (2, 3, 2, 5), (3, 2), "VALID"),
    "lopsided_padding": ((1, 6, 5, 2), (3, 2, 2, 1), (1, 2), [(2, 0), (0, 3)]),
    "cropped": ((2, 9, 9, 2), (3, 3, 2, 2), (1, 1), [(-1, -2), (0, 1)]),
    "stride_beyond_window": ((2, 9, 9, 2), (2, 2, 2, 2), (3, 3), "VALID"),
    "pointwise": ((2, 5, 5, 3), (1, 1, 3, 4), (1, 1), "VALID"),
    "whole_image": ((2, 4, 4, 3), (4, 4, 3, 2), (1, 1), "VALID"),
}
every_shape = pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "strides", "padding"), SHAPES.values(), ids=SHAPES
)


def arrays(x_shape, kernel_shape, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0))
    return (
        jax.random.normal(keys[0], x_shape).astype(dtype),
        jax.random.normal(keys[1], kernel_shape).astype(dtype),
    )


def both(strides, padding, numbers=CHANNELS_LAST, **kwargs):
    """Ours and JAX's convolution as functions of input and kernel."""
    return [
        functools.partial(
            function, window_strides=strides, padding=padding, dimension_numbers=numbers, **kwargs
        )
        for function in (conv_general_dilated, lax.conv_general_dilated)
    ]


def loss_of(convolve):
    # Neither linear nor symmetric, so that every tap and every cotangent counts.
    return lambda x, kernel: jnp.sum(jnp.sin(convolve(x, kernel)).astype(jnp.float32))


def grads(convolve, x, kernel, argnums=(0, 1)):
    return jax.jit(jax.grad(loss_of(convolve), argnums))(x, kernel)


def derivative(convolve, *primals):
    """Value and forward derivative, in the direction of the cosine of each argument."""
    tangents = tuple(map(jnp.cos, primals))
    return jax.jit(lambda p, t: jax.jvp(convolve, p, t))(primals, tangents)


def assert_close(ours, theirs, rtol=2e-5):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(np.abs(b).max(), 1e-30))


@every_shape
def test_values_and_gradients(x_shape, kernel_shape, strides, padding):
    ours, theirs = both(strides, padding)
    x, kernel = arrays(x_shape, kernel_shape)
    np.testing.assert_array_equal(ours(x, kernel), theirs(x, kernel))
    assert_close(*(grads(f, x, kernel) for f in (ours, theirs)))


@every_shape
@pytest.mark.parametrize("piece_bytes", [5_000, 2**30])
def test_images_of_few_channels(monkeypatch, x_shape, kernel_shape, strides, padding, piece_bytes):
    """With the batch last, everything is equal up to rounding."""
    monkeypatch.setattr(convolution, "_MANY_IMAGES", 1)
    monkeypatch.setattr(convolution, "_PIECE_BYTES", piece_bytes)
    ours, theirs = both(strides, padding)
    x, kernel = arrays(x_shape, kernel_shape)

    @functools.partial(jax.jit, static_argnums=0)
    def all_of(convolve, x, kernel):
        gradients = [jax.grad(loss_of(convolve), n)(x, kernel) for n in (0, 1, (0, 1))]
        tangents = jnp.cos(x), jnp.cos(kernel)
        return jax.jvp(convolve, (x, kernel), tangents), gradients

    assert_close(*(all_of(f, x, kernel) for f in (ours, theirs)))


@every_shape
def test_forward_mode(x_shape, kernel_shape, strides, padding):
    ours, theirs = both(strides, padding)
    x, kernel = arrays(x_shape, kernel_shape)
    assert_close(*(derivative(f, x, kernel) for f in (ours, theirs)))


@pytest.mark.parametrize("many_images", [1, 32], ids=["batch_last", "channels_last"])
def test_hessian_vector_products(monkeypatch, many_images):
    monkeypatch.setattr(convolution, "_MANY_IMAGES", many_images)
    ours, theirs = both((2, 2), "SAME")
    x, kernel = arrays((2, 8, 8, 3), (3, 3, 3, 4))
    direction = jnp.cos(kernel)

    def hvp(convolve):
        grad = jax.grad(lambda kernel: loss_of(convolve)(x, kernel))
        return jax.jit(lambda v: jax.jvp(grad, (kernel,), (v,))[1])(direction)

    assert_close(hvp(ours), hvp(theirs), rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank):
    numbers = [("NWC", "WIO", "NWC"), None, ("NDHWC", "DHWIO", "NDHWC")][rank - 1]
    ours, theirs = both((2,) * rank, "SAME", numbers)
    x, kernel = arrays((2, *(6,) * rank, 3), (*(3,) * rank, 3, 4))
    assert_close(*(grads(f, x, kernel) for f in (ours, theirs)))


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.bfloat16, 3e-2), (jnp.float16, 5e-3)])
def test_low_precision(dtype, rtol):
    ours, theirs = both((1, 1), "SAME")
    x, kernel = arrays((2, 8, 8, 3), (3, 3, 3, 4), dtype)
    assert ours(x, kernel).dtype == dtype
    assert_close(*(grads(f, x, kernel) for f in (ours, theirs)), rtol=rtol)


def test_double_precision():
    with jax.enable_x64(True):
        ours, theirs = both((2, 1), [(1, 0), (0, 1)])
        x, kernel = arrays((2, 8, 7, 3), (3, 3, 3, 4), jnp.float64)
        cubes = (lambda x, k, f=f: jnp.sum(f(x, k) ** 3) for f in (ours, theirs))
        assert_close(*(jax.jit(jax.grad(f, (0, 1)))(x, kernel) for f in cubes), rtol=1e-13)


@pytest.mark.parametrize(
    "many_images",
    [pytest.param(1, marks=pytest.mark.slow), 32],
    ids=["batch_last", "channels_last"],
)
def test_inside_scan_and_vmap(monkeypatch, many_images):
    monkeypatch.setattr(convolution, "_MANY_IMAGES", many_images)
    ours, theirs = both((1, 1), "VALID")
    x, kernel = arrays((3, 4, 9, 9, 2), (5, 5, 2, 3))

    def descend(convolve):
        def step(kernel, x):
            value, grad = jax.value_and_grad(loss_of(convolve), 1)(x, kernel)
            return kernel - 1e-3 * grad, value

        return jax.jit(lambda kernel: lax.scan(step, kernel, x))(kernel)

    assert_close(descend(ours), descend(theirs))
    for axes in ((0, None), (None, 0)):
        xs = x if axes[0] == 0 else x[0]
        ks = kernel if axes[1] is None else jnp.stack([kernel, 2 * kernel])
        assert_close(
            *(jax.jit(jax.vmap(jax.grad(loss_of(f), (0, 1)), axes))(xs, ks) for f in (ours, theirs))
        )


def test_large_batches_go_in_pieces(monkeypatch):
    """Any piece size gives the same gradient; a prime batch ends in pieces of one image."""
    ours, theirs = both((1, 1), "SAME")
    x, kernel = arrays((7, 6, 6, 2), (3, 3, 2, 3))
    expected = grads(theirs, x, kernel)
    for size in (1, 5_000, 2**30):
        monkeypatch.setattr(convolution, "_PIECE_BYTES", size)
        assert_close(grads(ours, x, kernel), expected)


def test_empty_batch():
    ours, _ = both((1, 1), "SAME")
    x, kernel = arrays((0, 6, 6, 2), (3, 3, 2, 3))
    grad = jax.grad(loss_of(ours), 1)(x, kernel)
    np.testing.assert_array_equal(grad, np.zeros_like(kernel))


@pytest.mark.parametrize("many_images", [1, 32], ids=["batch_last", "channels_last"])
def test_data_under_the_first_layer_costs_no_convolution(monkeypatch, many_images):
    monkeypatch.setattr(convolution, "_MANY_IMAGES", many_images)
    ours, _ = both((1, 1), "VALID")
    x, kernel = arrays((4, 9, 9, 2), (5, 5, 2, 3))
    half = jax.make_jaxpr(jax.grad(loss_of(ours), 1))(x, kernel)
    full = jax.make_jaxpr(jax.grad(loss_of(ours), (0, 1)))(x, kernel)
    assert str(full).count("dot_general") > str(half).count("dot_general")


# Whatever the fast gradient does not cover goes to jax.lax as it came.
OTHERS = {
    "channels_first": ((2, 3, 8, 8), (4, 3, 3, 3), {"numbers": ("NCHW", "OIHW", "NCHW")}),
    "default_layout": ((2, 3, 8, 8), (4, 3, 3, 3), {"numbers": None}),
    "groups": ((2, 8, 8, 4), (3, 3, 2, 4), {"feature_group_count": 2}),
    "batch_groups": ((4, 8, 8, 2), (3, 3, 2, 4), {"batch_group_count": 2}),
    "atrous": ((2, 8, 8, 3), (3, 3, 3, 4), {"rhs_dilation": (2, 2)}),
    "transposed": ((2, 8, 8, 3), (3, 3, 3, 4), {"lhs_dilation": (2, 2)}),
    "wide_sums": ((2, 8, 8, 3), (3, 3, 3, 4), {"preferred_element_type": jnp.float32}),
}


@pytest.mark.parametrize(("x_shape", "kernel_shape", "kwargs"), OTHERS.values(), ids=OTHERS)
def test_other_convolutions_are_untouched(x_shape, kernel_shape, kwargs):
    programs = [
        str(jax.make_jaxpr(jax.grad(loss_of(f), (0, 1)))(*arrays(x_shape, kernel_shape)))
        for f in both((1, 1), [(1, 1), (1, 1)], **kwargs)
    ]
    assert programs[0] == programs[1]


def test_integers_are_untouched():
    ours, theirs = both((1, 1), "VALID")
    x, kernel = (jnp.round(a).astype(jnp.int32) for a in arrays((2, 5, 5, 2), (3, 3, 2, 3)))
    np.testing.assert_array_equal(ours(x, kernel), theirs(x, kernel))


def test_accelerators_are_untouched(monkeypatch):
    ours, theirs = both((1, 1), "SAME")
    x, kernel = arrays((2, 8, 8, 3), (3, 3, 3, 4))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    programs = [
        str(jax.make_jaxpr(jax.grad(loss_of(f), (0, 1)))(x, kernel)) for f in (ours, theirs)
    ]
    assert programs[0] == programs[1]


def test_serves_flax():
    layers = [
        nnx.Conv(3, 8, (3, 3), 2, padding=1, conv_general_dilated=function, rngs=nnx.Rngs(0))
        for function in (conv_general_dilated, lax.conv_general_dilated)
    ]
    x, _ = arrays((2, 8, 8, 3), (1,))
    of_layer = [nnx.grad(lambda layer: jnp.sum(jnp.sin(layer(x))))(layer) for layer in layers]
    assert_close(*map(nnx.state, of_layer))
