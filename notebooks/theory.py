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
# # What relaxation does to a landscape, checked
#
# *Deep Relaxation* (Chaudhari, Oberman, Osher, Soatto, Carlier,
# [arXiv:1704.04932](https://arxiv.org/abs/1704.04932)) replaces a loss $f$ by the solution
# $u(\cdot, \gamma)$ of a partial differential equation that starts at $f$, and proves what that
# does: to gradients, to minima, to the work of an optimal control. This notebook goes through the
# paper's statements in their order, but for the escape from a well (§2.4), which comes last, and
# measures each one. **Lines are theory** (closed forms, quadrature, exact solvers of
# `entropix.pde`), **points are measurements** (the package's optimisers, stochastic paths,
# independent schemes), and bars are two standard errors: where they cannot be seen they are smaller
# than the marker.
#
# The strict versions, with more paths and tolerances, are the tests in `tests/theory`. In Colab,
# clone the repository and open this file from its `notebooks` folder; the next cell installs the
# package from there.

# %%
import importlib.util

if importlib.util.find_spec("entropix") is None:
    # %pip install --quiet --editable "..[train]"
    pass

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import entropix
from entropix import pde
from entropix.figures.convergence import COLOURS

jax.config.update("jax_enable_x64", True)  # the reference solvers insist on it

# %%
BLUE, RED, YELLOW = (COLOURS[name] for name in ("entropy_sgd", "hj", "heat"))
GREEN, PINK = COLOURS["elastic_sgd"], COLOURS["parle"]
plt.rcParams |= {"figure.dpi": 80, "legend.frameon": False, "legend.fontsize": 8, "font.size": 9}


def axes(*labels):
    """A plain panel for every pair of labels, (x, y)."""
    figure, panels = plt.subplots(
        1, len(labels), figsize=(6, 3), layout="constrained", squeeze=False
    )
    figure.get_layout_engine().set(w_pad=0.08)
    for panel, (x, y) in zip(panels[0], labels, strict=True):
        panel.set(xlabel=x, ylabel=y)
        panel.grid(alpha=0.2)
    return panels[0] if len(labels) > 1 else panels[0, 0]


def points(panel, x, y, colour, label=None, marker="o", size=4.5):
    """Measured numbers, or estimates with two standard errors to either side."""
    mean, bars = (y.mean, 2 * y.error) if isinstance(y, pde.Estimate) else (y, None)
    look = {"color": colour, "label": label, "markersize": size, "markerfacecolor": "none"}
    panel.errorbar(x, mean, bars, fmt=marker, **look)


def root_mean_square(samples):
    """With its standard error, which is that of the mean square over twice the root."""
    square = pde.estimate(samples**2)
    return pde.Estimate(square.mean**0.5, square.error / (2 * square.mean**0.5))


# %% [markdown]
# ## The landscape and its three relaxations (§2)
#
# One rugged $f$ serves us for the first half. Its relaxations are the solutions at time
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
# ## Gradients
# ### Lemma 1: the gradient of local entropy is an average, in two ways
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
# ### Lemma 2: without noise, the proximal point
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
# ### Lemma 3: how fast the inner loop gets there
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
# ### Lemma 4: a quadratic loss, in closed form
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

# %% [markdown]
# ## Homogenisation (§3)
# ### Theorem 5: a fast inner loop is the gradient of local entropy
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
# ### Remark 6: the critical scope
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
# ### HEAT (23), and Remark 8
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
left.plot(x, smooth.gradient, color=YELLOW, label="Gaussian average")
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

# %% [markdown]
# ## Replicas
# ### Elastic-SGD (20)-(22): an average over replicas in the place of an average over time
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
# ### The same with a centre that is the replicas' own mean
#
# "Given its centre" matters. If $\bar x$ is the mean of the replicas at every step, the pull on the
# mean cancels, and the centre moves by the mean of $-\nabla f(x^a)$. Conditioned on their mean being
# $x$, many replicas sample $\rho_1(\cdot\,; z)$ around that $z$ for which $\langle y\rangle = x$,
# so the centre follows $\nabla f_\gamma(z)$ at $x = z - \gamma\nabla f_\gamma(z)$ (green): the
# gradient of a function whose Moreau envelope is $f_\gamma$. Critical points are the same, slopes
# are not. One replica follows $\nabla f$; two are on the way.

# %%
from entropix.landscape.functions.estimators import estimates

anchors = jnp.linspace(-4.5, 4.5, 901)
along = pde.cole_hopf(grid, tilted, wide, 1 / T, anchors).gradient
panel = axes(("x", "gradient"))
panel.plot(x, tilted_slope(x), color="black", linewidth=0.7, label=r"$\nabla f$")
panel.plot(anchors, along, color=BLUE, label=r"$\nabla f_\gamma$, local entropy")
panel.plot(anchors - wide * along, along, color=GREEN, label=r"$\nabla f_\gamma(z)$ at $x(z)$")
inside = where[1:-1]
predicted = jnp.interp(jnp.asarray(inside), anchors - wide * along, along)
for p, colour, marker in ((2, PINK, "o"), (64, GREEN, "s")):
    moves = pde.estimate(
        estimates(
            "live_centre", tilted, inside, jax.random.key(p), gamma=wide, temperature=T,
            num_steps=p, step_size=0.03,
        )
    )  # fmt: skip
    points(panel, inside, moves, colour, f"{p} replicas' own mean", marker, 6)
    off = np.abs(moves.mean - predicted)
    print(f"{p} replicas: up to {off.max():.3f} off, errors up to {moves.error.max():.3f}")
panel.set(xlim=(-2, 2), ylim=(-1.5, 2))
panel.legend(loc="upper left")
plt.show()

# %% [markdown]
# ## Control (§5)
# ### The value function (25)
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
# ### Theorem 12: control gains more than its effort
#
# $$\mathbb E\,V(x_{csgd}(S)) \;\le\; \mathbb E\,V(x_{sgd}(S))
# - \tfrac12\,\mathbb E\!\int_0^S |a(x_{csgd}(s), s)|^2\,ds .$$
# Both sides by Monte Carlo, with the same Brownian motions, on three landscapes: the double well, a
# rugged line and a plane; for the terminal cost $V = f$, and for an indicator-like $V$ that is 0
# near a target and 1 elsewhere. 20,000 paths each; the tests use 100,000.


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
# ### The forward density (26)
#
# The controlled paths have a density,
# $\rho_s = \nabla\cdot\big((\nabla f + \nabla u)\,\rho\big) + \frac1{2\beta}\Delta\rho$. We start
# in a Gaussian around the upper well of the double well, and compare the equation's solution at $S$
# with the histogram of 20,000 controlled paths.

# %%
spread, count = 0.2, 20_000


def density(x):
    return jnp.exp(-((x - 1) ** 2) / (2 * spread**2)) / (2 * jnp.pi * spread**2) ** 0.5


start = 1 + spread * jax.random.normal(jax.random.key(5), (count,))
gap = pde.control_gap(line, *well_and_cost, start, jax.random.key(6), values=values, **running)
common = {"beta": beta, "horizon": horizon, "num_steps": 600}
rho = pde.fokker_planck(line, line.sample(double_well) + values, density, **common)[-1]
free = pde.fokker_planck(line, double_well, density, **common)[-1]
counts, edges = np.histogram(gap.points, bins=np.linspace(-3, 3, 41))
width, middle = edges[1] - edges[0], (edges[1:] + edges[:-1]) / 2
measured = pde.Estimate(counts / count / width, counts**0.5 / count / width)
panel = axes(("x", "density at s = S"))
panel.plot(line.points, free, "--", color="black", linewidth=0.9, label="equation, no control")
panel.plot(line.points, rho, color=BLUE, label="equation, controlled")
points(panel, middle, measured, BLUE, "paths, controlled")
panel.set(xlim=(-2.2, 2.2), ylim=(0, None))
panel.legend()
inside = middle[:, None] + width * (np.arange(20) - 9.5) / 20  # midpoints of twenty parts
expected = line.interpolate(rho, inside).mean(axis=1)
off, noise = np.abs(measured.mean - expected), np.sqrt(expected / count / width)
often = expected * count * width > 10  # paths
print(
    f"mass {pde.mass(line, rho):.12f}; total variation between the two {off.sum() * width / 2:.4f}"
)
print(f"bins of 10 paths or more: off by up to {(off / noise)[often].max():.1f} standard errors")

# %% [markdown]
# ## Regularity and widening (§6)
# ### Examples 13 and 14: curvature falls like $c/(1+ct)$, or like $e^{-\lambda t}$
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
# ### Example 15: Burgers' equation, and the critical time (29)
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
# ### Example 16: valleys widen
#
# Until the shock the ends of the convex interval around a local minimum move with the
# characteristics, $x_\pm(t) = x_\pm(0) + t\,f'(x_\pm(0))$; as $f'(x_+) > 0 > f'(x_-)$, the valley
# widens.

# %%
ratios, minimum = np.linspace(0, 1, 6), float(root)
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
# ### Remark 17: minima persist, then vanish; and where they move
#
# A convex $f$ stays convex. Its minimiser stays in place for HJ, but **not** for viscous HJ if $f$
# is skew: noise pushes towards the flatter side, at first like $-t f'''/(2\beta f'')$ (dashed). So
# "the same minimisers" needs the qualification. On the right a local minimum $y_0$ of a non-convex
# $f$: under HJ it stays a minimum, in its place, until $t = \min_y |y-y_0|^2/(2(f(y_0)-f(y)))$ over
# the lower $y$, when the deeper valley reaches it.


# %%
def skew(x):
    return jnp.exp(x) - 2 * x + x**2 / 10


def two_valleys(x):
    return jnp.cos(3 * x) / 2 + (x - 0.4) ** 2 / 2


def minima(domain, values):
    """Nodes at which values stop falling."""
    falls = np.sign(np.diff(np.asarray(values)))
    turns = np.flatnonzero(falls != 0)
    turns = turns[:-1][(falls[turns[:-1]] < 0) & (falls[turns[1:]] > 0)]
    return domain.points[turns + 1]


left, right = axes(("t", "minimiser of a skew convex f"), ("t", "local minima of u, HJ"))
times, domain, b = np.linspace(0.1, 2, 6), pde.Grid(-2.0, 2.0, 4001), 2.0
start = float(minima(domain, domain.sample(skew))[0])
inviscid = [float(minima(domain, pde.hopf_lax(domain, skew, t).value)[0]) for t in times]
window, wide_line = pde.Grid(start - 0.3, start + 0.1, 401), pde.Grid(-9.0, 7.0, 401)
relaxed = [pde.cole_hopf(wide_line, skew, t, b, window.points).value for t in times]
viscous = [window.points[int(u.argmin())] for u in relaxed]
least = min(float(pde.hessian(window, u).min()) for u in relaxed)
second, third = jax.grad(jax.grad(skew)), jax.grad(jax.grad(jax.grad(skew)))
drift = third(start) / (2 * b * second(start))
left.axhline(start, color=RED, label="HJ")
left.plot(
    [0, 0.6], [start, start - 0.6 * drift], "--", color=BLUE, label=rf"viscous HJ, $\beta$ = {b:g}"
)
points(left, times, inviscid, RED)
points(left, times, viscous, BLUE)
left.set(xlim=(0, 2.1), ylim=(start - 0.17, start + 0.1))
left.legend(loc="upper right")

domain = pde.Grid(-3.0, 3.0, 6001)
y, heights = domain.points, np.asarray(domain.sample(two_valleys))
lower, upper = sorted(minima(domain, heights), key=two_valleys)
depth = float(two_valleys(upper)) - heights
deeper = depth > 1e-9
vanishing = ((y - upper)[deeper] ** 2 / (2 * depth[deeper])).min()
times = np.linspace(0.05, 1.4, 19) * vanishing
found = [minima(domain, pde.hopf_lax(domain, two_valleys, t).value) for t in times]
right.hlines([lower, upper], 0, [times[-1], vanishing], color=RED)
right.axvline(vanishing, color="grey", linewidth=0.8, linestyle="--", label="formula")
for t, places in zip(times, found, strict=True):
    points(right, [t] * len(places), places, RED)
right.legend(loc="center left")
two = sum(len(places) == 2 for places in found)
moved = inviscid[-1] - start, viscous[-1] - start
before, after = times[two - 1 : two + 1]
print("minimiser at t = 2: moved by {:.4f} (HJ) and {:.3f} +- 0.001 (viscous HJ)".format(*moved))
print(f"viscous HJ stays convex: its smallest curvature is {least:.3f}")
print(
    f"the upper minimum vanishes at t = {vanishing:.3f}; measured: from {before:.3f} to {after:.3f}"
)

# %% [markdown]
# ### Lemmas 18 and 20: bounds on curvature
#
# With $C_k = \sup f_{x_kx_k}$, for every $\beta$,
# $$\sup_x u_{x_kx_k}(x,t) \le \frac1{1/C_k + t}, \qquad
# \mathrm{HM}\big(\lambda(D^2u)\big) \le \frac1{t + 1/\mathrm{HM}(C)}
# \text{ at local minima of } u,$$
# HM being the harmonic mean. Random landscapes, six waves in a bowl, in one dimension (circles) and
# two (squares), at $t$ = 0.3 and 1; the line is equality. For Lemma 20 we take all nodes at which
# $u$ is convex, among which its minima are.


# %%
def landscape(seed, ndim):
    rng = np.random.default_rng(seed)
    k = jnp.asarray(rng.uniform(-3, 3, size=(6, ndim)))
    phase, size = rng.uniform(0, 2 * np.pi, size=6), rng.normal(size=6) / 3
    return lambda x: jnp.sum(x**2) / 2 + size @ jnp.cos(k @ jnp.atleast_1d(x) + phase)


def cube(ndim, width, n):
    return pde.Grid((-width,) * ndim, (width,) * ndim, (n,) * ndim)


hessian, rows = jax.jit(pde.hessian, static_argnums=(0, 1)), []
for seed, ndim in ((0, 1), (1, 1), (2, 2)):
    loss, wide_box = landscape(seed, ndim), cube(ndim, 6.0, (2401, 401)[ndim - 1])
    patch = cube(ndim, (1.5, 0.75)[ndim - 1], (121, 7)[ndim - 1])
    everywhere = hessian(wide_box, loss)
    C = jnp.diagonal(everywhere, axis1=-2, axis2=-1).reshape(-1, ndim).max(axis=0)
    for b in (0.5, 5.0, 50.0):
        for t in (0.3, 1.0):
            u = pde.cole_hopf(wide_box, loss, t, b, patch.points, max_halvings=0).value
            H = pde.hessian(patch, u).reshape(-1, ndim, ndim)
            eigenvalues = jnp.linalg.eigvalsh(H)
            convex = eigenvalues.min(axis=-1) > 1e-3
            means = jnp.where(convex, pde.harmonic_mean(eigenvalues), 0)
            for k in range(ndim):
                rows.append((18, ndim, b, pde.curvature_bound(C[k], t), H[:, k, k].max()))
            rows.append((20, ndim, b, pde.minimum_bound(C, t), means.max()))

panels = axes(("bound", "largest $u_{x_kx_k}$"), ("bound", "largest HM of eigenvalues"))
lemma, ndims, betas, bound, measured = np.asarray(rows, float).T
for panel, number in zip(panels, (18, 20), strict=True):
    panel.plot([0, 2.3], [0, 2.3], color="black", linewidth=0.9)
    for b, colour in ((0.5, YELLOW), (5.0, GREEN), (50.0, BLUE)):
        for ndim, marker in ((1, "o"), (2, "s")):
            chosen = (lemma == number) & (betas == b) & (ndims == ndim)
            label = rf"$\beta$ = {b:g}" if ndim == 1 else None
            points(panel, bound[chosen], measured[chosen], colour, label, marker)
    panel.set(title=f"Lemma {number}", xlim=(0, 2.3), ylim=(0, 2.3))
    ratio = (measured / bound)[lemma == number]
    print(f"Lemma {number}: measured/bound up to {ratio.max():.4f} in {len(ratio)} cases")
panels[0].legend()
plt.show()

# %% [markdown]
# ### Lemma 19: harmonic means
#
# For a symmetric positive definite matrix the harmonic mean of the eigenvalues is at most that of
# the diagonal: the step from Lemma 18's coordinates to Lemma 20's eigenvalues. 400 random matrices
# $BB^\top$.

# %%
rng = np.random.default_rng(0)
panel = axes(("HM(diagonal)", "HM(eigenvalues)"))
smallest = []
for n, colour in ((2, BLUE), (3, GREEN), (5, YELLOW), (10, RED)):
    B = rng.normal(size=(100, n, n + 1))
    A = B @ B.swapaxes(-1, -2)
    diagonal = pde.harmonic_mean(np.diagonal(A, axis1=-2, axis2=-1))
    eigenvalues = pde.harmonic_mean(np.linalg.eigvalsh(A))
    points(panel, diagonal, eigenvalues, colour, f"n = {n}", size=3)
    smallest.append(float((diagonal / eigenvalues).min()))
panel.plot([0.1, 20], [0.1, 20], color="black", linewidth=0.9)
panel.set(xscale="log", yscale="log", xlim=(0.1, 20), ylim=(3e-3, 20))
panel.legend(ncol=2)
print(f"HM(diagonal)/HM(eigenvalues) is at least {min(smallest):.4f}")

# %% [markdown]
# ## Escape (§2.4)
# ### Kramers' time
#
# Why not leave it to noise? From a well over a saddle, $dX = -f'\,ds + \sqrt{2T}\,dW$ takes
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

# %% [markdown]
# ### Simulated annealing against scoping
#
# Annealing lets $T_k \to 0$ in $X \leftarrow X - \eta\nabla f + \sqrt{2\eta T_k}\,\xi$; scoping
# lets $\gamma_k \to 0$ instead, at a fixed $T$. Same double well (tilted: the paths start in the
# upper well), same 2000 gradients, a linear cooling from $T$ and a geometric scope from 10 to 0.1;
# neither is tuned. The line is the Fokker-Planck equation of the annealed process, with its
# temperature in fifty steps. **Annealing is ahead here**: clearly at $T = 0.1$, less so at higher
# temperatures, and at the lowest the barrier holds both back. A double well in one dimension is no
# case for scoping, at least not untuned.


# %%
def tilt(x):
    return (x**2 - 1) ** 2 / 4 - 0.1 * x


count, budget, L, eta = 4000, 2000, 20, 0.05
temperatures = jnp.asarray([0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
start, key, down = jnp.full(count, -1.0), jax.random.key(0), jnp.linspace(1, 0, budget)
tilt_slope = jnp.vectorize(jax.grad(tilt))
scopes = np.geomspace(10.0, 0.1, budget // L)


@jax.jit
@jax.vmap
def anneal(T):
    return pde.simulated_annealing(tilt_slope, start, key, step_size=eta, schedule=T * down)


@jax.jit
@jax.vmap
def scope(T):
    options = {"step_size": eta, "schedule": scopes, "temperature": T, "num_steps": L}
    return pde.scoped_descent(tilt_slope, start, key, **options)


well = pde.Grid(-2.5, 2.5, 201)


@jax.jit
@jax.vmap
def annealed_density(T):
    """Fifty pieces of constant temperature; the beta of (26) is 1/(2T)."""

    def piece(rho, T):
        options = {"beta": 1 / (2 * T), "horizon": budget * eta / 50, "num_steps": 40}
        return pde.fokker_planck(well, tilt, rho, **options)[-1], None

    begin = jnp.zeros(201).at[60].set(1 / well.spacing[0])  # all at -1
    return jax.lax.scan(piece, begin, T * (1 - (jnp.arange(50) + 0.5) / 50))[0]


T_line = jnp.geomspace(0.015, 0.35, 24)
predicted = annealed_density(T_line)[:, 101:].sum(axis=1) * well.spacing[0]
panel = axes(("T", "share of paths in the lower well"))
panel.plot(T_line, predicted, color="black", label="annealing, Fokker-Planck")
for name, run, colour in (("annealing", anneal, GREEN), ("scoping", scope, BLUE)):
    success = pde.estimate((run(temperatures) > 0).T.astype(float))
    points(panel, temperatures, success, colour, f"{name}, {count} paths")
    shares = ", ".join(f"{m:.3f} +- {e:.3f}" for m, e in zip(*success, strict=True))
    print(f"{name}, T = 0.02, 0.05, 0.1, 0.15, 0.2, 0.3: {shares}")
panel.set(xscale="log", ylim=(-0.05, 1.05))
panel.set_xticks(np.asarray(temperatures), [f"{t:g}" for t in temperatures])
panel.minorticks_off()
panel.legend()
plt.show()

# %% [markdown]
# ### Underdamped Langevin at large friction
#
# Momentum is a second variable: $dx = k v\,ds$, $dv = -k\nabla f\,ds - k^2 v\,ds + k\sqrt{2T}\,dW$,
# in the time $s$ of the limit. As the friction $k$ grows, $x$ tends to the overdamped
# $dX = -\nabla f\,ds + \sqrt{2T}\,dW$ driven by the same noise, with an error of order $1/k$ (the
# line, through the last point).

# %%
T, frictions = 0.2, np.asarray([4.0, 8.0, 16.0, 32.0])
ends = []
for k in frictions:

    def drift(state, s, k=k):
        x, v, X = state
        return jnp.stack([k * v, -k * jax.grad(symmetric)(x) - k**2 * v, -jax.grad(symmetric)(X)])

    v = T**0.5 * jax.random.normal(jax.random.key(5), (1000,))
    state = jnp.stack([jnp.full(1000, -1.0), v, jnp.full(1000, -1.0)], axis=1)
    sigma = (2 * T) ** 0.5 * jnp.asarray([[0.0], [k], [1.0]])  # one Brownian motion for v and X
    end = pde.simulate(
        drift, state, jax.random.key(4), sigma=sigma, horizon=1.0, num_steps=int(8 * k**2)
    )[-1]
    ends.append(end[:, 0] - end[:, 2])
rms = root_mean_square(jnp.stack(ends, axis=1))
panel = axes(("friction k", "r.m.s. of x - X at s = 1"))
law = rms.mean[-1] * frictions[-1] / frictions
panel.plot(frictions, law, color="black", linewidth=0.9, label="slope -1")
points(panel, frictions, rms, GREEN, "1000 paths")
panel.set(xscale="log", yscale="log")
panel.set_xticks(frictions, [f"{k:g}" for k in frictions])
panel.set_yticks([0.02, 0.05, 0.1], ["0.02", "0.05", "0.1"])
panel.minorticks_off()
panel.legend()
weights = np.asarray(rms.mean / rms.error)
(order, _), covariance = np.polyfit(
    np.log(frictions), np.log(rms.mean), 1, w=weights, cov="unscaled"
)
print(f"order {order:.2f} +- {covariance[0, 0] ** 0.5:.2f}")
