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
# # Homogenisation: why an inner loop computes a gradient
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/theory_2_homogenisation.ipynb)
#
# An inner loop that moves fast around a slow $x$ averages; section 4 of [Deep Relaxation](https://arxiv.org/abs/1704.04932)
# says to what its average tends, how fast, and up to which scope $\gamma$.
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

import entropix
from entropix import pde

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


# %%
def f(x):
    return x**2 / 2 + 0.4 * jnp.cos(3 * x) + 0.2 * jnp.sin(2 * x)


slope, curvature = jnp.vectorize(jax.grad(f)), jnp.vectorize(jax.grad(jax.grad(f)))
grid = pde.Grid(-6.0, 6.0, 1201)
x, gamma, T = grid.points, 0.5, 0.3  # T = 1/beta


def root_mean_square(samples):
    """With its standard error, which is that of the mean square over twice the root."""
    square = pde.estimate(samples**2)
    return pde.Estimate(square.mean**0.5, square.error / (2 * square.mean**0.5))


# %% [markdown]
# ## Lemma 3: how fast the inner loop gets there
#
# Where $h(y) = f(y) + |x-y|^2/(2\gamma)$ is $\lambda$-convex, the flow $y' = -\nabla h(y)$ has one
# steady state $p$, and $|y(s) - p| \le e^{-\lambda s}|y(0) - p|$ (the lines). The bound is uniform:
# the last part of the way has the rate $h''(p)$, which is $\lambda$ if $p$ is where $h$ is least
# convex (red), and more for another $x$ (green).

# %%
near, top = 0.15, float(x[int(curvature(x).argmin())])  # f curves down most at `top`
rate = float(curvature(top)) + 1 / near
centres = np.asarray([top + near * slope(top), 0.7])  # the first has p = top
y = pde.gradient_flow(
    lambda y: slope(y) + (y - centres) / near, np.asarray([2.0, 4.0]), horizon=8.0, num_steps=8000
)
s, distance, late = np.linspace(0, 8, 8001), np.abs(y - y[-1]), slice(1000, 2000)
panel = axes(("s", "|y(s) - p|"))
for x0, d, colour, marker in zip(centres, distance.T, (RED, GREEN), "os", strict=True):
    panel.plot(s, np.exp(-rate * s) * d[0], color=colour, linewidth=1)
    points(panel, s[:2001:100], d[:2001:100], colour, f"x = {x0:.2f}", marker)
panel.set(yscale="log", xlim=(-0.03, 2.05), ylim=(1e-7, 10))
panel.legend()
measured = -np.polyfit(s[late], np.log(distance[late]), 1)[0]
kept = np.all(distance <= np.exp(-rate * s)[:, None] * distance[0] + 1e-9)
print(f"lambda = {rate:.3f}, h'' at the two p {np.round(curvature(y[-1]) + 1 / near, 3)}")
print(f"measured rates {measured.round(3)}; bound kept at all times: {kept}")

# %% [markdown]
# ## Theorem 5: a fast inner loop is the gradient of local entropy
#
# $$dx = -\tfrac1\gamma (x-y)\,ds, \qquad
# dy = -\tfrac1\varepsilon\big[\nabla f(y) + \tfrac1\gamma(y-x)\big]\,ds
# + \sqrt{2T/\varepsilon}\,dW$$
# tends, as $\varepsilon \to 0$, to $dX = -\nabla f_\gamma(X)\,ds$; so does the second form, which
# moves $x$ by $-\nabla f(x-y)$. On the left the root mean square of $x - X$ over paths, which falls
# like $\sqrt\varepsilon$ (the lines, through the last points), as for every average over a fast
# variable; on the right its mean, which falls faster.

# %%
begin, epsilons = 1.0, np.asarray([1.0, 0.1, 0.01])
X = pde.gradient_flow(
    lambda x: pde.cole_hopf(grid, f, gamma, 1 / T, x, max_halvings=0).gradient,
    np.asarray([begin]), horizon=1.0, num_steps=20,
)[-1, 0]  # fmt: skip


def off(form, e):
    """x(1) - X(1) of 2,000 paths."""
    x, _ = pde.fast_slow(
        f, jnp.full(2000, begin), jax.random.key(1), gamma=gamma, temperature=T, epsilon=e,
        horizon=1.0, num_steps=int(max(50, 25 / e)), form=form,
    )  # fmt: skip
    return x[-1] - X


left, right = axes(
    (r"$\varepsilon$", "r.m.s. of x - X at s = 1"), (r"$\varepsilon$", "mean of x - X")
)
for form, colour, marker, size in (("proximal", BLUE, "o", 4.5), ("gradient", RED, "s", 7)):
    samples = jnp.stack([off(form, e) for e in epsilons], axis=1)
    rms, mean = root_mean_square(samples), pde.estimate(samples)
    left.plot(epsilons, rms.mean[-1] * (epsilons / 0.01) ** 0.5, color=colour, linewidth=0.9)
    points(left, epsilons, rms, colour, f"{form} form", marker, size)
    points(right, epsilons, mean, colour, None, marker, size)
    rows = ", ".join(f"{m:.4f} +- {e:.4f}" for m, e in zip(*rms, strict=True))
    order = np.log10(rms.mean[1] / rms.mean[2])
    print(f"{form} form: r.m.s. {rows}; order from 0.1 to 0.01: {order:.2f}")
    print(f"mean {', '.join(f'{m:.4f} +- {e:.4f}' for m, e in zip(*mean, strict=True))}")
left.set(xscale="log", yscale="log")
left.set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
left.minorticks_off()
right.set(xscale="log")
right.axhline(0, color="grey", linewidth=0.9)
left.legend()
plt.show()

# %% [markdown]
# ## Remark 6: the critical scope
#
# The inner problem is convex for every $x$ if and only if
# $\gamma < \gamma^* = -1/\min_x \lambda_{\min}(D^2 f(x))$. At the point $y^*$ where $f$ curves down
# most we choose $x$ so that $y^*$ is stationary; all other stationary points then satisfy
# $\gamma = -(y-y^*)/(f'(y)-f'(y^*))$ (the line). Above $\gamma^*$ the flow leaves $y^*$ for one of
# two minima: the inner loop's answer depends on where it starts.

# %%
critical = pde.shock_time(grid, f)
scopes = critical * np.asarray([0.7, 0.8, 0.9, 0.96, 1.04, 1.1, 1.2, 1.3, 1.4, 1.5])[:, None]
ends = pde.gradient_flow(
    lambda y: slope(y) + (y - top) / scopes - slope(top),
    np.broadcast_to(top + np.asarray([-0.3, 0.3]), (len(scopes), 2)), horizon=300.0, num_steps=6000,
)[-1]  # fmt: skip
y = top + np.linspace(-0.7, 0.7, 400)
panel = axes((r"$\gamma/\gamma^*$", "steady state y"))
branch = -(y - top) / (slope(y) - slope(top))
panel.plot(branch / critical, y, color="black", label="stationary points")
panel.axhline(top, color="black", linewidth=0.8)
points(panel, scopes[:, 0] / critical, ends[:, 0], RED, "started 0.3 below")
points(panel, scopes[:, 0] / critical, ends[:, 1], BLUE, "started 0.3 above", "s", 8)
panel.set(xlim=(0.68, 1.52), ylim=(top - 0.75, top + 0.75))
panel.legend(loc="upper left")
apart = np.flatnonzero(ends[:, 1] - ends[:, 0] > 1e-3)[0]
below, above = scopes[apart - 1 : apart + 1, 0]
print(f"gamma* = {critical:.4f}; one limit up to gamma = {below:.4f}, two from {above:.4f} on")

# %% [markdown]
# ## HEAT (23), and Remark 8
#
# Without $\nabla f$ in the fast equation $y$ becomes Gaussian, and the slow flow follows the heat
# equation: $\nabla v(x, \gamma) = \mathbb E\,\nabla f(x + \sqrt{\gamma T}\,\varepsilon)$, which is
# `entropix.heat`. Remark 8 compares it with local entropy at a critical point of $f$: the
# first-order difference, $\nabla u - \nabla v = -\gamma f' f'' + O(\gamma^2)$, vanishes there.
# Exactly equal the two are only if $f$ is symmetric about that point; otherwise the difference is
# of second order.

# %%
where = np.linspace(-2.5, 2.5, 11)
average = entropix.heat(gamma, num_steps=50, temperature=T)
many = jnp.broadcast_to(jnp.asarray(where), (400, len(where)))
found, _ = entropix.relaxed_grad(average, lambda y, i: slope(y))(many, average.init(many))
found, exact = pde.estimate(found), pde.heat_equation(grid, f, gamma, 1 / T, where).gradient

root = x[700 + int(np.abs(slope(x[700:800])).argmin())]
for _ in range(5):
    root = root - slope(root) / curvature(root)  # Newton: a minimum of f
pair, scopes = np.asarray([root, root + 0.4]), np.geomspace(0.001, 0.03, 6)


def difference(loss, gamma, points):
    solutions = (
        solve(grid, loss, gamma, 1 / T, points) for solve in (pde.cole_hopf, pde.heat_equation)
    )
    return np.abs(np.subtract(*(solution.gradient for solution in solutions)))


differences = np.asarray([difference(f, g, pair) for g in scopes])
left, right = axes(("x", r"$\nabla v(x, \gamma)$"), (r"$\gamma$", r"$|\nabla u - \nabla v|$"))
left.plot(x, slope(x), color="black", linewidth=0.7, label=r"$\nabla f$")
left.plot(
    x, pde.heat_equation(grid, f, gamma, 1 / T).gradient, color=YELLOW, label="Gaussian average"
)
points(left, where, found, YELLOW, "optimiser")
left.set(xlim=(-2.8, 2.8), ylim=(-3.5, 4.5))
left.legend(loc="upper left")
laws = (1, GREEN, r"elsewhere, $\gamma^1$"), (0, PINK, r"critical point, $\gamma^2$")
for k, colour, label in laws:
    law = differences[0, k] * (scopes / scopes[0]) ** (2 - k)
    right.plot(scopes, law, color=colour, label=label)
    points(right, scopes, differences[:, k], colour)
right.set(xscale="log", yscale="log")
right.legend()
orders = [np.polyfit(np.log(scopes), np.log(d), 1)[0] for d in differences.T]
even = difference(lambda x: jnp.cos(3 * x) + x**2, 0.3, [0.0])[0]
off = np.abs(found.mean - exact)
print(f"HEAT: error up to {off.max():.4f}, {np.max(off / found.error):.1f} standard errors")
print(f"Remark 8: orders {orders[0]:.2f} at the critical point, {orders[1]:.2f} elsewhere")
print(f"a symmetric f at its critical point: |u' - v'| = {even:.0e}")
