"""One process of several, for `test_processes.py`: counts, and meets the others at every step."""

import sys
import time

import jax
import jax.numpy as jnp
from jax import lax

from entropix import replicas


def step(x, shift):
    return x + 0.1 * (lax.pmean(x, "replica") - x) + shift, lax.axis_index("replica")


def main(port, processes, process, steps, pause):
    try:
        with replicas.connected(f"127.0.0.1:{port}", processes, process, timeout=10):
            layout = replicas.layout(2 * processes, "shard_map")
            x, shift = layout.place(jnp.arange(2.0 * processes)), layout.share(jnp.asarray(0.5))
            run = jax.jit(replicas.runner(step, layout, shared=True))
            for n in range(steps):
                x, _ = run(x, shift)
                assert replicas.agree([process, -process]).tolist() == [processes - 1, 0]
                print("step", n, flush=True)
                time.sleep(pause)
            print("mean", float(layout.gather(x).mean()), flush=True)
    except ConnectionError as error:
        sys.exit(f"ConnectionError: {error}")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:5]), float(sys.argv[5]))
