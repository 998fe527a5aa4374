r"""Does Hopf-Lax take linear time?

u(x, t) = min_y f(y) + |x - y|^2/(2t) at all nodes by the lower envelope of parabolas, for more and
more nodes, in one process with interleaved repeats; brute force over all pairs for comparison.

    python benchmarks/hopf_lax.py

Two cores of an AMD EPYC, jax 0.10.2, medians of 7:

| nodes | envelope, ms | ns a node | all pairs, ms |
|---|---|---|---|
| 1,000 | 0.75 | 755 | 1.1 |
| 4,000 | 0.73 | 181 | 16.9 |
| 16,000 | 1.72 | 107 | 148.6 |
| 64,000 | 6.11 | 96 |  |
| 256,000 | 23.30 | 91 |  |
| 1,024,000 | 105.25 | 103 |  |

Linear: about 100 ns a node.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from entropix.pde import Grid, hopf_lax

SIZES = (1_000, 4_000, 16_000, 64_000, 256_000, 1_024_000)
BRUTE_FORCE = 16_000  # and no more: its time is quadratic


def rugged(x):
    return jnp.cos(3 * x) + x**2 / 2


@jax.jit
def all_pairs(x: jax.Array, f: jax.Array) -> jax.Array:
    return jax.lax.map(lambda z: (f + (z - x) ** 2 / 0.8).min(), x)


def programs() -> dict[tuple[str, int], object]:
    made = {}
    for n in SIZES:
        grid = Grid(-7.0, 7.0, n + 1)
        values = grid.sample(rugged)
        made["envelope", n] = lambda grid=grid, values=values: hopf_lax(grid, values, 0.4).value
        if n <= BRUTE_FORCE:
            nodes = jnp.asarray(grid.points)
            made["all pairs", n] = lambda nodes=nodes, values=values: all_pairs(nodes, values)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    made = programs()
    for run in made.values():
        jax.block_until_ready(run())
    seconds = {name: [] for name in made}
    for _ in range(rounds):
        for name, run in made.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    print("| nodes | envelope, ms | ns a node | all pairs, ms |\n|---|---|---|---|")
    for n in SIZES:
        envelope = float(np.median(seconds["envelope", n]))
        other = seconds.get(("all pairs", n))
        brute = f"{1e3 * np.median(other):.1f}" if other else ""
        print(f"| {n:,} | {1e3 * envelope:.2f} | {1e9 * envelope / n:.0f} | {brute} |")


if __name__ == "__main__":
    with jax.enable_x64(True):
        main()
