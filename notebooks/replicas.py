# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Replicas on eight devices
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/replicas.ipynb)
#
# Elastic-SGD, Parle and DiLoCo train several replicas of the weights, which communicate rarely. We
# run eight of them on eight devices, which a CPU can pretend to have; count the bytes that every
# outer step sends; compare the loss against them with data-parallel SGD's; and run the same program
# on one device, with the same result.

# %%
import importlib.util

if getattr(importlib.util.find_spec("entropix"), "origin", None) is None:  # or a mere folder
    # %pip install --quiet "entropix-jax[train] @ https://github.com/entropix-jax/entropix/releases/download/v0.2.0/entropix_jax-0.2.0-py3-none-any.whl"
    pass

# %% [markdown]
# The number of devices has to stand before JAX first uses one. In a program of your own, the
# environment variable `JAX_NUM_CPU_DEVICES=8` does the same.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

import functools
import re
import time

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import entropix
from entropix import average_updates as average
from entropix import replicas

# %% [markdown]
# ## One replica
#
# A small network for handwritten digits, and the step of *one* replica: `state` and `key` are its
# own. Nothing in it says where replicas live. The links of the optimiser that communicate are given
# the name of the replicas' axis.

# %%
digits = entropix.data.load("digits")
BATCH, P = 16, 8


def init_network(key, width=64):
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (64, width)) * (2 / 64) ** 0.5, "b1": jnp.zeros(width),
        "w2": jax.random.normal(second, (width, 10)) * (1 / width) ** 0.5, "b2": jnp.zeros(10),
    }  # fmt: skip


def loss(params, images, labels):
    hidden = jax.nn.relu(images.reshape(-1, 64) @ params["w1"] + params["b1"])
    logits = hidden @ params["w2"] + params["b2"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def make_step(tx):
    """One update of one replica, from mini-batches of its own."""

    def step(state, key):
        params, opt_state = state

        def grad_fn(params, i):
            batch = entropix.data.sample_batch(jax.random.fold_in(key, i), digits, BATCH)
            return jax.grad(loss)(params, *batch)

        grads = grad_fn(params, 0)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), opt_state), None

    return step


# %% [markdown]
# ## Where replicas live
#
# A layout says it, and `layout.axis_name` is what optimisers are given: one name where every replica
# has a device (or all share one), a pair where several devices hold several replicas each.

# %%
eight = replicas.layout(P, "shard_map")
four = replicas.layout(P, "shard_map", devices=4)
one = replicas.layout(P, "vmap")
for name, layout in {"eight devices": eight, "four": four, "one": one}.items():
    print(f"{name}: {layout.kind}, {layout.per_device} a device, axis_name={layout.axis_name!r}")

# %% [markdown]
# ## Ways to use eight devices
#
# `average_updates` in front of SGD is data-parallel training: it averages gradients at every step.
# Elastic-SGD pulls to the mean of the weights, computed at every step, or at every tenth
# (`period=10`). Parle does so once in $L = 10$ gradients, and DiLoCo averages displacements once in
# $H = 40$.

# %%
make = {
    "data-parallel SGD": lambda axis, rate, _: optax.chain(average(axis), entropix.sgd(rate)),
    "Elastic-SGD": lambda axis, rate, g: entropix.elastic_sgd(rate, g, axis),
    "Elastic-SGD, period 10": lambda axis, rate, g: entropix.elastic_sgd(rate, g, axis, period=10),
    "Parle": lambda axis, rate, g: entropix.parle(rate, g, g, axis, num_steps=10),
    "DiLoCo": lambda axis, rate, _: entropix.diloco(0.7, axis, num_steps=40, step_size=rate),
}
GRADIENTS = {"Parle": 10, "DiLoCo": 40}  # per replica and update; 1 for all others
PERIOD = {"Elastic-SGD, period 10": 10}  # updates between two exchanges
BUDGET = 400  # gradients per replica, of every run


@functools.partial(jax.jit, static_argnames=("label", "layout", "budget"))
def train(label, layout, setting, seed, budget=BUDGET):
    """Trains eight replicas from one start; the loss of their centre after every update."""
    tx = make[label](layout.axis_name, *setting)
    run = replicas.runner(make_step(tx), layout)
    start, draw = jax.random.split(jax.random.key(seed))
    params = init_network(start)
    states = replicas.replicate((params, tx.init(params)), P)
    keys = jax.random.split(draw, (budget // GRADIENTS.get(label, 1), P))

    def update(states, keys):
        states, _ = run(states, keys)
        centre = replicas.centre(states)[0]
        return states, loss(centre, digits.train_images, digits.train_labels)

    (params, _), losses = jax.lax.scan(update, states, keys)
    return params, losses


# %% [markdown]
# `replicas.centre` is the mean of the replicas: the weights to evaluate. Every method tries six
# settings on a seed that is not used again: six learning rates, or three with two scopes γ. The
# learning rate of DiLoCo is that of AdamW inside.

# %%
tried = {
    "data-parallel SGD": [(rate, 1.0) for rate in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)],
    "Elastic-SGD": [(rate, gamma) for gamma in (1.0, 10.0) for rate in (0.1, 0.3, 1.0)],
    "Elastic-SGD, period 10": [(r, gamma) for gamma in (1.0, 10.0) for r in (0.1, 0.3, 1.0)],
    "Parle": [(rate, gamma) for gamma in (0.3, 1.0) for rate in (0.3, 1.0, 3.0)],
    "DiLoCo": [(rate, 1.0) for rate in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)],
}
best = {}
for label in make:
    ends = [float(train(label, eight, setting, 100)[1][-1]) for setting in tried[label]]
    best[label] = tried[label][int(np.nanargmin(ends))]
    print(f"{label:23}", *(f"{end:8.4f}" for end in ends), "  best", best[label])

# %% [markdown]
# ## Bytes sent
#
# What devices send stands in the compiled program: its `all-reduce` operations, and the arrays that
# go into them. This is the program of one update. Between them lie gradients that send nothing. (A
# ring of $n$ devices sends each array $2(n-1)/n$ times, the same factor for all methods.)


# %%
def bytes_per_update(label):
    """Bytes that a device hands to all-reduces in one update of its replica."""
    tx = make[label](eight.axis_name, *best[label])
    params = init_network(jax.random.key(0))
    states = replicas.replicate((params, tx.init(params)), P)
    run = jax.jit(replicas.runner(make_step(tx), eight))
    program = run.lower(states, jax.random.split(jax.random.key(0), P)).compile().as_text()
    total = 0
    for shapes in re.findall(r" = (.+?) all-reduce(?:-start)?\(", program):
        for sizes in re.findall(r"f32\[([\d,]*)\]", shapes):
            total += 4 * int(np.prod([int(n) for n in sizes.split(",") if n]))
    return total / PERIOD.get(label, 1)  # the exchange is in a branch, taken at every PERIOD-th


sent = {label: bytes_per_update(label) for label in make}
for label, each in sent.items():
    exchange, gradient = each * PERIOD.get(label, 1), each / GRADIENTS.get(label, 1)
    print(f"{label:23} {exchange:,.0f} bytes an exchange, {gradient:,.0f} a gradient")

# %% [markdown]
# ## Loss against bytes
#
# Three seeds; every run takes 8 × 400 gradients of 16 images. Left, loss against gradients; right,
# the same runs against bytes sent.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for label in make:
    losses = np.asarray([train(label, eight, best[label], seed)[1] for seed in range(3)])
    updates = np.arange(1, losses.shape[1] + 1)
    gradients, megabytes = updates * GRADIENTS.get(label, 1), updates * sent[label] / 1e6
    for panel, x in ((left, gradients), (right, megabytes)):
        panel.plot(x, losses.mean(axis=0), label=label)
        panel.fill_between(x, losses.min(axis=0), losses.max(axis=0), alpha=0.2)
    final = losses[:, -1].mean()
    print(f"{label:23} loss {final:.4f}, {megabytes[-1]:6.2f} MB sent by a device")
left.set(xlabel="gradients per replica", ylabel="training loss at the centre", yscale="log")
right.set(xlabel="MB sent by a device", xscale="log")
left.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# In the run stored here Elastic-SGD ends lowest, and sends what data-parallel SGD sends. DiLoCo, with
# AdamW inside, sends 40 times less and ends at four times data-parallel SGD's loss; Elastic-SGD with a
# stale mean sends 10 times less and ends beside DiLoCo. Parle sends as little and ends higher: its 40
# outer steps are few. *Not* seen: other γ (the larger of two was best for Elastic-SGD), links that take
# time, generalisation, a problem that is not small.

# %% [markdown]
# ## One device, or eight
#
# The same step in other layouts: two replicas on each of four devices, and all side by side on one
# (`vmap`). After 80 gradients the weights agree but for rounding, since sums are taken in another
# order; the longer a run and the larger its learning rate, the further rounding is carried. Devices
# that a CPU pretends to have share its cores: eight of them are no eight times faster.

# %%
for label in ("Elastic-SGD", "Parle", "DiLoCo"):
    ends, seconds = {}, {}
    for name, layout in {"8 devices": eight, "4 devices": four, "1 device": one}.items():
        jax.block_until_ready(train(label, layout, best[label], 0, budget=80))  # compiles
        start = time.perf_counter()
        params, _ = jax.block_until_ready(train(label, layout, best[label], 0, budget=80))
        seconds[name] = time.perf_counter() - start
        ends[name] = jax.device_get(replicas.centre(params))
    for name in ends:
        gap = optax.tree.norm(optax.tree.sub(ends[name], ends["1 device"]))
        gap = float(gap / optax.tree.norm(ends["1 device"]))
        assert gap < 1e-3, (label, name, gap)
        print(f"{label:12} {name:9} {seconds[name]:.2f} s, differs by {gap:.1e}")
