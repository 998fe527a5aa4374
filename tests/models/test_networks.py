"""The paper's three networks: their size to the parameter, their shapes, and what they refuse."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from entropix.models import all_cnn, functional, lenet, mlp

NETWORKS = {
    "mlp": (mlp, (28, 28, 1)),
    "lenet": (lenet, (28, 28, 1)),
    "all_cnn": (all_cnn, (32, 32, 3)),
}
every_network = pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)


def count(model, exclude=()):
    """Parameters in the layers that are not of a type in `exclude`."""
    kept = [m for m in model.layers if isinstance(m, nnx.Module) and not isinstance(m, exclude)]
    return sum(leaf.size for m in kept for leaf in jax.tree.leaves(nnx.state(m, nnx.Param)))


def shapes_of(make, *args, **kwargs):
    """A network with shapes in place of numbers: nothing is drawn or compiled."""
    return nnx.eval_shape(lambda: make(*args, rngs=0, **kwargs))


def output_shape(model, *shape):
    return nnx.eval_shape(lambda model, x: model(x, rngs=0), model, jnp.ones(shape)).shape


def test_parameter_counts():
    # The paper counts the weights and biases of mnistfc, and all parameters of the others.
    assert count(shapes_of(mlp), exclude=nnx.BatchNorm) == 1_863_690
    assert count(shapes_of(mlp)) == 1_867_786
    assert count(shapes_of(lenet)) == 131_220
    assert count(shapes_of(all_cnn)) == 1_667_166


@every_network
def test_logits(make, shape):
    model = make(rngs=0)
    model.eval()
    x = jax.random.normal(jax.random.key(0), (3, *shape))
    logits = jax.jit(lambda x: model(x))(x)
    assert logits.shape == (3, 10)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    # Every image is classified by itself.
    np.testing.assert_allclose(model(x[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)


@every_network
def test_seeds_choose_the_parameters(make, shape):
    first, again, other = (nnx.state(make(rngs=seed), nnx.Param) for seed in (0, 0, 1))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, first, again)))
    kernels = [
        (a, b)
        for (path, a), b in zip(
            jax.tree.leaves_with_path(first), jax.tree.leaves(other), strict=True
        )
        if "kernel" in jax.tree_util.keystr(path)
    ]
    assert kernels
    assert not any(jnp.array_equal(a, b) for a, b in kernels)


@pytest.mark.parametrize("rngs", [0, jax.random.key(0), nnx.Rngs(0)], ids=["seed", "key", "Rngs"])
def test_seeds_keys_and_streams(rngs):
    model = mlp((4,), (3,), rngs=rngs)
    assert model(jnp.ones((2, 4)), rngs=1).shape == (2, 10)


def test_arguments_reach_the_network():
    model = shapes_of(mlp, (5, 2), (7, 6), 3, input_dropout=0.0, dropout=0.25)
    shapes = [layer.kernel.shape for layer in model.layers if isinstance(layer, nnx.Linear)]
    assert shapes == [(10, 7), (7, 6), (6, 3)]
    assert [d.rate for d in model.layers if isinstance(d, nnx.Dropout)] == [0.0, 0.25, 0.25]
    model = shapes_of(lenet, (22, 25, 2), (3, 4), 5, 6, 0.125)
    assert [c.kernel.shape for c in model.layers if isinstance(c, nnx.Conv)] == [
        (5, 5, 2, 3),
        (5, 5, 3, 4),
    ]
    assert {d.rate for d in model.layers if isinstance(d, nnx.Dropout)} == {0.125}
    assert output_shape(model, 1, 22, 25, 2) == (1, 6)
    model = shapes_of(all_cnn, (9, 8, 1), (2, 3), 4, 0.0, 0.5)
    assert [c.kernel.shape[-1] for c in model.layers if isinstance(c, nnx.Conv)] == [
        *(2, 2, 2),
        *(3, 3, 3),
        *(3, 3, 4),
    ]
    assert output_shape(model, 1, 9, 8, 1) == (1, 4)


def test_all_cnn_is_the_authors_stack():
    """A pixel of padding, stride 2 in the third and sixth layer, batch normalisation after all."""
    model = all_cnn((8, 8, 1), (2, 3), rngs=0)
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(nnx.Conv) == kinds.count(nnx.BatchNorm) == 9
    strides = [layer.strides for layer in model.layers if isinstance(layer, nnx.Conv)]
    assert strides == [1, 1, 2, 1, 1, 2, 1, 1, 1]
    # An even image: with a pixel on both sides, output (0, 0) of a stride-2 layer is centred on
    # pixel (0, 0); "SAME" would pad at the far side only and centre it on (1, 1).
    layer = next(c for c in model.layers if isinstance(c, nnx.Conv) and c.strides == 2)
    dot = jnp.zeros((1, 8, 8, 2)).at[0, 0, 0].set(1.0)
    np.testing.assert_allclose(layer(dot)[0, 0, 0], layer.kernel[1, 1].sum(0), rtol=1e-6)


def test_batch_norm_trains_on_the_batch_and_evaluates_with_statistics():
    model = mlp((4,), (6,), input_dropout=0, dropout=0, rngs=0)
    x = 3.0 + jax.random.normal(jax.random.key(0), (50, 4))
    linear, norm = (
        next(m for m in model.layers if isinstance(m, t)) for t in (nnx.Linear, nnx.BatchNorm)
    )
    model.train()
    hidden = np.maximum(linear(x), 0)
    model(x)
    np.testing.assert_allclose(norm.mean[...], 0.1 * hidden.mean(0), rtol=1e-4)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * hidden.var(0), rtol=1e-4)
    model.eval()
    before = jax.tree.map(jnp.copy, nnx.state(model, nnx.BatchStat))
    model(x)
    after = nnx.state(model, nnx.BatchStat)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, before, after)))


def test_lenet_relu_after_pooling_is_relu_before_pooling():
    model = lenet(rngs=0)
    conv, pool, relu = model.layers[0], model.layers[1], model.layers[2]
    hidden = conv(jax.random.normal(jax.random.key(0), (2, 28, 28, 1)))
    np.testing.assert_array_equal(
        relu(pool(hidden)), nnx.max_pool(nnx.relu(hidden), (3, 3), (3, 3))
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: mlp(widths=(), rngs=0),
            r"widths must be one or more integers >= 1; got .*\(\)",
        ),
        (lambda: mlp(widths=(0,), rngs=0), r"widths must be .* integer >= 1.*; got widths=0"),
        (
            lambda: mlp(widths=(8.5,), rngs=0),
            r"widths must be a static integer >= 1.*; got widths=8.5",
        ),
        (lambda: mlp(num_classes=0, rngs=0), "num_classes must be a static integer >= 1"),
        (
            lambda: mlp(dropout=1.0, rngs=0),
            r"dropout must be a number in \[0, 1\); got dropout=1.0",
        ),
        (lambda: mlp(input_dropout=-0.1, rngs=0), r"input_dropout must be a number in \[0, 1\)"),
        (
            lambda: lenet((28, 28), rngs=0),
            r"input_shape must be 3 integers >= 1; got .*\(28, 28\)",
        ),
        (lambda: lenet((21, 28, 1), rngs=0), r"at least \(22, 22, channels\).*got .*\(21, 28, 1\)"),
        (lambda: lenet(channels=(20,), rngs=0), "channels must be 2 integers >= 1"),
        (lambda: lenet(width=0, rngs=0), "width must be a static integer >= 1"),
        (lambda: all_cnn((32, 32, 3, 1), rngs=0), "input_shape must be 3 integers >= 1"),
        (lambda: all_cnn(input_dropout=1.5, rngs=0), r"input_dropout must be a number in \[0, 1\)"),
    ],
)
def test_arguments_that_make_no_network(call, text):
    with pytest.raises(ValueError, match=text):
        call()


@every_network
def test_images_of_another_shape(make, shape):
    with pytest.raises(ValueError, match=r"x must have shape \(batch, .*got shape \(5, 7, 7, 1\)"):
        output_shape(shapes_of(make), 5, 7, 7, 1)


@every_network
def test_an_empty_batch_has_no_logits(make, shape):
    assert output_shape(shapes_of(make), 0, *shape) == (0, 10)


def test_hidden_layers_of_the_mlp_rectify_before_they_normalise():
    """The order of the paper and of its authors' code."""
    model = mlp((4,), (6, 5), rngs=0)
    places = [i for i, m in enumerate(model.layers) if isinstance(m, nnx.BatchNorm)]
    assert len(places) == 2
    assert all(model.layers[i - 1] is nnx.relu for i in places)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (mlp((5,), (6,), num_classes=3, rngs=0), (5,)),
        (lenet((22, 22, 1), (2, 3), 5, 4, rngs=0), (22, 22, 1)),
        (all_cnn((8, 8, 3), (4, 5), rngs=0), (8, 8, 3)),
    ],
    ids=NETWORKS,
)
def test_networks_are_exported_for_batches_of_any_size(model, shape, train):
    apply, params, state = functional(model)

    def outputs(params, x):
        return apply(params, state, x, train=train, key=jax.random.key(1))[0]

    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(outputs))(
        params, jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    )
    for size in (3, 40):
        x = jax.random.normal(jax.random.key(0), (size, *shape))
        np.testing.assert_allclose(
            exported.call(params, x), outputs(params, x), rtol=1e-4, atol=1e-4
        )
