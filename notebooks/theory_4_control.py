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
# # Control: what it gains, and what it costs
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/theory_4_control.ipynb)
#
# Section 5 of [Deep Relaxation](https://arxiv.org/abs/1704.04932): gradient descent with a control that is paid for. The
# best control is a gradient of a value function, and gains more than its effort.
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
# ## The value function, the cost (24) and the control (25)
#
# In $dx = -\nabla f(x)\,ds - a(s)\,ds + \beta^{-1/2}dW$ a control $a$ may help, at the cost
# $\mathbb E[V(x(S)) + \frac12\int_0^S|a|^2 ds]$. The least cost solves the Hamilton-Jacobi-Bellman
# equation
# $$-u_s = -\nabla f\cdot\nabla u - \tfrac12|\nabla u|^2 + \tfrac1{2\beta}\Delta u,
# \qquad u(x, S) = V(x),$$
# and the optimal control is $a = \nabla u$; without $\nabla f$ the equation is viscous HJ,
# backwards in time (Remark 10). (The noise is the paper's of §5: its temperature is $1/2\beta$.)
# Paths that use the interpolated $\nabla u$ pay what the equation promises; without a control they
# pay more.


# %%
def double_well(x):
    return (x**2 - 1) ** 2 + 0.3 * x


def rugged(x):
    return x**2 / 4 + 0.3 * jnp.cos(7 * x) + 0.15 * jnp.sin(13 * x)


def plane(x):
    return double_well(x[0]) + (x[1] - 0.4 * x[0]) ** 2 + 0.2 * jnp.cos(5 * x[1])


beta, horizon = 2.0, 1.5
solving = {"beta": beta, "horizon": horizon, "num_levels": 50, "num_steps": 600, "method": "linear"}
running = {"beta": beta, "horizon": horizon, "num_steps": 150}
line = pde.Grid(-3.0, 3.0, 401)
well_and_cost = double_well, double_well  # f, and V = f
values = pde.value_function(line, *well_and_cost, **solving)
starts = np.linspace(-1.8, 1.8, 9)


@jax.jit
@jax.vmap
def pays(x, key):
    gap = pde.control_gap(line, *well_and_cost, jnp.full(4000, x), key, values=values, **running)
    return gap.cost, gap.uncontrolled, gap.value


cost, uncontrolled, promised = pays(starts, jax.random.split(jax.random.key(4), len(starts)))
panel = axes(("x(0)", "cost"))
panel.plot(line.points, values[0], color=BLUE, label="u(x, 0), the equation")
points(panel, starts, cost, BLUE, r"controlled paths, $E[V + \frac{1}{2}\int|a|^2]$")
points(panel, starts, uncontrolled, "black", "uncontrolled paths, E V", "s")
panel.set(xlim=(-2, 2), ylim=(-0.3, 0.7))
panel.legend(loc="upper left")
off = np.abs(cost.mean - promised)
print(f"paid - promised: up to {off.max():.4f}, {np.max(off / cost.error):.1f} standard errors")

# %% [markdown]
# ## Comparison (27)
#
# The value $u$ is nowhere above $v$, the expected cost of uncontrolled paths, which solves the backward
# Kolmogorov equation (9): $-v_s = -\nabla f\cdot\nabla v + \frac1{2\beta}\Delta v$, $v(x,S) = V(x)$.

# %%
expected = pde.backward_kolmogorov(
    line, double_well, double_well, beta=beta, horizon=horizon, num_levels=50, num_steps=600
)
print(f"u - v at all nodes and times: at most {(values - expected).max():.1e}")
off = np.abs(uncontrolled.mean - line.interpolate(expected[0], starts))
print(f"v against paths: up to {np.max(off / uncontrolled.error):.1f} standard errors off")

# %% [markdown]
# ## Theorem 12: control gains more than its effort
#
# $$\mathbb E\,V(x_{csgd}(S)) \;\le\; \mathbb E\,V(x_{sgd}(S))
# - \tfrac12\,\mathbb E\!\int_0^S |a(x_{csgd}(s), s)|^2\,ds .$$
# Both sides by Monte Carlo, with the same Brownian motions, on three landscapes: the double well, a
# rugged line and a plane; for the terminal cost $V = f$, and for an indicator-like $V$ that is 0
# near a target and 1 elsewhere. 20,000 paths each.


# %%
def miss(target, width=0.1):
    """1 away from a ball of radius 1/2 around the target, 0 inside, smoothly."""

    def cost(x):
        return jax.nn.sigmoid((jnp.sqrt(jnp.sum((x - target) ** 2) + 1e-12) - 0.5) / width)

    return cost


landscapes = {
    "double well": (double_well, line, 1.0, -1.0),
    "rugged": (rugged, pde.Grid(-5.0, 5.0, 501), 2.5, 0.0),
    "plane": (plane, pde.Grid((-2.5, -3.0), (2.5, 3.0), (81, 81)), (1.0, 0.5), (-1.0, -0.4)),
}
gaps = {}
for name, (loss, domain, begin, target) in landscapes.items():
    start = jnp.broadcast_to(jnp.asarray(begin), (20_000, *domain.point_shape))
    for kind, V in (("V = f", loss), ("indicator", miss(jnp.asarray(target)))):
        u = pde.value_function(domain, loss, V, **solving)
        gaps[f"{name}, {kind}"] = pde.control_gap(
            domain, loss, V, start, jax.random.key(12), values=u, **running
        )

panel = axes(("expected terminal cost", ""))
panel.set_yticks(range(len(gaps)), gaps)
panel.invert_yaxis()
for row, (name, gap) in enumerate(gaps.items()):
    panel.plot([gap.controlled.mean, gap.right.mean], [row, row], color="grey", linewidth=1)
    for side, look in (
        (gap.controlled, {"color": BLUE, "fmt": "o"}),
        (gap.right, {"color": RED, "fmt": "s"}),
    ):
        panel.errorbar(side.mean, row, xerr=2 * side.error, markersize=5, **look)
    sides = (gap.controlled, gap.right, gap.gap)
    print(
        f"{name:22}",
        "left {:.4f} +- {:.4f}, right {:.4f} +- {:.4f}, gap {:.4f} +- {:.4f}".format(
            *sum(sides, ())
        ),
    )
panel.legend(panel.containers[:2], ("left side", "right side"))
plt.show()

# %% [markdown]
# ## A game of replicas (Remark 11)
#
# If drift and cost depend on the mean of all, (26) is a mean-field game. Each player is pulled to the
# mean of all and may pay for a control; the equilibrium is a fixed point. That players do better than
# uncontrolled ones by more than their effort is conjectured; here it is measured, for weak and strong
# pulls.


# %%
def begin(x):
    return jnp.exp(-((x - 1) ** 2) / 0.18)


def pay(x, m):
    return double_well(x)


scopes = np.asarray([0.2, 0.5, 1.0, 2.0, 5.0])
games = [
    pde.mean_field_game(
        line, double_well, pay, begin, gamma=scope, beta=beta,
        horizon=horizon, num_levels=150,
    )
    for scope in scopes
]  # fmt: skip
panel = axes((r"scope $\gamma$ of the pull", "expected terminal cost"))
panel.plot(scopes, [game.uncontrolled for game in games], "--", color="black", label="uncontrolled")
points(panel, scopes, [g.uncontrolled - g.effort for g in games], RED, "less the effort", "s")
points(panel, scopes, [game.controlled for game in games], BLUE, "players")
panel.set(xscale="log")
panel.set_xticks(scopes, [f"{scope:g}" for scope in scopes])
panel.minorticks_off()
panel.legend()
plt.show()
print("last changes of the means:", ", ".join(f"{g.residuals[-1]:.0e}" for g in games))
print("improvement beyond the effort:", ", ".join(f"{g.improvement:.4f}" for g in games))
