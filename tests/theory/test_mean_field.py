"""Remarks 7 and 11: very many replicas, the functional that they descend, and players of a game."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, gibbs, mass, mean_field, mean_field_energy, mean_field_game

GRID = Grid(-3.5, 3.5, 281)
GAMMA, T = 0.8, 0.15


def double_well(x):
    return (x**2 - 1) ** 2 / 4 + x / 5


def start(x):
    return jnp.exp(-((x - 1.6) ** 2) / 0.08) / (0.08 * jnp.pi) ** 0.5


class TestRemark7:
    def test_the_functional_never_grows_and_the_density_is_the_replicas(self, measured):
        S, count = 4.0, 20_000
        rho = mean_field(
            GRID, double_well, start, gamma=GAMMA, temperature=T, horizon=S, num_steps=800,
            num_saves=80,
        )  # fmt: skip
        levels = jnp.concatenate([GRID.sample(start)[None], rho])
        energies = jax.vmap(
            lambda r: mean_field_energy(GRID, double_well, r, gamma=GAMMA, temperature=T)
        )(levels)
        rise = float(jnp.diff(energies).max())

        # The replicas themselves, pulled to their own mean at every step.
        dt, slope, key = 0.01, jax.vmap(jax.grad(double_well)), jax.random.key(0)

        def step(x, n):
            noise = (2 * T * dt) ** 0.5 * jax.random.normal(jax.random.fold_in(key, n), x.shape)
            return x - dt * (slope(x) + (x - x.mean()) / GAMMA) + noise, None

        x = 1.6 + 0.2 * jax.random.normal(jax.random.key(1), (count,))
        x, _ = jax.lax.scan(step, x, jnp.arange(int(S / dt)))
        edges = GRID.axes[0][::10] - GRID.spacing[0] / 2
        counts, _ = np.histogram(x, edges)
        masses = np.add.reduceat(np.asarray(rho[-1])[:280] * GRID.spacing[0], range(0, 280, 10))
        total = np.abs(counts / count - masses).sum() / 2
        centre = float(mass(GRID, rho[-1] * GRID.points))
        measured(
            "Remark 7",
            f"functional {energies[0]:.3f}, in the end {energies[-1]:.3f}; largest change between "
            f"80 times {rise:.0e}; mean {centre:.3f}, of {count} replicas {x.mean():.3f} "
            f"({x.std() / count**0.5:.3f}); total variation to their histogram {total:.3f}",
            "never above 1e-12; 0.01 + 4 s.e.; 0.03",
        )
        assert rise < 1e-12
        assert energies[0] > energies[-1] + 0.1
        assert abs(float(x.mean()) - centre) < 0.01 + 4 * float(x.std()) / count**0.5
        assert total < 0.03

    def test_without_the_interaction_it_does_grow(self, measured):
        # Power: the free energy of Fokker-Planck alone is not what replicas descend.
        rho = mean_field(
            GRID, double_well, gibbs(GRID, double_well, beta=1 / (2 * T)), gamma=0.1,
            temperature=T, horizon=4.0, num_steps=800, num_saves=80,
        )  # fmt: skip
        local = jax.vmap(
            lambda r: mean_field_energy(GRID, double_well, r, gamma=1e9, temperature=T)
        )(rho)
        rise = float(jnp.diff(local).max())
        measured("Remark 7", f"the local part alone grows by up to {rise:.1e}", "above 1e-6")
        assert rise > 1e-6


class TestRemark11:
    @pytest.mark.parametrize("pull", [0.0, 1.0])
    def test_players_in_equilibrium(self, pull, measured):
        """A cost that falls to the left and grows away from the mean: a fixed point of (26)."""

        def cost(x, m):
            return x + pull * (x - m) ** 2 / 2

        game = mean_field_game(
            GRID, double_well, cost, start, gamma=GAMMA, beta=4.0, horizon=1.5, num_levels=150,
            num_rounds=40,
        )  # fmt: skip
        u, balance = game.values[0], game.controlled + game.effort
        promised = float(mass(GRID, u * game.density[0]))
        measured(
            "Remark 11",
            f"pull {pull:g}: means change by {game.residuals[-1]:.0e} in round 40; E V "
            f"{game.controlled:.4f} + effort {game.effort:.4f} for u {promised:.4f}; uncontrolled "
            f"{game.uncontrolled:.4f}: improvement beyond the effort {game.improvement:.4f} "
            "(measured, not a theorem)",
            "1e-5; 0.01",
        )
        assert float(game.residuals[-1]) < 1e-5
        assert game.residuals[0] > 100 * game.residuals[-1]
        assert abs(float(balance) - promised) < 1e-2
        assert float(game.effort) > 0.01
        means = [
            float(mass(GRID, r * GRID.points)) for r in (game.density[-1], game.free_density[-1])
        ]
        assert means[0] < means[1] - 0.02  # they lean towards the lower well
