r"""What does the noise of a Langevin step cost?

Two tables: nanoseconds per random number inside a compiled loop, and one inner step of Entropy-SGD,

    y <- y - eta [g + (y - x)/gamma] + sqrt(2 eta T) eps,    <y> <- a <y> + (1 - a) y,

relative to one step of Nesterov SGD, both in a `lax.scan` over mini-batches of 128 of a
784-1024-1024-10 network (1,863,690 parameters, no dropout or batch normalisation, which would only
hide the noise behind more arithmetic). Every round runs all programs once, one after the other; a
figure is the median over rounds of a time, or of its ratio to the reference of the same round.

    python benchmarks/noise.py --rounds 41

Two cores of an AMD EPYC, jax 0.10.2:

| numbers in a loop | ns per number |
|---|---|
| `jax.random.normal` | 5.47 |
| `normal` | 2.28 |
| `popcount` | 0.13 |
| `jax.random.bernoulli` | 4.23 |
| `bernoulli` | 0.78 |

| one step | ms | ratio to SGD | middle half |
|---|---|---|---|
| Nesterov SGD | 7.79 | 1.00 | 1.00-1.00 |
| Entropy-SGD, no noise | 7.66 | 0.99 | 0.97-1.02 |
| Entropy-SGD, jax.random.normal | 15.84 | 2.05 | 1.96-2.08 |
| Entropy-SGD, normal | 12.45 | 1.61 | 1.54-1.67 |
| Entropy-SGD, popcount | 7.88 | 1.01 | 0.95-1.08 |
"""

import argparse
import itertools
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.transforms.random import NOISE_LAWS, bernoulli

WIDTHS = (784, 1024, 1024, 10)
BATCH, NUM_BATCHES = 128, 16
STEPS = 20  # steps per call, the L of Entropy-SGD
STEP_SIZE, GAMMA, TEMPERATURE, AVERAGING, MOMENTUM = 0.1, 100.0, 1e-8, 0.75, 0.9

Sampler = Callable[[jax.Array, tuple[int, ...]], jax.Array]
SAMPLERS: dict[str, Sampler] = {"jax.random.normal": jax.random.normal, **NOISE_LAWS}
MASKS: dict[str, Sampler] = {
    "jax.random.bernoulli": lambda key, shape: jax.random.bernoulli(key, 0.2, shape),
    "bernoulli": lambda key, shape: bernoulli(key, 0.2, shape),
}


def init_params(key: jax.Array) -> list[dict[str, jax.Array]]:
    shapes = list(itertools.pairwise(WIDTHS))
    return [
        {"w": jax.random.normal(k, shape) * (2 / shape[0]) ** 0.5, "b": jnp.zeros(shape[1])}
        for k, shape in zip(jax.random.split(key, len(shapes)), shapes, strict=True)
    ]


def loss_fn(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    hidden = images
    for layer in params[:-1]:
        hidden = jax.nn.relu(hidden @ layer["w"] + layer["b"])
    log_probabilities = jax.nn.log_softmax(hidden @ params[-1]["w"] + params[-1]["b"])
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


def gradient(params: Any, data: Any, step: jax.Array) -> Any:
    batch = [lax.dynamic_index_in_dim(part, step % NUM_BATCHES, keepdims=False) for part in data]
    return jax.grad(loss_fn)(params, *batch)


@jax.jit
def sgd(params: Any, data: Any) -> Any:
    def step(carry: Any, index: jax.Array) -> Any:
        params, trace = carry
        grads = gradient(params, data, index)
        trace = jax.tree.map(lambda v, g: MOMENTUM * v + g, trace, grads)
        nesterov = lambda p, v, g: p - STEP_SIZE * (g + MOMENTUM * v)  # noqa: E731
        return (jax.tree.map(nesterov, params, trace, grads), trace), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    return lax.scan(step, (params, zeros), jnp.arange(STEPS))[0]


def entropy_sgd(sampler: Sampler | None) -> Callable[..., Any]:
    @jax.jit
    def run(x: Any, data: Any, key: jax.Array) -> Any:
        def langevin(y: jax.Array, x: jax.Array, g: jax.Array, key: jax.Array) -> jax.Array:
            y = y - STEP_SIZE * (g + (y - x) / GAMMA)
            if sampler is None:
                return y
            return y + (2 * STEP_SIZE * TEMPERATURE) ** 0.5 * sampler(key, y.shape)

        def step(carry: Any, index: jax.Array) -> Any:
            y, average = carry
            grads, structure = gradient(y, data, index), jax.tree.structure(y)
            keys = jax.random.split(jax.random.fold_in(key, index), structure.num_leaves)
            y = jax.tree.map(langevin, y, x, grads, jax.tree.unflatten(structure, list(keys)))
            mean = lambda a, y: AVERAGING * a + (1 - AVERAGING) * y  # noqa: E731
            return (y, jax.tree.map(mean, average, y)), None

        return lax.scan(step, (x, x), jnp.arange(STEPS))[0]

    return run


def accumulate(sampler: Sampler | None) -> Callable[..., Any]:
    """A loop that does nothing but consume random numbers."""

    @jax.jit
    def run(x: jax.Array, key: jax.Array) -> jax.Array:
        def step(x: jax.Array, index: jax.Array) -> Any:
            draw = sampler(jax.random.fold_in(key, index), x.shape) if sampler else index
            return 0.5 * x + draw.astype(jnp.float32), None

        return lax.scan(step, x, jnp.arange(STEPS))[0]

    return run


def interleave(programs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Returns the seconds per step of every program, shape (rounds,), compilation left out."""
    for program in programs.values():
        jax.block_until_ready(program())
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            seconds[name].append((time.perf_counter() - start) / STEPS)
    return {name: np.array(values) for name, values in seconds.items()}


def print_numbers(rounds: int, key: jax.Array) -> None:
    x = jnp.zeros((2048, 1024))
    samplers = {"none": None, **SAMPLERS, **MASKS}
    programs = {name: partial(accumulate(s), x, key) for name, s in samplers.items()}
    seconds = interleave(programs, rounds)
    print("| numbers in a loop | ns per number |\n|---|---|")
    for name in (*SAMPLERS, *MASKS):
        cost = np.median(seconds[name] - seconds["none"]) / x.size
        print(f"| `{name}` | {1e9 * cost:.2f} |")


def print_steps(rounds: int, key: jax.Array) -> None:
    params = init_params(key)
    images = jax.random.normal(key, (NUM_BATCHES, BATCH, WIDTHS[0]))
    data = images, jax.random.randint(key, (NUM_BATCHES, BATCH), 0, WIDTHS[-1])
    programs: dict[str, Callable[[], Any]] = {"SGD": partial(sgd, params, data)}
    for name, sampler in {"no noise": None, **SAMPLERS}.items():
        programs[name] = partial(entropy_sgd(sampler), params, data, key)
    seconds = interleave(programs, rounds)
    print("| one step | ms | ratio to SGD | middle half |\n|---|---|---|---|")
    for name, values in seconds.items():
        low, ratio, high = np.percentile(values / seconds["SGD"], (25, 50, 75))
        label = "Nesterov SGD" if name == "SGD" else f"Entropy-SGD, {name}"
        print(f"| {label} | {1e3 * np.median(values):.2f} | {ratio:.2f} | {low:.2f}-{high:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    key = jax.random.key(0)
    print_numbers(rounds, key)
    print()
    print_steps(rounds, key)


if __name__ == "__main__":
    main()
