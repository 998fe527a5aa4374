"""What does an update cost when the parameters have many leaves: to compile, and to run?

    python benchmarks/leaves.py [--leaves 10 100 300] [--different] [--rounds 3]

One update of every optimiser on the loss sum of w^2 / 2. The leaves are small, so that what is
measured is the program's size and not its arithmetic: vectors of 64 and matrices of 64 x 64,
64 x 192 and 256 x 64 in turn, as in a transformer. With --different no two leaves have the same
shape; the compiler shares nothing between them then, of any optimiser.

Compiling is tracing, lowering and XLA together, in CPU-seconds of the process. Running is
microseconds per gradient: a `relax` update takes L = 20 gradients. Rounds interleave the
optimisers in one process; figures are medians, ratios are medians over the ratios to the AdamW of
the same round.

Two cores of an AMD EPYC with little else running, jax 0.10.2:

| compile, CPU-s (over adamw) | 10 leaves | 100 | 300 |
|---|---|---|---|
| optax.adamw | 0.30 (1.00) | 0.76 (1.00) | 1.82 (1.00) |
| optax.noisy_sgd | 1.83 (6.18) | 9.68 (13.09) | 26.97 (15.12) |
| entropy_sgd, T = 0, relax | 0.64 (2.14) | 1.63 (2.13) | 3.73 (2.09) |
| entropy_sgd, popcount, relax | 1.06 (3.89) | 2.57 (3.38) | 6.53 (3.64) |
| entropy_sgd, normal, relax | 1.53 (5.38) | 10.65 (14.00) | 27.25 (15.31) |
| entropy_sgd, T = 0, stepwise | 0.84 (2.69) | 3.05 (1.99) | 5.74 (3.21) |
| entropy_sgd, popcount, stepwise | 1.16 (3.34) | 4.44 (3.36) | 7.63 (4.27) |
| entropy_sgd, normal, stepwise | 2.00 (6.01) | 13.52 (10.00) | 27.03 (15.14) |

| run, us a gradient (over adamw) | 10 leaves | 100 | 300 |
|---|---|---|---|
| optax.adamw | 241 (1.00) | 1,754 (1.00) | 6,176 (1.00) |
| optax.noisy_sgd | 690 (2.89) | 8,155 (4.65) | 20,439 (3.46) |
| entropy_sgd, T = 0, relax | 42 (0.17) | 284 (0.16) | 1,315 (0.23) |
| entropy_sgd, popcount, relax | 65 (0.35) | 802 (0.35) | 1,806 (0.30) |
| entropy_sgd, normal, relax | 227 (0.97) | 4,547 (2.59) | 6,885 (1.17) |
| entropy_sgd, T = 0, stepwise | 395 (1.68) | 4,879 (2.18) | 11,429 (1.85) |
| entropy_sgd, popcount, stepwise | 462 (1.81) | 5,725 (2.55) | 9,664 (1.61) |
| entropy_sgd, normal, stepwise | 689 (2.43) | 7,712 (3.25) | 18,358 (3.05) |

The rows of `stepwise` with 10 and 100 leaves were measured later, when AdamW took 0.32 and 1.32
CPU-s; all of 300 leaves together, with nothing else running (`--rounds 2`). Ratios are of the same
rounds. The goal of 4 times AdamW's compiling is held by default on both faces but for `stepwise`
with 300 leaves. `stepwise` once asked first whether the
caller had moved an element, by a reduction of every leaf and a conditional: 4.03, 4.80 and 4.09.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import entropix

NUM_STEPS = 20
CALLS = 10  # updates of a `stepwise` or plain optimiser between two readings of the clock
SHAPES = ((64,), (64, 64), (64, 192), (256, 64))
LAWS = {
    "T = 0": {"temperature": 0.0},
    "popcount": {"noise": "popcount"},
    "normal": {"noise": "normal"},
}


def optimisers():
    """Label -> (optimiser, whether it asks for `grad_fn`)."""
    made = {
        "optax.adamw": (optax.adamw(1e-3), False),
        "optax.noisy_sgd": (optax.noisy_sgd(1e-3, key=jax.random.key(0)), False),
    }
    for face in ("relax", "stepwise"):
        for law, options in LAWS.items():
            made[f"entropy_sgd, {law}, {face}"] = (
                entropix.entropy_sgd(
                    0.1, 1.0, num_steps=NUM_STEPS, stepwise=face == "stepwise", **options
                ),
                face == "relax",
            )
    return made


def make_params(num_leaves, different):
    shapes = [(8, 8 + leaf) if different else SHAPES[leaf % 4] for leaf in range(num_leaves)]
    return [jnp.ones(shape) for shape in shapes]


def loss(params):
    return sum(jnp.sum(leaf**2) / 2 for leaf in params)


def make_step(tx, relaxed):
    extra = {"grad_fn": lambda params, i: jax.grad(loss)(params)} if relaxed else {}

    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, **extra)
        return optax.apply_updates(params, updates), state

    return step


def compiled(step, params, state):
    """The compiled step, and the CPU-seconds to trace, lower and compile it."""
    jax.clear_caches()
    start = time.process_time()
    program = jax.jit(step).lower(params, state).compile()
    return program, time.process_time() - start


def timed(program, params, state, updates):
    """Wall seconds of an update."""
    start = time.perf_counter()
    for _ in range(updates):
        params, state = program(params, state)
    jax.block_until_ready(params)
    return (time.perf_counter() - start) / updates


def measure(num_leaves, different, rounds):
    """Seconds to compile and seconds per gradient: label -> array of the rounds."""
    params = make_params(num_leaves, different)
    cases = optimisers()
    compiling, running = {}, {}
    for _ in range(rounds):
        for label, (tx, relaxed) in cases.items():
            state = tx.init(params)
            program, seconds = compiled(make_step(tx, relaxed), params, state)
            compiling.setdefault(label, []).append(seconds)
            call = functools.partial(timed, program, params, state)
            call(1)
            cost = call(1) / NUM_STEPS if relaxed else call(CALLS)
            running.setdefault(label, []).append(cost)
    arrays = lambda table: {label: np.array(values) for label, values in table.items()}  # noqa: E731
    return arrays(compiling), arrays(running)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leaves", type=int, nargs="+", default=[10, 100, 300])
    parser.add_argument("--different", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| leaves | optimiser | compile, CPU-s | over adamw | run, us a gradient | over adamw |")
    print("|---|---|---|---|---|---|")
    for num_leaves in options.leaves:
        tables = measure(num_leaves, options.different, options.rounds)
        for label in tables[0]:
            compiling, running = (np.median(table[label]) for table in tables)
            over = [np.median(table[label] / table["optax.adamw"]) for table in tables]
            print(
                f"| {num_leaves} | {label} | {compiling:.2f} | {over[0]:.2f} "
                f"| {1e6 * running:.0f} | {over[1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
