"""Densities: mass, positivity, the Gibbs state, closed forms, orders, and a moving potential."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, fokker_planck, gibbs, mass
from entropix.pde.stochastic.exchange import bernoulli, implicit_step

LINE = Grid(-2.0, 2.5, 91)
PLANE = Grid((-2.0, -1.5), (2.0, 2.0), (33, 29))


def double_well(x):
    return (x**2 - 1) ** 2 + 0.3 * x


def landscape(x):
    return double_well(x[0]) + 2 * (x[1] - 0.3 * x[0]) ** 2 + 0.4 * jnp.sin(4 * x[1])


CASES = [(double_well, LINE), (landscape, PLANE)]


def bump(grid):
    """All mass at one node: the least smooth density there is."""
    density = np.zeros(grid.shape)
    density[tuple(n // 5 for n in grid.shape)] = 1.0
    return density / mass(grid, density)


def gaussian(mean, variance):
    return lambda x: jnp.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


class TestStructure:
    @pytest.mark.parametrize(("V", "grid"), CASES)
    @pytest.mark.parametrize("beta", [0.5, 20.0])
    @pytest.mark.parametrize("dt", [1e-3, 1.0])
    def test_mass_and_positivity(self, V, grid, beta, dt):
        rho = fokker_planck(
            grid, V, bump(grid), beta=beta, horizon=100 * dt, num_steps=100, num_saves=20
        )
        masses = np.asarray([mass(grid, r) for r in rho])
        np.testing.assert_allclose(masses, 1, rtol=0, atol=5e-12)  # rounding of 100 solves
        assert rho.min() >= 0

    @pytest.mark.parametrize(("V", "grid"), CASES)
    @pytest.mark.parametrize("beta", [0.5, 20.0])
    def test_gibbs_state_is_stationary_to_rounding(self, V, grid, beta):
        state = gibbs(grid, V, beta=beta)
        rho = fokker_planck(grid, V, state, beta=beta, horizon=10.0, num_steps=50)[-1]
        np.testing.assert_allclose(rho, state, rtol=1e-10, atol=1e-13 * state.max())

    @pytest.mark.parametrize(("V", "grid"), CASES)
    def test_convergence_to_gibbs_from_anywhere(self, V, grid):
        # The free energy, a relative entropy, never grows; at the end nothing is left of it.
        state = np.asarray(gibbs(grid, V, beta=1.0))
        rho = np.asarray(
            fokker_planck(grid, V, bump(grid), beta=1.0, horizon=80.0, num_steps=400, num_saves=40)
        )
        entropy = [mass(grid, r * np.log(r / state)) for r in rho]
        assert np.all(np.diff(entropy) <= 1e-13)
        np.testing.assert_allclose(rho[-1], state, rtol=0, atol=1e-6)

    def test_the_constant_of_the_gibbs_state_by_moments(self):
        # dX = -X ds + beta^{-1/2} dW has the variance 1/(2 beta): exp(-2 beta V), T = 1/(2 beta).
        grid, beta = Grid(-6.0, 6.0, 241), 1.7
        state = gibbs(grid, lambda x: x**2 / 2, beta=beta)
        assert mass(grid, state * grid.points**2) == pytest.approx(1 / (2 * beta), rel=1e-8)

    def test_adjoint(self):
        # <L u, rho> = <u, L* rho>, one step, 1-D (in 2-D the order of the dimensions is reversed).
        rng = np.random.default_rng(0)
        u, rho = rng.normal(size=(2, *LINE.shape))
        V = LINE.sample(double_well)
        step = lambda v, adjoint: implicit_step(  # noqa: E731
            LINE, jnp.asarray(v), V, diffusion=0.3, dt=0.1, adjoint=adjoint
        )
        left, right = mass(LINE, step(u, True) * rho), mass(LINE, u * step(rho, False))
        assert left == pytest.approx(float(right), rel=1e-12)
        np.testing.assert_allclose(step(np.ones(LINE.shape), True), 1, rtol=1e-13)

    def test_bernoulli(self):
        z = np.asarray([-800.0, -1.0, -1e-9, 0.0, 1e-9, 1e-3, 1.0, 800.0])
        got = bernoulli(jnp.asarray(z))
        assert got[3] == 1
        np.testing.assert_allclose(got[0], 800)
        np.testing.assert_allclose(got[7], 0, atol=1e-300)
        np.testing.assert_allclose(got - bernoulli(jnp.asarray(-z)), -z, rtol=1e-12, atol=1e-16)
        slopes = jax.vmap(jax.grad(bernoulli))(jnp.asarray(z))
        np.testing.assert_allclose(slopes[jnp.asarray([0, 3, 7])], [-1, -0.5, 0], atol=1e-12)


class TestClosedForms:
    beta, horizon, mean, variance = 2.0, 0.5, 1.2, 0.1

    def ornstein_uhlenbeck(self):
        """Mean m e^{-s}, variance (1 - e^{-2s})/(2 beta) + v e^{-2s}, for V = x^2/2."""
        decay = np.exp(-self.horizon)
        variance = (1 - decay**2) / (2 * self.beta) + self.variance * decay**2
        return gaussian(self.mean * decay, variance)

    def error(self, n, steps):
        grid = Grid(-4.0, 4.0, n)
        rho = fokker_planck(grid, lambda x: x**2 / 2, gaussian(self.mean, self.variance),
            beta=self.beta, horizon=self.horizon, num_steps=steps,
        )[-1]  # fmt: skip
        return float(jnp.abs(rho - grid.sample(self.ornstein_uhlenbeck())).max())

    def test_order_in_time(self):
        steps = np.asarray([20, 40, 80, 160])
        errors = [self.error(1601, n) for n in steps]
        assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.1)

    def test_order_in_space(self):
        # The steps' error is taken away by extrapolation; what remains is the grid's.
        nodes, errors = np.asarray([41, 81, 161]), []
        for n in nodes:
            grid = Grid(-4.0, 4.0, int(n))
            coarse, fine = (
                fokker_planck(grid, lambda x: x**2 / 2, gaussian(self.mean, self.variance),
                    beta=self.beta, horizon=self.horizon, num_steps=m,
                )[-1]
                for m in (400, 800)
            )  # fmt: skip
            exact = grid.sample(self.ornstein_uhlenbeck())
            errors.append(float(jnp.abs(2 * fine - coarse - exact).max()))
        assert np.polyfit(np.log(nodes - 1), np.log(errors), 1)[0] == pytest.approx(-2, abs=0.15)

    def test_a_separable_plane_is_a_product_of_lines(self):
        x, y = Grid(-3.0, 3.0, 41), Grid(-2.0, 3.0, 31)
        plane = Grid((-3.0, -2.0), (3.0, 3.0), (41, 31))
        V, W = lambda x: x**4 / 4, lambda y: y**2 - y
        p, q = gaussian(1.0, 0.2), gaussian(0.0, 0.3)
        run = lambda V, p, grid: fokker_planck(  # noqa: E731
            grid, V, p, beta=1.5, horizon=1.0, num_steps=30
        )[-1]
        both = run(lambda x: V(x[0]) + W(x[1]), lambda x: p(x[0]) * q(x[1]), plane)
        product = jnp.outer(run(V, p, x), run(W, q, y))
        np.testing.assert_allclose(both, product, rtol=0, atol=1e-13)


class TestMovingPotential:
    def test_a_sliding_well_carries_the_mean(self):
        # V = (x - s)^2/2: the mean m solves m' = s - m, the variance is that of the fixed well.
        grid, K, horizon = Grid(-4.0, 5.0, 361), 40, 2.0
        s = np.linspace(0, horizon, K + 1)[:, None]
        V = (grid.points - s) ** 2 / 2
        rho = fokker_planck(
            grid, V, gaussian(0.0, 0.25), beta=2.0, horizon=horizon, num_steps=1600, num_saves=4
        )
        for r, t in zip(rho, [0.5, 1.0, 1.5, 2.0], strict=True):
            mean = mass(grid, r * grid.points)
            assert mean == pytest.approx(t - 1 + np.exp(-t), abs=3e-3)
            assert mass(grid, r * (grid.points - mean) ** 2) == pytest.approx(0.25, abs=3e-3)
        assert np.allclose([mass(grid, r) for r in rho], 1, atol=1e-12)

    def test_constant_levels_are_the_constant(self):
        V = LINE.sample(double_well)
        a, b = (
            fokker_planck(LINE, v, bump(LINE), beta=1.0, horizon=1.0, num_steps=10)
            for v in (V, jnp.stack([V, V, V]))
        )
        np.testing.assert_allclose(a, b, rtol=1e-12)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"beta": -1.0}, "beta must be one number > 0 and finite; got beta=-1.0"),
            ({"num_steps": 0}, "num_steps must be an integer >= 1"),
            ({"num_saves": 3}, "num_steps must be a multiple of num_saves; got 10 and 3"),
            (
                {"potential": lambda x: jnp.where(x > 1, jnp.inf, x**2)},
                "potential must be finite; its value at 1.* is inf",
            ),
            (
                {"potential": np.full((3, 91), np.nan)},
                "potential must be finite; its value at -.* is nan",
            ),
            ({"potential": np.zeros((3, 7))}, r"\(K \+ 1, \*\(91,\)\).*got shape \(3, 7\)"),
            ({"potential": np.zeros((1, 91))}, r"K \+ 1 >= 2 times; got shape \(1, 91\)"),
        ],
    )
    def test_messages(self, options, message):
        settings = {"potential": double_well, "beta": 1.0, "horizon": 1.0, "num_steps": 10}
        settings |= options
        with pytest.raises(ValueError, match=message):
            fokker_planck(LINE, settings.pop("potential"), bump(LINE), **settings)

    def test_differentiable_through_the_solver(self):
        # A linear solve in a scan: the derivative of the mean with respect to a tilt, by jvp.
        def mean(tilt):
            V = lambda x: double_well(x) + tilt * x  # noqa: E731
            rho = fokker_planck(LINE, V, bump(LINE), beta=1.0, horizon=1.0, num_steps=20)[-1]
            return mass(LINE, rho * LINE.points)

        _, slope = jax.jvp(mean, (0.0,), (1.0,))
        assert slope == pytest.approx(float(mean(1e-4) - mean(-1e-4)) / 2e-4, rel=1e-5)
        assert slope < 0

    def test_differentiable_in_a_steep_potential(self):
        def density(steepness):
            V = lambda x: steepness * double_well(x)  # noqa: E731
            return fokker_planck(LINE, V, bump(LINE), beta=5.0, horizon=1.0, num_steps=20)[-1]

        _, slope = jax.jvp(density, (1000.0,), (1.0,))
        assert jnp.isfinite(slope).all()
