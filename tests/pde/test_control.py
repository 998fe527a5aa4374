"""The Hamilton-Jacobi-Bellman equation: closed forms, orders, comparison principle, feedback."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, control_gap, feedback, value_function


def double_well(x):
    return (x**2 - 1) ** 2 + 0.3 * x


def rugged(x):
    return x**2 / 4 + 0.3 * jnp.cos(7 * x) + 0.15 * jnp.sin(13 * x)


class TestValueFunction:
    q, c, beta, horizon = 0.7, 1.6, 1.5, 0.8

    def riccati(self, x):
        """u(x, 0) for f = q|x|^2/2, V = c|x|^2/2: with its curvature."""
        growth = self.c * (1 - np.exp(-2 * self.q * self.horizon)) / (2 * self.q)
        curvature = self.c * np.exp(-2 * self.q * self.horizon) / (1 + growth)
        n = x.shape[-1]
        constant = n / (2 * self.beta) * np.log1p(growth)
        return curvature * (x**2).sum(axis=-1) / 2 + constant, curvature

    def solve(self, grid, num_steps, method):
        return value_function(
            grid,
            lambda x: self.q * jnp.sum(x**2) / 2,
            lambda x: self.c * jnp.sum(x**2) / 2,
            beta=self.beta, horizon=self.horizon, num_levels=1, num_steps=num_steps, method=method,
        )  # fmt: skip

    def error(self, n, num_steps, method):
        grid = Grid(-6.0, 6.0, n)
        u = self.solve(grid, num_steps, method)[0]
        near = np.abs(grid.points) < 2
        return np.abs(u - self.riccati(grid.points[:, None])[0])[near].max()

    def test_riccati_satisfies_its_equation(self):
        # p' = 2qp + p^2 backwards from c, by a thousand Runge-Kutta steps, against the closed form.
        p, h = self.c, self.horizon / 1000
        slope = lambda p: -2 * self.q * p - p**2  # noqa: E731
        for _ in range(1000):
            k1 = slope(p)
            k2 = slope(p + h / 2 * k1)
            k3 = slope(p + h / 2 * k2)
            p += h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(p + h * k3))
        assert p == pytest.approx(self.riccati(np.zeros(1))[1], rel=1e-12)

    def test_upwind_is_first_order(self):
        nodes = np.asarray([61, 121, 241, 481])
        errors = [self.error(int(n), n // 4, "upwind") for n in nodes]
        order = -np.polyfit(np.log(nodes - 1), np.log(errors), 1)[0]
        print(f"upwind: order {order:.2f}, errors {errors}")
        assert order == pytest.approx(1, abs=0.2)

    def test_linear_is_first_order_in_time_and_second_in_space(self):
        nodes = np.asarray([61, 121, 241])
        # Steps grow with the square of the nodes: both errors shrink together, fourfold.
        errors = [self.error(int(n), (int(n) - 1) ** 2 // 12, "linear") for n in nodes]
        order = -np.polyfit(np.log(nodes - 1), np.log(errors), 1)[0]
        print(f"linear: order {order:.2f}, errors {errors}")
        assert order == pytest.approx(2, abs=0.2)

    @pytest.mark.parametrize(("method", "tolerance"), [("upwind", 0.06), ("linear", 0.02)])
    def test_plane(self, method, tolerance):
        grid = Grid((-4.0, -4.0), (4.0, 4.0), (81, 81))
        u = np.asarray(self.solve(grid, 80, method)[0])
        near = (np.abs(grid.points) < 1.5).all(axis=-1)
        assert np.abs(u - self.riccati(grid.points)[0])[near].max() < tolerance

    @pytest.mark.parametrize("method", ["upwind", "linear"])
    def test_schemes_agree_on_a_rugged_landscape(self, method):
        f, grid = rugged, Grid(-5.0, 5.0, 1001)
        reference = value_function(
            grid, f, f, beta=4.0, horizon=1.0, num_levels=1, num_steps=2000, method="linear"
        )[0]
        coarse = Grid(-5.0, 5.0, 501)
        u = value_function(
            coarse, f, f, beta=4.0, horizon=1.0, num_levels=1, num_steps=500, method=method
        )[0]
        difference = np.abs(u - reference[::2])[50:-50].max()
        assert difference < {"upwind": 0.06, "linear": 6e-3}[method]

    @pytest.mark.parametrize("method", ["upwind", "linear"])
    @pytest.mark.parametrize("dims", [1, 2])
    def test_comparison_principle(self, method, dims):
        rng = np.random.default_rng(dims)
        grid = Grid(*([v] * dims for v in (-2.0, 2.0, 41)))
        low = rng.normal(size=grid.shape)
        high = low + rng.uniform(size=grid.shape)
        run = lambda V: value_function(  # noqa: E731
            grid, lambda x: jnp.sum(jnp.sin(3 * x)), V, beta=3.0, horizon=0.3, num_levels=3,
            num_steps=30, method=method,
        )  # fmt: skip
        a, b, shifted = run(low), run(high), run(low + 1.5)
        assert np.all(a <= b + 1e-12)
        np.testing.assert_allclose(shifted, a + 1.5, rtol=0, atol=1e-10)
        assert np.all(np.abs(a) <= np.abs(low).max() + 1e-10)
        np.testing.assert_array_equal(a[-1], low)

    def test_feedback_is_the_gradient_in_space_and_time(self):
        grid = Grid(-6.0, 6.0, 241)
        values = value_function(
            grid,
            lambda x: self.q * x**2 / 2,
            lambda x: self.c * x**2 / 2,
            beta=self.beta, horizon=self.horizon, num_levels=20, num_steps=2000, method="linear",
        )  # fmt: skip
        control = feedback(grid, values, horizon=self.horizon)
        x = jnp.linspace(-2, 2, 7)
        np.testing.assert_allclose(control(x, self.horizon), self.c * x, rtol=0, atol=1e-9)
        curvature = self.riccati(np.zeros(1))[1]
        np.testing.assert_allclose(control(x, 0.0), curvature * x, rtol=0, atol=3e-3)
        np.testing.assert_allclose(  # linear between levels
            control(x, 0.06), (control(x, 0.04) + control(x, 0.08)) / 2, rtol=0, atol=1e-3
        )


class TestErrors:
    grid = Grid(-3.0, 3.0, 61)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"beta": 0.0}, "beta must be"),
            ({"num_levels": 0}, "num_levels must be an integer >= 1; got num_levels=0"),
            ({"num_steps": 150}, "num_steps must be a multiple of num_levels; got 150 and 100"),
            ({"method": "godunov"}, "method must be 'upwind' or 'linear'; got method='godunov'"),
            ({"method": "linear", "beta": 1e3}, "needs beta .max V - min V. < 600; got .*upwind"),
        ],
    )
    def test_messages(self, options, message):
        settings = {"beta": 1.0, "horizon": 1.0} | options
        with pytest.raises(ValueError, match=message):
            value_function(self.grid, double_well, double_well, **settings)

    def test_horizon_of_the_feedback(self):
        with pytest.raises(ValueError, match="horizon must be one number > 0"):
            feedback(self.grid, jnp.zeros((2, 61)), horizon=0.0)

    def test_start(self):
        with pytest.raises(ValueError, match=r"start must have shape .* got shape \(3, 1\)"):
            control_gap(
                self.grid, double_well, double_well, jnp.zeros((3, 1)), jax.random.key(0),
                beta=1.0, horizon=1.0,
            )  # fmt: skip
