"""Section 4: Theorem 5, Lemma 3, Remarks 6 and 8, (19), HEAT (23), each with its error."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entropix
from entropix.pde import Grid, cole_hopf, estimate, fast_slow, gradient_flow, heat_equation

GRID = Grid(-6.0, 6.0, 1201)
GAMMA, T, START, HORIZON = 0.5, 0.3, 1.0, 1.0
EPSILON = np.asarray([1.0, 0.1, 0.01])
PATHS = {1.0: 8_000, 0.1: 8_000, 0.01: 3_000}


def f(x):
    return x**2 / 2 + 0.4 * jnp.cos(3 * x) + 0.2 * jnp.sin(2 * x)


def relaxed_gradient(form, x):
    if form == "heat":
        return heat_equation(GRID, f, GAMMA, 1 / T, x).gradient
    return cole_hopf(GRID, f, GAMMA, 1 / T, x, max_halvings=0).gradient


@functools.cache
def homogenised(form):
    flow = gradient_flow(
        functools.partial(relaxed_gradient, form), np.asarray([START]), horizon=HORIZON,
        num_steps=20,
    )  # fmt: skip
    return float(flow[-1, 0])


@functools.cache
def ends(form, epsilon):
    """x(HORIZON) of every path, on Brownian motions that all forms share."""
    start, steps = jnp.full(PATHS[epsilon], START), int(max(50, 25 / epsilon))
    x, _ = fast_slow(
        f, start, jax.random.key(1), gamma=GAMMA, temperature=T, epsilon=epsilon,
        horizon=HORIZON, num_steps=steps, form=form,
    )  # fmt: skip
    return x[-1]


class TestTheorem5:
    @pytest.mark.parametrize(
        "form", [pytest.param("proximal", marks=pytest.mark.slow), "gradient", "heat"]
    )
    def test_error_against_epsilon(self, form, measured):
        X, weak, strong = homogenised(form), [], []
        for e in EPSILON:
            weak.append(estimate(ends(form, e) - X))
            strong.append(float(estimate((ends(form, e) - X) ** 2).mean ** 0.5))
        order = np.log10(strong[1] / strong[2])
        measured(
            "Theorem 5",
            f"{form}: rms {', '.join(f'{s:.3f}' for s in strong)} at epsilon 1, 0.1, 0.01, in the "
            f"end as epsilon^{order:.2f}; mean error {weak[2].mean:.4f} ({weak[2].error:.4f})",
            "rms falls, in the end as epsilon^0.5 up to 0.1; mean: 4 s.e. + 0.01",
        )
        assert np.all(np.diff(strong) < 0)
        # The fluctuations are of size sqrt(epsilon), as for every average over a fast variable.
        assert order == pytest.approx(0.5, abs=0.1)
        assert abs(weak[2].mean) < 4 * weak[2].error + 0.01
        assert abs(weak[2].mean) < abs(weak[0].mean) / 5

    def test_both_forms_have_one_limit(self, measured):
        # Lemma 1: E (x - y)/gamma = E grad f(y), hence one homogenised flow; HEAT has another.
        apart, other = (
            estimate(ends("proximal", 0.01) - ends(form, 0.01)) for form in ("gradient", "heat")
        )
        measured(
            "§4",
            f"means at epsilon = 0.01 differ by {apart.mean:.4f} ({apart.error:.4f}); from "
            f"HEAT's by {other.mean:.4f} ({other.error:.4f})",
            "4 s.e. + 0.005; HEAT's by more than 0.03",
        )
        assert abs(apart.mean) < 4 * apart.error + 0.005
        assert abs(other.mean) > 0.03

    def test_unknown_form(self):
        with pytest.raises(ValueError, match="form must be 'proximal' or .* got form='both'"):
            fast_slow(
                f, jnp.ones(2), jax.random.key(0), gamma=1.0, temperature=1.0, epsilon=1.0,
                horizon=1.0, num_steps=1, form="both",
            )  # fmt: skip

    def test_start(self):
        with pytest.raises(ValueError, match=r"start must have shape \(paths, \*point\); got"):
            fast_slow(
                f, 1.0, jax.random.key(0), gamma=1.0, temperature=1.0, epsilon=1.0, horizon=1.0,
                num_steps=1,
            )  # fmt: skip


class TestLinearAverage:
    """(19): <y> is the mean over the inner time; the average of 7.1 forgets the beginning."""

    gamma, step_size, c = 1.0, 0.1, 0.5

    def relaxed(self, averaging, L, temperature, chains):
        relaxation = entropix.local_entropy(
            self.gamma, num_steps=L, step_size=self.step_size, averaging=averaging,
            temperature=temperature, key=4,
        )  # fmt: skip
        x = jnp.ones(chains, jnp.float32)
        slope = entropix.relaxed_grad(relaxation, lambda y, i: self.c * y)
        return np.asarray(jax.jit(slope)(x, relaxation.init(x))[0], np.float64)

    def test_without_noise_it_is_a_geometric_series(self):
        a = self.c + 1 / self.gamma
        p, r = 1 / (1 + self.gamma * self.c), 1 - self.step_size * a
        for L in (5, 40):
            mean = p + (1 - p) * np.mean(r ** np.arange(1, L + 1))
            got = self.relaxed("linear", L, 0.0, 2)
            np.testing.assert_allclose(got, (1 - mean) / self.gamma, rtol=1e-5)

    def test_its_spread_falls_with_the_inner_time(self, measured):
        # Lemma 4: x/(1 + gamma c) relaxed; the chain's mean is exact, whatever the step size.
        exact, spread = self.c / (1 + self.gamma * self.c), {}
        for averaging in ("linear", 0.75):
            for L in (100, 1600):
                samples = self.relaxed(averaging, L, 0.2, 4000)
                spread[averaging, L] = samples.std()
                bias = abs(samples.mean() - exact)
                limit = 4 * samples.std() / 4000**0.5 + 1 / (self.step_size * L) / 2
                assert bias < limit
        linear, forward = (
            [spread[averaging, L] for L in (100, 1600)] for averaging in ("linear", 0.75)
        )
        measured(
            "(19)",
            f"L = 100 and 1600: spread of the linear average's gradient {linear[0]:.3f} and "
            f"{linear[1]:.3f}, of the forward-looking one's {forward[0]:.3f} and {forward[1]:.3f}",
            "a fourth up to 10 %; the same up to 10 %",
        )
        assert linear[0] / linear[1] == pytest.approx(4, rel=0.1)
        assert forward[0] / forward[1] == pytest.approx(1, rel=0.1)


def test_heat_23_inner_variable_is_gaussian(measured):
    _, y = fast_slow(
        f, jnp.full(20_000, START), jax.random.key(2), gamma=GAMMA, temperature=T, epsilon=0.05,
        horizon=0.5, num_steps=500, form="heat",
    )  # fmt: skip
    for power, truth in ((1, 0.0), (2, GAMMA * T), (4, 3 * (GAMMA * T) ** 2)):
        mean, error = estimate(y[-1] ** power)
        measured("(23)", f"E y^{power} {mean:.4f} ({error:.4f}) for {truth:.4f}", "4 s.e. + 0.2 %")
        assert abs(mean - truth) < 4 * error + 2e-3 * truth


class TestLemma3:
    gamma, x = 0.15, 0.7

    def h(self, y):
        return f(y) + (self.x - y) ** 2 / (2 * self.gamma)

    def test_rate(self, measured):
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
        rates = -np.polyfit(s[late, 0], np.log(distance[late]), 1)[0]
        expected = float(jax.grad(jax.grad(self.h))(jnp.asarray(p)))
        measured(
            "Lemma 3",
            f"from three starts rates {', '.join(f'{r:.3f}' for r in rates)}",
            f"at least lambda = {rate:.3f}; h''(p) = {expected:.3f} up to 2 %",
        )
        np.testing.assert_allclose(rates, expected, rtol=0.02)
        assert np.all(rates >= rate)


@pytest.mark.parametrize(("ratio", "limits"), [(0.98, 1), (1.05, 2)])
def test_remark_6_threshold(ratio, limits, measured):
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
    found = len(np.unique(np.round(ends, 3)))
    measured("Remark 6", f"gamma = {ratio} of the threshold: limits of the flow {found}", limits)
    assert found == limits


def test_remark_8_at_a_critical_point(measured):
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
        v = heat_equation(GRID, f, gamma, 1 / T, points).gradient
        differences.append(np.abs(u - v))
    orders = [np.polyfit(np.log(gammas), np.log(d), 1)[0] for d in np.asarray(differences).T]
    assert orders[0] == pytest.approx(2, abs=0.3)
    assert orders[1] == pytest.approx(1, abs=0.3)
    even = lambda x: jnp.cos(3 * x) + x**2  # noqa: E731
    solvers = cole_hopf, heat_equation
    gradients = [solve(GRID, even, 0.3, 1 / T, [0.0]).gradient for solve in solvers]
    np.testing.assert_allclose(gradients, 0, rtol=0, atol=1e-12)
    measured(
        "Remark 8",
        f"difference gamma^{orders[0]:.2f} at a critical point, gamma^{orders[1]:.2f} elsewhere; "
        f"for an even f {np.abs(gradients[0] - gradients[1])[0]:.0e}",
        "2 and 1 up to 0.3; 1e-12",
    )
