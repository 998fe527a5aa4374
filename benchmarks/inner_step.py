"""What does an inner step cost, over a plain SGD step in the same compiled loop?

    python benchmarks/inner_step.py [mlp] [lenet]

Every algorithm runs through the package's own training step, at batch 128 on random images of
MNIST's shape, as one compiled scan of equally many gradient evaluations. Rounds interleave the
algorithms in one process, so that a machine's moods hit all alike; medians of ratios to the SGD of
the same round. The floor is the network's arithmetic at the machine's measured matmul rate.
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

BATCH, GRADIENTS, ROUNDS = 128, 40, 15
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
    state = init_state(built, network.params, network.batch_stats, seed=0)
    interval = make_interval(
        make_step(network.apply, built, BATCH), GRADIENTS // cycle(config.optimizer)
    )
    compiled = jax.jit(interval, donate_argnums=0).lower(state, dataset).compile()
    copy = jax.tree.map(jnp.copy, state)  # networks of one process may share initial buffers
    return [compiled, copy]


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
        print(f"| {name}, batch {BATCH} | ms per gradient | over SGD (quartiles) |\n|---|---|---|")
        print(f"| arithmetic floor | {floor:.2f} | |")
        for label, values in times.items():
            ratios = np.asarray(values) / np.asarray(times["SGD"])
            low, middle, high = np.percentile(ratios, [25, 50, 75])
            print(f"| {label} | {np.median(values):.2f} | {middle:.3f} ({low:.3f}-{high:.3f}) |")
        print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
