"""Cole-Hopf: dense quadrature, closed forms up to beta = 1e6, Hopf-Lax and the monotone scheme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import log_ndtr

from entropix.pde import Grid, cole_hopf, hopf_lax, viscous_hj

LINE = Grid((-7.0,), (7.0,), (281,))
POINTS = np.linspace(-2, 2, 9)
BETAS = pytest.mark.parametrize("beta", [1.0, 30.0, 1e3, 1e6])


def rugged(x):
    return jnp.sum(jnp.cos(3 * x) + x**2 / 2)


# Named once, so that a program serves all values of beta.
BOWL = np.asarray([[2.0, 0.5], [0.5, 1.0]])
TURN = np.asarray([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
VALLEY = TURN @ np.diag([200.0, 0.05]) @ TURN.T


def bowl(x):
    return x @ jnp.asarray(BOWL) @ x / 2


def valley(x):
    return x @ jnp.asarray(VALLEY) @ x / 2


def quartic(x):
    return jnp.sum(x**4) / 4


def flat(x):
    return jnp.zeros(())


def root_and_wave(x):
    return jnp.sqrt(x) + jnp.sin(3 * x)


def entropy_like(x):
    return x * jnp.sqrt(x) - 2 * x


def wells(x):
    return jnp.sum((x**2 - 1) ** 2)


def dense(x, t, beta):
    """Value and gradient by one sum over two million nodes."""
    y = np.linspace(-7, 7, 2_000_001)
    h = np.cos(3 * y) + y**2 / 2 + (x - y) ** 2 / (2 * t)
    w = np.exp(-beta * (h - h.min()))
    log_integral = np.log(w.sum() * (y[1] - y[0])) - np.log(2 * np.pi * t / beta) / 2
    return h.min() - log_integral / beta, w @ (x - y) / w.sum() / t


class TestColeHopf:
    @BETAS
    def test_dense_quadrature(self, beta):
        u = cole_hopf(LINE, rugged, 0.4, beta, POINTS)
        value, gradient = np.transpose([dense(x, 0.4, beta) for x in POINTS])
        np.testing.assert_allclose(u.value, value, rtol=0, atol=1e-10)
        np.testing.assert_allclose(u.gradient, gradient, rtol=0, atol=1e-9)

    @BETAS
    def test_quadratic_in_the_plane(self, beta):  # Lemma 4, Example 13
        grid, t = Grid((-6.0, -6.0), (6.0, 6.0), (61, 61)), 0.7
        points = np.random.default_rng(0).uniform(-2, 2, size=(5, 3, 2))
        u = cole_hopf(grid, bowl, t, beta, points)
        M = np.linalg.solve(np.eye(2) + t * BOWL, BOWL)
        value = np.einsum("...i,ij,...j", points, M, points) / 2
        value += np.log(np.linalg.det(np.eye(2) + t * BOWL)) / (2 * beta)
        np.testing.assert_allclose(u.value, value, rtol=0, atol=1e-12)
        np.testing.assert_allclose(u.gradient, points @ M, rtol=0, atol=1e-11)

    @BETAS
    @pytest.mark.parametrize("nodes", [61, 121])
    def test_wells_of_another_width_than_the_narrowest(self, beta, nodes):
        # Curvature grows to 300 in the corners of the box: what matters is where the mass is.
        x, t = np.asarray([[0.5, 0.3], [-1.2, 2.0]]), 0.4
        plane = cole_hopf(Grid((-5.0, -5.0), (5.0, 5.0), (nodes, nodes)), wells, t, beta, x)
        line = cole_hopf(Grid(-5.0, 5.0, 4001), wells, t, beta, x)  # the terms of a separable sum
        np.testing.assert_allclose(plane.value, line.value.sum(axis=1), rtol=0, atol=1e-12)
        np.testing.assert_allclose(plane.gradient, line.gradient, rtol=0, atol=1e-11)

    @pytest.mark.parametrize("beta", [2.0, 1e4])
    def test_a_long_narrow_valley_across_the_grid(self, beta):
        grid, t = Grid((-6.0, -6.0), (6.0, 6.0), (121, 121)), 1.0
        x = np.asarray([[0.3, 0.2], [1.0, -1.0]])
        u = cole_hopf(grid, valley, t, beta, x)
        exact = x @ np.linalg.solve(np.eye(2) + t * VALLEY, VALLEY)
        np.testing.assert_allclose(u.gradient, exact, rtol=0, atol=1e-11)

    def test_mass_in_too_many_cells_is_refused(self, monkeypatch):
        monkeypatch.setattr("entropix.pde.viscous._MOST", 8192)
        f = lambda x: jnp.sum(jnp.cos(8 * x))  # noqa: E731
        with pytest.raises(ValueError, match="spread over more than 8192 cells"):
            cole_hopf(Grid((-10.0, -10.0), (10.0, 10.0), (101, 101)), f, 100.0, 10.0, [[0.0, 0.0]])

    def test_gradient_is_the_derivative_of_the_value(self):
        step = 1e-4
        for beta in (2.0, 50.0):
            shifted = [cole_hopf(LINE, rugged, 0.4, beta, POINTS + s).value for s in (step, -step)]
            gradient = cole_hopf(LINE, rugged, 0.4, beta, POINTS).gradient
            slope = (shifted[0] - shifted[1]) / (2 * step)
            np.testing.assert_allclose(slope, gradient, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("ndim", [1, 2])
    def test_hopf_lax_is_the_limit(self, ndim):
        grid = Grid((-3.0,) * ndim, (3.0,) * ndim, ((6001,), (601,) * 2)[ndim - 1])
        coarse = Grid((-3.0,) * ndim, (3.0,) * ndim, (61,) * ndim)
        t, beta = 0.4, 1e6
        rng = np.random.default_rng(1)
        points = rng.uniform(-1.5, 1.5, size=(40, *grid.point_shape))
        limit = hopf_lax(grid, rugged, t)
        u = cole_hopf(coarse, rugged, t, beta, points)
        # (N/2 beta) log(1 + t f''), the nodes' distance to the minimiser, linear interpolation
        curvature, h = 10.0 + 1 / t, grid.spacing[0]
        bound = ndim * (2 / beta + curvature * h**2 / 4)
        np.testing.assert_allclose(u.value, grid.interpolate(limit.value, points), atol=bound)
        if ndim == 1:
            expected = grid.interpolate(limit.gradient, points)
            np.testing.assert_allclose(u.gradient, expected, rtol=0, atol=2 * h / t)

    def test_values_alone(self):
        fine = Grid((-7.0,), (7.0,), (2801,))
        for beta in (1.0, 1e4):
            u = cole_hopf(fine, fine.sample(rugged), 0.4, beta, POINTS)
            v = cole_hopf(fine, rugged, 0.4, beta, POINTS)
            np.testing.assert_allclose(u.value, v.value, rtol=0, atol=10 * 0.005**2 / 8)

    def test_order_and_sup_norm(self):
        grid = Grid((-3.0,), (3.0,), (121,))
        rng = np.random.default_rng(2)
        for beta in (0.5, 20.0):
            for _ in range(5):
                f, g = rng.normal(size=(2, 121))
                relax = lambda f: cole_hopf(grid, f, 0.3, beta, max_halvings=0).value  # noqa: B023, E731
                assert jnp.abs(relax(f) - relax(g)).max() <= np.abs(f - g).max() + 1e-12
                assert (relax(np.maximum(f, g)) >= jnp.maximum(relax(f), relax(g)) - 1e-12).all()

    def test_inside_jit(self):
        relax = jax.jit(lambda t, beta: cole_hopf(LINE, rugged, t, beta, POINTS).gradient)
        for beta in (3.0, 1e5):
            outside = cole_hopf(LINE, rugged, 0.4, beta, POINTS).gradient
            np.testing.assert_allclose(relax(0.4, beta), outside, rtol=1e-12, atol=1e-14)

    def test_reverse_mode_without_halvings(self):
        solve = lambda t: cole_hopf(LINE, rugged, t, 3.0, POINTS, max_halvings=0).value  # noqa: E731
        backward, forward = jax.jacrev(solve)(0.4), (solve(0.4 + 1e-5) - solve(0.4 - 1e-5)) / 2e-5
        np.testing.assert_allclose(backward, forward, rtol=1e-6)

    @pytest.mark.parametrize(
        ("grid", "beta", "x"),
        [
            (Grid(0.0, 3.0, 601), 1e4, 0.5),  # halved once, with mass kept beside the wall
            (Grid((0.0, 0.0), (3.0, 3.0), (51, 51)), 80.0, [0.5, 0.5]),
            (Grid(-1.0, 3.0, 201), 1e3, 0.5),  # fewer cells than can be kept
        ],
    )
    def test_derivative_by_beta_where_cells_have_no_mass(self, grid, beta, x):
        solve = lambda b: cole_hopf(grid, quartic, 0.4, b, [x]).value[0]  # noqa: E731
        _, slope = jax.jvp(solve, (beta,), (1.0,))
        step = 1e-4 * beta
        expected = (solve(beta + step) - solve(beta - step)) / (2 * step)
        np.testing.assert_allclose(slope, expected, rtol=1e-4)

    def test_derivative_by_beta_where_f_is_infinite(self):
        wall = lambda x: jnp.where(x < -1, jnp.inf, x**4 / 4)  # noqa: E731
        solve = lambda b: cole_hopf(LINE, wall, 0.4, b, POINTS, max_halvings=0).value  # noqa: E731
        backward, forward = jax.jacrev(solve)(3.0), (solve(3.0 + 1e-5) - solve(3.0 - 1e-5)) / 2e-5
        np.testing.assert_allclose(backward, forward, rtol=1e-5)

    @pytest.mark.parametrize("nodes", [11, 51])  # with and without halving
    def test_a_box_with_mass_at_its_ends_has_walls(self, nodes):
        """The mass of a normal law between 0 and 1; in the plane, the product of two."""
        t, beta, x = 0.1, 100.0, np.linspace(0, 1, 6)
        width = np.sqrt(t / beta)
        exact = -np.log(stats.norm.cdf((1 - x) / width) - stats.norm.cdf(-x / width)) / beta
        line = cole_hopf(Grid(0.0, 1.0, nodes), flat, t, beta, x)
        np.testing.assert_allclose(line.value, exact, atol=0.02 / beta)
        plane, points = Grid((0.0, 0.0), (1.0, 1.0), (nodes, nodes)), np.meshgrid(x, x)
        found = cole_hopf(plane, flat, t, beta, np.stack(points, axis=-1))
        np.testing.assert_allclose(found.value, exact[:, None] + exact, atol=0.04 / beta)

    @pytest.mark.parametrize("beta", [1.0, 1e2, 1e5, 1e8, 1e11])
    @pytest.mark.parametrize("slope", [3.0, -3.0, 40.0])
    def test_where_f_falls_towards_a_wall(self, beta, slope):
        """Lines a y between 0 and 1 shift the normal law by a t: what is left of it is its tail."""
        t, x = 0.3, np.asarray([-0.5, 0.0, 0.4, 1.0])
        width, shifted = np.sqrt(t / beta), x - slope * t
        near = np.where(shifted < 0.5, -shifted, shifted - 1) / width
        tail = stats.norm.logsf(near)
        far = stats.norm.logsf(near + 1 / width)
        exact = slope * x - slope**2 * t / 2 - (tail + np.log1p(-np.exp(far - tail))) / beta
        line = cole_hopf(Grid(0.0, 1.0, 41), lambda y: slope * y, t, beta, x)
        np.testing.assert_allclose(line.value, exact, atol=0.02 / beta, rtol=1e-13)
        if beta >= 1e5:  # the other wall is far: the mean stands so far off the nearer one
            above = (
                np.exp(stats.norm.logpdf(near) - tail) - near
            )  # 1/near far out, where it cancels
            off = width * np.where(near > 50, 1 / np.abs(near), above)
            mean = x - t * line.gradient
            np.testing.assert_allclose(np.where(shifted < 0.5, mean, 1 - mean), off, rtol=0.03)

    @pytest.mark.parametrize("beta", [50.0, 200.0, 1e4])
    @pytest.mark.parametrize("f", [root_and_wave, entropy_like])
    def test_f_need_not_exist_beyond_the_box(self, f, beta):
        """Its mass is away from the end at which the slope of the root is infinite."""
        grid, fine = Grid(0.0, 4.0, 201), np.linspace(0, 4, 2_000_001)[:, None]
        points = np.linspace(1.0, 3.9, 5)
        h = f(fine) + (points - fine) ** 2 / 0.04
        mass = np.trapezoid(np.exp(-beta * (h - h.min(0))), fine, axis=0)
        expected = h.min(0) - np.log(mass / np.sqrt(2 * np.pi * 0.02 / beta)) / beta
        found = cole_hopf(grid, f, 0.02, beta, points)
        np.testing.assert_allclose(found.value, expected, atol=1e-3 / beta)

    def test_no_points(self):
        u = cole_hopf(LINE, rugged, 0.4, 3.0, [])
        assert u.value.shape == u.gradient.shape == (0,)

    @pytest.mark.parametrize("width", [3.0, 9.0])  # of which the wider one holds infinities
    def test_a_function_that_explodes(self, width):
        y = np.linspace(-9, 2.5, 2_000_001)
        expected = []
        for x in (-1.0, 1.0):
            h = np.exp(y**3) + (x - y) ** 2
            w = np.exp(-10 * (h - h.min()))
            expected.append(w @ (x - y) / w.sum() / 0.5)
        grid = Grid(-width, width, 401)
        u = cole_hopf(grid, lambda x: jnp.exp(x**3), 0.5, 10.0, [-1.0, 1.0])
        np.testing.assert_allclose(u.gradient, expected, rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        ("f", "value"), [(jnp.log, "nan"), (lambda x: 1 / x - 1 / x, "nan"), (jnp.log1p, "-inf")]
    )
    def test_functions_without_a_lowest_value(self, f, value):
        with pytest.raises(ValueError, match=f"f must be finite or .infinity.* is {value}"):
            cole_hopf(Grid(-1.0, 1.0, 21), f, 0.4, 5.0)

    def test_rejects(self):
        with pytest.raises(ValueError, match=r"beta must be at most 1e\+12.*got beta=1e\+300"):
            cole_hopf(LINE, rugged, 0.4, 1e300)
        with pytest.raises(ValueError, match="beta must be one number > 0 and finite"):
            cole_hopf(LINE, rugged, 0.4, float("inf"))


@pytest.mark.parametrize("ndim", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("beta", [2.0, 50.0])
def test_monotone_scheme_converges_to_cole_hopf(ndim, beta):
    t, errors = 0.15, []
    counts = [(60, 120, 240, 480), (30, 60, 120)][ndim - 1]
    quadrature = Grid((-7.0,) * ndim, (7.0,) * ndim, (141,) * ndim)
    points = np.random.default_rng(3).choice([-1.0, -0.8, -0.2, 0.4, 1.0], size=(12, ndim))
    points = points.reshape(12, *quadrature.point_shape)
    exact = cole_hopf(quadrature, rugged, t, beta, points).value
    for n in counts:
        grid = Grid((-3.0,) * ndim, (3.0,) * ndim, (n + 1,) * ndim)  # the points are nodes
        u = grid.interpolate(viscous_hj(grid, rugged, t, beta), points)
        errors.append(float(jnp.abs(u - exact).max()))
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert 0.75 < order < 1.3
    assert errors[-1] < 0.1 * ndim


def test_a_kink_costs_what_the_documentation_says():
    """Of f = |x| with t = 1, by the two Gaussian integrals that the kink separates."""
    grid, x = Grid(-4.0, 4.0, 161), np.asarray([0.0, 0.3, 0.77])
    for beta, most in ((1e4, 2), (1e6, 21)):
        right, left = (
            -s * beta * x + beta / 2 + log_ndtr(s * (x - s) * beta**0.5) for s in (1, -1)
        )
        exact = -np.logaddexp(right, left) / beta
        error = np.abs(cole_hopf(grid, jnp.abs, 1.0, beta, x).value - exact).max()
        assert most / 4 < error * beta < most
