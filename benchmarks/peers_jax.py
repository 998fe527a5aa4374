"""What does a gradient cost with this package's optimisers, and with their peers in JAX?

    pip install blackjax
    python benchmarks/peers_jax.py [mlp] [transformer]

The same task for all: GRADIENTS mini-batch gradients in one compiled scan, with the batches on the
device. Rounds interleave the optimisers in one process; medians of ratios to plain SGD (mlp) or
AdamW (transformer) of the same round. Compiling is counted in CPU-seconds, with empty caches. The
mlp has mnistfc's layers (1.86M parameters, batch 128); the transformer 1.07M parameters in 64
leaves (batch 16 x 96). SAM takes two gradients a step and is shown per gradient. The hand-written
SNOO keeps the inner optimiser's state and moves x in a `lax.cond`, or at every gradient with a
`where`, as a public JAX implementation does.

Two cores of an AMD EPYC with nothing else running, jax 0.10.2:

| transformer | ms a gradient | over optax.adamw (quartiles) | compile, CPU-s |
|---|---|---|---|
| optax.adamw | 115.48 | 1.00 (1.00-1.00) | 3.6 |
| optax.lookahead(adamw) | 113.97 | 1.03 (0.93-1.05) | 3.8 |
| optax.contrib.sam | 115.89 | 1.03 (0.94-1.04) | 6.1 |
| SNOO by hand, cond | 115.74 | 1.00 (0.98-1.03) | 4.6 |
| SNOO by hand, where | 123.72 | 1.07 (1.04-1.14) | 4.7 |
| entropix.snoo(adamw) | 120.08 | 1.03 (0.98-1.08) | 6.8 |
| entropix.lookahead(adamw) | 115.24 | 1.00 (0.91-1.19) | 5.4 |
| entropix.entropy_sgd(inner=adam) | 121.91 | 1.06 (1.02-1.14) | 8.1 |
| entropix.sam | 119.42 | 1.03 (1.01-1.07) | 5.4 |
"""

import functools
import sys
import time

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import entropix

GRADIENTS, ROUNDS = 60, 7


def mlp():
    """Parameters, loss and batches of mnistfc's layers."""
    keys = jax.random.split(jax.random.key(0), 5)
    sizes = (784, 1024, 1024, 10)
    params = [
        {"w": jax.random.normal(k, (a, b)) / a**0.5, "b": jnp.zeros(b)}
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)
    ]

    def loss(params, batch):
        x, labels = batch
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        logits = x @ params[-1]["w"] + params[-1]["b"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    images = jax.random.uniform(keys[3], (GRADIENTS, 128, 784))
    return params, loss, (images, jax.random.randint(keys[4], (GRADIENTS, 128), 0, 10))


def transformer(width=128, layers=5, heads=4, vocabulary=256, length=96):
    """Parameters in 64 leaves, next-token loss and batches of a small decoder."""
    keys = iter(jax.random.split(jax.random.key(0), 64))
    dense = lambda a, b: {"w": jax.random.normal(next(keys), (a, b)) / a**0.5, "b": jnp.zeros(b)}  # noqa: E731
    blocks = [
        {
            "norms": [jnp.ones(width), jnp.zeros(width), jnp.ones(width), jnp.zeros(width)],
            "qkv": dense(width, 3 * width),
            "out": dense(width, width),
            "up": dense(width, 4 * width),
            "down": dense(4 * width, width),
        }
        for _ in range(layers)
    ]
    params = {
        "tokens": jax.random.normal(next(keys), (vocabulary, width)) * 0.02,
        "places": jax.random.normal(next(keys), (length, width)) * 0.02,
        "blocks": blocks,
        "norm": jnp.ones(width),
        "head": jax.random.normal(next(keys), (width, vocabulary)) / width**0.5,
    }

    def normalise(x, scale, offset=0.0):
        x = x - x.mean(-1, keepdims=True)
        return x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * scale + offset

    def apply(dense, x):
        return x @ dense["w"] + dense["b"]

    def loss(params, tokens):
        x = params["tokens"][tokens[:, :-1]] + params["places"][: tokens.shape[1] - 1]
        for block in params["blocks"]:
            a, b, c, d = block["norms"]
            q, k, v = jnp.split(apply(block["qkv"], normalise(x, a, b)), 3, -1)
            split = lambda t: t.reshape(*t.shape[:2], heads, -1)  # noqa: E731
            mixed = jax.nn.dot_product_attention(split(q), split(k), split(v), is_causal=True)
            x = x + apply(block["out"], mixed.reshape(x.shape))
            x = x + apply(block["down"], jax.nn.gelu(apply(block["up"], normalise(x, c, d))))
        logits = normalise(x, params["norm"]) @ params["head"]
        targets = tokens[:, 1:]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    return params, loss, jax.random.randint(next(keys), (GRADIENTS, 16, length), 0, vocabulary)


def optax_like(tx, per_gradient=1):
    """A step of a transformation that takes one gradient of each batch."""

    def start(params):
        return params, tx.init(params)

    def step(loss, carry, batch):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    return start, step, per_gradient


def optax_lookahead(fast):
    """optax.lookahead, whose parameters are pairs."""
    tx = optax.lookahead(fast, sync_period=6, slow_step_size=0.5)

    def start(params):
        pair = optax.LookaheadParams.init_synced(params)
        return pair, tx.init(pair)

    def step(loss, carry, batch):
        pair, state = carry
        updates, state = tx.update(jax.grad(loss)(pair.fast, batch), state, pair)
        return optax.apply_updates(pair, updates), state

    return start, step, 1


def optax_sam(inner):
    """optax.contrib.sam, one gradient per update (transparent), each batch used twice."""
    tx = optax.contrib.sam(inner, optax.chain(optax.contrib.normalize(), optax.sgd(0.05)))
    start, one, _ = optax_like(tx)
    return start, lambda loss, carry, batch: one(loss, one(loss, carry, batch), batch), 2


def our_sam(learning_rate):
    tx = entropix.sam(learning_rate, rho=0.05)

    def step(loss, carry, batch):
        params, state = carry
        grad_fn = lambda params, i: jax.grad(loss)(params, batch)  # noqa: E731
        updates, state = tx.update(grad_fn(params, 0), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    return lambda params: (params, tx.init(params)), step, 2


def langevin_of_blackjax():
    """blackjax.sgld with its kernel's noise, a gradient of minus the loss."""
    kernel = blackjax.sgld.build_kernel()

    def step(loss, carry, batch):
        params, key = carry
        key, noise_key = jax.random.split(key)
        gradient = lambda params, batch: jax.grad(lambda p: -loss(p, batch))(params)  # noqa: E731
        return kernel(noise_key, params, gradient, batch, 1e-3, 1e-8), key

    return lambda params: (params, jax.random.key(0)), step, 1


def snoo_by_hand(inner, num_steps=30, always=False):
    """SNOO in twenty lines: an inner optimiser, and Nesterov on the displacement of K steps."""
    outer = optax.sgd(0.7, 0.6, nesterov=True)

    def start(params):
        return params, inner.init(params), params, outer.init(params), jnp.zeros([], jnp.int32)

    def step(loss, carry, batch):
        y, inner_state, x, outer_state, count = carry
        updates, inner_state = inner.update(jax.grad(loss)(y, batch), inner_state, y)
        y = optax.apply_updates(y, updates)

        def move(y, x, outer_state):
            shift = optax.tree.sub(x, y)
            updates, outer_state = outer.update(shift, outer_state, x)
            x = optax.apply_updates(x, updates)
            return x, x, outer_state

        count = count + 1
        due = count % num_steps == 0
        if always:
            moved = move(y, x, outer_state)
            y, x, outer_state = jax.tree.map(
                functools.partial(jnp.where, due), moved, (y, x, outer_state)
            )
        else:
            stay = lambda y, x, outer_state: (y, x, outer_state)  # noqa: E731
            y, x, outer_state = lax.cond(due, move, stay, y, x, outer_state)
        return y, inner_state, x, outer_state, count

    return start, step, 1


def cases(task):
    sgd, adamw = optax.sgd(0.01, 0.9, nesterov=True), optax.adamw(1e-3)
    if task == "transformer":
        inside = optax.scale_by_adam()
        entropy = entropix.entropy_sgd(0.1, 1.0, inner=inside, step_size=1e-3, stepwise=True)
        return {
            "optax.adamw": optax_like(adamw),
            "optax.lookahead(adamw)": optax_lookahead(adamw),
            "optax.contrib.sam": optax_sam(sgd),
            "SNOO by hand, cond": snoo_by_hand(adamw),
            "SNOO by hand, where": snoo_by_hand(adamw, always=True),
            "entropix.snoo(adamw)": optax_like(entropix.snoo(adamw)),
            "entropix.lookahead(adamw)": optax_like(entropix.lookahead(adamw)),
            "entropix.entropy_sgd(inner=adam)": optax_like(entropy),
            "entropix.sam": our_sam(0.01),
        }
    entropy = functools.partial(entropix.entropy_sgd, 0.1, 1.0, step_size=0.01, stepwise=True)
    return {
        "optax.sgd": optax_like(sgd),
        "optax.lookahead(sgd)": optax_lookahead(sgd),
        "optax.contrib.sam": optax_sam(sgd),
        "optax.noisy_sgd": optax_like(optax.noisy_sgd(0.01, key=jax.random.key(0))),
        "blackjax.sgld": langevin_of_blackjax(),
        "SNOO by hand, cond": snoo_by_hand(sgd),
        "SNOO by hand, where": snoo_by_hand(sgd, always=True),
        "entropix.snoo(sgd)": optax_like(entropix.snoo(sgd)),
        "entropix.lookahead(sgd)": optax_like(entropix.lookahead(sgd)),
        "entropix.sam": our_sam(0.01),
        "entropix.entropy_sgd, popcount": optax_like(entropy()),
        "entropix.entropy_sgd, normal": optax_like(entropy(noise="normal")),
        "entropix.entropy_sgd, T = 0": optax_like(entropy(temperature=0.0)),
    }


def compiled(case, task):
    """The compiled scan, its first carry, gradients in it, and CPU-seconds to compile it."""
    (start, step, per_batch), (params, loss, batches) = case, task
    used = jax.tree.map(lambda leaf: leaf[: GRADIENTS // per_batch], batches)
    scan = lambda carry, data: lax.scan(lambda c, b: (step(loss, c, b), None), carry, data)[0]  # noqa: E731
    carry = start(params)
    jax.clear_caches()
    begin = time.process_time()
    program = jax.jit(scan).lower(carry, used).compile()
    return functools.partial(program, carry, used), time.process_time() - begin


def main(names):
    for name in names:
        task = {"mlp": mlp, "transformer": transformer}[name]()
        leaves = jax.tree.leaves(task[0])
        size = sum(leaf.size for leaf in leaves)
        programs = {label: compiled(case, task) for label, case in cases(name).items()}
        times = {label: [] for label in programs}
        for turn in range(ROUNDS + 1):  # the first one warms up
            for label, (program, _) in programs.items():
                begin = time.perf_counter()
                jax.block_until_ready(program())
                if turn:
                    times[label].append(1e3 * (time.perf_counter() - begin) / GRADIENTS)
        base = next(iter(programs))
        print(f"| {name}, {size:,} parameters, {len(leaves)} leaves | ms a gradient "
              f"| over {base} (quartiles) | compile, CPU-s |\n|---|---|---|---|")  # fmt: skip
        for label, values in times.items():
            low, middle, high = np.percentile(np.divide(values, times[base]), [25, 50, 75])
            print(f"| {label} | {np.median(values):.2f} | {middle:.2f} ({low:.2f}-{high:.2f}) "
                  f"| {programs[label][1]:.1f} |", flush=True)  # fmt: skip
        print()


if __name__ == "__main__":
    main(sys.argv[1:] or ["mlp", "transformer"])
