"""Section 2.4: escape from a well, exact, by Kramers' formula and by paths; large friction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, estimate, exit_time, first_passage, kramers_time, simulate


def double_well(x):
    return (x**2 - 1) ** 2 / 4


class TestEscape:
    @pytest.mark.parametrize("temperature", [0.4, 0.2, 0.1])
    def test_paths_against_the_exact_time(self, temperature, measured):
        times = first_passage(
            jax.grad(double_well), jnp.full(2000, -1.0), 1.0, jax.random.key(3),
            temperature=temperature, dt=0.05,
        )  # fmt: skip
        mean, error = estimate(times)
        grid = Grid(-4.0, 1.0, 4001)
        exact = np.interp(-1.0, grid.points, exit_time(grid, double_well, temperature=temperature))
        measured(
            "§2.4",
            f"T = {temperature}: mean time {mean:.2f} ({error:.2f}), exact {exact:.2f}",
            "4 s.e.",
        )
        assert abs(mean - exact) < 4 * error
        assert error < 0.03 * exact

    def test_kramers_formula_as_the_temperature_falls(self, measured):
        ratios, temperatures = [], np.asarray([0.1, 0.05, 0.025, 0.0125])
        for T in temperatures:
            grid = Grid(-1.8, 1.0, 8001)
            exact = np.interp(-1.0, grid.points, exit_time(grid, double_well, temperature=T))
            ratios.append(exact / kramers_time(double_well, -1.0, 0.0, temperature=T))
        errors = np.abs(np.asarray(ratios) - 1)
        order = np.polyfit(np.log(temperatures), np.log(errors), 1)[0]
        measured(
            "§2.4",
            f"exact time over Kramers' {', '.join(f'{r:.3f}' for r in ratios)} at T = "
            f"{', '.join(f'{T:g}' for T in temperatures)}: 1 + O(T^{order:.2f})",
            "1 up to 0.3; 5 % in the end",
        )
        assert np.all(np.diff(errors) < 0)
        assert order == pytest.approx(1, abs=0.3)
        assert errors[-1] < 0.05

    def test_a_temperature_may_be_traced(self):
        grid = Grid(-1.8, 1.0, 101)
        exact = lambda T: exit_time(grid, double_well, temperature=T)[0]  # noqa: E731
        asymptotic = lambda T: kramers_time(double_well, -1.0, 0.0, temperature=T)  # noqa: E731
        for time in (exact, asymptotic):
            assert float(jax.jit(time)(0.2)) == pytest.approx(float(time(0.2)), rel=1e-12)

    def test_beyond_a_high_barrier_times_are_not_rounding_of_those_before_it(self):
        # A hill of 100 T on [-1, 1]; the inner integral is 1 + 2T up to 1, and then rises by y - 1.
        T, grid = 0.01, Grid(-2.0, 2.0, 8001)
        times = exit_time(grid, lambda x: jnp.maximum(1 - jnp.abs(x), 0), temperature=T)
        x = grid.points[6000:-1]
        exact = ((1 + 2 * T) * (2 - x) + (1 - (x - 1) ** 2) / 2) / T
        np.testing.assert_allclose(times[6000:-1], exact, rtol=1e-3)

    def test_kramers_points_are_critical(self):
        skew = lambda x: double_well(x) + 0.1 * x  # noqa: E731 - well -1.0467, saddle 0.1010
        near = kramers_time(skew, -1.047, 0.101, temperature=0.1)
        exact = kramers_time(skew, -1.0466805318, 0.1010312579, temperature=0.1)
        assert float(near) == pytest.approx(float(exact), rel=1e-3)
        with pytest.raises(ValueError, match=r"well must be where f' is 0; got well=-0.9, .*-1.0"):
            kramers_time(skew, -0.9, 0.1, temperature=0.1)
        with pytest.raises(ValueError, match=r"saddle must be where f' is 0; got saddle=-0.1"):
            kramers_time(double_well, -1.0, -0.1, temperature=0.1)

    def test_bad_values(self):
        with pytest.raises(ValueError, match="f must be finite; its value at -4.0 is nan"):
            exit_time(Grid(-4.0, 1.0, 101), jnp.log, temperature=1.0)
        with pytest.raises(ValueError, match="f must curve up at well=0.0"):
            kramers_time(double_well, 0.0, 1.0, temperature=0.1)
        with pytest.raises(ValueError, match="temperature must be above"):
            exit_time(Grid(-4.0, 1.0, 101), double_well, temperature=1e-3)
        with pytest.raises(ValueError, match="barrier - start must be > 0; got .* with -1.0"):
            first_passage(
                jax.grad(double_well), jnp.asarray([-1.0, 2.0]), 1.0, jax.random.key(0),
                temperature=0.1, dt=0.01,
            )  # fmt: skip


def test_underdamped_langevin_at_large_friction(measured):
    # In the time s of the overdamped limit: dx = k v ds, dv = -k f' ds - k^2 v ds + k sqrt(2T) dW,
    # on the same Brownian motion as dX = -f' ds + sqrt(2T) dW. x + v/k stays near X: error O(1/k).
    T, frictions, errors = 0.2, np.asarray([4.0, 8.0, 16.0, 32.0]), []
    slope = jax.grad(double_well)
    for k in frictions:

        def drift(state, s, k=k):
            x, v, X = state
            return jnp.stack([k * v, -k * slope(x) - k**2 * v, -slope(X)])

        v = T**0.5 * jax.random.normal(jax.random.key(5), (1000,), jnp.float64)
        state = jnp.stack([jnp.full(1000, -1.0), v, jnp.full(1000, -1.0)], axis=1)
        sigma = (2 * T) ** 0.5 * jnp.asarray([[0.0], [k], [1.0]])
        end = simulate(
            drift, state, jax.random.key(4), sigma=sigma, horizon=1.0, num_steps=int(8 * k**2)
        )[-1]
        square = estimate((end[:, 0] - end[:, 2]) ** 2)
        errors.append(square.mean**0.5)
        assert square.error < 0.1 * square.mean
    order = np.polyfit(np.log(frictions), np.log(errors), 1)[0]
    measured(
        "§2.4",
        f"large friction k: rms distance to the overdamped path k^{order:.2f}, "
        f"{errors[-1]:.4f} at k = {frictions[-1]:g}",
        "-1 up to 0.15",
    )
    assert order == pytest.approx(-1, abs=0.15)
