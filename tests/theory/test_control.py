"""Section 5: costs (24), the optimal control (25), the pair (26), comparison (27), Theorem 12."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import (
    Grid,
    backward_kolmogorov,
    cole_hopf,
    control_gap,
    estimate,
    fokker_planck,
    simulate,
    value_function,
)

PATHS = 25_000


def double_well(x):
    return (x**2 - 1) ** 2 + 0.3 * x


def rugged(x):
    return x**2 / 4 + 0.3 * jnp.cos(7 * x) + 0.15 * jnp.sin(13 * x)


def plane(x):
    return double_well(x[0]) + (x[1] - 0.4 * x[0]) ** 2 + 0.2 * jnp.cos(5 * x[1])


def miss(target, width=0.1):
    """An indicator-like cost: 1 away from a ball of radius 1/2 around the target, 0 inside."""

    def cost(x):
        distance = jnp.sqrt(jnp.sum((x - target) ** 2) + 1e-12)
        return jax.nn.sigmoid((distance - 0.5) / width)

    return cost


LANDSCAPES = {
    "double well": (double_well, Grid(-3.0, 3.0, 401), 1.0, -1.0),
    "rugged": (rugged, Grid(-5.0, 5.0, 501), 2.5, 0.0),
    "plane": (plane, Grid((-2.5, -3.0), (2.5, 3.0), (81, 81)), (1.0, 0.5), (-1.0, -0.4)),
}
BETA, HORIZON = 2.0, 1.5


def starts(name):
    return jnp.broadcast_to(
        jnp.asarray(LANDSCAPES[name][2]), (PATHS, *LANDSCAPES[name][1].point_shape)
    )


@functools.cache  # one function, one program
def cost_of(name, cost):
    f, _, _, target = LANDSCAPES[name]
    return f if cost == "f" else miss(jnp.asarray(target))


@functools.cache
def solved(name, cost):
    """The value function and Theorem 12's two sides, once for all tests."""
    f, grid, *_ = LANDSCAPES[name]
    V = cost_of(name, cost)
    values = value_function(
        grid, f, V, beta=BETA, horizon=HORIZON, num_levels=50, num_steps=600, method="linear"
    )
    gap = control_gap(
        grid, f, V, starts(name), jax.random.key(12), beta=BETA, horizon=HORIZON,
        num_steps=150, values=values,
    )  # fmt: skip
    return values, gap


CASES = [(name, cost) for name in LANDSCAPES for cost in ("f", "indicator")]


class TestTheorem12:
    @pytest.mark.parametrize(("name", "cost"), CASES)
    def test_left_side_is_below_the_right_side(self, name, cost, measured):
        _, gap = solved(name, cost)
        left, right = gap.controlled, gap.right
        measured(
            "Theorem 12",
            f"{name}, V = {cost}: {left.mean:.4f} ({left.error:.4f}) <= {right.mean:.4f} "
            f"({right.error:.4f}), gap {gap.gap.mean:.4f} ({gap.gap.error:.4f})",
            "gap above 10 s.e.",
        )
        assert left.mean <= right.mean
        assert gap.gap.mean > 10 * gap.gap.error  # strict: neither cost is constant
        assert gap.gap.mean == pytest.approx(float(right.mean - left.mean), abs=1e-12)
        assert gap.effort.mean > 0

    @pytest.mark.parametrize(("name", "cost"), CASES)
    def test_the_cost_is_the_value(self, name, cost, measured):
        # What the paths pay is what the equation promised: u(x, 0) = E[V + 1/2 int |a|^2].
        _, gap = solved(name, cost)
        measured(
            "(24)",
            f"{name}, V = {cost}: cost {gap.cost.mean:.4f} ({gap.cost.error:.4f}) for u "
            f"{gap.value:.4f}",
            "4 s.e. + 0.002",
        )
        assert abs(gap.cost.mean - gap.value) < 4 * gap.cost.error + 2e-3  # 2e-3: discretisation

    @pytest.mark.parametrize(("name", "cost"), CASES[::2])
    def test_the_gap_is_a_jensen_gap(self, name, cost, measured):
        # u = -1/beta log E exp(-beta V(x_sgd)) <= E V(x_sgd): the theorem in one line, and a
        # second value of the left side, from uncontrolled paths alone.
        f = LANDSCAPES[name][0]
        V = cost_of(name, cost)
        _, gap = solved(name, cost)
        end = simulate(
            lambda x, s: -jax.grad(f)(x), starts(name), jax.random.key(13),
            sigma=BETA**-0.5, horizon=HORIZON, num_steps=150,
        )[-1]  # fmt: skip
        weight = estimate(jnp.exp(-BETA * jax.vmap(V)(end)))
        log_mean, error = -jnp.log(weight.mean) / BETA, weight.error / weight.mean / BETA
        measured(
            "Theorem 12",
            f"{name}, V = {cost}: u by uncontrolled paths alone {log_mean:.4f} ({error:.4f}) for "
            f"{gap.value:.4f}",
            "u: 4 s.e. + 0.002",
        )
        assert abs(log_mean - gap.value) < 4 * error + 2e-3
        assert log_mean < gap.uncontrolled.mean

    def test_a_worse_control_pays_more(self, measured):
        # The optimal feedback against a quarter and 2.5 times of it, the noise being the same.
        f, grid, *_ = LANDSCAPES["double well"]
        values, gap = solved("double well", "f")
        for factor in (0.25, 2.5):
            other = control_gap(
                grid, f, f, starts("double well"), jax.random.key(12), beta=BETA,
                horizon=HORIZON, num_steps=150, values=factor * values,
            )  # fmt: skip
            saved, error = other.cost.mean - gap.cost.mean, other.cost.error + gap.cost.error
            measured("(25)", f"{factor} grad u costs {saved:.4f} ({error:.4f}) more", "4 s.e.")
            assert saved > 4 * error

    def test_nothing_to_gain_from_a_constant_cost(self):
        grid = Grid(-3.0, 3.0, 61)
        gap = control_gap(
            grid, double_well, lambda x: 0 * x + 2, jnp.ones(100), jax.random.key(0),
            beta=BETA, horizon=HORIZON,
        )  # fmt: skip
        assert abs(gap.gap.mean) < 1e-12
        assert gap.effort.mean < 1e-20
        assert gap.controlled.mean == 2


class TestComparison:
    """(27): u(x, s) <= v(x, s) everywhere, v the expected V of uncontrolled paths."""

    @pytest.mark.parametrize(("name", "cost"), CASES)
    def test_the_value_is_nowhere_above_the_expectation(self, name, cost, measured):
        f, grid, *_ = LANDSCAPES[name]
        V = cost_of(name, cost)
        u, gap = solved(name, cost)
        v = backward_kolmogorov(
            grid, f, V, beta=BETA, horizon=HORIZON, num_levels=50, num_steps=600
        )
        start = jnp.asarray(LANDSCAPES[name][2])
        excess, below = float((u - v).max()), float(grid.interpolate((v - u)[0], start))
        measured(
            "(27)",
            f"{name}, V = {cost}: u - v at most {excess:.0e} at all nodes and times, "
            f"{-below:.3f} at the start; v there {grid.interpolate(v[0], start):.4f}, by paths "
            f"{gap.uncontrolled.mean:.4f} ({gap.uncontrolled.error:.4f})",
            "1e-12; 4 s.e. + 0.002",
        )
        assert excess < 1e-12
        assert below > 0.001
        off = abs(float(grid.interpolate(v[0], start)) - float(gap.uncontrolled.mean))
        assert off < 4 * float(gap.uncontrolled.error) + 2e-3

    def test_by_the_other_scheme(self):
        f, grid, *_ = LANDSCAPES["double well"]
        options = {"beta": BETA, "horizon": HORIZON, "num_levels": 10, "num_steps": 200}
        u = value_function(grid, f, f, **options)
        v = backward_kolmogorov(grid, f, f, **options)
        assert float((u - v).max()) < 1e-12


class TestForwardDensity:
    """(26): the density of the controlled paths against their histogram, and both costs of u."""

    @pytest.mark.parametrize("name", ["double well", pytest.param("plane", marks=pytest.mark.slow)])
    def test_histogram(self, name, measured):
        f, grid, start, _ = LANDSCAPES[name]
        values, _ = solved(name, "f")
        spread = 0.2
        normal = jax.random.normal(jax.random.key(1), starts(name).shape, jnp.float64)
        gap = control_gap(
            grid, f, f, starts(name) + spread * normal, jax.random.key(2), beta=BETA,
            horizon=HORIZON, num_steps=150, values=values,
        )  # fmt: skip

        def density(x):
            normaliser = (2 * jnp.pi * spread**2) ** (grid.ndim / 2)
            return jnp.exp(-jnp.sum((x - jnp.asarray(start)) ** 2) / (2 * spread**2)) / normaliser

        rho = fokker_planck(
            grid, grid.sample(f) + values, density, beta=BETA, horizon=HORIZON, num_steps=1200
        )[-1]
        # Expected counts of bins whose edges lie half-way between nodes, 10 nodes a bin.
        edges = [a[::10] - h / 2 for a, h in zip(grid.axes, grid.spacing, strict=True)]
        counts, _ = np.histogramdd(np.asarray(gap.points).reshape(PATHS, -1), bins=edges)
        masses = np.asarray(rho) * np.prod(grid.spacing)
        for axis in range(grid.ndim):
            whole = (grid.shape[axis] - 1) // 10 * 10
            masses = np.add.reduceat(
                np.take(masses, np.arange(whole), axis), np.arange(0, whole, 10), axis
            )
        error = np.sqrt(np.maximum(masses, 1e-4) / PATHS)
        deviation = np.abs(counts / PATHS - masses)
        total = deviation.sum() / 2
        measured(
            "(26)",
            f"{name}: total variation {total:.4f}, of a bin at most "
            f"{np.max(deviation / error):.1f} s.e.",
            "0.02; 4.5 s.e. + 0.3 % of the largest mass",
        )
        assert np.all(deviation < 4.5 * error + 3e-3 * masses.max())
        assert total < 0.02


class TestRemarks:
    """Remarks 9 and 10, and the limit of no noise."""

    @pytest.mark.parametrize(("method", "tolerance"), [("upwind", 0.05), ("linear", 2e-3)])
    def test_remark_10_without_drift_it_is_local_entropy_backwards(
        self, method, tolerance, measured
    ):
        # u(x, s) = V_gamma(x) with gamma = S - s: viscous-HJ, solved by Cole-Hopf.
        grid, beta, horizon = Grid(-6.0, 6.0, 601), 3.0, 0.5
        values = value_function(
            grid, lambda x: 0 * x, rugged, beta=beta, horizon=horizon, num_levels=5,
            num_steps=1000, method=method,
        )  # fmt: skip
        points, errors = np.linspace(-3, 3, 25), []
        for k in range(5):
            truth = cole_hopf(grid, rugged, horizon * (1 - k / 5), beta, points)
            errors.append(np.abs(grid.interpolate(values[k], points) - truth.value).max())
        measured("Remark 10", f"1-D, {method} scheme: {max(errors):.1e} off", tolerance)
        assert max(errors) < tolerance

    def test_remark_10_in_the_plane(self, measured):
        grid, beta, horizon = Grid((-4.0, -4.0), (4.0, 4.0), (81, 81)), 2.0, 0.4
        values = value_function(
            grid, lambda x: 0 * x[0], plane, beta=beta, horizon=horizon, num_levels=1,
            num_steps=200, method="linear",
        )  # fmt: skip
        points = np.asarray([[0.0, 0.0], [1.0, -0.5], [-0.8, 0.6]])
        truth = cole_hopf(grid, plane, horizon, beta, points)
        error = np.abs(grid.interpolate(values[0], points) - truth.value).max()
        measured("Remark 10", f"2-D, linear scheme: {error:.1e} off", 0.005)
        assert error < 0.005

    def test_remark_9_it_is_well_posed_backwards_only(self, measured):
        # Two terminal costs, a ripple of size 0.1 apart: backwards they come together.
        f, grid = double_well, Grid(-3.0, 3.0, 401)
        options = {"beta": BETA, "horizon": 0.5, "num_levels": 1, "num_steps": 400}
        V = grid.sample(f)
        ripple = 0.1 * jnp.cos(30 * jnp.asarray(grid.points))
        u, other = (
            value_function(grid, f, cost, method="linear", **options)[0] for cost in (V, V + ripple)
        )
        inside = np.abs(grid.points) < 1.5
        differ = u - other
        left = float(jnp.abs(differ - differ[inside].mean())[inside].max())
        measured(
            "Remark 9",
            f"costs a ripple of 0.1 apart at S: values at 0 differ by {left:.1e} besides a "
            f"constant; forwards in time that would grow {0.1 / left:.0e} times",
            "never further apart; below 1e-4",
        )
        assert float(jnp.abs(differ).max()) <= 0.1 + 1e-12
        assert left < 1e-4

    def test_the_pair_accounts_for_all_costs(self, measured):
        # d/ds int u rho ds = -1/2 int |grad u|^2 rho: the density's equation (26) is linear with
        # the adjoint of the value's linearised operator, so the cost is accounted for exactly.
        f, grid = double_well, Grid(-3.0, 3.0, 401)
        values = value_function(
            grid, f, f, beta=BETA, horizon=HORIZON, num_levels=600, method="linear"
        )
        density = lambda x: jnp.exp(-((x - 1) ** 2) / 0.08) / jnp.sqrt(0.08 * jnp.pi)  # noqa: E731
        rho = fokker_planck(
            grid, grid.sample(f) + values, density, beta=BETA, horizon=HORIZON,
            num_steps=600, num_saves=600,
        )  # fmt: skip
        rho = jnp.concatenate([grid.sample(density)[None], rho])
        h = grid.spacing[0]
        effort = h * jnp.sum(jax.vmap(grid.gradient)(values) ** 2 * rho / 2, axis=1)
        effort = np.trapezoid(effort, dx=HORIZON / 600)
        terminal = h * jnp.sum(values[-1] * rho[-1])
        value = h * jnp.sum(values[0] * rho[0])
        measured(
            "(26)",
            f"terminal cost {terminal:.4f} + effort {effort:.4f} against value {value:.4f}: "
            f"{abs(terminal + effort - value):.1e} off",
            0.003,
        )
        assert abs(terminal + effort - value) < 0.003

    def test_as_the_noise_vanishes_the_control_becomes_deterministic(self, measured):
        # For f = 0 the least cost of the deterministic problem is Hopf-Lax's; the difference is
        # of the order of the noise, 1/beta.
        grid, V = Grid(-4.0, 4.0, 801), lambda x: jnp.cos(2 * x) + x**2 / 4
        y = np.linspace(-4, 4, 4001)
        points, horizon = np.asarray([0.3, 1.2, 2.0]), 0.2
        cost = np.asarray(V(y)) + (points[:, None] - y) ** 2 / (2 * horizon)
        betas, errors = np.asarray([2.0, 4.0, 8.0, 16.0]), []
        for beta in betas:
            u = value_function(
                grid, lambda x: 0 * x, V, beta=beta, horizon=horizon, num_levels=1,
                num_steps=800, method="linear",
            )[0]  # fmt: skip
            errors.append(np.abs(grid.interpolate(u, points) - cost.min(axis=1)).max())
        order = np.polyfit(np.log(betas), np.log(errors), 1)[0]
        measured(
            "§5",
            f"difference falls as beta^{order:.2f}, to {errors[-1]:.3f} at beta = {betas[-1]:g}",
            "-1 up to 0.15",
        )
        assert order == pytest.approx(-1, abs=0.15)
