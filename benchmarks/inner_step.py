"""What does an inner step cost, over a plain SGD step in the same compiled loop?

    python benchmarks/inner_step.py [mlp] [lenet]

Every algorithm runs through the package's own training step, at batch 128 on random images of
MNIST's shape, as one compiled scan of equally many gradient evaluations. Rounds interleave the
algorithms in one process, so that a machine's moods hit all alike; medians of ratios to the SGD of
the same round. The floor is the network's arithmetic at the machine's measured matmul rate. Memory
is all that the compiled loop holds, its state and temporaries but not the data, in units of one
copy of the parameters.

Two cores of an AMD EPYC with nothing else running, jax 0.10.2, float32 matmul 453 GFLOP/s:

| mlp, batch 128 | ms per gradient | over SGD (quartiles) | memory |
|---|---|---|---|
| arithmetic floor | 2.70 | | |
| SGD | 4.75 | 1.000 (1.000-1.000) | 3.12 |
| HJ, L = 5 | 4.90 | 1.034 (1.014-1.046) | 4.53 |
| HJ, L = 20 | 4.77 | 1.003 (0.983-1.011) | 4.53 |
| Entropy-SGD, T = 0 | 4.96 | 1.041 (1.024-1.055) | 5.53 |
| Entropy-SGD, normal | 9.24 | 1.935 (1.913-1.958) | 5.53 |
| Entropy-SGD, popcount | 5.16 | 1.077 (1.065-1.092) | 5.53 |
| HEAT, normal | 10.75 | 2.252 (2.222-2.279) | 4.20 |
| HEAT, popcount | 5.04 | 1.051 (1.039-1.078) | 4.19 |

| lenet, batch 128 | ms per gradient | over SGD (quartiles) | memory |
|---|---|---|---|
| arithmetic floor | 1.18 | | |
| SGD | 9.27 | 1.000 (1.000-1.000) | 53.19 |
| HJ, L = 5 | 9.16 | 0.996 (0.983-1.023) | 54.16 |
| HJ, L = 20 | 8.97 | 0.995 (0.965-1.005) | 54.16 |
| Entropy-SGD, T = 0 | 9.06 | 0.994 (0.969-1.018) | 55.16 |
| Entropy-SGD, normal | 9.48 | 1.026 (1.015-1.056) | 55.17 |
| Entropy-SGD, popcount | 9.11 | 1.000 (0.966-1.026) | 55.17 |
| HEAT, normal | 10.57 | 1.129 (1.096-1.188) | 54.17 |
| HEAT, popcount | 9.31 | 1.006 (0.983-1.045) | 54.17 |

The memory of Entropy-SGD on the mlp is x, y, <y>, momentum and gradient, and 0.53 of activations
(the goal was 5.1 in all). SGD's program has the same activations: XLA puts 0.41 of them where a
gradient is written later, and does not find that place in the programs that have a y as well.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from entropix import experiment
from entropix.experiment.method import build
from entropix.training.keys import split_seed
from entropix.training.state import init_state
from entropix.training.step import make_interval, make_step

BATCH, GRADIENTS, ROUNDS = 128, 40, 31
MODELS = ("mlp", "lenet")
CASES = {
    "SGD": ("sgd", {}),
    "HJ, L = 5": ("hj", {}),
    "HJ, L = 20": ("hj", {"num_steps": 20}),
    "Entropy-SGD, T = 0": ("entropy_sgd", {"temperature": 0.0}),
    "Entropy-SGD, normal": ("entropy_sgd", {"noise": "normal"}),
    "Entropy-SGD, popcount": ("entropy_sgd", {"noise": "popcount"}),
    "HEAT, normal": ("heat", {}),
    "HEAT, popcount": ("heat", {"noise": "popcount"}),
}
# Forward multiply-adds of one image; a gradient costs three forward passes but for the first
# layer's input gradient, which nobody needs.
MLP_LAYERS = (784 * 1024, 1024 * 1024, 1024 * 10)
LENET_LAYERS = (24 * 24 * 25 * 20, 4 * 4 * 25 * 20 * 50, 200 * 500, 500 * 10)


def flops(layers):
    """Floating-point operations of one mini-batch gradient."""
    return 2 * BATCH * (3 * sum(layers) - layers[0])


def problem(name):
    """Random images of MNIST's shape and one of the paper's networks."""
    images = jax.random.uniform(jax.random.key(0), (4096, 28, 28, 1))
    labels = jax.random.randint(jax.random.key(1), (4096,), 0, 10)
    arrays = images, labels, images[:128], labels[:128]
    return experiment.classification(arrays, {"name": name, "num_classes": 10}, batch_size=BATCH)


def start_state(task, method, seed=0):
    """The state before the first step, in buffers of its own."""
    starts = [task.init(split_seed(seed).model)]
    return jax.tree.map(jnp.copy, init_state(method, starts, seed))


def program(task, algorithm, options):
    method = build(experiment.algorithm(algorithm, **options), gradients=1000)
    state = start_state(task, method)
    interval = make_interval(make_step(task, method), GRADIENTS // method.cycle)
    return [jax.jit(interval, donate_argnums=0).lower(state, task.data).compile(), state]


def copies(case, dataset):
    """Memory of a program in copies of the parameters, from XLA's own accounting."""
    compiled, state = case
    used = compiled.memory_analysis()
    total = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
    return (total - used.alias_size_in_bytes - size(dataset)) / size(state.params)


def timed(case, dataset):
    start = time.perf_counter()
    case[1], loss = case[0](case[1], dataset)
    jax.block_until_ready(loss)
    return 1e3 * (time.perf_counter() - start) / GRADIENTS


def matmul_rate():
    """Measured float32 multiply-add rate of a large matmul, in operations per millisecond."""
    a = jnp.ones((2048, 2048))
    product = jax.jit(lambda a: a @ a)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        product(a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times) / 1e3


def main(names):
    rate = matmul_rate()
    print(f"float32 matmul: {rate * 1e3 / 1e9:.0f} GFLOP/s on {jax.devices()[0].device_kind}\n")
    for name in names:
        task = problem(name)
        dataset = task.data
        cases = {label: program(task, *case) for label, case in CASES.items()}
        for case in cases.values():
            timed(case, dataset)
        times = {label: [] for label in cases}
        for _ in range(ROUNDS):
            for label, case in cases.items():
                times[label].append(timed(case, dataset))
        floor = flops(MLP_LAYERS if name == "mlp" else LENET_LAYERS) / rate
        print(f"| {name}, batch {BATCH} | ms per gradient | over SGD (quartiles) | memory |")
        print("|---|---|---|---|")
        print(f"| arithmetic floor | {floor:.2f} | | |")
        for label, values in times.items():
            ratios = np.asarray(values) / np.asarray(times["SGD"])
            low, middle, high = np.percentile(ratios, [25, 50, 75])
            print(
                f"| {label} | {np.median(values):.2f} | {middle:.3f} ({low:.3f}-{high:.3f}) "
                f"| {copies(cases[label], dataset):.2f} |"
            )
        print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or MODELS)
