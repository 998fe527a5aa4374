"""Section 3: Theorem 5, Lemma 3, Remarks 6 and 8, HEAT (23), each with its measured error."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, cole_hopf, estimate, fast_slow, gradient_flow, heat

GRID = Grid(-6.0, 6.0, 1201)
GAMMA, T, START, HORIZON = 0.5, 0.3, 1.0, 1.0
EPSILON = np.asarray([1.0, 0.1, 0.01])
PATHS = {1.0: 20_000, 0.1: 20_000, 0.01: 5_000}


def f(x):
    return x**2 / 2 + 0.4 * jnp.cos(3 * x) + 0.2 * jnp.sin(2 * x)


def relaxed_gradient(form, x):
    if form == "heat":
        return heat(GRID, f, GAMMA, 1 / T, x).gradient
    return cole_hopf(GRID, f, GAMMA, 1 / T, x, num_halvings=0).gradient


@functools.cache
def homogenised(form):
    flow = gradient_flow(
        functools.partial(relaxed_gradient, form), np.asarray([START]), horizon=HORIZON,
        num_steps=20,
    )  # fmt: skip
    return float(flow[-1, 0])


class TestTheorem5:
    @pytest.mark.parametrize("form", ["proximal", "gradient", "heat"])
    def test_error_against_epsilon(self, form):
        X, weak, strong = homogenised(form), [], []
        for e in EPSILON:
            x, _ = fast_slow(
                f, jnp.full(PATHS[e], START), jax.random.key(1), gamma=GAMMA, temperature=T,
                epsilon=e, horizon=HORIZON, num_steps=int(max(50, 25 / e)), form=form,
            )  # fmt: skip
            weak.append(estimate(x[-1] - X))
            strong.append(float(estimate((x[-1] - X) ** 2).mean ** 0.5))
        slope = np.polyfit(np.log(EPSILON), np.log(strong), 1)[0]
        means = [f"{w.mean:.4f} ({w.error:.4f})" for w in weak]
        print(f"{form}: X {X:.4f}, mean error {means}, rms {np.asarray(strong)}, slope {slope:.2f}")
        assert np.all(np.diff(strong) < 0)
        # The fluctuations are of size sqrt(epsilon), as for every average over a fast variable.
        assert np.log10(strong[1] / strong[2]) == pytest.approx(0.5, abs=0.1)
        assert abs(weak[2].mean) < 4 * weak[2].error + 0.01
        assert abs(weak[2].mean) < abs(weak[0].mean) / 5

    def test_both_forms_have_one_limit(self):
        # Lemma 1: E (x - y)/gamma = E grad f(y), hence one homogenised flow; HEAT has another.
        assert abs(homogenised("heat") - homogenised("proximal")) > 0.01

    def test_unknown_form(self):
        with pytest.raises(ValueError, match="form must be one of .*got form='both'"):
            fast_slow(
                f, jnp.ones(2), jax.random.key(0), gamma=1.0, temperature=1.0, epsilon=1.0,
                horizon=1.0, num_steps=1, form="both",
            )  # fmt: skip


def test_heat_23_inner_variable_is_gaussian():
    _, y = fast_slow(
        f, jnp.full(20_000, START), jax.random.key(2), gamma=GAMMA, temperature=T, epsilon=0.05,
        horizon=0.5, num_steps=500, form="heat",
    )  # fmt: skip
    for power, truth in ((1, 0.0), (2, GAMMA * T), (4, 3 * (GAMMA * T) ** 2)):
        mean, error = estimate(y[-1] ** power)
        assert abs(mean - truth) < 4 * error + 2e-3 * truth


class TestLemma3:
    gamma, x = 0.15, 0.7

    def h(self, y):
        return f(y) + (self.x - y) ** 2 / (2 * self.gamma)

    def test_rate(self):
        curvature = jax.vmap(jax.grad(jax.grad(self.h)))(jnp.asarray(GRID.points))
        rate = float(curvature.min())
        assert rate > 0
        y = np.asarray(
            gradient_flow(
                jax.vmap(jax.grad(self.h)),
                np.asarray([-4.0, 0.0, 4.0]),
                horizon=8.0,
                num_steps=8000,
            )
        )
        p, s = y[-1].mean(), np.linspace(0, 8, 8001)[:, None]
        np.testing.assert_allclose(y[-1], p, rtol=0, atol=1e-10)
        distance = np.abs(y - p)
        assert np.all(distance <= np.exp(-rate * s) * distance[0] + 1e-10)
        late = slice(1000, 2000)
        measured = -np.polyfit(s[late, 0], np.log(distance[late]), 1)[0]
        print(f"lambda {rate:.4f}, measured rates {measured}")
        expected = float(jax.grad(jax.grad(self.h))(jnp.asarray(p)))
        np.testing.assert_allclose(measured, expected, rtol=0.02)
        assert np.all(measured >= rate)


@pytest.mark.parametrize(("ratio", "limits"), [(0.98, 1), (1.05, 2)])
def test_remark_6_threshold(ratio, limits):
    # Where f curves down most, at y*, start from x such that y* is stationary: below the threshold
    # gamma < -1/min f'' it attracts everything, above it is unstable.
    curvature = jax.vmap(jax.grad(jax.grad(f)))(jnp.asarray(GRID.points))
    y = GRID.points[int(curvature.argmin())]
    gamma = ratio * -1 / float(curvature.min())
    slope = jax.vmap(jax.grad(f))
    x = y + gamma * float(jax.grad(f)(y))
    ends = gradient_flow(
        lambda z: slope(z) + (z - x) / gamma, y + np.asarray([-0.3, 0.3]), horizon=300.0,
        num_steps=6000,
    )[-1]  # fmt: skip
    assert len(np.unique(np.round(ends, 3))) == limits


def test_remark_8_at_a_critical_point():
    # u_x - v_x = -gamma f' f'' + O(gamma^2): the two agree to first order where f' = 0, and
    # exactly only if f is symmetric about that point.
    roots = np.asarray([0.0])
    for _ in range(50):
        slope, curvature = jax.grad(f)(roots[0]), jax.grad(jax.grad(f))(roots[0])
        roots = roots - np.asarray(slope / curvature)
    points = np.asarray([roots[0], roots[0] + 0.4])
    assert abs(jax.grad(f)(points[0])) < 1e-12
    gammas, differences = np.asarray([0.04, 0.02, 0.01]), []
    for gamma in gammas:
        u = cole_hopf(GRID, f, gamma, 1 / T, points).gradient
        v = heat(GRID, f, gamma, 1 / T, points).gradient
        differences.append(np.abs(u - v))
    orders = [np.polyfit(np.log(gammas), np.log(d), 1)[0] for d in np.asarray(differences).T]
    print(f"order in gamma at a critical point {orders[0]:.2f}, elsewhere {orders[1]:.2f}")
    assert orders[0] == pytest.approx(2, abs=0.3)
    assert orders[1] == pytest.approx(1, abs=0.3)
    even = lambda x: jnp.cos(3 * x) + x**2  # noqa: E731
    gradients = [solve(GRID, even, 0.3, 1 / T, [0.0]).gradient for solve in (cole_hopf, heat)]
    np.testing.assert_allclose(gradients, 0, rtol=0, atol=1e-12)
