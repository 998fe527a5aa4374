r"""What does one update cost, called from Python: with many leaves, and with many parameters?

    python benchmarks/updates.py [--rounds 15]
    MALLOC_TOP_PAD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000 \
    MALLOC_TRIM_THRESHOLD_=8000000000 python benchmarks/updates.py

Gradients are given, so that nothing but the update is timed; states and parameters are donated.

Leaves: 100 vectors of 64 numbers. The time is that of dispatching a compiled program with so many
buffers. `optax.lookahead` takes pairs of parameters, twice as many buffers.

Parameters: ten million in ten leaves, HJ and Nesterov SGD outside. An inner update is one of L - 1
out of L; with L = 1 every update also makes the outer step, whose cost is the difference.

Rounds interleave the optimisers in one process; figures are medians of times, and medians (and
quartiles) of ratios to the first optimiser of the same round.

Two cores of an AMD EPYC with nothing else running, jax 0.10.2:

| 100 leaves | ms | ratio (quartiles) |
|---|---|---|
| optax.lookahead | 0.468 | 1.00 (1.00-1.00) |
| optax.sgd | 0.337 | 0.71 (0.70-0.74) |
| optax.adamw | 0.482 | 1.03 (1.01-1.06) |
| lookahead | 0.692 | 1.44 (1.39-1.51) |
| hj_sgd, stepwise | 0.702 | 1.44 (1.41-1.53) |
| entropy_sgd, stepwise | 0.885 | 1.87 (1.81-1.94) |

| 10,000,000 parameters | ms | ratio (quartiles) |
|---|---|---|
| SGD | 6.70 | 1.00 (1.00-1.00) |
| HJ, inner update | 15.23 | 2.33 (2.20-2.37) |
| HJ, inner and outer | 41.25 | 6.18 (5.69-6.55) |

For every leaf the program of `stepwise` takes five buffers and returns four (parameters, x, y,
momentum, gradient) where `optax.lookahead` takes four and returns three.

The outer step, 3.9 updates of SGD by difference, is made of fresh pages: glibc gives every large
temporary back to the system, which must clear the pages at the next call. With `MALLOC_TOP_PAD_`,
`MALLOC_MMAP_THRESHOLD_` and `MALLOC_TRIM_THRESHOLD_` as above the pages stay: 13.90 (2.26) and
24.91 ms (4.21), 2.0 updates of SGD for the outer step. Accelerators have allocators of their own.

When `stepwise` still asked first whether the caller had moved any element (a reduction and a
conditional), the same machine measured 0.835 ms (1.77) for HJ with 100 leaves, and 21.34 (3.16) and
42.92 ms (6.50) with ten million parameters.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import entropix

CALLS = 20


def leaves():
    params = [jnp.ones(64) for _ in range(100)]
    pairs = optax.LookaheadParams.init_synced(params)
    inner = optax.sgd(0.1, momentum=0.9)
    return {
        "optax.lookahead": (optax.lookahead(inner, sync_period=6, slow_step_size=0.5), pairs),
        "optax.sgd": (inner, params),
        "optax.adamw": (optax.adamw(1e-3), params),
        "lookahead": (entropix.lookahead(inner), params),
        "hj_sgd, stepwise": (entropix.hj_sgd(0.1, 1.0, stepwise=True), params),
        "entropy_sgd, stepwise": (entropix.entropy_sgd(0.1, 1.0, stepwise=True), params),
    }


def parameters():
    params = [jnp.ones((1000, 1000)) for _ in range(10)]
    hj = lambda steps: entropix.hj_sgd(0.1, 1.0, num_steps=steps, stepwise=True)  # noqa: E731
    return {
        "SGD": (optax.sgd(0.1, momentum=0.9, nesterov=True), params),
        "HJ, inner update": (hj(10**6), params),
        "HJ, inner and outer": (hj(1), params),
    }


def start(tx, params):
    """A compiled update, and where it starts."""

    def update(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), getattr(params, "fast", params))
    copy = jax.tree.map(jnp.copy, params)
    return jax.jit(update, donate_argnums=(0, 1)), copy, tx.init(copy), grads


def compare(optimisers, rounds):
    running = {name: start(*entry) for name, entry in optimisers.items()}
    times = {name: [] for name in running}
    for _ in range(rounds + 2):
        for name, (update, params, state, grads) in running.items():
            begin = time.perf_counter()
            for _ in range(CALLS):
                params, state = update(params, state, grads)
            jax.block_until_ready(params)
            times[name].append((time.perf_counter() - begin) / CALLS * 1e3)
            running[name] = update, params, state, grads
    first = np.asarray(next(iter(times.values()))[2:])  # the first two rounds compile and settle
    for name, found in times.items():
        found = np.asarray(found[2:])
        low, middle, high = np.quantile(found / first, (0.25, 0.5, 0.75))
        print(f"| {name} | {np.median(found):.3f} | {middle:.2f} ({low:.2f}-{high:.2f}) |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for title, optimisers in (("100 leaves", leaves()), ("10,000,000 parameters", parameters())):
        print(f"\n| {title} | ms | ratio (quartiles) |\n|---|---|---|")
        compare(optimisers, rounds)


if __name__ == "__main__":
    main()
