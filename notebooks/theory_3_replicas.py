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
# # Replicas: whose centre?
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/theory_3_replicas.ipynb)
#
# Elastic-SGD runs $p$ replicas that are pulled to a centre. Around a centre that rests they compute the
# gradient of local entropy; around their own mean they descend another function, and very many of
# them follow an equation for their density (section 4 of [Deep Relaxation](https://arxiv.org/abs/1704.04932), Remark 7).
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
from entropix.landscape.functions import estimates

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
T, grid = 0.3, pde.Grid(-6.0, 6.0, 1201)
x = grid.points

# %% [markdown]
# ## Elastic-SGD (20)-(22): an average over replicas in the place of an average over time
#
# $$dx^a = -\nabla f(x^a)\,dt - \tfrac1\gamma (x^a - \bar x)\,dt + \text{noise}.$$
# Given its centre $\bar x$, every replica samples Entropy-SGD's $\rho_1(\cdot\,; \bar x)$, so by
# ergodicity $\nabla f_\gamma(\bar x) = (\bar x - \langle x^a\rangle)/\gamma$ with the mean over
# replicas and time (22). We hold the centre still (`period` longer than the run), on a tilted
# double well, and compare `elastic_sgd`, `local_entropy` and quadrature.


# %%
def tilted(x):
    return (x**2 - 1) ** 2 / 4 + 0.2 * x


eta, wide, where, chains = 0.01, 1.5, np.linspace(-1.8, 1.8, 9), 120
centre = jnp.broadcast_to(jnp.asarray(where), (chains, len(where)))
tilted_slope = jnp.vectorize(jax.grad(tilted))


@jax.jit
def replica_average(key, p=4, steps=1000, burn_in=1000):
    """Mean over p replicas and time: SGD with gradient noise of size sqrt(2T/eta) is Langevin."""
    tx = entropix.elastic_sgd(eta, wide, "replica", momentum=None, period=10**6)
    update = jax.vmap(tx.update, axis_name="replica")

    def step(n, carry):
        x, state, total = carry
        noise = (2 * T / eta) ** 0.5 * jax.random.normal(jax.random.fold_in(key, n), x.shape)
        updates, state = update(tilted_slope(x) + noise, state, x)
        x = x + updates
        return x, state, total + (n >= burn_in) * x.mean(axis=0)

    x = jnp.broadcast_to(centre, (p, *centre.shape))
    carry = x, jax.vmap(tx.init)(x), jnp.zeros_like(centre)
    return jax.lax.fori_loop(0, burn_in + steps, step, carry)[2] / steps


over_replicas = pde.estimate((centre - replica_average(jax.random.key(2))) / wide)
chain = entropix.local_entropy(
    wide, num_steps=4000, step_size=eta, averaging=1 - 1 / 500, temperature=T, key=3
)
relaxed = jax.jit(entropix.relaxed_grad(chain, lambda y, i: tilted_slope(y)))
over_time = pde.estimate(relaxed(centre, chain.init(centre))[0])
exact = pde.cole_hopf(grid, tilted, wide, 1 / T, where).gradient

panel = axes(("x", r"$\nabla f_\gamma(x)$"))
panel.plot(x, tilted_slope(x), color="black", linewidth=0.7, label=r"$\nabla f$")
panel.plot(x, pde.cole_hopf(grid, tilted, wide, 1 / T).gradient, color=BLUE, label="quadrature")
points(panel, where, over_replicas, GREEN, "Elastic-SGD, mean over replicas")
points(panel, where, over_time, BLUE, "Entropy-SGD, mean over time", "s", 8)
panel.set(xlim=(-2, 2), ylim=(-1.5, 2))
panel.legend(loc="upper left")
for name, (mean, error) in (("replicas", over_replicas), ("time", over_time)):
    off = np.abs(mean - exact)
    print(f"{name}: error up to {off.max():.4f}, {np.max(off / error):.1f} standard errors")

# %% [markdown]
# ## The same with a centre that is the replicas' own mean: $\varphi$
#
# "Given its centre" matters. If $\bar x$ is the mean of the replicas at every step, the pull on the
# mean cancels, and the centre moves by the mean of $-\nabla f(x^a)$. Conditioned on their mean being
# $m$, many replicas sample $\rho_1(\cdot\,; z)$ around that $z$ for which $\langle y\rangle = m$, so
# the centre follows $\nabla f_\gamma(z) = (z - m)/\gamma$: the gradient at $m$ of
# $$\varphi(m) = \max_z f_\gamma(z) - \frac{|z-m|^2}{2\gamma},$$
# of which $f_\gamma$ is the Moreau envelope (`pde.phi`). Critical points are the same, slopes are not.
# One replica follows $\nabla f$; two are on the way.

# %%
inside = where[1:-1]
left, right = axes(("x", "value"), ("x", "gradient"))
descended = pde.phi(grid, tilted, wide, 1 / T, np.linspace(-2, 2, 81))
entropy = pde.cole_hopf(grid, tilted, wide, 1 / T)
for panel, curves in (
    (left, (tilted(x), entropy.value, descended.value)),
    (right, (tilted_slope(x), entropy.gradient, descended.gradient)),
):
    panel.plot(x, curves[0], color="black", linewidth=0.7, label="$f$")
    panel.plot(x, curves[1], color=BLUE, label=r"$f_\gamma$, local entropy")
    panel.plot(np.linspace(-2, 2, 81), curves[2], color=GREEN, label=r"$\varphi$")
left.set(xlim=(-2, 2), ylim=(-0.4, 1.2))
predicted = pde.phi(grid, tilted, wide, 1 / T, inside).gradient
for p, colour, marker in ((2, PINK, "o"), (64, GREEN, "s")):
    moves = pde.estimate(
        estimates(
            "live_centre", tilted, inside, jax.random.key(p), gamma=wide, temperature=T,
            num_steps=p, step_size=0.03,
        )
    )  # fmt: skip
    points(right, inside, moves, colour, f"{p} replicas' own mean", marker, 6)
    off = np.abs(moves.mean - predicted)
    print(f"{p} replicas: up to {off.max():.3f} off, errors up to {moves.error.max():.3f}")
right.set(xlim=(-2, 2), ylim=(-1.5, 2))
left.legend(loc="upper center")
right.legend(loc="upper left", fontsize=7)
plt.show()

# %% [markdown]
# ## Remark 7: a gradient flow of a non-local functional
#
# The density of very many replicas around their own mean $m(\rho)$ follows
# $$\rho_t = \nabla\cdot\Big(\rho\,\nabla\Big[f + \frac{|x-m(\rho)|^2}{2\gamma}\Big]\Big)
# + T\Delta\rho,$$
# the Wasserstein gradient flow of
# $\int\rho f + T\int\rho\log\rho + \frac1{4\gamma}\iint|x-y|^2\rho\rho$: Fokker-Planck's free
# energy, and the interaction through the mean. The whole never grows; its local part does, from the
# Gibbs density on, for which that part is least. Points are 20,000 replicas.

# %%
coupling, S, count, dt = 0.4, 6.0, 20_000, 0.01
line = pde.Grid(-3.5, 3.5, 281)
setting = {"gamma": coupling, "temperature": 0.15}
begin = pde.gibbs(line, tilted, beta=1 / (2 * 0.15))  # where uncoupled replicas end
rho = pde.mean_field(line, tilted, begin, horizon=S, num_steps=1200, num_saves=120, **setting)
rho = jnp.concatenate([begin[None], rho])
whole, local = (
    jax.vmap(lambda r, g=g: pde.mean_field_energy(line, tilted, r, gamma=g, temperature=0.15))(rho)
    for g in (coupling, 1e12)
)


def move(y, n):
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(8), n), y.shape)
    noise = (2 * 0.15 * dt) ** 0.5 * noise
    return y - dt * (tilted_slope(y) + (y - y.mean()) / coupling) + noise, None


below = jnp.cumsum(begin) * line.spacing[0]
y = jnp.interp(jax.random.uniform(jax.random.key(7), (count,)), below, line.points)
y, _ = jax.lax.scan(move, y, jnp.arange(int(S / dt)))
counts, edges = np.histogram(y, bins=np.linspace(-3, 3, 41))
width, middle = edges[1] - edges[0], (edges[1:] + edges[:-1]) / 2
left, right = axes(("x", "density"), ("time", "functional"))
left.plot(line.points, rho[0], "--", color="black", linewidth=0.8, label="at time 0")
left.plot(line.points, rho[-1], color=GREEN, label=f"equation, time {S:g}")
found = pde.Estimate(counts / count / width, counts**0.5 / count / width)
points(left, middle, found, GREEN, "replicas")
right.plot(np.linspace(0, S, 121), whole, color=GREEN, label="all of it")
right.plot(np.linspace(0, S, 121), local, "--", color="black", label="without the interaction")
left.set(xlim=(-2.5, 2.5))
left.legend(fontsize=7)
right.legend()
plt.show()
print(f"largest change of the functional between two times: {jnp.diff(whole).max():.1e}")
print(f"of its local part alone: {jnp.diff(local).max():.1e}")
