"""Sections 2.3 to 2.5: (8), (9), the Gibbs density (10), free energy, cooling, batch size (32)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entropix
from entropix.pde import (
    Grid,
    backward_kolmogorov,
    estimate,
    fokker_planck,
    free_energy,
    generator,
    gibbs,
    mass,
    simulate,
    wasserstein_distance,
)
from entropix.pde.stochastic.exchange import implicit_step

LINE = Grid(-4.0, 4.0, 401)
BETA = 2.0


def tilted(x):
    return (x**2 - 1) ** 2 / 4 + x / 5


def test_generator_8_is_the_rate_of_an_expectation(measured):
    # Of paths: (E v(X(ds)) - v(x))/ds for a small ds, the noise of v's slope taken out.
    v, ds, starts = lambda x: jnp.sin(2 * x), 0.01, np.asarray([-1.2, 0.3, 1.1])
    change = LINE.interpolate(generator(LINE, tilted, v, beta=BETA), starts)
    key = jax.random.key(0)
    for x, expected in zip(starts, change, strict=True):
        end = simulate(
            lambda x, s: -jax.grad(tilted)(x), jnp.full(40_000, x), key, sigma=BETA**-0.5,
            horizon=ds, num_steps=4, antithetic=True,
        )[-1]  # fmt: skip
        rate = estimate((v(end) - v(x)) / ds, antithetic=True)
        measured(
            "(8)",
            f"at x = {x:g}: {expected:.3f}, by paths {rate.mean:.3f} ({rate.error:.3f})",
            "4 s.e. + 0.1",
        )
        assert abs(rate.mean - expected) < 4 * rate.error + 0.1  # ds/2 L^2 v
    assert np.abs(change).min() > 0.15


def test_expectation_9_is_that_of_paths(measured):
    V, S, starts = lambda x: jnp.exp(-((x + 1) ** 2)), 1.5, np.asarray([-1.0, 0.0, 1.2])
    v = backward_kolmogorov(LINE, tilted, V, beta=BETA, horizon=S, num_levels=1, num_steps=600)[0]
    for x in starts:
        end = simulate(
            lambda x, s: -jax.grad(tilted)(x), jnp.full(40_000, x), jax.random.key(1),
            sigma=BETA**-0.5, horizon=S, num_steps=100,
        )[-1]  # fmt: skip
        mean, error = estimate(jax.vmap(V)(end))
        solved = float(LINE.interpolate(v, x))
        measured(
            "(9)", f"from {x:g}: {solved:.4f}, by paths {mean:.4f} ({error:.4f})", "4 s.e. + 0.001"
        )
        assert abs(mean - solved) < 4 * error + 1e-3


def test_gibbs_10_is_what_paths_tend_to(measured):
    density = gibbs(LINE, tilted, beta=BETA)
    start = jnp.linspace(-2, 2, 40_000)
    end = simulate(
        lambda x, s: -jax.grad(tilted)(x), start, jax.random.key(2), sigma=BETA**-0.5,
        horizon=20.0, num_steps=600,
    )[-1]  # fmt: skip
    edges = LINE.axes[0][::20] - LINE.spacing[0] / 2
    counts, _ = np.histogram(end, edges)
    masses = np.add.reduceat(np.asarray(density)[:400] * LINE.spacing[0], np.arange(0, 400, 20))
    total = np.abs(counts / len(end) - masses).sum() / 2
    error = np.sqrt(np.maximum(masses, 1e-4) / len(end))
    most = np.abs((counts / len(end) - masses) / error).max()
    rho = fokker_planck(LINE, tilted, density, beta=BETA, horizon=5.0, num_steps=20)[-1]
    stays = float(jnp.abs(rho - density).max())
    measured(
        "(10)",
        f"histogram of paths at s = 20: total variation {total:.4f}, of a bin at most {most:.1f} "
        f"s.e.; the Fokker-Planck equation moves it by {stays:.0e}",
        "0.02, 4.5 s.e. + 0.3 %; 1e-12",
    )
    assert total < 0.02
    assert np.all(np.abs(counts / len(end) - masses) < 4.5 * error + 3e-3 * masses.max())
    assert stays < 1e-12


class TestFreeEnergy:
    """The functional of Jordan, Kinderlehrer and Otto, and contraction for convex losses."""

    def test_it_falls_to_that_of_the_gibbs_density(self, measured):
        start = jnp.exp(-((LINE.points - 2) ** 2) * 8)
        start = start / mass(LINE, start)
        rho = fokker_planck(
            LINE, tilted, start, beta=BETA, horizon=40.0, num_steps=400, num_saves=400
        )
        energies = jax.vmap(lambda r: free_energy(LINE, tilted, r, beta=BETA))(
            jnp.concatenate([start[None], rho])
        )
        least = free_energy(LINE, tilted, gibbs(LINE, tilted, beta=BETA), beta=BETA)
        rise = float(jnp.diff(energies).max())
        measured(
            "§2.3",
            f"free energy {energies[0]:.3f}, at s = 1 {energies[10]:.3f}, in the end "
            f"{energies[-1] - least:.0e} above the Gibbs density's {least:.3f}; largest change of "
            f"400 steps {rise:.0e}",
            "never above 1e-12; 1e-5 in the end",
        )
        assert rise < 1e-12
        assert 0 <= energies[-1] - least < 1e-5

    def test_wasserstein_distance_contracts(self, measured):
        f, convexity, S = lambda x: 0.65 * x**2 + 0.25 * jnp.cos(2 * x), 0.3, 2.0
        grid = Grid(-6.0, 6.0, 1201)
        assert float(jax.vmap(jax.grad(jax.grad(f)))(jnp.asarray(grid.points)).min()) > convexity
        bump = lambda a, s: jnp.exp(-(((grid.points - a) / s) ** 2) / 2)  # noqa: E731
        starts = bump(-1.5, 0.3), bump(0.5, 0.2) + 0.5 * bump(1.5, 0.2)
        pairs = [
            fokker_planck(grid, f, rho, beta=BETA, horizon=S, num_steps=400, num_saves=4)
            for rho in starts
        ]
        times = S * np.arange(5) / 4
        distances = [
            float(wasserstein_distance(grid, *pair)) for pair in (starts, *zip(*pairs, strict=True))
        ]
        bounds = distances[0] * np.exp(-convexity * times)
        measured(
            "§2.3",
            f"W2 of two densities {distances[0]:.3f}, at s = {S:g} {distances[-1]:.3f}; with "
            f"lambda = {convexity} at most {bounds[-1]:.3f}",
            "exp(-lambda s) at four times",
        )
        assert np.all(np.asarray(distances[1:]) < bounds[1:])
        assert distances[-1] > distances[0] * np.exp(-2.3 * S)  # f'' is 2.3 at most


def test_annealing_cools_logarithmically(measured):
    """The density of dX = -f' ds + sqrt(2T(s)) dW, T = c/log(e + s), in growing implicit steps."""
    f = lambda x: (x**2 - 1) ** 2 - 0.2 * x  # noqa: E731
    grid = Grid(-2.0, 2.0, 201)
    V = grid.sample(f)
    barrier = float(V[60:140].max() - V[:80].min())  # out of the worse well, at -1
    times = np.concatenate([[0], np.geomspace(0.1, 1e8, 2001)])
    start = jnp.zeros(201).at[50].set(1 / grid.spacing[0])  # all at -1

    def share(c):
        def step(rho, interval):
            low, high = interval
            T = c / jnp.log(jnp.e + (low + high) / 2)
            rho = implicit_step(grid, rho, V, diffusion=T, dt=high - low)
            return rho, rho[101:].sum() * grid.spacing[0]

        return np.asarray(jax.lax.scan(step, start, (times[:-1], times[1:]))[1])

    shares = {ratio: share(ratio * barrier) for ratio in (2.0, 0.3)}
    at = [int(np.abs(times[1:] - s).argmin()) for s in (1e2, 1e5, 1e8)]
    slow, fast = (", ".join(f"{s:.3f}" for s in shares[r][at]) for r in (2.0, 0.3))
    measured(
        "§2.4",
        f"share in the better well at s = 1e2, 1e5, 1e8: {slow} for T = 2 d/log s, {fast} for "
        "T = 0.3 d/log s, d the depth of the other well",
        "rises above 0.85; stays below 0.5",
    )
    assert np.all(np.diff(shares[2.0][at]) > 0)
    assert shares[2.0][at[-1]] > 0.85
    assert shares[0.3][-1] < 0.5


class TestBatchSize:
    """(32): the noise of mini-batches and extrinsic noise add in variance."""

    gamma, step_size, chains, L = 0.5, 0.1, 40_000, 40

    def variance(self, batch, temperature, seed):
        """Of y after L steps of the inner loop on f = mean of (y - a_i)^2/2 over 50 examples."""
        examples = np.random.default_rng(0).normal(size=50)
        examples = jnp.asarray((examples - examples.mean()) / examples.std(), jnp.float32)

        def grad(y, i):
            if batch is None:
                return y
            key = jax.random.fold_in(jax.random.key(seed), i)
            return y - examples[jax.random.randint(key, (*y.shape, batch), 0, 50)].mean(axis=-1)

        relaxation = entropix.local_entropy(
            self.gamma, num_steps=self.L, step_size=self.step_size, averaging=0.0,
            temperature=temperature, key=seed, output="displacement",
        )  # fmt: skip
        x = jnp.zeros(self.chains, jnp.float32)
        y = jax.jit(entropix.relaxed_grad(relaxation, grad))(x, relaxation.init(x))[0]
        return float(jnp.mean(y**2)), float(jnp.std(y**2) / self.chains**0.5)

    @pytest.mark.parametrize("batch", [2, 10])
    def test_they_add(self, batch, measured):
        T = 0.02
        alone, extrinsic = self.variance(batch, 0.0, 1), self.variance(None, T, 2)
        both = self.variance(batch, T, 3)
        added, error = alone[0] + extrinsic[0], np.hypot(alone[1], np.hypot(extrinsic[1], both[1]))
        # An AR(1) process: the noise of a batch is that of the temperature eta/(2 batch).
        a = 1 + 1 / self.gamma
        exact = (T + self.step_size / (2 * batch)) / (a * (1 - self.step_size * a / 2))
        measured(
            "(32)",
            f"batches of {batch}: variance of y {alone[0]:.5f} by mini-batches, {extrinsic[0]:.5f} "
            f"by noise, {both[0]:.5f} ({both[1]:.5f}) by both: the sum is {added:.5f}, and "
            f"T + eta/(2b) gives {exact:.5f}",
            "4 s.e.",
        )
        assert abs(both[0] - added) < 4 * error
        assert abs(both[0] - exact) < 4 * both[1]
        assert min(alone[0], extrinsic[0]) > 20 * error  # neither is nothing
