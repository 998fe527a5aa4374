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
# # How flat are the minima?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/flatness.ipynb)
#
# Entropy-SGD is chosen because it looks for wide minima. We train one network twice on handwritten
# digits, with SGD and with Entropy-SGD, and measure: the spectrum of the Hessian, local energy,
# sharpness, local entropy, the segment between the two, and a plane through each. The same
# instruments take any tree of parameters and any loss.

# %%
import importlib.util

if getattr(importlib.util.find_spec("entropix"), "origin", None) is None:  # or a mere folder
    # %pip install --quiet "entropix-jax[train] @ https://github.com/entropix-jax/entropix/releases/download/v0.2.0/entropix_jax-0.2.0-py3-none-any.whl"
    pass

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import entropix
from entropix import landscape

# %% [markdown]
# ## Two networks, with equal numbers of gradients

# %%
digits = entropix.data.load("digits")


def init_network(key, width=64):
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (64, width)) * (2 / 64) ** 0.5,
        "b1": jnp.zeros(width),
        "w2": jax.random.normal(second, (width, 10)) * (1 / width) ** 0.5,
        "b2": jnp.zeros(10),
    }


def logits(params, batch):
    hidden = jax.nn.relu(batch[0].reshape(-1, 64) @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def cross_entropy(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


def loss(params, batch):
    return cross_entropy(logits(params, batch), batch)


def figures(params, batch):
    wrong = jnp.argmax(logits(params, batch), axis=-1) != batch[1]
    return {"loss": loss(params, batch), "error": 100 * jnp.mean(wrong)}


# %%
def train(optimizer, num_gradients=4000, stepwise_params=lambda state, params: params):
    def step(carry, key):
        params, state = carry
        batch = entropix.data.sample_batch(key, digits, 64)
        updates, state = optimizer.update(jax.grad(loss)(params, batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(params):
        keys = jax.random.split(jax.random.key(1), num_gradients)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0]

    params, state = run(init_network(jax.random.key(0)))
    return stepwise_params(state, params)


entropy_sgd = entropix.entropy_sgd(1.0, gamma=0.1, stepwise=True)
networks = {
    "SGD": train(entropix.sgd(0.05)),
    "Entropy-SGD": train(entropy_sgd, stepwise_params=entropix.eval_params),
}
colours = {"SGD": "tab:blue", "Entropy-SGD": "tab:red"}

# %% [markdown]
# The instruments see the training set, in batches of equal size, one at a time.

# %%
train_set = digits.train_images[:1400], digits.train_labels[:1400]
test_set = digits.test_images, digits.test_labels
batches = landscape.batched(train_set, 200)

for name, params in networks.items():
    train_loss, test_error = figures(params, train_set)["loss"], figures(params, test_set)["error"]
    print(f"{name:12s} train loss {train_loss:.4f}   test error {test_error:.2f} %")

# %% [markdown]
# ## One table
#
# Curvatures scale with the training loss where cross-entropy is nearly zero, so the learning rates
# above were chosen for nearly equal training losses. Standard errors stand in brackets, for
# eigenvalues a bound; sharpness is a lower bound. One run each: a difference between algorithms would
# need several.

# %%
found = {
    name: landscape.measures(loss, params, batches, figures=figures, announce=print)
    for name, params in networks.items()
}
print(f"\n{'':24s}" + "".join(f"{name:>24s}" for name in networks))
for row in [row for row in found["SGD"] if not row.endswith("_se")]:
    cells = [
        f"{m[row]:.4g}" + (f" ({m[row + '_se']:.1g})" if row + "_se" in m else "")
        for m in found.values()
    ]
    print(f"{row:24s}" + "".join(f"{cell:>24s}" for cell in cells))

# %% [markdown]
# The two kinds of measure disagree about these two runs. In plain units Entropy-SGD's minimum is the
# flatter one (eigenvalues, trace, sharpness); in units of the weights (relative trace, local energy,
# adaptive sharpness) it is the sharper one, though its test error is the smaller. Which one is "flat"
# is a question about the measure.

# %% [markdown]
# ## The spectrum: most eigenvalues are near zero
#
# Stochastic Lanczos quadrature, 60 products for each of eight random vectors. The band is two
# standard errors.

# %%
# %matplotlib inline
spectra = {
    name: landscape.spectrum(landscape.hessian(loss, params, batches), params, 0, num_steps=60)
    for name, params in networks.items()
}
figure, axis = plt.subplots(figsize=(7, 3))
for name, density in spectra.items():
    low, high = (density.value + k * density.standard_error for k in (-2, 2))
    axis.semilogy(density.grid, density.value, colours[name], label=name)
    axis.fill_between(density.grid, jnp.maximum(low, 1e-9), high, color=colours[name], alpha=0.3)
axis.set(xlabel="eigenvalue of the Hessian", ylabel="density", ylim=(1e-6, None))
axis.legend()
figure.tight_layout()

# %% [markdown]
# The harmonic mean, which the paper's Lemma 20 bounds, is decided by the smallest eigenvalues that
# count, hence by the cut-off. The arithmetic mean of the same eigenvalues is decided by the largest.

# %%
cutoffs = jnp.asarray([1e-4, 1e-3, 1e-2])
for name, density in spectra.items():
    harmonic = landscape.harmonic_mean(density, cutoffs)
    arithmetic = landscape.arithmetic_mean(density, cutoffs)
    for n, cutoff in enumerate(cutoffs):
        print(
            f"{name:12s} above {cutoff:.0e}: harmonic {harmonic.value[n]:.2e} "
            f"({harmonic.standard_error[n]:.0e}), arithmetic {arithmetic.value[n]:.2e} "
            f"({arithmetic.standard_error[n]:.0e})"
        )

# %% [markdown]
# ## Local energy and local entropy
#
# Local energy multiplies every weight by noise; that survives a rescaling of layers, which changes
# all curvatures. Local entropy is what Entropy-SGD lowers: here its distance from the loss, by the
# quadratic approximation.

# %%
sigmas, gammas = np.linspace(0, 0.5, 11), np.geomspace(0.003, 0.3, 7)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
for name, params in networks.items():
    energies = [landscape.local_energy(figures, params, s, batches, 0) for s in sigmas]
    left.errorbar(
        sigmas,
        [float(e.value["error"]) for e in energies],
        [2 * float(e.standard_error["error"]) for e in energies],
        color=colours[name],
        label=name,
    )
    entropies = [landscape.local_entropy(loss, params, g, 1e-3, batches, 0) for g in gammas]
    right.errorbar(
        gammas,
        [float(e.value) for e in entropies],
        [2 * float(e.standard_error) for e in entropies],
        color=colours[name],
    )
left.set(xlabel="relative noise σ", ylabel="rise of the training error, %")
right.set(xlabel="scope γ", ylabel="$f_γ(x) - f(x)$, T = 0.001", xscale="log")
left.legend()
figure.tight_layout()

# %% [markdown]
# ## Between the two, and around each
#
# The two runs started at one point and saw the same batches; even so a barrier may stand between
# them. Planes are normalised by filters: without, larger weights look flatter.

# %%
line = landscape.segment(figures, *networks.values(), batches)
planes = {name: landscape.slice2d(loss, params, batches, 0) for name, params in networks.items()}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4))
axes[0].plot(line.position, line.value["loss"])
axes[0].set(
    xlabel="from SGD (0) to Entropy-SGD (1)",
    ylabel="training loss",
    title=f"barrier {float(line.barrier['loss']):.3f}",
)
levels = np.geomspace(0.01, 10, 16)
for axis, (name, plane) in zip(axes[1:], planes.items(), strict=True):
    axis.contour(plane.position, plane.position, plane.value.T, levels=levels, cmap="viridis")
    axis.set(title=name, xlabel="first direction", ylabel="second direction")
figure.tight_layout()

# %% [markdown]
# What can fool each of these figures, and why flatness is contested as an explanation of
# generalisation: `docs/landscape.md`.
