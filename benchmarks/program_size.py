"""Does the program grow with L? Equations and compile time for L = 2, 20, 200.

    python benchmarks/program_size.py

Two cores of an AMD EPYC, jax 0.10.2:

| optimiser | L | equations | trace, s | compile, s |
|---|---|---|---|---|
| entropy_sgd | 2 | 745 | 0.09 | 0.45 |
| entropy_sgd | 20 | 745 | 0.06 | 0.69 |
| entropy_sgd | 200 | 745 | 0.09 | 0.79 |
| hj_sgd | 2 | 102 | 0.04 | 0.15 |
| hj_sgd | 20 | 102 | 0.02 | 0.20 |
| hj_sgd | 200 | 102 | 0.02 | 0.21 |
| heat_sgd | 2 | 385 | 0.04 | 0.38 |
| heat_sgd | 20 | 385 | 0.04 | 0.35 |
| heat_sgd | 200 | 385 | 0.05 | 0.37 |

Trips of a loop add a little to XLA's time, none to the program.
"""

import time

import jax
import jax.numpy as jnp

import entropix


def count(jaxpr):
    """Equations of a jaxpr, those inside scans, conditionals and calls included."""
    total = 0
    for equation in jaxpr.eqns:
        total += 1
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += count(inner)
    return total


def loss(params, batch):
    hidden = jax.nn.relu(batch @ params["w1"])
    return jnp.mean((hidden @ params["w2"]) ** 2)


def main():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "w1": jax.random.normal(keys[0], (784, 1024)) / 28,
        "w2": jax.random.normal(keys[1], (1024, 10)) / 32,
    }
    batch = jax.random.normal(keys[2], (128, 784))
    make = {
        "entropy_sgd": lambda L: entropix.entropy_sgd(0.1, 1.0, num_steps=L),
        "hj_sgd": lambda L: entropix.hj_sgd(0.1, 1.0, num_steps=L),
        "heat_sgd": lambda L: entropix.heat_sgd(0.1, 1.0, num_steps=L),
    }
    print("| optimiser | L | equations | trace, s | compile, s |\n|---|---|---|---|---|")
    for name, build in make.items():
        for num_steps in (2, 20, 200):
            tx = build(num_steps)

            def step(params, state, tx=tx):
                grad_fn = lambda p, i: jax.grad(loss)(p, batch + i)  # noqa: E731
                return tx.update(grad_fn(params, 0), state, params, grad_fn=grad_fn)

            state = tx.init(params)
            equations = count(jax.make_jaxpr(step)(params, state).jaxpr)
            start = time.perf_counter()
            lowered = jax.jit(step).lower(params, state)
            traced = time.perf_counter()
            lowered.compile()
            done = time.perf_counter()
            print(
                f"| {name} | {num_steps} | {equations} | {traced - start:.2f} "
                f"| {done - traced:.2f} |"
            )


if __name__ == "__main__":
    main()
