# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Entropix in five minutes
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/quickstart.ipynb)
#
# Ordinary optimisers follow the gradient of a loss $f$. The optimisers of this package follow the
# gradient of a *smoother relative* of $f$: the solution of a partial differential equation that
# starts at $f$, estimated by a short inner loop of gradient steps. We begin with a plain Optax loop,
# change two lines of it, and end with the comparison of all algorithms.

# %%
import importlib.util

if getattr(importlib.util.find_spec("entropix"), "origin", None) is None:  # or a mere folder
    # %pip install --quiet "entropix-jax[train] @ https://github.com/entropix-jax/entropix/releases/download/v0.2.0/entropix_jax-0.2.0-py3-none-any.whl"
    pass

# %%
import jax
import jax.numpy as jnp
import optax

import entropix

# %% [markdown]
# ## A plain Optax loop
#
# Scikit-learn's handwritten digits, 8 × 8 pixels, need no download. The network is a dictionary of
# arrays: the package never asks for more than a pytree.

# %%
digits = entropix.data.load("digits")
digits.train_images.shape, digits.test_images.shape


# %%
def init_network(key, width=128):
    first, second = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (64, width)) * (2 / 64) ** 0.5,
        "b1": jnp.zeros(width),
        "w2": jax.random.normal(second, (width, 10)) * (1 / width) ** 0.5,
        "b2": jnp.zeros(10),
    }


def logits(params, images):
    hidden = jax.nn.relu(images.reshape(-1, 64) @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def loss(params, images, labels):
    values = optax.softmax_cross_entropy_with_integer_labels(logits(params, images), labels)
    return values.mean()


def validation_error(params):
    wrong = jnp.argmax(logits(params, digits.test_images), axis=-1) != digits.test_labels
    return f"{100 * wrong.mean():.2f} %"


# %%
sgd = entropix.sgd(learning_rate=0.1)  # Nesterov 0.9, the paper's baseline


@jax.jit
def sgd_step(params, state, key):
    batch = entropix.data.sample_batch(key, digits, 128)
    updates, state = sgd.update(jax.grad(loss)(params, *batch), state, params)
    return optax.apply_updates(params, updates), state


params = init_network(jax.random.key(0))
state = sgd.init(params)
for k in range(600):
    params, state = sgd_step(params, state, jax.random.key(k))
print("SGD, 600 gradients:", validation_error(params))

# %% [markdown]
# ## Two lines changed
#
# `hj_sgd` follows the Hamilton-Jacobi relaxation: five gradients approach the proximal point of
# $f$ around $x$, then $x$ moves once. All of them run inside `update`, in one compiled scan, so
# `update` needs to know how to take a gradient: `grad_fn(params, i)`, where `i` picks the inner
# mini-batch. 120 outer steps of 5 gradients cost what 600 steps of SGD cost.

# %%
hj = entropix.hj_sgd(learning_rate=0.3, gamma=0.25)


@jax.jit
def hj_step(params, state, key):
    def grad_fn(params, i):
        batch = entropix.data.sample_batch(jax.random.fold_in(key, i), digits, 128)
        return jax.grad(loss)(params, *batch)

    updates, state = hj.update(grad_fn(params, 0), state, params, grad_fn=grad_fn)
    return optax.apply_updates(params, updates), state


params = init_network(jax.random.key(0))
state = hj.init(params)
for k in range(120):
    params, state = hj_step(params, state, jax.random.key(k))
print("HJ, 600 gradients:", validation_error(params))

# %% [markdown]
# ## In a loop you cannot change
#
# A training loop that only knows `update(grads, state, params)` runs the same algorithm with
# `stepwise=True`: one gradient per call, every fifth moves $x$. What the loop holds in between is
# the inner iterate $y$; `eval_params` finds $x$.

# %%
hj = entropix.hj_sgd(learning_rate=0.3, gamma=0.25, stepwise=True)


@jax.jit
def any_step(params, state, key):
    batch = entropix.data.sample_batch(key, digits, 128)
    updates, state = hj.update(jax.grad(loss)(params, *batch), state, params)
    return optax.apply_updates(params, updates), state


params = init_network(jax.random.key(0))
state = hj.init(params)
for k in range(600):
    params, state = any_step(params, state, jax.random.key(k))
print("HJ, stepwise, 600 gradients:", validation_error(entropix.eval_params(state, params)))

# %% [markdown]
# ## Any optimiser inside, any optimiser outside
#
# The inner loop takes any Optax transformation without its learning rate, and any optimiser takes
# the relaxed gradient. With an infinite scope $\gamma$ nothing pulls $y$ back to $x$, and what
# remains is Lookahead; here with Adam inside.

# %%
lookahead = optax.chain(
    entropix.relax(
        entropix.local_entropy(
            gamma=float("inf"),
            num_steps=5,
            inner=optax.scale_by_adam(),
            step_size=3e-3,
            averaging=0.0,
            temperature=0.0,
            output="displacement",
        )
    ),
    optax.sgd(0.8),
)
lookahead.init(params)

# %% [markdown]
# ## The comparison
#
# The paper's five algorithms on one problem, with the same number of gradients, three seeds each,
# all seeds of an algorithm in one compiled program. A problem is data, a model and a loss; the rest
# is the package's. Learning rates and scopes come from equally many random trials for each, in runs of
# 2,400 gradients. The command line makes such runs: `entropix compare --config=digits`. In the 900
# gradients of this notebook, as it is stored here, no difference in error from SGD is decided.

# %%
import tempfile

from entropix import experiment

network = {"name": "mlp", "widths": (128, 128), "input_dropout": 0.1, "dropout": 0.25}
problem = experiment.classification("digits", network)
algorithms = {
    "SGD": experiment.algorithm("sgd", learning_rate=0.0373),
    "Entropy-SGD": experiment.algorithm("entropy_sgd", learning_rate=2.06, gamma=0.355),
    "HJ": experiment.algorithm("hj", learning_rate=0.297, gamma=0.31),
    "HEAT": experiment.algorithm("heat", learning_rate=1.33, gamma=0.0378),
    "Elastic-SGD": experiment.algorithm("elastic_sgd", learning_rate=0.16, gamma=14.0),
}
budget = experiment.Budget(gradients=900, evaluations=15)
with tempfile.TemporaryDirectory() as workdir:
    rows = experiment.compare(problem, algorithms, budget=budget, seeds=3, workdir=workdir)

# %%
# %matplotlib inline
entropix.report.convergence(rows)
