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
# # Choosing γ, T, L and ρ
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/theory_6_choosing.ipynb)
#
# How far is an estimate of a relaxed gradient from the gradient itself, and what do noise and scoping
# do to the way out of a bad well? `docs/choosing.md` has the tables.
#
# **Lines are theory** (closed forms, quadrature, exact solvers of `entropix.pde`), **points are
# measurements** (the optimisers, stochastic paths, independent schemes), bars are two standard
# errors. The strict versions are the tests in `tests/theory`; `docs/statements.md` lists them.

# %%
import importlib.util

if getattr(importlib.util.find_spec("entropix"), "origin", None) is None:  # or a mere folder
    # %pip install --quiet "entropix-jax[train] @ https://github.com/entropix-jax/entropix/releases/download/v0.2.0/entropix_jax-0.2.0-py3-none-any.whl"
    pass

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from entropix import pde
from entropix.landscape.functions import accuracy, estimates, true_gradient

jax.config.update("jax_enable_x64", True)  # the reference solvers insist on it
plt.rcParams |= {"figure.dpi": 80, "legend.frameon": False, "legend.fontsize": 8, "font.size": 9}
BLUE, RED, YELLOW, GREEN, PINK = "tab:blue", "tab:red", "goldenrod", "tab:green", "tab:pink"


def axes(*labels):
    """A plain panel for every pair of labels, (x, y)."""
    figure, panels = plt.subplots(1, len(labels), figsize=(6, 3), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)
    for panel, (x, y) in zip(np.atleast_1d(panels), labels, strict=True):
        panel.set(xlabel=x, ylabel=y)
        panel.grid(alpha=0.2)
    return panels


def points(panel, x, y, colour, label=None, marker="o", size=4.5):
    """Measured numbers, or estimates with two standard errors to either side."""
    mean, bars = (y.mean, 2 * y.error) if isinstance(y, pde.Estimate) else (y, None)
    look = {"color": colour, "label": label, "markersize": size, "markerfacecolor": "none"}
    panel.errorbar(x, mean, bars, fmt=marker, **look)


# %% [markdown]
# ## Bias and spread against L
#
# An optimiser sees an estimate, made of L gradients. Its bias falls as the inner loop finds the mean;
# its spread falls with L only if what it averages is independent (HEAT), or if ⟨y⟩ remembers long.


# %%
def rugged(x):
    return x**2 / 4 + jnp.cos(7 * x) / 16 + jnp.sin(11 * x) / 32


box, where, key = pde.Grid(-6.0, 6.0, 1201), np.linspace(-2.5, 2.5, 17), jax.random.key(0)
left, right = axes(("L", "bias / gradient"), ("L", "spread / gradient"))
for method, gamma, T, colour in (
    ("local_entropy", 0.3, 0.01, BLUE),
    ("local_entropy", 1.0, 0.01, PINK),
    ("hamilton_jacobi", 0.3, 0.0, RED),
    ("heat", 0.3, 0.01, YELLOW),
):
    setting = {"gamma": gamma, "temperature": T}
    truth, steps = true_gradient(method, box, rugged, where, **setting), (5, 20, 80, 320)
    found = [accuracy(estimates(method, rugged, where, key, num_steps=L, **setting), truth)
             for L in steps]  # fmt: skip
    label = rf"{method}, $\gamma$ = {gamma:g}"
    left.plot(steps, [a.bias / a.truth for a in found], "o-", color=colour, label=label)
    right.plot(steps, [a.spread / a.truth for a in found], "o-", color=colour)
    biases = ", ".join(f"{100 * a.bias / a.truth:.2g}" for a in found)
    print(f"{method}, gamma = {gamma:g}: bias {biases} % at L = 5, 20, 80, 320")
left.set(xscale="log", yscale="log", ylim=(1e-4, 2))
right.set(xscale="log", yscale="log", ylim=(1e-3, 1))
left.legend(fontsize=6)
plt.show()

# %% [markdown]
# ## SAM's ρ
#
# SAM descends the maximum of $f$ over a ball of radius $\rho$, the solution of $u_t = +|\nabla u|$
# (`pde.ball_maximum`), and takes the gradient where one step of ascent leads: right, while the ball
# holds no hill. More steps help little on a line: they have a fixed length, so they swing about the top
# of the nearest hill, which need not be the highest in the ball.

# %%
radii = np.geomspace(0.02, 1, 8)
left, right = axes(("x", "value"), (r"$\rho$", "bias / gradient"))
left.plot(box.points, rugged(box.points), color="black", linewidth=0.8, label="f")
for rho, colour in ((0.1, GREEN), (0.5, PINK)):
    maximum = pde.ball_maximum(box, rugged, rho).value
    left.plot(box.points, maximum, color=colour, label=rf"$\rho$ = {rho:g}")
for L, colour in ((2, RED), (3, YELLOW), (9, BLUE)):
    biases = []
    for rho in radii:
        truth = true_gradient("sharpness", box, rugged, where, gamma=rho, temperature=0.0)
        found = estimates("sharpness", rugged, where, key, gamma=rho, temperature=0.0, num_steps=L)
        measured = accuracy(found, truth)
        biases.append(measured.bias / measured.truth)
    points(right, radii, biases, colour, f"{L} gradients")
    right.plot(radii, biases, color=colour, linewidth=0.7)
    print(f"{L} gradients: bias {', '.join(f'{100 * b:.2g}' for b in biases)} %")
left.set(xlim=(-2.5, 2.5), ylim=(-0.2, 2))
right.set(xscale="log", yscale="log")
left.legend()
right.legend()
plt.show()

# %% [markdown]
# ## Scoping in continuous time
#
# $x' = -\nabla u(x, S - s)$, the flow of local entropy while its scope falls from S to 0, against
# gradient flow for the same time; both without noise, and with the same noise.


# %%
def rough(x):
    return x**2 / 4 + 0.3 * jnp.cos(7 * x) + 0.15 * jnp.sin(13 * x)


S, beta, start = 1.5, 8.0, jnp.linspace(-3, 3, 20_000)
flow = pde.gradient_flow(jnp.vectorize(jax.grad(rough)), start, horizon=S, num_steps=400)[-1]
sgd = pde.simulate(
    lambda x, s: -jax.grad(rough)(x), start, key, sigma=beta**-0.5, horizon=S, num_steps=400
)[-1]
ends = {
    "gradient flow": (flow, "black"),
    "scoped": (pde.scoped_flow(box, rough, start, beta=beta, horizon=S), BLUE),
    "SGD": (sgd, YELLOW),
    "scoped, same noise": (pde.scoped_flow(box, rough, start, beta=beta, horizon=S, key=key), PINK),
}
panel = axes(("x at the end", "paths"))
for name, (x, colour) in ends.items():
    panel.hist(x, bins=np.linspace(-3, 3, 121), histtype="step", color=colour, label=name)
    mean, error = pde.estimate(rough(x))
    print(f"{name}: E f = {mean:.3f} ({error:.3f})")
panel.legend()
plt.show()

# %% [markdown]
# ## Noise alone: Kramers' time (§2.4)
#
# From a well over a saddle, $dX = -f'\,ds + \sqrt{2T}\,dW$ takes
# $$\tau \approx \frac{2\pi}{\sqrt{f''(\text{well})\,|f''(\text{saddle})|}}\,
# e^{(f(\text{saddle}) - f(\text{well}))/T},$$
# exponentially long. The mean time is also known exactly, as a double integral; paths follow that
# one, and Kramers' formula approaches it as $T \to 0$.


# %%
def symmetric(x):
    return (x**2 - 1) ** 2 / 4


def exact_time(T):
    line = pde.Grid(-1.8 if T < 0.1 else -4.0, 1.0, 8001)  # further out lies no mass
    return float(line.interpolate(pde.exit_time(line, symmetric, temperature=T), -1.0))


def kramers_time(T):
    return float(pde.kramers_time(symmetric, -1.0, 0.0, temperature=T))


@jax.jit
def passage(T, seed):
    start, key = jnp.full(1000, -1.0), jax.random.key(seed)
    return pde.first_passage(jax.grad(symmetric), start, 1.0, key, temperature=T, dt=0.05)


T_line, T_paths = np.geomspace(0.04, 0.5, 9), np.asarray([0.1, 0.13, 0.2, 0.4])
measured = pde.estimate(jnp.stack([passage(T, n) for n, T in enumerate(T_paths)], axis=1))
panel = axes(("1/T", "mean time from -1 to 1"))
panel.plot(1 / T_line, [exact_time(T) for T in T_line], color="black", label="exact")
panel.plot(
    1 / T_line,
    [kramers_time(T) for T in T_line],
    "--",
    color="black",
    linewidth=0.9,
    label="Kramers",
)
points(panel, 1 / T_paths, measured, BLUE, "1000 paths")
panel.set(yscale="log")
panel.legend()
for T, mean, error in zip(T_paths, *measured, strict=True):
    print(f"T = {T:g}: paths {mean:.2f} +- {error:.2f}, exact {exact_time(T):.2f}")
ratios = [exact_time(T) / kramers_time(T) for T in (0.1, 0.05, 0.025, 0.0125)]
print("exact / Kramers at T = 0.1, 0.05, 0.025, 0.0125:", np.round(ratios, 3))
