"""What do replicas cost: in each layout, in communication, and on many devices?

    JAX_NUM_CPU_DEVICES=8 python benchmarks/replicas.py [agreement] [layouts] [bytes] [scaling]

Two cores of an AMD EPYC with nothing else running, LeNet, batch 128, jax 0.10.2. Time per
replica-gradient over one replica's step alone, rounds interleaved (medians and quartiles of
ratios); in brackets what version one's runner, which interpreted JAX's programs, measured:

| | vmap | shard_map, p devices | pmap, p devices | shard_map, 2 devices |
|---|---|---|---|---|
| p = 2 | 1.35 (1.28-1.40) [1.32] | 0.83 (0.77-0.86) [0.85] | 0.82 (0.77-0.85) | |
| p = 4 | 1.32 (1.31-1.42) [1.36] | 0.74 (0.65-0.81) [0.75] | 0.72 (0.65-0.81) | 1.05 (0.95-1.15) |
| p = 8 | 1.46 (1.29-1.52) [1.47] | 0.71 (0.67-0.79) [0.73] | 0.72 (0.64-0.77) | 1.14 (1.00-1.19) |

Version one could also take replicas in turns on one device, for 1.06. So `layout="auto"` gives
every replica a device of its own on a CPU (`entropix train`: up to four times the cores). Steps
with Elastic-SGD's coupling take 1.01 to 1.03 of those without, for p = 2 in all three layouts.

Largest difference of a parameter from vmap's after 20 steps of a small network on the digits,
p = 8, float32, where the replicas are 0.03 to 0.18 apart (DiLoCo's are at one point); jax 0.10.2,
and in brackets 0.12.0 where it differs:

| | shard_map 8 x 1 | shard_map 2 x 4 | pmap 8 x 1 | pmap 4 x 2 |
|---|---|---|---|---|
| Elastic-SGD | 2.4e-07 | 4.8e-07 | 2.4e-07 | 7.2e-07 |
| Elastic-SGD, period 5 | 2.4e-07 | 4.8e-07 | 2.4e-07 | 4.8e-07 |
| EASGD | 1.2e-07 | 1.2e-07 | 1.2e-07 | 2.4e-07 |
| Parle | 1.9e-06 (9.5e-07) | 1.5e-06 (1.7e-06) | 1.9e-06 (9.5e-07) | 2.3e-06 (2.6e-06) |
| Parle, stepwise | 8.3e-07 | 3.6e-07 | 8.3e-07 | 4.2e-07 |
| DiLoCo | 2.1e-06 | 1.5e-06 | 2.1e-06 | 2.0e-06 |
| DiLoCo, stepwise | 5.3e-07 | 4.8e-07 | 5.3e-07 | 5.3e-07 |

Bytes per gradient that a device puts into collectives, counted in the compiled program:
data-parallel SGD and Elastic-SGD 524,880 (LeNet's parameters); with period 10, and EASGD, 52,488;
Parle, L = 20, 26,244; DiLoCo, H = 500, 1,050. From these bytes, a ring's 2 (n - 1)/n of them, and
5 us a hop of a tree, the predicted speed of n devices over one at 1 ms a gradient (both assumed, as
on an accelerator; at the 17 ms of this CPU every algorithm stays above 0.94 n):

| | 10 Gbit/s: 8, 64, 1,024 | 200 Gbit/s | 300 GB/s |
|---|---|---|---|
| data-parallel SGD, Elastic-SGD | 4.5, 33.9, 528 | 7.5, 58.1, 897 | 7.7, 60.2, 928 |
| EASGD, tau = 10 | 7.4, 58.8, 936 | 7.9, 63.4, 1,010 | 8.0, 63.6, 1,014 |
| Parle, L = 20 | 7.7, 61.3, 978 | 8.0, 63.7, 1,017 | 8.0, 63.8, 1,019 |
| DiLoCo, H = 500 | 8.0, 63.9, 1,022 | 8.0, 64.0, 1,024 | 8.0, 64.0, 1,024 |
"""

import collections
import sys
import time

import jax
import numpy as np
import optax
from inner_step import BATCH, problem, start_state
from jax import lax

import entropix
from entropix import experiment, replicas
from entropix.experiment.method import build
from entropix.replicas.traffic import traffic
from entropix.training.step import make_interval, make_step

STEPS, ROUNDS = 10, 15
PARLE_L, DILOCO_H, EASGD_TAU = 20, 500, 10


# Layouts: time per replica-gradient, over one replica's step alone.


def layouts_of(p):
    found = {"vmap": replicas.layout(p, "vmap")}
    if p > 1:
        found[f"shard_map over {p} devices"] = replicas.layout(p, "shard_map", devices=p)
        found[f"pmap over {p} devices"] = replicas.layout(p, "pmap", devices=p)
    if p > 2:
        for kind in ("shard_map", "pmap"):
            found[f"{kind} over 2 devices"] = replicas.layout(p, kind, devices=2)
    return found


def program(method, task, layout=None):
    state, data = start_state(task, method), task.data
    if layout is not None:
        state, data = layout.place(state), layout.share(data)
    interval = make_interval(make_step(task, method, layout), STEPS)
    return [jax.jit(interval, donate_argnums=0).lower(state, data).compile(), state, data]


def timed(case):
    start = time.perf_counter()
    case[1], loss = case[0](case[1], case[2])
    jax.block_until_ready(loss)
    return 1e3 * (time.perf_counter() - start) / STEPS


def interleaved(cases):
    for case in cases.values():
        timed(case)
    times = collections.defaultdict(list)
    for _ in range(ROUNDS):
        for label, case in cases.items():
            times[label].append(timed(case))
    return {label: np.asarray(values) for label, values in times.items()}


def alone():
    return build(experiment.algorithm("sgd"), gradients=1000)


def elastic(p, layout, *, coupled=True):
    method = build(
        experiment.algorithm("elastic_sgd"),
        gradients=1000,
        replicas=p,
        axis_name=layout.axis_name,
    )
    return method if coupled else method._replace(optimizer=entropix.sgd(0.1))


def layouts():
    dataset = problem("lenet")
    print("| p | layout | ms per replica-gradient | over one replica alone (quartiles) |")
    print("|---|---|---|---|")
    for p in (1, 2, 4, 8):
        cases = {"alone": program(alone(), dataset)}
        for label, layout in layouts_of(p).items():
            cases[label] = program(elastic(p, layout), dataset, layout)
            if p == 2:
                uncoupled = elastic(p, layout, coupled=False)
                cases[f"{label}, uncoupled"] = program(uncoupled, dataset, layout)
        times = interleaved(cases)
        for label, values in times.items():
            seconds = values / (1 if label == "alone" else p)
            low, middle, high = np.percentile(seconds / times["alone"], [25, 50, 75])
            print(
                f"| {p} | {label} | {np.median(seconds):.2f} | {middle:.3f} "
                f"({low:.3f}-{high:.3f}) |",
                flush=True,
            )
        if p == 2:
            for name in layouts_of(p):
                cost = times[name] / times[f"{name}, uncoupled"]
                low, middle, high = np.percentile(cost, [25, 50, 75])
                print(f"coupling, {name}: {middle:.3f} ({low:.3f}-{high:.3f}) of uncoupled steps")
        known = [label for label in layouts_of(p) if label in times]
        best = min(known, key=lambda label: np.median(times[label]))
        chosen = replicas.layout(p, devices=replicas.host_devices(p, 2))
        print(
            f"fastest for p = {p}: {best}; auto takes {chosen.kind}, {chosen.per_device} a device"
        )


# Communication: bytes that enter collectives, counted in the compiled program of one update.


def averaged_sgd(axis):
    return optax.chain(entropix.average_updates(axis), entropix.sgd(0.1))


FAMILY = {  # label: optimiser, gradients per update, updates per communication
    "data-parallel SGD": (averaged_sgd, 1, 1),
    "Elastic-SGD": (lambda axis: entropix.elastic_sgd(0.1, 1.0, axis), 1, 1),
    f"Elastic-SGD, period {EASGD_TAU}": (
        lambda axis: entropix.elastic_sgd(0.1, 1.0, axis, period=EASGD_TAU),
        1,
        EASGD_TAU,
    ),
    f"EASGD, tau = {EASGD_TAU}": (
        lambda axis: entropix.easgd(0.1, axis, period=EASGD_TAU),
        1,
        EASGD_TAU,
    ),
    f"Parle, L = {PARLE_L}": (
        lambda axis: entropix.parle(0.1, 1.0, 1.0, axis, num_steps=PARLE_L),
        PARLE_L,
        1,
    ),
    f"DiLoCo, H = {DILOCO_H}": (
        lambda axis: entropix.diloco(0.7, axis, num_steps=DILOCO_H),
        DILOCO_H,
        1,
    ),
}


def one_step(task, tx, axis):
    """A step of one replica, as a user would write it: `step(state, key) -> (state, loss)`."""

    def step(state, key):
        params, model_state, opt_state = state

        def loss_fn(params, key):
            return task.loss(params, model_state, task.draw(key, task.data), key)[0]

        def grad_fn(params, i):
            return jax.grad(loss_fn)(params, jax.random.fold_in(key, i))

        updates, opt_state = tx.update(grad_fn(params, 0), opt_state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), model_state, opt_state), lax.axis_index(axis)

    return step


def measured_bytes(devices=8):
    """Label -> bytes per gradient that a device puts into collectives, from the program's text."""
    task, found = problem("lenet"), {}
    params, model_state = task.init(jax.random.key(0))
    layout = replicas.layout(devices, "shard_map", devices=devices)
    for label, (make, gradients, period) in FAMILY.items():
        tx = make(layout.axis_name)
        one = params, model_state, tx.init(params)
        states = layout.place(replicas.replicate(one, devices))
        keys = layout.place(jax.random.split(jax.random.key(0), devices))
        run = jax.jit(replicas.runner(one_step(task, tx, layout.axis_name), layout))
        seen = traffic(run.lower(states, keys).compile().as_text())
        found[label] = (seen, (seen.always + seen.sometimes / period) / gradients)
    return found, 4 * sum(leaf.size for leaf in jax.tree.leaves(params))


def communicated():
    found, size = measured_bytes()
    print(f"LeNet's parameters: {size:,} bytes\n")
    print("| | every update, bytes | inside a branch, bytes | per gradient, bytes | over SGD |")
    print("|---|---|---|---|---|")
    base = found["data-parallel SGD"][1]
    for label, (seen, each) in found.items():
        print(
            f"| {label} | {seen.always:,} | {seen.sometimes:,} | {each:,.0f} | {each / base:.4f} |"
        )


LINKS = {"10 Gbit/s Ethernet": 1.25e9, "200 Gbit/s InfiniBand": 25e9, "NVLink, 300 GB/s": 300e9}
LATENCY = 5e-6  # seconds a hop, an assumption


def scaling():
    """Speed of n devices over one, in gradients a second, from the bytes alone."""
    dataset = problem("lenet")
    compute = np.median(interleaved({"alone": program(alone(), dataset)})["alone"]) / 1e3
    found, _ = measured_bytes()
    for seconds, what in ((compute, "measured here"), (1e-3, "of an accelerator, assumed")):
        print(
            f"\nLeNet's gradient in {1e3 * seconds:.2f} ms ({what}), {1e6 * LATENCY:.0f} us a hop"
        )
        print("| link | algorithm | 8 | 64 | 1,024 |")
        print("|---|---|---|---|---|")
        for link, speed in LINKS.items():
            for label, (_, each) in found.items():
                every = FAMILY[label][1] * FAMILY[label][2]  # gradients between two all-reduces
                cells = []
                for n in (8, 64, 1024):
                    ring = 2 * (n - 1) / n * each / speed + 2 * np.log2(n) * LATENCY / every
                    cells.append(f"{n * seconds / (seconds + ring):,.1f}")
                print(f"| {link} | {label} | {' | '.join(cells)} |")


# Agreement: one walk in every layout, with both faces.


def parle(axis, stepwise=False):
    noise = {"num_steps": 5, "temperature": 1e-4}
    return entropix.parle(0.5, 1.0, 1.0, axis, stepwise=stepwise, **noise)


def diloco(axis, stepwise=False):
    # Biases before a batch norm have no gradient but rounding errors, of which Adam makes steps as
    # long as any other unless its epsilon is above them.
    inner = optax.scale_by_adam(eps=1e-3)
    return entropix.diloco(0.7, axis, num_steps=5, step_size=1e-2, inner=inner, stepwise=stepwise)


AGREEING = {  # the faces of Elastic-SGD and EASGD are one: a gradient an update
    "Elastic-SGD": lambda axis: entropix.elastic_sgd(0.1, 1.0, axis),
    "Elastic-SGD, period 5": lambda axis: entropix.elastic_sgd(0.1, 1.0, axis, period=5),
    "EASGD": lambda axis: entropix.easgd(0.05, axis, period=5),
    "Parle": parle,
    "Parle, stepwise": lambda axis: parle(axis, stepwise=True),
    "DiLoCo, Adam's eps = 1e-3": diloco,
    "... stepwise": lambda axis: diloco(axis, stepwise=True),
}


def agreement():
    task = experiment.classification("digits", {"name": "mlp", "widths": (64,)}, batch_size=BATCH)
    params, model_state = task.init(jax.random.key(0))
    p, steps = 8, 20
    kinds = {
        "shard_map 8 x 1": replicas.layout(p, "shard_map", devices=8),
        "shard_map 2 x 4": replicas.layout(p, "shard_map", devices=2),
        "pmap 8 x 1": replicas.layout(p, "pmap", devices=8),
        "pmap 4 x 2": replicas.layout(p, "pmap", devices=4),
    }
    print(f"Largest difference of a parameter from vmap's after {steps} steps, p = {p}, float32:\n")
    print(f"| | {' | '.join(kinds)} | replicas apart |")
    print("|---" * (len(kinds) + 2) + "|")
    keys = jax.random.split(jax.random.key(0), (steps, p))
    for label, make in AGREEING.items():
        ends = {}
        for name, layout in ({"vmap": replicas.layout(p, "vmap")} | kinds).items():
            tx = make(layout.axis_name)
            one = params, model_state, tx.init(params)
            states = replicas.replicate(one, p)
            run = replicas.runner(one_step(task, tx, layout.axis_name), layout)
            walk = jax.jit(lambda s, k, run=run: lax.scan(run, s, k)[0])
            end = walk(layout.place(states), layout.place(keys, axis=1))
            ends[name] = jax.device_get(end[0])
        apart = max(np.max(np.ptp(x, axis=0)) for x in jax.tree.leaves(ends["vmap"]))
        cells = []
        for name in kinds:
            pairs = zip(jax.tree.leaves(ends[name]), jax.tree.leaves(ends["vmap"]), strict=True)
            cells.append(f"{max(np.max(np.abs(a - b)) for a, b in pairs):.1e}")
        print(f"| {label} | {' | '.join(cells)} | {apart:.2f} |", flush=True)


SECTIONS = {
    "agreement": agreement,
    "layouts": layouts,
    "bytes": communicated,
    "scaling": scaling,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or SECTIONS:
        print(f"\n## {name}\n")
        SECTIONS[name]()
