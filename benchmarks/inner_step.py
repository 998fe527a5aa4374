"""What does an inner step cost, over a plain SGD step in the same compiled loop?

    python benchmarks/inner_step.py [mlp] [lenet]

Every algorithm runs through the package's own training step, at batch 128 on random images of
MNIST's shape, as one compiled scan of equally many gradient evaluations. Rounds interleave the
algorithms in one process, so that a machine's moods hit all alike; medians of ratios to the SGD of
the same round. The floor is the network's arithmetic at the machine's measured matmul rate. Memory
is all that the compiled loop holds, its state and temporaries but not the data, in units of one
copy of the parameters.

Two cores of an AMD EPYC, jax 0.10.2, float32 matmul 211 GFLOP/s:

| mlp, batch 128 | ms per gradient | over SGD (quartiles) | memory |
|---|---|---|---|
| arithmetic floor | 5.80 | | |
| SGD | 9.12 | 1.000 (1.000-1.000) | 3.00 |
| HJ | 9.58 | 1.051 (1.030-1.076) | 4.34 |
| Entropy-SGD, T = 0 | 9.54 | 1.042 (1.011-1.093) | 5.34 |
| Entropy-SGD, normal | 14.01 | 1.516 (1.463-1.607) | 5.34 |
| Entropy-SGD, popcount | 9.57 | 1.054 (1.026-1.099) | 5.34 |
| HEAT, normal | 14.30 | 1.595 (1.504-1.664) | 4.07 |
| HEAT, popcount | 9.13 | 1.013 (0.987-1.047) | 4.07 |

| lenet, batch 128 | ms per gradient | over SGD (quartiles) | memory |
|---|---|---|---|
| arithmetic floor | 2.54 | | |
| SGD | 20.42 | 1.000 (1.000-1.000) | 80.10 |
| HJ | 19.81 | 0.988 (0.949-1.034) | 81.06 |
| Entropy-SGD, T = 0 | 19.81 | 1.004 (0.933-1.088) | 82.06 |
| Entropy-SGD, normal | 20.60 | 1.008 (0.963-1.054) | 82.07 |
| Entropy-SGD, popcount | 19.82 | 1.001 (0.926-1.062) | 82.07 |
| HEAT, normal | 20.42 | 1.040 (0.968-1.102) | 80.92 |
| HEAT, popcount | 19.83 | 0.987 (0.895-1.105) | 80.92 |

HJ's excess over 1 on the mlp is mostly its outer update, once in five gradients: with num_steps=20
the ratio was 1.035, with 40 it was 1.017. The memory of Entropy-SGD
on the mlp is x, y, <y>, momentum and gradient, and 0.34 of activations.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from entropix.data import Dataset
from entropix.training import experiment
from entropix.training.algorithm import make_algorithm
from entropix.training.config import cycle, runs
from entropix.training.epoch import make_interval, make_step
from entropix.training.network import build_network
from entropix.training.state import init_state

BATCH, GRADIENTS, ROUNDS = 128, 40, 31
MODELS = {
    "mlp": {"name": "mlp"},
    "lenet": {"name": "lenet"},
}
CASES = {
    "SGD": ("sgd", {}),
    "HJ": ("hj", {}),
    "Entropy-SGD, T = 0": ("entropy_sgd", {"temperature": 0.0}),
    "Entropy-SGD, normal": ("entropy_sgd", {}),
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


def data():
    images = jax.random.uniform(jax.random.key(0), (4096, 28, 28, 1))
    labels = jax.random.randint(jax.random.key(1), (4096,), 0, 10)
    return Dataset(images, labels, images[:128], labels[:128])


def program(model, algorithm, options, dataset):
    config = experiment(
        dataset="digits", model=model, optimizers={algorithm: options}, algorithms=algorithm
    )
    (config,) = runs(config).values()
    network = build_network(config.model, dataset.image_shape, seed=0)
    built = make_algorithm(config.optimizer, dataset.num_train / BATCH)
    state = init_state(built, [(network.params, network.batch_stats)], seed=0)
    interval = make_interval(
        make_step(network.apply, built, BATCH), GRADIENTS // cycle(config.optimizer)
    )
    compiled = jax.jit(interval, donate_argnums=0).lower(state, dataset).compile()
    copy = jax.tree.map(jnp.copy, state)  # networks of one process may share initial buffers
    return [compiled, copy]


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
    dataset = data()
    rate = matmul_rate()
    print(f"float32 matmul: {rate * 1e3 / 1e9:.0f} GFLOP/s on {jax.devices()[0].device_kind}\n")
    for name in names:
        cases = {label: program(MODELS[name], *case, dataset) for label, case in CASES.items()}
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
    main(sys.argv[1:] or list(MODELS))
