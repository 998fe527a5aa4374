"""`Network` and `functional`: masks, statistics, and compiled loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from entropix.models import Dropout, Network, functional, lenet, mlp


@pytest.fixture
def small():
    return mlp((4,), (8, 8), 3, rngs=0)


@pytest.fixture
def batch():
    x = jax.random.normal(jax.random.key(0), (16, 4))
    return x, jnp.arange(16) % 3


def test_calls_draw_new_masks_and_given_keys_decide_them():
    model = Network([Dropout(0.5)], input_shape=(64,), rngs=nnx.Rngs(0))
    x = jnp.ones((2, 64))
    assert not jnp.array_equal(model(x), model(x))
    assert jnp.array_equal(model(x, rngs=7), model(x, rngs=jax.random.key(7)))
    assert not jnp.array_equal(model(x, rngs=7), model(x, rngs=8))


def test_every_dropout_layer_has_a_mask_of_its_own():
    # With the same mask twice, a unit survives both layers with probability 1/2, not 1/4.
    model = Network([Dropout(0.5), Dropout(0.5)], input_shape=(10_000,), rngs=nnx.Rngs(0))
    kept = float((model(jnp.ones((1, 10_000)), rngs=0) > 0).mean())
    assert abs(kept - 0.25) < 4 * (0.25 * 0.75 / 10_000) ** 0.5


def test_eval_needs_no_key_and_moves_no_stream(small, batch):
    small.eval()
    before = int(small.rngs.count[...])
    assert jnp.array_equal(small(batch[0]), small(batch[0]))
    assert int(small.rngs.count[...]) == before


def test_functional_equals_the_module(small, batch):
    apply, params, stats = functional(small)
    x, _ = batch
    logits, new_stats = apply(params, stats, x, train=True, key=3)
    small.train()
    np.testing.assert_array_equal(logits, small(x, rngs=3))
    moved = nnx.as_pure(nnx.state(small, nnx.BatchStat))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, new_stats, moved)))
    logits, same = apply(params, new_stats, x, train=False)
    small.eval()
    np.testing.assert_array_equal(logits, small(x))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, same, new_stats)))


def test_functional_copies(small, batch):
    apply, params, stats = functional(small)
    logits, _ = apply(params, stats, batch[0], train=False)
    small.train()
    small(batch[0])
    nnx.update(small, jax.tree.map(jnp.zeros_like, nnx.state(small, nnx.Param)))
    np.testing.assert_array_equal(apply(params, stats, batch[0], train=False)[0], logits)


def test_train_without_a_key(small, batch):
    apply, params, stats = functional(small)
    with pytest.raises(ValueError, match="key must be given when train=True.*got None"):
        apply(params, stats, batch[0], train=True)
    apply, params, stats = functional(mlp((4,), (8,), input_dropout=0, dropout=0, rngs=0))
    apply(params, stats, batch[0], train=True)  # nothing to draw


def test_statistics_move_in_training_only(small, batch):
    apply, params, stats = functional(small)
    _, moved = apply(params, stats, batch[0], train=True, key=0)
    assert jax.tree.structure(moved) == jax.tree.structure(stats)
    assert not any(jax.tree.leaves(jax.tree.map(jnp.array_equal, moved, stats)))


def train(apply, params, stats, images, labels, steps, scan):
    """SGD on one batch; returns the losses."""

    def loss_fn(params, stats, key):
        logits, stats = apply(params, stats, images, train=True, key=key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), stats

    def step(carry, key):
        params, stats = carry
        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, stats, key)
        return (optax.tree.add_scale(params, -0.1, grads), stats), loss

    keys = jax.random.split(jax.random.key(1), steps)
    if scan:
        return jax.jit(lambda carry: lax.scan(step, carry, keys)[1])((params, stats))
    losses, carry, step = [], (params, stats), jax.jit(step)
    for key in keys:
        carry, loss = step(carry, key)
        losses.append(loss)
    return jnp.stack(losses)


def test_trains_inside_scan_as_outside(small, batch):
    parts = functional(small)
    inside = train(*parts, *batch, steps=40, scan=True)
    outside = train(*parts, *batch, steps=40, scan=False)
    np.testing.assert_allclose(inside, outside, rtol=1e-4)
    assert inside[-5:].mean() < 0.8 * inside[:5].mean()


def test_vmapped_seeds_equal_single_ones(batch):
    parts = [functional(mlp((4,), (8,), 3, rngs=seed)) for seed in (0, 1)]
    apply = parts[0][0]
    params, stats = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        for trees in zip(*((p, s) for _, p, s in parts), strict=True)
    )
    keys = jax.random.split(jax.random.key(0), 2)
    together, _ = jax.vmap(lambda p, s, k: apply(p, s, batch[0], train=True, key=k))(
        params, stats, keys
    )
    for seed, (_, p, s) in enumerate(parts):
        alone, _ = apply(p, s, batch[0], train=True, key=keys[seed])
        np.testing.assert_allclose(together[seed], alone, rtol=1e-5, atol=1e-6)


def test_lenet_in_scan_equals_stock_layers():
    """Our convolution, pooling and dropout against Flax's, over a few scanned training steps."""

    def stock(model):
        layers = []
        for layer in model.layers:
            if isinstance(layer, nnx.Conv):
                layer.conv_general_dilated = lax.conv_general_dilated
            elif getattr(layer, "func", None):
                layer = _pool(layer.keywords)
            elif isinstance(layer, Dropout):
                layer = _StockDropout(layer.rate)
            layers.append(layer)
        model.layers = nnx.List(layers)
        return model

    images = jax.random.normal(jax.random.key(0), (8, 28, 28, 1))
    labels = jnp.arange(8)
    ours = train(*functional(lenet(rngs=0)), images, labels, steps=4, scan=True)
    theirs = train(*functional(stock(lenet(rngs=0))), images, labels, steps=4, scan=True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert ours[-1] < ours[0]


def _pool(arguments):
    return lambda x: nnx.max_pool(x, **arguments)


class _StockDropout(Dropout):
    """Takes part in `Network`'s keys, draws with `jax.random.bernoulli`."""

    def __call__(self, inputs, *, rngs=None, deterministic=None):
        if self.deterministic:
            return inputs
        mask = jax.random.bernoulli(rngs, 1 - self.rate, inputs.shape)
        return jnp.where(mask, inputs / (1 - self.rate), 0)


class Halves(nnx.Module):
    """A block with a dropout layer of Flax within."""

    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(x)


def stock(rngs):
    return nnx.Dropout(0.5, rngs=rngs)


@pytest.mark.parametrize("layers", [(stock, stock), (Halves, Halves), (Halves, stock)])
def test_a_key_decides_masks_of_other_dropout_layers_too(layers):
    rngs, x = nnx.Rngs(0), jnp.ones((2, 256))
    model = Network([make(rngs) for make in layers], input_shape=[256], rngs=rngs)
    apply, params, stats = functional(model)
    masks = [apply(params, stats, x, train=True, key=key)[0] for key in (1, 1, 2)]
    assert jnp.array_equal(masks[0], masks[1])
    assert not jnp.array_equal(masks[0], masks[2])
    kept = float((masks[0] > 0).mean())  # by two masks, not one twice
    assert abs(kept - 0.25) < 4 * (0.25 * 0.75 / 512) ** 0.5
    streams = [apply(params, stats, x, train=True, key=nnx.Rngs(3))[0] for _ in range(2)]
    assert jnp.array_equal(*streams)
    assert jnp.array_equal(apply(params, stats, x, train=False)[0], x)
