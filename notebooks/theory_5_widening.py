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
# # Widening: what relaxation does to minima
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/entropix-jax/entropix/blob/v0.2.0/notebooks/theory_5_widening.ipynb)
#
# Section 6 of [Deep Relaxation](https://arxiv.org/abs/1704.04932): curvature falls, valleys widen, shallow minima vanish; and how far that holds.
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


# %%
def f(x):
    return x**2 / 2 + 0.4 * jnp.cos(3 * x) + 0.2 * jnp.sin(2 * x)


slope, curvature = jnp.vectorize(jax.grad(f)), jnp.vectorize(jax.grad(jax.grad(f)))
grid = pde.Grid(-6.0, 6.0, 1201)
x, gamma, T = grid.points, 0.5, 0.3  # T = 1/beta
critical = pde.shock_time(grid, f)  # -1/min f'', (29)

# %% [markdown]
# ## Examples 13 and 14: curvature falls like $c/(1+ct)$, or like $e^{-\lambda t}$
#
# For $f = c|x|^2/2$ viscous HJ gives $u = |x|^2/(2(t+1/c)) + \frac{N}{2\beta}\log(1+ct)$: the
# curvature is $c/(1+ct)$, whatever $\beta$. The heat equation leaves a quadratic's curvature alone;
# on an eigenfunction, $-\cos kx$ with $\lambda = k^2/2\beta$, it is $c\,e^{-\lambda t}$, which
# falls more slowly at first if $c > \lambda$.

# %%
c, k, b = 2.25, 1.5, 2.0  # both losses have the curvature c = k^2 at 0
bowl, wave = (lambda x: c * x**2 / 2), (lambda x: -jnp.cos(k * x))
times, t = np.linspace(0.1, 1.9, 7), np.linspace(0, 2.1, 100)
patch, box = pde.Grid(-0.02, 0.02, 5), pde.Grid(-12.0, 12.0, 601)


def at_zero(u):
    return float(pde.hessian(patch, u.value)[1, 0, 0])


panel = axes(("t", "curvature at 0"))
panel.plot(t, pde.curvature_bound(c, t), color=BLUE, label="c/(1 + ct), viscous HJ")
panel.plot(
    t, pde.heat_curvature(c, t, k**2 / (2 * b)), color=YELLOW, label=r"$c\,e^{-\lambda t}$, heat"
)
for n, b_hj in enumerate((0.5, 5.0, 1e4)):
    later = times + 0.08 * n
    solve = lambda s, b=b_hj: pde.cole_hopf(box, bowl, s, b, patch.points)  # noqa: E731
    measured = np.asarray([at_zero(solve(s)) for s in later])
    points(panel, later, measured, BLUE, rf"quadratic, $\beta$ = {b_hj:g}", "osD"[n])
    off = np.abs(measured - pde.curvature_bound(c, later)).max()
    print(f"Example 13, beta = {b_hj:g}: error up to {off:.0e}")
measured = np.asarray([at_zero(pde.heat_equation(box, wave, s, b, patch.points)) for s in times])
points(panel, times, measured, YELLOW, "wave", "^", 6)
off = np.abs(measured - pde.heat_curvature(c, times, k**2 / (2 * b))).max()
print(f"Example 14: error up to {off:.0e}")
panel.set(xlim=(0, 2.1), ylim=(0, 2.4))
panel.legend()
plt.show()

# %% [markdown]
# ## Example 15: Burgers' equation, and the critical time (29)
#
# In one dimension $p = u_x$ solves $p_t + (p^2/2)_x = 0$: values of $p$ travel at speed $p$, so
# $p(x,t) = p_0(x - t\,p(x,t))$ (28), until a shock forms at $t^* = -1/\min f''$ (29). Lines are
# (28) before the shock, and Hopf-Lax after it; points are Godunov's conservative scheme. On the
# right: along the steepest characteristic $1/p_x = t - t^*$, so measured slopes give $t^*$.

# %%
mesh = pde.Grid(-4.0, 4.0, 4001)
every = slice(1000, -1000, 50)
left, right = axes(("x", "p(x, t)"), (r"$t/t^*$", r"$1/\min\, p_x$"))
left.plot(x, slope(x), color="black", linewidth=0.7, label="$t = 0$")
characteristic = pde.characteristics(jax.grad(f), mesh.points, 0.9 * critical)
after = pde.hopf_lax(mesh, f, 3 * critical).gradient
for p, ratio, colour in ((characteristic, 0.9, PINK), (after, 3, RED)):
    scheme = pde.burgers(mesh, jax.grad(f), ratio * critical)
    left.plot(mesh.points, p, color=colour, label=rf"$t = {ratio}\,t^*$", linewidth=1)
    points(left, mesh.points[every], scheme[every], colour, size=3)
    print(f"t = {ratio} t*: mean |Godunov - exact| {np.abs(scheme - p)[1000:-1000].mean():.4f}")
left.set(xlim=(-2.1, 2.1), ylim=(-3, 3))
left.legend(loc="upper left", fontsize=7)
times = critical * np.linspace(0.1, 0.9, 5)
slopes = [mesh.gradient(pde.characteristics(jax.grad(f), mesh.points, t)) for t in times]
steepest = [1 / float(s.min()) for s in slopes]
line_slope, intercept = np.polyfit(times, steepest, 1)
right.plot([0, 1], [-critical, 0], color=RED, label=r"$t - t^*$")
points(right, times / critical, steepest, RED, "measured")
right.set(xlim=(0, 1.02))
right.legend()
print(f"t* = {critical:.4f} by (29), {-intercept / line_slope:.4f} from the slopes")

# %% [markdown]
# ## Example 16: valleys widen
#
# Until the shock the ends of the convex interval around a local minimum move with the
# characteristics, $x_\pm(t) = x_\pm(0) + t\,f'(x_\pm(0))$; as $f'(x_+) > 0 > f'(x_-)$, the valley
# widens.

# %%
minimum = x[700 + int(np.abs(slope(x[700:800])).argmin())]
for _ in range(5):
    minimum = float(minimum - slope(minimum) / curvature(minimum))  # Newton
ratios = np.linspace(0, 1, 6)
interval = pde.convex_interval(grid, f, minimum)
formula = np.asarray(
    [interval, *(pde.widened_interval(f, interval, a * critical) for a in ratios[1:])]
)


def measured_ends(t):
    """Of u(., t), made from the characteristics."""
    p = pde.characteristics(jax.grad(f), mesh.points, t)
    return pde.convex_interval(mesh, f(mesh.points - t * p) + t * p**2 / 2, minimum)


measured = np.asarray([measured_ends(a * critical) for a in ratios[1:-1]])
panel = axes((r"$t/t^*$", "convex around the minimum"))
panel.fill_between(ratios, *formula.T, color=RED, alpha=0.15, linewidth=0)
panel.plot(ratios, formula, color=RED)
points(panel, ratios[1:-1], measured[:, 0], RED)
points(panel, ratios[1:-1], measured[:, 1], RED)
panel.axhline(minimum, color="black", linewidth=0.8, label="minimum of f")
panel.set(xlim=(0, 1))
panel.legend(loc="upper left")
(before, *_, after), off = np.diff(formula)[:, 0], np.abs(measured - formula[1:-1]).max()
print(f"width {before:.3f} at t = 0, {after:.3f} at t*; measured ends are off by up to {off:.0e}")

# %% [markdown]
# ## Remark 17: minima persist, then vanish
#
# Under HJ a local minimum $y_0$ stays a minimum, in its place, until
# $t = \min_y |y-y_0|^2/(2(f(y_0)-f(y)))$ over the lower $y$, when the deeper valley reaches it. (For
# viscous HJ the minimiser of a skew $f$ moves: `tests/theory/test_regularity.py`.)


# %%
def two_valleys(x):
    return jnp.cos(3 * x) / 2 + (x - 0.4) ** 2 / 2


def minima(domain, values):
    """Nodes at which values stop falling."""
    falls = np.sign(np.diff(np.asarray(values)))
    turns = np.flatnonzero(falls != 0)
    turns = turns[:-1][(falls[turns[:-1]] < 0) & (falls[turns[1:]] > 0)]
    return domain.points[turns + 1]


domain = pde.Grid(-3.0, 3.0, 6001)
y, heights = domain.points, np.asarray(domain.sample(two_valleys))
lower, upper = sorted(minima(domain, heights), key=two_valleys)
depth = float(two_valleys(upper)) - heights
deeper = depth > 1e-9
vanishing = ((y - upper)[deeper] ** 2 / (2 * depth[deeper])).min()
times = np.linspace(0.05, 1.4, 19) * vanishing
panel = axes(("t", "local minima of u, HJ"))
panel.hlines([lower, upper], 0, [times[-1], vanishing], color=RED)
panel.axvline(vanishing, color="grey", linewidth=0.8, linestyle="--", label="formula")
for t in times:
    places = minima(domain, pde.hopf_lax(domain, two_valleys, t).value)
    points(panel, [t] * len(places), places, RED)
panel.legend(loc="center left")
plt.show()

# %% [markdown]
# ## Lemmas 18 and 20: bounds on curvature
#
# For every $\beta$, with $C_k = \sup f_{x_kx_k}$: $\sup_x u_{x_kx_k}(x,t) \le 1/(1/C_k + t)$, and at
# minima of $u$ the harmonic mean of its curvatures is at most $1/(t + 1/\mathrm{HM}(C))$. On random
# landscapes, six waves in a bowl, in 1-D and 2-D.


# %%
def cube(ndim, width, n):
    return pde.Grid((-width,) * ndim, (width,) * ndim, (n,) * ndim)


left, right = axes(("bound", "largest $u_{x_kx_k}$"), ("bound", "largest HM of eigenvalues"))
for seed, ndim, marker in ((0, 1, "o"), (1, 1, "o"), (2, 2, "s")):
    rng = np.random.default_rng(seed)
    k = jnp.asarray(rng.uniform(-3, 3, size=(6, ndim)))
    phase, size = rng.uniform(0, 2 * np.pi, size=6), rng.normal(size=6) / 3
    loss = lambda x: jnp.sum(x**2) / 2 + size @ jnp.cos(k @ jnp.atleast_1d(x) + phase)  # noqa: B023, E731
    wide_box = cube(ndim, 6.0, (2401, 201)[ndim - 1])
    patch = cube(ndim, (1.5, 0.75)[ndim - 1], (121, 7)[ndim - 1])
    C = jnp.diagonal(pde.hessian(wide_box, loss), axis1=-2, axis2=-1).reshape(-1, ndim).max(axis=0)
    for b, colour in ((0.5, YELLOW), (5.0, GREEN), (50.0, BLUE)):
        for t in (0.3, 1.0):
            u = pde.cole_hopf(wide_box, loss, t, b, patch.points, max_halvings=0).value
            H = pde.hessian(patch, u).reshape(-1, ndim, ndim)
            eigenvalues = jnp.linalg.eigvalsh(H)
            means = pde.harmonic_mean(eigenvalues[eigenvalues.min(axis=-1) > 1e-3])
            largest = jnp.diagonal(H, axis1=1, axis2=2).max(axis=0)
            points(left, pde.curvature_bound(C, t), largest, colour, marker=marker)
            points(right, pde.minimum_bound(C, t), means.max(), colour, marker=marker)
for panel in (left, right):
    panel.plot([0, 2.3], [0, 2.3], color="black", linewidth=0.9)
plt.show()
