"""One process of several, for `test_processes.py`: counts, saves, or says what it is."""

import json
import logging
import os
import pathlib
import signal
import sys
import time

import jax
import jax.numpy as jnp
from jax import lax

from entropix import replicas


def count(process, processes, steps, pause):
    """Meets the others at every step."""
    layout = replicas.layout(4 * processes, "shard_map")
    assert layout.per_device == 2

    def step(x, shift):
        mean = lax.pmean(x, layout.axis_name)
        return x + 0.1 * (mean - x) + shift, lax.axis_index(layout.axis_name)

    x, shift = layout.place(jnp.arange(4.0 * processes)), layout.share(jnp.asarray(0.5))
    run = jax.jit(replicas.runner(step, layout, shared=True))
    for n in range(int(steps)):
        x, _ = run(x, shift)
        assert replicas.agree([process, -process]).tolist() == [processes - 1, 0]
        print("step", n, flush=True)
        time.sleep(float(pause))
    print("mean", round(float(layout.gather(x).mean()), 4), flush=True)


class Stop(Exception):  # noqa: N818
    """What all processes raise alike when they were asked to stop."""


def save(process, processes, path, seconds, last_words):
    """Waits for SIGTERM; then process 0 takes long to write a file, and all leave."""
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    print("ready", flush=True)
    while not replicas.agree([len(asked)])[0]:
        time.sleep(0.01)
    if process == 0:
        print("saving", flush=True)
        time.sleep(float(seconds))
        pathlib.Path(path).write_text("whole")
    if last_words == "farewell":
        replicas.farewell()
    raise Stop


def part(process, processes, seconds):
    """Process 1 does not come to the farewell of the others in time."""
    if process == 1:
        time.sleep(3 * float(seconds))
    started = time.monotonic()
    replicas.farewell(float(seconds))
    replicas.farewell(float(seconds))  # a second one is none
    print("waited", time.monotonic() - started, flush=True)
    if process == 0:
        time.sleep(4 * float(seconds))  # JAX's own farewell is not the matter here
    replicas.leave(0)


def identify(process, processes, *identities):
    """Says what it was started with."""
    replicas.agree_on(json.loads(identities[process]), timeout=5.0)
    print("alike", flush=True)


def terminated(process, processes):
    """Waits for a signal that nothing handles."""
    print("ready", flush=True)
    time.sleep(60)


def fail(process, processes):
    """Process 0 dies, and the work of process 1 fails before it can know why."""
    victim = int(replicas.agree([0 if process else os.getpid()])[0])
    if process == 0:
        time.sleep(60)
    os.kill(victim, signal.SIGKILL)
    raise ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer")


def main(task, port, processes, process, *arguments):
    logging.basicConfig(level=logging.INFO)
    process, processes = int(process), int(processes)
    timeout = int(os.environ.get("MEETING_SECONDS", 10))
    try:
        with replicas.connected(f"127.0.0.1:{port}", processes, process, timeout=timeout):
            globals()[task](process, processes, *arguments)
    except (ConnectionError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        replicas.leave(2)
    except Stop:
        print("stopped", flush=True)
        replicas.leave(143)


if __name__ == "__main__":
    main(*sys.argv[1:])
