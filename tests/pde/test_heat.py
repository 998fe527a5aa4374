"""Heat: closed forms, the two solvers against each other, mass and the maximum principle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from entropix.pde import Grid, heat_equation, heat_on_grid

LINE = Grid((-2.0,), (2.0,), (9,))
PLANE = Grid((-1.0, -1.0), (1.0, 1.0), (4, 5))


class TestWholeSpace:
    @pytest.mark.parametrize("beta", [0.1, 2.0, 1e6])
    def test_eigenfunction_in_the_plane(self, beta):
        t, k = 0.3, jnp.asarray([3.0, -1.0])
        v = heat_equation(PLANE, lambda x: jnp.cos(k @ x), t, beta)
        phase, decay = PLANE.points @ k, np.exp(-t / (2 * beta) * 10)
        np.testing.assert_allclose(v.value, decay * np.cos(phase), rtol=0, atol=1e-13)
        slope = -decay * np.sin(phase)[..., None] * k
        np.testing.assert_allclose(
            v.gradient, slope, rtol=0, atol=1e-14 / np.sqrt(t / beta) + 1e-13
        )

    def test_gaussian_widens(self):
        a, s = 0.5, 0.2 / 2
        v = heat_equation(LINE, lambda x: jnp.exp(-(x**2) / (2 * a)), 0.2, 2.0)
        expected = np.sqrt(a / (a + s)) * np.exp(-(LINE.points**2) / (2 * (a + s)))
        np.testing.assert_allclose(v.value, expected, rtol=0, atol=1e-14)

    def test_kink(self):
        s, x = np.sqrt(0.5 / 2), LINE.points
        v = heat_equation(LINE, jnp.abs, 0.5, 2.0, num_nodes=2001)
        expected = x * (2 * stats.norm.cdf(x / s) - 1) + 2 * s * stats.norm.pdf(x / s)
        np.testing.assert_allclose(v.value, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(v.gradient, 2 * stats.norm.cdf(x / s) - 1, atol=1e-4)

    def test_gradient_is_the_mean_gradient(self):  # (23)
        f = lambda x: jnp.sin(2 * x[0]) * x[1] ** 2  # noqa: E731
        v = heat_equation(PLANE, f, 0.4, 1.5)
        for i in range(2):
            slope = heat_equation(PLANE, lambda x, i=i: jax.grad(f)(x)[i], 0.4, 1.5).value
            np.testing.assert_allclose(v.gradient[..., i], slope, rtol=0, atol=1e-13)

    def test_the_fewest_nodes_are_enough_for_a_parabola(self):
        v = heat_equation(LINE, lambda x: x**2, 0.1, 5.0, num_nodes=19)
        np.testing.assert_allclose(v.value, LINE.points**2 + 0.02, rtol=0, atol=1e-7)

    def test_rejects(self):
        with pytest.raises(ValueError, match=r"to one number; its value has shape \(1,\)"):
            heat_equation(Grid(-1.0, 1.0, 5), lambda x: jnp.asarray([x]), 0.5, 1.0)
        with pytest.raises(ValueError, match="t must be one number > 0"):
            heat_equation(LINE, jnp.cos, 0.0, 1.0)
        for wrong in (0, 2, 18, -3, 40.0):
            with pytest.raises(ValueError, match=rf"integer >= 19; got num_nodes={wrong}"):
                heat_equation(LINE, jnp.cos, 1.0, 1.0, num_nodes=wrong)
        with pytest.raises(ValueError, match="heat_on_grid"):
            heat_equation(LINE, np.zeros(9), 1.0, 1.0)
        with jax.enable_x64(False), pytest.raises(ValueError, match="float64"):
            heat_equation(LINE, jnp.cos, 1.0, 1.0)


class TestOnGrid:
    def test_second_order(self):
        errors = []
        for n in (41, 81, 161, 321):
            grid = Grid((-6.0,), (6.0,), (n,))
            f = lambda x: jnp.exp(-2 * x**2) + jnp.sin(x) * jnp.exp(-(x**2))  # noqa: E731
            difference = heat_on_grid(grid, f, 0.5, 2.0) - heat_equation(grid, f, 0.5, 2.0).value
            errors.append(float(jnp.abs(difference).max()))
        order = -np.polyfit(np.log([40, 80, 160, 320]), np.log(errors), 1)[0]
        assert 1.9 < order < 2.1

    @pytest.mark.parametrize("shape", [(30,), (17, 24)])
    def test_matrix_exponential_twin(self, shape):
        # Mass, positivity and the maximum principle, of rough data, up to rounding.
        grid = Grid((0.0,) * len(shape), (1.0,) * len(shape), shape)
        rng = np.random.default_rng(len(shape))
        for t in (1e-5, 1e-3, 0.1, 10.0):
            values = rng.uniform(size=shape)
            v = heat_on_grid(grid, values, t, 2.0)
            assert values.min() - 1e-14 <= v.min() <= v.max() <= values.max() + 1e-14
            np.testing.assert_allclose(mass(v), mass(values), rtol=1e-13)
        n, h = grid.shape[0], grid.spacing[0]
        laplacian = (np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n)) / h**2
        laplacian[0, 1] = laplacian[-1, -2] = 2 / h**2
        column = rng.uniform(size=n)
        expected = jax.scipy.linalg.expm(jnp.asarray(laplacian) * 1e-3 / 4) @ column
        values = np.broadcast_to(column.reshape(n, *[1] * (len(shape) - 1)), shape)
        found = heat_on_grid(grid, values, 1e-3, 2.0).reshape(n, -1)[:, 0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def mass(values):
    for _ in range(np.ndim(values)):
        values = np.trapezoid(np.asarray(values), axis=0)
    return values
