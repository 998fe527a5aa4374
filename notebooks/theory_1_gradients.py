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
# # Local entropy and proximal maps
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/theory_1_gradients.ipynb)
#
# [Deep Relaxation](https://arxiv.org/abs/1704.04932) replaces a loss $f$ by the solution
# $u(\cdot, \gamma)$ of a partial differential equation that starts at $f$. What are these solutions, and
# how do gradients of $f$ alone give their gradients?
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


# %% [markdown]
# ## The landscape and its three relaxations (§3)
#
# Relaxations of one rugged $f$ are the solutions at time
# $t = \gamma$ of
# $$\text{viscous HJ: } u_t = -\tfrac12|\nabla u|^2 + \tfrac1{2\beta}\Delta u, \qquad
# \text{HJ: } u_t = -\tfrac12|\nabla u|^2, \qquad \text{heat: } v_t = \tfrac1{2\beta}\Delta v .$$
# The first is the *local entropy* (11), $-\frac1\beta\log(G_{\gamma/\beta} * e^{-\beta f})$, the
# second Hopf and Lax's $\min_y f(y) + |x-y|^2/(2\gamma)$, the third a Gaussian average. Lines are
# these formulas; points are finite-difference schemes for the equations, which share nothing with
# them.


# %%
def f(x):
    return x**2 / 2 + 0.4 * jnp.cos(3 * x) + 0.2 * jnp.sin(2 * x)


slope, curvature = jnp.vectorize(jax.grad(f)), jnp.vectorize(jax.grad(jax.grad(f)))
grid = pde.Grid(-6.0, 6.0, 1201)
x, gamma, T = grid.points, 0.5, 0.3  # T = 1/beta
every = slice(300, -300, 20)

entropy, proximal = pde.cole_hopf(grid, f, gamma, 1 / T), pde.hopf_lax(grid, f, gamma)
smooth = pde.heat_equation(grid, f, gamma, 1 / T)
solved = {
    "viscous HJ": (BLUE, entropy.value, pde.viscous_hj(grid, f, gamma, 1 / T)),
    "HJ": (RED, proximal.value, pde.inviscid_hj(grid, f, gamma)),
    "heat": (YELLOW, smooth.value, pde.heat_on_grid(grid, f, gamma, 1 / T)),
}
panel = axes(("x", "value"))
panel.plot(x, f(x), color="black", linewidth=0.9, label="f")
for name, (colour, u, scheme) in solved.items():
    panel.plot(x, u, color=colour, label=name)
    points(panel, x[every], scheme[every], colour)
    worst = jnp.abs(u - scheme)[300:-300].max()
    print(f"{name}: formula and scheme differ by {worst:.1e} at most")
panel.set(xlim=(-3.1, 3.1), ylim=(-0.6, 4.9))
panel.legend(loc="upper center", ncol=4)
plt.show()

# %% [markdown]
# ## Lemma 1: the gradient of local entropy is an average, in two ways
#
# $$\nabla u(x,\gamma) = \int \frac{x-y}{\gamma}\,\rho_1(dy;x) = \int \nabla f(x-y)\,\rho_2(dy;x),
# \qquad \rho_1 \propto e^{-\beta [f(y) + |x-y|^2/2\gamma]}, \quad \rho_2(y) = \rho_1(x-y).$$
# Langevin dynamics around a fixed $x$ has $\rho_1$ (or, in the displacement, $\rho_2$) as its
# invariant measure, so both integrals are time averages. Here 250 chains a point.

# %%
where, chains = np.linspace(-2.5, 2.5, 11), 250


def around_x(state, s):
    """x stands still; y samples rho_1 and z, on noise of its own, rho_2."""
    x, y, z = state
    return jnp.stack([0 * x, -jax.grad(f)(y) - (y - x) / gamma, jax.grad(f)(x - z) - z / gamma])


start = jnp.asarray([[x, x, 0.0] for x in where] * chains)
sigma = (2 * T) ** 0.5 * np.asarray([0, 1, 1])
chain = pde.simulate(
    around_x, start, jax.random.key(0), sigma=sigma, horizon=15.0, num_steps=750, num_saves=150
)[20:]
x0, y, z = jnp.moveaxis(chain, -1, 0)
first, second = (
    pde.estimate(g.mean(axis=0).reshape(chains, -1)) for g in ((x0 - y) / gamma, slope(x0 - z))
)
exact = pde.cole_hopf(grid, f, gamma, 1 / T, where).gradient

panel = axes(("x", r"$\nabla u(x, \gamma)$"))
panel.plot(x, slope(x), color="black", linewidth=0.7, label=r"$\nabla f$")
panel.plot(x, entropy.gradient, color=BLUE, label="quadrature")
points(panel, where, first, BLUE, r"mean of $(x-y)/\gamma$")
points(panel, where, second, RED, r"mean of $\nabla f(x-y)$", "s", 8)
panel.set(xlim=(-2.8, 2.8), ylim=(-3.5, 3.5))
panel.legend(loc="upper left")
for name, (mean, error) in (("(x - y)/gamma", first), ("f'(x - y)", second)):
    off = np.abs(mean - exact)
    print(f"{name}: error up to {off.max():.4f}, {(off / error).max():.1f} standard errors")

# %% [markdown]
# ## Lemma 2: without noise, the proximal point
#
# With $p = \mathrm{prox}_{\gamma f}(x)$, the minimiser of $f(y) + |x-y|^2/(2\gamma)$, the
# Hamilton-Jacobi gradient is $\nabla u(x, \gamma) = (x-p)/\gamma = \nabla f(p)$. The optimiser
# `entropix.hamilton_jacobi` finds it by gradient steps, in either form. We take a scope below the
# critical one (Remark 6), for which $p$ is unique.

# %%
near, where = 0.25, np.linspace(-2.6, 2.6, 27)
fine = pde.Grid(-4.0, 4.0, 32_001)
hopf_lax = pde.hopf_lax(fine, f, near)
panel = axes(("x", r"$\nabla u(x, \gamma)$"))
panel.plot(x, slope(x), color="black", linewidth=0.7, label=r"$\nabla f(x)$")
panel.plot(fine.points, hopf_lax.gradient, color=RED, label="Hopf-Lax")
for form, marker, size in (("proximal", "o", 4.5), ("gradient", "s", 8)):
    hj = entropix.hamilton_jacobi(near, num_steps=400, form=form)
    found, _ = entropix.relaxed_grad(hj, lambda y, i: slope(y))(jnp.asarray(where), hj.init(where))
    points(panel, where, found, RED, f"optimiser, {form} form", marker, size)
    p = where - near * found
    gap = np.abs(found - slope(p)).max()
    off = np.abs(found - fine.interpolate(hopf_lax.gradient, where)).max()
    print(f"{form}: |(x - p)/gamma - f'(p)| <= {gap:.0e}, distance to Hopf-Lax <= {off:.1e}")
panel.set(xlim=(-2.8, 2.8), ylim=(-3.5, 3.5))
panel.legend(loc="upper left")
plt.show()

# %% [markdown]
# ## Lemma 4: a quadratic loss, in closed form
#
# For $f(x) = p\cdot x + \frac12 x\cdot Qx$ the measure is Gaussian with mean
# $\mu = x - (I/t + Q)^{-1}(p + Qx)$, so that $\nabla u = (x - \mu)/t$; for small $t$ that is a step
# of gradient descent, $\mu \approx x - t\,(p + Qx)$ (dashed). The points are Entropy-SGD's
# $\langle y\rangle$, from `entropix.local_entropy` with a long memory, on a $Q$ with a negative
# eigenvalue.

# %%
Q, p = jnp.asarray([[2.0, 0.9], [0.9, -0.2]]), jnp.asarray([0.5, -0.8])
centre = jnp.asarray([1.2, -0.4])


@jax.jit
@jax.vmap
def time_average(t):
    """<y> of 200 chains that remember 500 steps."""
    relaxation = entropix.local_entropy(
        t, num_steps=4000, step_size=0.05, averaging=1 - 1 / 500, temperature=T, key=1
    )
    x = jnp.broadcast_to(centre, (200, 2))
    gradient, _ = entropix.relaxed_grad(relaxation, lambda y, i: p + y @ Q)(x, relaxation.init(x))
    return pde.estimate(x - t * gradient)


def mu(t):
    return centre - jnp.linalg.solve(jnp.eye(2) / t + Q, p + Q @ centre)


times, t = np.linspace(0.05, 1.1, 8), np.linspace(0, 1.2, 200)[1:]
measured, exact = time_average(times), jax.vmap(mu)(times)
panel = axes(("t", r"$\langle y\rangle$"))
for k, colour in enumerate((BLUE, GREEN)):
    panel.plot(t, jax.vmap(mu)(t)[:, k], color=colour, label=rf"$\mu_{k + 1}(t)$")
    panel.plot(t, centre[k] - t * (p + Q @ centre)[k], "--", color=colour, linewidth=0.8)
    points(panel, times, pde.Estimate(measured.mean[:, k], measured.error[:, k]), colour)
panel.set(xlim=(0, 1.2), ylim=(-0.7, 1.3))
panel.legend()
off = np.abs(measured.mean - exact)
print(f"error up to {off.max():.4f}, {np.max(off / measured.error):.1f} standard errors")
