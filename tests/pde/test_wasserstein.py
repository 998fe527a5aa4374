"""Free energy and Wasserstein distance: Gaussians in closed form, sorted samples, descent."""

import jax.numpy as jnp
import numpy as np
import pytest

from entropix import pde
from entropix.pde import Grid, fokker_planck, free_energy, gibbs, mass, wasserstein_distance

LINE = Grid(-10.0, 10.0, 4001)


def gaussian(mean, deviation):
    return lambda x: (
        jnp.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * (2 * jnp.pi) ** 0.5)
    )


@pytest.mark.parametrize(("a", "b"), [((0.0, 1.0), (1.5, 0.4)), ((-2.0, 0.5), (2.0, 0.5))])
def test_gaussians(a, b):
    distance = float(wasserstein_distance(LINE, gaussian(*a), gaussian(*b)))
    assert distance == pytest.approx(np.hypot(a[0] - b[0], a[1] - b[1]), rel=1e-3)
    assert float(wasserstein_distance(LINE, gaussian(*b), gaussian(*a))) == distance
    assert float(wasserstein_distance(LINE, gaussian(*a), gaussian(*a))) == 0


def test_sorted_samples():
    rng = np.random.default_rng(0)
    first = np.where(rng.random(200_000) < 0.3, -2, 1) + 0.4 * rng.normal(size=200_000)
    second = rng.normal(size=200_000)
    sampled = np.sqrt(np.mean((np.sort(first) - np.sort(second)) ** 2))
    mixture = lambda x: 0.3 * gaussian(-2, 0.4)(x) + 0.7 * gaussian(1, 0.4)(x)  # noqa: E731
    distance = float(wasserstein_distance(LINE, mixture, gaussian(0, 1)))
    assert distance == pytest.approx(sampled, abs=0.01)
    # Masses other than 1 are made 1.
    assert float(
        wasserstein_distance(LINE, lambda x: 7 * mixture(x), gaussian(0, 1))
    ) == pytest.approx(distance, rel=1e-9)


def test_free_energy_of_a_gaussian():
    beta, mean, deviation = 3.0, 0.7, 0.5
    found = float(free_energy(LINE, lambda x: x**2, gaussian(mean, deviation), beta=beta))
    entropy = -np.log(deviation * np.sqrt(2 * np.pi * np.e))
    assert found == pytest.approx(mean**2 + deviation**2 + entropy / (2 * beta), abs=1e-6)


@pytest.mark.parametrize("dt", [0.01, 10.0])
def test_it_falls_along_fokker_planck_to_that_of_the_gibbs_density(dt):
    grid, beta = Grid((-2.0, -2.0), (2.0, 2.0), (31, 31)), 2.0
    f = lambda x: (x[0] ** 2 - 1) ** 2 + (x[1] - x[0]) ** 2  # noqa: E731
    rng = np.random.default_rng(1)
    start = rng.exponential(size=grid.shape)
    start[3:9] = 0
    start = start / mass(grid, start)
    rho = fokker_planck(grid, f, start, beta=beta, horizon=30 * dt, num_steps=30, num_saves=30)
    energies = np.asarray([free_energy(grid, f, r, beta=beta) for r in [start, *rho]])
    assert np.all(np.diff(energies) < 1e-12)
    least = float(free_energy(grid, f, gibbs(grid, f, beta=beta), beta=beta))
    assert energies[0] > least + 0.1
    assert energies[-1] > least - 1e-12
    if dt > 1:  # long enough to be there
        assert energies[-1] == pytest.approx(least, abs=1e-4)


def test_messages():
    plane = Grid((0.0, 0.0), (1.0, 1.0), (4, 4))
    with pytest.raises(ValueError, match=r"one dimension; got shape \(4, 4\)"):
        wasserstein_distance(plane, np.ones((4, 4)), np.ones((4, 4)))
    for bad in (np.zeros(4001), -np.ones(4001)):
        with pytest.raises(ValueError, match="other must be finite, nowhere negative"):
            wasserstein_distance(LINE, gaussian(0, 1), bad)
    with pytest.raises(ValueError, match="density must be finite and >= 0; got density with -1.0"):
        free_energy(LINE, lambda x: x**2, -np.ones(4001), beta=1.0)


def test_free_energy_behind_walls():
    """There is no mass where V is infinite; with half a density there, F is infinite."""
    grid, beta = Grid(-2.0, 2.0, 401), 1.0

    def walled(x):
        return jnp.where(jnp.abs(x) > 1, jnp.inf, x**2)

    rho = gibbs(grid, walled, beta=beta)
    partition = mass(grid, jnp.exp(-2 * beta * walled(grid.points)))
    expected = -jnp.log(partition) / (2 * beta)  # F of the Gibbs density, mass 1
    assert float(free_energy(grid, walled, rho, beta=beta)) == pytest.approx(
        float(expected), rel=1e-12
    )
    assert float(free_energy(grid, walled, lambda x: 0 * x + 0.25, beta=beta)) == np.inf


SHORT = Grid(-2.0, 2.0, 41)
WALL = lambda x: jnp.where(jnp.abs(x) > 1, jnp.inf, 0.0)  # noqa: E731
ROOT = jnp.sqrt  # NaN on half of the box
GAME = {"gamma": 1.0, "beta": 1.0, "horizon": 1.0, "num_levels": 2, "num_rounds": 1}
TIMES = {"horizon": 1.0, "num_steps": 2}


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (lambda: pde.value_function(SHORT, jnp.square, WALL, beta=1.0, horizon=1.0, num_levels=2),
         "V must be finite; its value at -2.0 is inf"),
        (lambda: pde.value_function(
            SHORT, jnp.square, WALL, beta=1.0, horizon=1.0, num_levels=2, method="linear"),
         "V must be finite"),
        (lambda: pde.backward_kolmogorov(
            SHORT, jnp.square, ROOT, beta=1.0, horizon=1.0, num_levels=2), "V must be.* nan"),
        (lambda: fokker_planck(SHORT, jnp.square, ROOT, beta=1.0, **TIMES),
         "density must be finite"),
        (lambda: pde.mean_field(SHORT, jnp.square, ROOT, gamma=1.0, temperature=1.0, **TIMES),
         "density must be finite"),
        (lambda: pde.mean_field_game(SHORT, jnp.square, lambda x, m: x, lambda x: 0 * x, **GAME),
         "mass of density must be > 0; got mass of density with 0.0"),
        (lambda: pde.mean_field(
            SHORT, jnp.square, lambda x: 0 * x, gamma=1.0, temperature=1.0, **TIMES),
         "mass of density must be > 0"),
        (lambda: pde.mean_field_game(SHORT, jnp.square, lambda x, m: x, ROOT, **GAME),
         "density must be finite"),
        (lambda: gibbs(SHORT, ROOT, beta=1.0), "potential must be .*at -2.0 is nan"),
        (lambda: gibbs(SHORT, lambda x: -WALL(x), beta=1.0), "potential must be finite or"),
        (lambda: gibbs(SHORT, lambda x: 0 * x + jnp.inf, beta=1.0), "at every node is inf"),
        (lambda: free_energy(SHORT, ROOT, lambda x: 0 * x + 0.25, beta=1.0), "potential must be"),
        (lambda: pde.heat_on_grid(SHORT, ROOT, t=1.0, beta=1.0), "values must be finite; .*nan"),
    ],
)  # fmt: skip
def test_what_is_not_finite_is_refused(solve, message):
    with pytest.raises(ValueError, match=message):
        solve()
