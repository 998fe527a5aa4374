"""What do the fast layers buy? One SGD step of the convolutional networks, inside `lax.scan`.

    python benchmarks/convolution.py [lenet] [all_cnn]

At batch 128 on random images: Flax's own layers, in a step that Python calls and in a loop; with
the package's convolution; with its pooling and dropout too; and all of it with an experimental
option of XLA's. Rounds interleave the programs in one process; figures are medians over rounds, and
losses are compared with those of the first program. The stock All-CNN takes minutes per gradient in
a loop and is only called.

Two cores of an AMD EPYC with nothing else running, jax 0.10.2:

| lenet, batch 128 | ms per step | losses differ by |
|---|---|---|
| stock, called | 48.1 | 0e+00 |
| stock | 109.6 | 1e-04 |
| convolution | 24.8 | 1e-07 |
| convolution, pooling, dropout | 14.6 | 2e-07 |
| the same, XLA option | 15.9 | 2e-04 |

| all_cnn, batch 128 | ms per step | losses differ by |
|---|---|---|
| stock, called | 2617.0 | 0e+00 |
| convolution | 2161.7 | 1e-07 |
| convolution, pooling, dropout | 2059.5 | 1e-07 |
| the same, XLA option | 2105.9 | 1e-07 |

The option makes neither network faster, and is not set.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from entropix import models

BATCH = 128
SHAPES = {"lenet": (28, 28, 1), "all_cnn": (32, 32, 3)}
GRADIENTS = {"lenet": 20, "all_cnn": 2}
# Sends dots to the YNNPACK library, as ever, but no convolutions. Versions of XLA that do not know
# the option refuse to compile.
OPTION = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
ROUNDS = {"lenet": 7, "all_cnn": 3}


class StockDropout(models.Dropout):
    """The package's keys, Flax's random numbers."""

    def __call__(self, inputs, *, deterministic=None, rngs=None):
        return nnx.Dropout(self.rate)(inputs, rngs=rngs, deterministic=deterministic)


def with_stock_layers(model, convolution=True, others=True):
    """Puts Flax's layers back into a network."""
    layers = []
    for layer in model.layers:
        if isinstance(layer, nnx.Conv) and convolution:
            layer.conv_general_dilated = lax.conv_general_dilated
        elif isinstance(layer, models.Dropout) and others:
            layer = StockDropout(layer.rate)
        elif getattr(layer, "func", None) is models.max_pool and others:
            layer = pool(**layer.keywords)
        layers.append(layer)
    model.layers = nnx.List(layers)
    return model


def pool(**arguments):
    return lambda x: nnx.max_pool(x, **arguments)


def program(name, options=None, *, scan=True, **stock):
    """Compiles `steps(carry, key) -> (carry, losses)`; returns it with its first carry."""
    model = with_stock_layers(getattr(models, name)(rngs=0), **stock)
    apply, params, stats = models.functional(model)
    images = jax.random.normal(jax.random.key(0), (BATCH, *SHAPES[name]))
    labels = jax.random.randint(jax.random.key(1), (BATCH,), 0, 10)
    tx = optax.sgd(0.01, momentum=0.9, nesterov=True)

    def loss_fn(params, stats, images, labels, key):
        logits, stats = apply(params, stats, images, train=True, key=key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), stats

    def step(carry, key, images, labels):
        params, stats, state = carry
        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, stats, images, labels, key
        )
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), stats, state), loss

    keys = jax.random.split(jax.random.key(2), GRADIENTS[name])
    carry = (params, stats, tx.init(params))
    if scan:

        def steps(carry, images, labels):
            return lax.scan(lambda carry, key: step(carry, key, images, labels), carry, keys)

        compiled = jax.jit(steps, compiler_options=options).lower(carry, images, labels).compile()
        return lambda: compiled(carry, images, labels)[1]
    compiled = jax.jit(step, compiler_options=options)

    def loop():
        state, losses = carry, []
        for key in keys:
            state, loss = compiled(state, key, images, labels)
            losses.append(loss)
        return jnp.stack(losses)

    return loop


def timed(run, count):
    start = time.perf_counter()
    losses = np.asarray(run())
    return 1e3 * (time.perf_counter() - start) / count, losses


def main(names):
    for name in names:
        cases = {
            "stock, called": program(name, scan=False),
            "convolution": program(name, convolution=False),
            "convolution, pooling, dropout": program(name, convolution=False, others=False),
            "the same, XLA option": program(name, OPTION, convolution=False, others=False),
        }
        if name != "all_cnn":
            cases["stock"] = program(name)
        losses = {label: timed(run, 1)[1] for label, run in cases.items()}
        times = {label: [] for label in cases}
        for _ in range(ROUNDS[name]):
            for label, run in cases.items():
                times[label].append(timed(run, GRADIENTS[name])[0])
        reference = losses["stock, called"]
        print(f"| {name}, batch {BATCH} | ms per step | losses differ by |\n|---|---|---|")
        for label, values in times.items():
            error = np.abs(losses[label] / reference - 1).max()
            print(f"| {label} | {np.median(values):.1f} | {error:.0e} |")
        print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(SHAPES))
