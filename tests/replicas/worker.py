"""One process of several, for `test_processes.py`: counts, and meets the others at every step."""

import sys
import time

import jax
import jax.numpy as jnp
from jax import lax

from entropix import replicas


def main(port, processes, process, steps, pause):
    try:
        with replicas.connected(f"127.0.0.1:{port}", processes, process, timeout=10):
            layout = replicas.layout(4 * processes, "shard_map")
            assert layout.per_device == 2

            def step(x, shift):
                mean = lax.pmean(x, layout.axis_name)
                return x + 0.1 * (mean - x) + shift, lax.axis_index(layout.axis_name)

            x, shift = layout.place(jnp.arange(4.0 * processes)), layout.share(jnp.asarray(0.5))
            run = jax.jit(replicas.runner(step, layout, shared=True))
            for n in range(steps):
                x, _ = run(x, shift)
                assert replicas.agree([process, -process]).tolist() == [processes - 1, 0]
                print("step", n, flush=True)
                time.sleep(pause)
            print("mean", round(float(layout.gather(x).mean()), 4), flush=True)
    except ConnectionError as error:
        sys.exit(f"ConnectionError: {error}")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:5]), float(sys.argv[5]))
