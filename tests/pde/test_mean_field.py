"""Replicas around their own mean, and players: Gaussians and Riccati's equation in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, fokker_planck, mass, mean_field, mean_field_energy, mean_field_game

GAMMA, T = 0.5, 0.3


def gaussian(mean, variance):
    return lambda x: jnp.exp(-((x - mean) ** 2) / (2 * variance)) / (2 * np.pi * variance) ** 0.5


class TestMeanField:
    def test_a_quadratic_keeps_gaussians(self):
        grid, c, S = Grid(-5.0, 5.0, 501), 0.7, 0.6
        rho = mean_field(
            grid, lambda x: c * x**2 / 2, gaussian(1.5, 0.4), gamma=GAMMA, temperature=T,
            horizon=S, num_steps=3000, num_saves=3,
        )  # fmt: skip
        a = c + 1 / GAMMA
        for density, s in zip(rho, S * np.asarray([1, 2, 3]) / 3, strict=True):
            mean = float(mass(grid, density * grid.points))
            variance = float(mass(grid, density * (grid.points - mean) ** 2))
            assert mean == pytest.approx(1.5 * np.exp(-c * s), abs=2e-3)
            exact = T / a + (0.4 - T / a) * np.exp(-2 * a * s)
            assert variance == pytest.approx(exact, abs=2e-3)

    def test_in_the_plane_each_dimension_is_pulled_to_its_own_mean(self):
        grid = Grid((-4.0, -4.0), (4.0, 4.0), (61, 61))
        start = lambda x: gaussian(1.0, 0.5)(x[0]) * gaussian(-0.5, 0.5)(x[1])  # noqa: E731
        rho = mean_field(
            grid, lambda x: 0 * x[0], start, gamma=GAMMA, temperature=T, horizon=3.0, num_steps=100
        )[-1]
        x, y = np.moveaxis(grid.points, -1, 0)
        assert float(mass(grid, rho * x)) == pytest.approx(1.0, abs=1e-3)
        assert float(mass(grid, rho * y)) == pytest.approx(-0.5, abs=1e-3)
        assert float(mass(grid, rho * (x - 1) ** 2)) == pytest.approx(T * GAMMA, rel=0.03)

    def test_without_a_coupling_it_is_fokker_planck(self):
        grid = Grid(-3.0, 3.0, 121)
        f = lambda x: (x**2 - 1) ** 2 / 4  # noqa: E731
        rho = mean_field(
            grid, f, gaussian(1.0, 0.2), gamma=1e12, temperature=T, horizon=1.0, num_steps=50
        )
        free = fokker_planck(
            grid, f, gaussian(1.0, 0.2), beta=1 / (2 * T), horizon=1.0, num_steps=50
        )
        np.testing.assert_allclose(rho, free, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("dt", [0.01, 5.0])
    def test_the_functional_never_grows(self, dt):
        grid = Grid(-3.0, 3.0, 121)
        f = lambda x: (x**2 - 1) ** 2 / 2 + x / 5  # noqa: E731
        start = np.random.default_rng(0).exponential(size=121) * np.exp(-2 * grid.points**2)
        start = start / float(mass(grid, start))
        rho = mean_field(
            grid, f, start, gamma=0.3, temperature=0.1, horizon=20 * dt, num_steps=20, num_saves=20
        )
        energies = [
            float(mean_field_energy(grid, f, r, gamma=0.3, temperature=0.1)) for r in [start, *rho]
        ]
        assert np.all(np.diff(energies) < 1e-12)
        assert energies[0] > energies[-1] + 0.1

    def test_the_interaction_is_the_mean_squared_distance_of_pairs(self):
        grid = Grid((-1.0, 0.0), (1.0, 3.0), (5, 6))
        rho = np.random.default_rng(0).exponential(size=grid.shape)
        rho = rho / float(mass(grid, rho))
        weights = np.asarray(jax.grad(lambda r: mass(grid, r))(jnp.asarray(rho)) * rho).reshape(-1)
        nodes = grid.points.reshape(-1, 2)
        squares = ((nodes[:, None] - nodes) ** 2).sum(axis=-1)
        flat = lambda x: 0 * x[0]  # noqa: E731
        both = [mean_field_energy(grid, flat, rho, gamma=g, temperature=1.0) for g in (0.5, 1e12)]
        assert float(both[0] - both[1]) == pytest.approx(weights @ squares @ weights / (4 * 0.5))

    def test_the_functional_is_that_of_a_mass_of_1(self):
        grid = Grid(-3.0, 3.0, 121)
        energy = lambda m: mean_field_energy(  # noqa: E731
            grid, lambda x: 0 * x, lambda x: m * gaussian(0.0, 0.2)(x), gamma=1.0, temperature=1.0
        )
        with pytest.raises(ValueError, match=r"must be within 1 % of 1.*pde.mass.* with 1.99"):
            energy(2.0)
        # -log(2 pi e v)/2 + v/2 of a Gaussian, whose variance v is 0.2
        assert float(energy(1.0)) == pytest.approx(-np.log(0.4 * np.pi * np.e) / 2 + 0.1, rel=1e-3)


def riccati(c, gamma, kappa, start, S, n):
    """Means and curvatures of the linear-quadratic game, by fixed-point iteration with Heun steps.

    u = P x^2/2 + q x + ..., -P' = -2 (c + 1/gamma) P - P^2, -q' = -(c + 1/gamma + P) q + P m/gamma,
    m' = -(c + P) m - q.
    """
    dt, a = S / n, c + 1 / gamma
    P = np.empty(n + 1)
    P[-1] = kappa
    rate = lambda p: -2 * a * p - p**2  # noqa: E731
    for k in range(n, 0, -1):
        half = P[k] + dt * rate(P[k])
        P[k - 1] = P[k] + dt * (rate(P[k]) + rate(half)) / 2
    m = np.full(n + 1, start)
    for _ in range(60):
        q = np.zeros(n + 1)
        for k in range(n, 0, -1):
            g = lambda q, j: -(a + P[j]) * q + P[j] * m[j] / gamma  # noqa: B023, E731
            half = q[k] + dt * g(q[k], k)
            q[k - 1] = q[k] + dt * (g(q[k], k) + g(half, k - 1)) / 2
        new = np.full(n + 1, start)
        for k in range(n):
            g = lambda m, j: -(c + P[j]) * m - q[j]  # noqa: B023, E731
            half = new[k] + dt * g(new[k], k)
            new[k + 1] = new[k] + dt * (g(new[k], k) + g(half, k + 1)) / 2
        m = new
    return P, m


class TestGame:
    def test_linear_quadratic(self):
        c, kappa, start, S, n = 0.5, 1.5, 1.2, 1.0, 400
        grid = Grid(-6.0, 6.0, 301)
        game = mean_field_game(
            grid, lambda x: c * x**2 / 2, lambda x, m: kappa * x**2 / 2, gaussian(start, 0.2),
            gamma=GAMMA, beta=2.0, horizon=S, num_levels=n, num_rounds=20,
        )  # fmt: skip
        P, m = riccati(c, GAMMA, kappa, start, S, n)
        assert float(game.residuals[-1]) < 1e-4
        np.testing.assert_allclose(game.means, m, rtol=0, atol=0.01)
        k = int(np.abs(grid.points - 0.5).argmin())
        u = game.values[0]
        curvature = float((u[k + 5] - 2 * u[k] + u[k - 5]) / (5 * grid.spacing[0]) ** 2)
        assert curvature == pytest.approx(P[0], rel=0.05)
        # Without a control the mean is pulled by c alone.
        free = float(mass(grid, game.free_density[-1] * grid.points))
        assert free == pytest.approx(start * np.exp(-c * S), abs=0.005)

    def test_a_cost_that_nobody_can_change_is_not_fought(self):
        grid = Grid(-3.0, 3.0, 61)
        game = mean_field_game(
            grid, lambda x: x**2 / 2, lambda x, m: 2.0 + 0 * x + 0 * m, gaussian(0.5, 0.3),
            gamma=1.0, beta=2.0, horizon=0.5, num_levels=20, num_rounds=3,
        )  # fmt: skip
        assert abs(float(game.effort)) < 1e-20
        assert abs(float(game.improvement)) < 1e-12
        np.testing.assert_allclose(game.density, game.free_density, rtol=0, atol=5e-3)

    def test_messages(self):
        options = {"gamma": 1.0, "beta": 2.0, "horizon": 1.0}
        arguments = Grid(-3.0, 3.0, 61), lambda x: x**2, lambda x, m: x**2, gaussian(0, 1)
        with pytest.raises(ValueError, match=r"damping must be in \(0, 1\]; got damping=1.5"):
            mean_field_game(*arguments, **options, damping=1.5)
        with pytest.raises(ValueError, match="needs beta .max V - min V. < 600"):
            mean_field_game(*arguments, **(options | {"beta": 100.0}))
