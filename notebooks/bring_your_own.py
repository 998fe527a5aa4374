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
# # Bring your own model, loss and data
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/bring_your_own.ipynb)
#
# An experiment needs a *problem*: how to start, a loss, data, and what to measure. Three of them
# follow, none of which the package knows: a language model, a regression from a CSV file, and a
# classifier written with Equinox. Each is trained by several algorithms from equally many gradients
# and the same seeds; checkpoints, seeds and tables are the package's.

# %%
import importlib.util

if getattr(importlib.util.find_spec("entropix"), "origin", None) is None:  # or a mere folder
    # %pip install --quiet "entropix-jax[train] @ https://github.com/entropix-jax/entropix/releases/download/v0.2.0/entropix_jax-0.2.0-py3-none-any.whl" equinox
    pass

# %%
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import Markdown, display

import entropix
from entropix import experiment

folder = pathlib.Path(tempfile.mkdtemp())


def show(table):
    display(Markdown(table))


# %% [markdown]
# ## A language model
#
# Characters of Python's own source text; a network of one hidden layer sees eight of them and
# predicts the ninth. The loss is the cross-entropy, in nats per character; perplexity is its
# exponential. `loss` is called in training, with a key for dropout and the like, and returns the
# model's state too, of which this model has none: `()`. Data are any arrays with a leading axis of
# examples.

# %%
import argparse
import inspect

text = np.frombuffer(inspect.getsource(argparse).encode("ascii", "ignore"), np.uint8)
letters, codes = np.unique(text, return_inverse=True)
windows = np.lib.stride_tricks.sliding_window_view(codes, 9).astype(np.int32)
split = int(0.9 * len(windows))


def init_language(key, width=64, size=16):
    keys = jax.random.split(key, 3)
    params = {
        "letters": jax.random.normal(keys[0], (len(letters), size)),
        "hidden": jax.random.normal(keys[1], (8 * size, width)) / (8 * size) ** 0.5,
        "out": jax.random.normal(keys[2], (width, len(letters))) / width**0.5,
    }
    return params, ()


def next_letter_loss(params, model_state, batch):
    seen = params["letters"][batch[:, :8]].reshape(len(batch), -1)
    logits = jax.nn.relu(seen @ params["hidden"]) @ params["out"]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch[:, 8]).mean()


language = experiment.Problem(
    name="language",
    init=init_language,
    loss=lambda params, state, batch, key: (next_letter_loss(params, state, batch), state),
    data=windows[:split],
    validation=windows[split:],
    batch_size=64,
    eval_batch_size=4096,
    measures={"loss": (next_letter_loss, "lower", "nats")},
)

# %% [markdown]
# A value of a comparison is any Optax transformation, an optimiser of this package, or an algorithm
# of the registry with options of its own. SNOO's outer step is ten gradients here: the budget is a
# whole number of them.

# %%
rows = experiment.compare(
    language,
    {
        "AdamW": optax.adamw(3e-3),
        "SNOO": entropix.snoo(optax.adamw(3e-3), num_steps=10),
    },
    budget=experiment.Budget(gradients=1000, evaluations=4),
    seeds=2,
    workdir=folder / "language",
    report=show,
)

# %%
last = [row for row in rows if row.gradients == 1000]
perplexity = {(row.label, row.seed): float(np.exp(row["val_loss"])) for row in last}
assert all(value < 15 for value in perplexity.values()), perplexity  # of 90 characters
perplexity

# %% [markdown]
# ## A regression from a CSV file
#
# The file is written here; yours comes from elsewhere. Columns are standardised with the training
# part's means. The measure is the mean absolute error, in the target's own unit.

# %%
draw = np.random.default_rng(0)
area, age, storeys = draw.uniform(40, 200, 600), draw.uniform(0, 80, 600), draw.integers(1, 4, 600)
price = 3.0 * area - 0.02 * (age - 30) ** 2 + 25 * storeys + draw.normal(0, 10, 600)
columns = np.stack([area, age, storeys, price], axis=1)
np.savetxt(folder / "houses.csv", columns, delimiter=",", header="area,age,storeys,price")

# %%
table = np.genfromtxt(folder / "houses.csv", delimiter=",", skip_header=1).astype(np.float32)
mean, std = table[:500].mean(axis=0), table[:500].std(axis=0)
x, y = ((table - mean) / std)[:, :3], table[:, 3]


def init_regression(key, width=32):
    first, second = jax.random.split(key)
    params = {
        "w1": jax.random.normal(first, (3, width)), "b1": jnp.zeros(width),
        "w2": jax.random.normal(second, (width,)) / width**0.5, "b2": jnp.zeros(()),
    }  # fmt: skip
    return params, ()


def predict(params, inputs):
    hidden = jax.nn.tanh(inputs @ params["w1"] + params["b1"])
    return mean[3] + std[3] * (hidden @ params["w2"] + params["b2"])


def squared(params, model_state, batch):
    return jnp.mean(((predict(params, batch["x"]) - batch["y"]) / std[3]) ** 2)


def absolute(params, model_state, batch):
    return jnp.mean(jnp.abs(predict(params, batch["x"]) - batch["y"]))


houses = experiment.Problem(
    name="houses",
    init=init_regression,
    loss=lambda params, state, batch, key: (squared(params, state, batch), state),
    data={"x": x[:500], "y": y[:500]},
    validation={"x": x[500:], "y": y[500:]},
    batch_size=50,
    measures={"loss": (squared, "lower", ""), "error": (absolute, "lower", "thousands")},
    apply=lambda params, state, inputs: predict(params, inputs),
)

# %%
algorithms = {
    "SGD": experiment.algorithm("sgd", learning_rate=0.01, schedule="cosine"),
    "HJ": experiment.algorithm("hj", learning_rate=0.1, gamma=1.0, schedule="cosine"),
}
setup = {"budget": experiment.Budget(gradients=1000, evaluations=4), "seeds": 2}
rows = experiment.compare(houses, algorithms, workdir=folder / "houses", report=show, **setup)
assert all(row["val_error"] < 15 for row in rows if row.gradients == 1000)  # the noise's is 8

# %% [markdown]
# A trained network comes back with `load`. The runs were made here and not in a config, so that
# `load` is given the run.

# %%
hj = experiment.runs(houses, algorithms, **setup)[1]
trained = experiment.load(folder / "houses" / "HJ", seed=0, run=hj)
np.round(trained.apply(trained.params, trained.model_state, x[500:505])), y[500:505]

# %% [markdown]
# ## An Equinox classifier
#
# `experiment.classification` makes a problem of arrays and a model of NNX, Linen or Equinox, or of
# a pair of functions. A function of `key` gives every seed parameters of its own.

# %%
import equinox as eqx

digits = entropix.data.load("digits")


class Classifier(eqx.Module):
    first: eqx.nn.Linear
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __init__(self, key):
        first, last = jax.random.split(key)
        self.first = eqx.nn.Linear(64, 32, key=first)
        self.drop = eqx.nn.Dropout(0.1)
        self.last = eqx.nn.Linear(32, 10, key=last)

    def __call__(self, image, *, key=None):
        hidden = jax.nn.relu(self.first(image.reshape(-1)))
        return self.last(self.drop(hidden, key=key))


problem = experiment.classification(tuple(digits), Classifier, name="digits, Equinox")

# %%
rows = experiment.compare(
    problem,
    {"SAM": "sam", "Entropy-SGD": experiment.algorithm("entropy_sgd", learning_rate=0.3)},
    budget=experiment.Budget(gradients=1000, evaluations=4),
    seeds=2,
    workdir=folder / "equinox",
    report=show,
)
errors = {(r.label, r.seed): round(r["val_error"], 1) for r in rows if r.gradients == 1000}
assert all(error < 15 for error in errors.values()), errors

# %% [markdown]
# One figure for any of them: rows are all that it needs.

# %%
from entropix.report import convergence

convergence(rows, folder / "figure.png")
from IPython.display import Image

Image(folder / "figure.png", width=700)
