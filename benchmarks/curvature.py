"""What do the instruments of `entropix.landscape` cost?

For the paper's three networks on random data: the time of one Hessian-vector product relative to
one gradient of the same data, both over all batches in a compiled loop; the time of one sample of a
spectrum (80 steps of Lanczos), relative to one gradient too; and the memory of both, by the
compiler's own account, in copies of the parameters (data not counted). Batch statistics are
held fixed, dropout is off. Every round runs gradient and product once, one after the other;
a figure is the median over rounds of the ratio.

    python benchmarks/curvature.py --examples 512 --rounds 7

Two busy cores (times are several times what they would be alone, ratios are not), jax 0.10.2, 512
examples in batches of 128. Copies are of the product, then of Lanczos; most of `lenet`'s are the
activations of one batch:

| network | parameters | gradient, ms | product / gradient | Lanczos 80, s | copies | Lanczos |
|---|---|---|---|---|---|---|
| mlp | 1,867,786 | 96 | 2.21 | 42.7 | 4.7 | 85.7 |
| lenet | 131,220 | 81 | 2.44 | 38.1 | 61.6 | 142.6 |

Two cores with little else running, `--networks mlp lenet --examples 1024 --rounds 3` and
`--networks all_cnn --examples 32 --batch_size 16 --rounds 2`; a spectrum is one sample:

| network | examples | gradient, ms | product / gradient | spectrum / gradient | copies | Lanczos |
|---|---|---|---|---|---|---|
| mlp | 1,024 | 67 | 2.00 | 313 | 4.7 | 85.7 |
| lenet | 1,024 | 130 | 2.17 | 161 | 61.6 | 142.6 |
| all_cnn, 1,667,166 parameters | 32 | 446 | 2.69 | 230 | 31.1 | 111.9 |
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from entropix import landscape, models

SHAPES = {"mlp": (28, 28, 1), "lenet": (28, 28, 1), "all_cnn": (32, 32, 3)}
STEPS = 80


def network(name: str) -> tuple[Callable[..., Any], Any]:
    apply, params, statistics = models.functional(getattr(models, name)(rngs=0))

    def loss(params: Any, batch: Any) -> jax.Array:
        logits, _ = apply(params, statistics, batch[0], train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    return loss, params


def data(name: str, examples: int, batch_size: int) -> Any:
    images, labels = jax.random.split(jax.random.key(0))
    return landscape.batched(
        (
            jax.random.normal(images, (examples, *SHAPES[name])),
            jax.random.randint(labels, (examples,), 0, 10),
        ),
        batch_size,
    )


def mean_gradient(loss: Callable[..., Any], params: Any, batches: Any) -> Any:
    def add(total: Any, batch: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.grad(loss)(params, batch)), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), batches)[0]


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def size(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def copies(compiled: Any, params: Any, batches: Any) -> float:
    used = compiled.memory_analysis()
    held = used.argument_size_in_bytes + used.temp_size_in_bytes + used.output_size_in_bytes
    return (held - size(batches)) / size(params)


def measure(name: str, examples: int, batch_size: int, rounds: int) -> str:
    loss, params = network(name)
    batches = data(name, examples, batch_size)
    key = jax.random.key(1)

    def product(params: Any, v: Any, batches: Any) -> Any:
        return landscape.hvp(loss, params, v, batches)

    def lanczos(params: Any, batches: Any) -> Any:
        operator = landscape.hessian(loss, params, batches)
        return landscape.eigenvalues(operator, params, 10, key, num_steps=STEPS)

    gradient = jax.jit(lambda p, b: mean_gradient(loss, p, b)).lower(params, batches).compile()
    product = jax.jit(product).lower(params, params, batches).compile()
    lanczos = jax.jit(lanczos).lower(params, batches).compile()
    calls = (lambda: gradient(params, batches)), (lambda: product(params, params, batches))
    for call in calls:
        seconds(call)
    times = [tuple(seconds(call) for call in calls) for _ in range(rounds)]
    ratio = statistics.median(t[1] / t[0] for t in times)
    sample = seconds(lambda: lanczos(params, batches))
    after = [seconds(calls[0]) for _ in range(rounds)]
    of_gradient = statistics.median([*(t[0] for t in times), *after])
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return (
        f"| {name} | {examples:,} | {count:,} | {1e3 * of_gradient:,.0f} | {ratio:.2f} | "
        f"{sample / of_gradient:.0f} | {copies(product, params, batches):.1f} | "
        f"{copies(lanczos, params, batches):.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--networks", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    args = parser.parse_args()
    print(f"\njax {jax.__version__}, batches of {args.batch_size}\n")
    print("| network | examples | parameters | gradient, ms | product / gradient | "
          "spectrum / gradient | copies: product | copies: spectrum |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for name in args.networks:
        print(measure(name, args.examples, args.batch_size, args.rounds), flush=True)


if __name__ == "__main__":
    main()
