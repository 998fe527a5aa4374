"""Grids: nodes, sampling, interpolation and differences against what is known of them."""

import importlib
import math
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import pde
from entropix.pde import Grid

LINE = Grid(-1.0, 3.0, 41)
PLANE = Grid((-1.0, 0.0), (1.0, 3.0), (21, 31))


def wave(x):
    return jnp.sum(jnp.sin(2 * x + jnp.arange(x.size).reshape(x.shape)))


class TestNodes:
    def test_line(self):
        assert (LINE.ndim, LINE.shape, LINE.point_shape) == (1, (41,), ())
        assert LINE.spacing == (0.1,)
        np.testing.assert_allclose(LINE.points, -1 + 0.1 * np.arange(41), rtol=0, atol=1e-15)
        assert LINE.points[0] == -1
        assert LINE.points[-1] == 3

    def test_plane(self):
        assert PLANE.points.shape == (21, 31, 2)
        np.testing.assert_allclose(PLANE.points[3, 7], [-1 + 3 * 0.1, 7 * 0.1], atol=1e-15)
        assert PLANE.points[-1, -1].tolist() == [1, 3]

    def test_hashable_and_static_in_jit(self):
        assert hash(Grid(-1, 3, 41)) == hash(LINE)
        assert Grid(np.float32(-1), 3, np.int64(41)) == LINE
        sample = jax.jit(lambda grid, a: grid.sample(lambda x: a * x), static_argnums=0)
        np.testing.assert_allclose(sample(LINE, 2.0), 2 * LINE.points)

    @pytest.mark.parametrize(
        ("lower", "upper", "shape", "message"),
        [
            (1.0, 0.0, 5, "lower must be below upper"),
            (0.0, 0.0, 5, "lower must be below upper"),
            (0.0, float("inf"), 5, "both finite"),
            (float("nan"), 1.0, 5, "both finite"),
            (0.0, 1.0, 2, "3 or more"),
            (0.0, 1.0, 5.0, "shape must be one number per dimension"),
            ("a", 1.0, 5, "lower must be one number per dimension"),
            ((0.0, 0.0), 1.0, 5, "one entry per dimension"),
            ((0.0,) * 3, (1.0,) * 3, (4,) * 3, "for 1 or 2 dimensions"),
        ],
    )
    def test_rejects(self, lower, upper, shape, message):
        with pytest.raises(ValueError, match=message):
            Grid(lower, upper, shape)


class TestSample:
    def test_points_are_numbers_on_a_line(self):
        np.testing.assert_allclose(LINE.sample(jnp.cos), np.cos(LINE.points), rtol=1e-15)

    def test_points_are_vectors_in_a_plane(self):
        values = PLANE.sample(lambda x: x[0] + 10 * x[1])
        np.testing.assert_allclose(values, PLANE.points @ [1, 10], rtol=0, atol=1e-14)

    def test_values_pass(self):
        values = np.ones(41, np.float32)
        assert LINE.sample(values).dtype == jnp.float64

    def test_rejects(self):
        with pytest.raises(ValueError, match=r"its value has shape \(2,\)"):
            PLANE.sample(lambda x: x)
        with pytest.raises(ValueError, match=r"grid's shape \(41,\); got shape \(40,\)"):
            LINE.sample(np.zeros(40))
        for f, kind in ((lambda x: None, "NoneType"), (lambda x: (x, x), "tuple")):
            for solve in (LINE.sample, lambda f: pde.heat_equation(LINE, f, 0.1, 1.0)):
                with pytest.raises(ValueError, match=f"f must return one number; got {kind}"):
                    solve(f)
        with pytest.raises(ValueError, match="JAX function, or numbers at the nodes; got 'x'"):
            LINE.sample("x")
        with pytest.raises(ValueError, match="t must be one number > 0 and finite; got t='1'"):
            pde.hopf_lax(LINE, jnp.cos, "1")
        for interval in (5.0, (0.0, 1.0, 2.0), (1.0, 0.0)):
            with pytest.raises(ValueError, match="interval must be two numbers, low < high"):
                pde.widened_interval(jnp.cos, interval, 0.1)
        with pytest.raises(ValueError, match=r"samples must have shape \(n, ...\)"):
            pde.estimate(3.0)

    def test_complex_values_are_refused(self):
        """Their imaginary parts were left out, or the results were complex."""
        wave = lambda x: jnp.exp(1j * x)  # noqa: E731
        for solve in (
            LINE.sample,
            lambda f: pde.hopf_lax(LINE, f, 0.1),
            lambda f: pde.heat_equation(LINE, f, 0.1, 1.0),
            lambda f: pde.ball_maximum(LINE, f, 0.1),
            lambda f: pde.shock_time(LINE, f),
        ):
            with pytest.raises(ValueError, match=r"f must be real; got complex numbers.*jnp.real"):
                solve(wave)
        with pytest.raises(ValueError, match="p must be real"):
            pde.characteristics(wave, [0.0], 0.1)
        with pytest.raises(ValueError, match="values must be real"):
            LINE.sample(np.exp(1j * LINE.points))

    @pytest.mark.parametrize("f", [np.sin, math.sin, lambda x: x if x > 0 else -x])
    def test_functions_that_are_not_of_jax_are_refused_in_words(self, f):
        for name, call in (
            ("f", lambda: LINE.sample(lambda x: f(x) + 1)),
            ("f", lambda: pde.heat_equation(LINE, f, 0.1, 1.0)),
            ("f", lambda: pde.ball_maximum(LINE, f, 0.1)),
            ("p", lambda: pde.characteristics(f, [0.0], 0.1)),
            (
                "drift",
                lambda: pde.simulate(
                    lambda x, s: f(x), [1.0], 0, sigma=1.0, horizon=1.0, num_steps=2
                ),
            ),
        ):
            with pytest.raises(ValueError, match=f"^{name} must be a JAX function: write it with"):
                call()

    def test_demands_float64(self):
        with jax.enable_x64(False), pytest.raises(ValueError, match='jax_enable_x64", True'):
            LINE.sample(jnp.cos)


class TestInterpolate:
    @pytest.mark.parametrize("grid", [LINE, PLANE], ids=["line", "plane"])
    def test_exact_for_linear_functions_and_at_nodes(self, grid):
        rng = np.random.default_rng(0)
        a = jnp.asarray(rng.normal(size=grid.point_shape))
        linear = lambda x: jnp.sum(a * x) - 0.3  # noqa: E731
        points = rng.uniform(grid.lower, grid.upper, size=(50, grid.ndim))
        points = points.reshape(50, *grid.point_shape)
        found = grid.interpolate(grid.sample(linear), points)
        np.testing.assert_allclose(found, jax.vmap(linear)(points), rtol=0, atol=1e-14)
        values = grid.sample(wave)
        np.testing.assert_allclose(grid.interpolate(values, grid.points), values, atol=1e-12)

    def test_vector_fields_and_points_of_any_shape(self):
        field = PLANE.gradient(PLANE.sample(wave))
        points = np.random.default_rng(1).uniform(0, 1, size=(3, 4, 2))
        found = PLANE.interpolate(field, points)
        assert found.shape == (3, 4, 2)
        for i in range(2):
            np.testing.assert_allclose(
                found[..., i], PLANE.interpolate(field[..., i], points), rtol=1e-14
            )
        assert LINE.interpolate(np.zeros(41), 0.5).shape == ()

    def test_held_constant_outside(self):
        values = LINE.sample(lambda x: x)
        far = np.asarray([-5.0, 9.0, -np.inf, np.inf, 1e308, np.nan])
        np.testing.assert_allclose(LINE.interpolate(values, far), [-1, 3, -1, 3, 3, np.nan])

    def test_rejects(self):
        with pytest.raises(ValueError, match="points must have shape"):
            PLANE.interpolate(np.zeros(PLANE.shape), np.zeros(3))
        with pytest.raises(ValueError, match="values must have a shape beginning with"):
            PLANE.interpolate(np.zeros((3, 3)), np.zeros(2))


class TestGradient:
    @pytest.mark.parametrize("ndim", [1, 2])
    def test_second_order_up_to_the_ends(self, ndim):
        errors = []
        for n in (21, 41, 81):
            grid = Grid((-1.0,) * ndim, (1.0,) * ndim, (n,) * ndim)
            points = jnp.asarray(grid.points).reshape(-1, *grid.point_shape)
            exact = jax.vmap(jax.grad(wave))(points).reshape(grid.points.shape)
            errors.append(float(jnp.abs(grid.gradient(grid.sample(wave)) - exact).max()))
        order = -np.polyfit(np.log([20, 40, 80]), np.log(errors), 1)[0]
        assert 1.9 < order < 2.1

    def test_exact_for_quadratics(self):
        values = PLANE.sample(lambda x: x[0] ** 2 - 3 * x[0] * x[1] + x[1] ** 2)
        a, b = PLANE.points[..., 0], PLANE.points[..., 1]
        expected = np.stack([2 * a - 3 * b, 2 * b - 3 * a], axis=-1)
        np.testing.assert_allclose(PLANE.gradient(values), expected, rtol=0, atol=1e-12)


def test_public_names_stay_functions_whatever_is_imported():
    """A file called as a public function would take its place when it is first imported."""
    for module in pkgutil.iter_modules(pde.__path__):
        importlib.import_module(f"entropix.pde.{module.name}")
    assert all(callable(getattr(pde, name)) for name in pde.__all__)


def test_the_names_of_version_one_still_answer():
    assert pde.heat is pde.heat_equation
    assert pde.hamilton_jacobi is pde.inviscid_hj
    assert pde.scoping is pde.scoped_descent
    with pytest.raises(AttributeError, match="no attribute 'lukewarm'"):
        pde.lukewarm  # noqa: B018


def test_whole_numbers_are_interpolated_as_numbers(x64):
    found = Grid(0.0, 2.0, 3).interpolate(np.array([0, 1, 4]), [0.25, 0.5, 1.5])
    np.testing.assert_allclose(found, [0.25, 0.5, 2.5])
