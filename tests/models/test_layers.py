"""Dropout and pooling against the layers of Flax that they stand in for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from entropix.models import Dropout, max_pool


@pytest.mark.parametrize("dims", [(), (1,), (0, -1)], ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=lambda d: d.__name__)
def test_dropout_is_flax_dropout(dims, dtype):
    x = jax.random.normal(jax.random.key(0), (7, 5, 3)).astype(dtype)
    for rate in (0.1, 0.5, 0.8):
        # Each on its own stream, twice, so that streams advance alike.
        layers = [
            kind(rate, broadcast_dims=dims, rngs=nnx.Rngs(3)) for kind in (Dropout, nnx.Dropout)
        ]
        for _ in range(2):
            ours, theirs = (layer(x) for layer in layers)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_dropout_keeps_the_mean():
    rate, n = 0.2, 100_000
    y = Dropout(rate)(jnp.ones(n), rngs=0)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(1 - rate)}
    standard_error = (rate / (1 - rate) / n) ** 0.5
    assert abs(float(y.mean()) - 1) < 4 * standard_error


def test_inactive_dropout_is_the_identity_without_random_code():
    x = jnp.ones((3, 4))
    for layer in (Dropout(0.0), Dropout(0.5, deterministic=True)):
        assert layer(x) is x
    layer = Dropout(0.5)
    assert layer(x, deterministic=True) is x
    layer.eval()
    assert layer(x) is x
    layer.train()
    assert (layer(x, rngs=0) == 0).any()


def test_dropout_accepts_seeds_and_keys():
    x, layer = jnp.ones(64), Dropout(0.5)
    legacy = jax.random.PRNGKey(5)
    assert jnp.array_equal(layer(x, rngs=5), layer(x, rngs=jax.random.key(5)))
    assert jnp.array_equal(layer(x, rngs=5), layer(x, rngs=legacy))
    assert not jnp.array_equal(layer(x, rngs=5), layer(x, rngs=6))


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5])
def test_dropout_rates(rate):
    with pytest.raises(ValueError, match=rf"rate must be a number in \[0, 1\); got rate={rate}"):
        Dropout(rate)


def test_dropout_without_a_key():
    with pytest.raises(ValueError, match=r"rngs must be given.*layer\(x, rngs=key\).*model.eval"):
        Dropout(0.5)(jnp.ones(3))


POOLS = {
    "tiling": ((2, 6, 8, 3), (3, 2), (3, 2), "VALID"),
    "pixels_left_over": ((2, 7, 9, 3), (3, 2), (3, 2), "VALID"),
    "many_images": ((6, 7, 9, 3), (3, 2), (3, 2), "VALID"),
    "line": ((2, 7, 3), (2,), (2,), "VALID"),
    "overlapping": ((2, 7, 9, 3), (3, 3), (2, 2), "VALID"),
    "default_stride": ((2, 7, 9, 3), (3, 3), None, "VALID"),
    "padded": ((2, 7, 9, 3), (2, 2), (2, 2), "SAME"),
}


@pytest.mark.parametrize(("shape", "window", "strides", "padding"), POOLS.values(), ids=POOLS)
def test_pooling_is_flax_pooling(shape, window, strides, padding):
    x = jax.random.normal(jax.random.key(0), shape)
    results = []
    for pool in (max_pool, nnx.max_pool):
        run = lambda x, pool=pool: pool(x, window, strides, padding)  # noqa: E731
        grad = jax.grad(lambda x, run=run: jnp.sum(jnp.sin(run(x))))(x)
        results.append((run(x), grad, jax.vmap(run)(jnp.stack([x, -x]))))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_ties_share_the_gradient():
    x = jnp.array([1.0, 1.0, 0.0, 2.0]).reshape(1, 4, 1)
    grad = jax.grad(lambda x: max_pool(x, (2,), (2,)).sum())(x)
    assert grad.ravel().tolist() == [0.5, 0.5, 0.0, 1.0]
