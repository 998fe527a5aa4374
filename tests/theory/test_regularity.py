"""Section 6 measured: Examples 13-16, (28), (29), Remark 17, Lemmas 18-20."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import pde

BETAS = [0.5, 5.0, 100.0, 1e6]


def line(width, n):
    return pde.Grid((-width,), (width,), (n,))


@functools.cache  # one function, one program for all values of beta
def landscape(seed, ndim):
    """Six random waves in a bowl."""
    rng = np.random.default_rng(seed)
    k = jnp.asarray(rng.uniform(-3, 3, size=(6, ndim)))
    phase, size = rng.uniform(0, 2 * np.pi, size=6), rng.normal(size=6) / 3

    def f(x):
        return jnp.sum(x**2) / 2 + size @ jnp.cos(k @ jnp.atleast_1d(x) + phase)

    return f


def relaxed(f, ndim, t, beta):
    """A fine patch of the plane or line, and u there; the integral runs over a wide box."""
    width, n = ((1.5, 121), (0.75, 7))[ndim - 1]
    patch = pde.Grid((-width,) * ndim, (width,) * ndim, (n,) * ndim)
    wide = pde.Grid((-8.0,) * ndim, (8.0,) * ndim, ((401,), (97, 97))[ndim - 1])
    return patch, pde.cole_hopf(wide, f, t, beta, patch.points).value


@functools.cache
def suprema(seed, ndim):
    """C_k = sup f_kk, k = 1..N, and C = sup Laplacian f, over what the integral sees."""
    f = landscape(seed, ndim)
    wide = pde.Grid((-8.0,) * ndim, (8.0,) * ndim, ((6401,), (401, 401))[ndim - 1])
    diagonal = jnp.diagonal(pde.hessian(wide, f), axis1=-2, axis2=-1).reshape(-1, ndim)
    return diagonal.max(axis=0), diagonal.sum(axis=-1).max()


def bowl(x):
    return jnp.sum(x**2)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("ndim", [1, 2])
def test_example_13(ndim, beta, measured):
    c, t = 2.0, 0.6
    patch, u = relaxed(bowl, ndim, t, beta)
    x = patch.points.reshape(*patch.shape, ndim)
    exact = (x**2).sum(axis=-1) / (2 * (t + 1 / c)) + ndim / (2 * beta) * np.log(1 + c * t)
    expected = pde.curvature_bound(c, t) * jnp.eye(ndim)
    errors = jnp.abs(u - exact).max(), jnp.abs(pde.hessian(patch, u) - expected).max()
    measured(
        "Example 13",
        f"{ndim}-D, beta = {beta:g}: u {errors[0]:.0e}, curvature {errors[1]:.0e} off",
        "1e-11, 1e-7",
    )
    assert errors[0] < 1e-11
    assert errors[1] < 1e-7
    np.testing.assert_allclose(pde.curvature_bound(c, t), c / (1 + c * t), rtol=1e-15)


def test_example_14(measured):
    beta, k, size = 2.0, 1.5, 1.0
    c, eigenvalue = size * k**2, k**2 / (2 * beta)
    grid = line(0.02, 5)
    for t in (0.01, 0.1, 1.0):
        v = pde.heat_equation(grid, lambda x: -size * jnp.cos(k * x), t, beta).value
        curvature = float(pde.hessian(grid, v)[1, 0, 0])
        expected = float(pde.heat_curvature(c, t, eigenvalue))
        viscous = float(pde.curvature_bound(c, t))
        measured(
            "Example 14",
            f"t = {t}: {curvature:.4f} for {expected:.4f}, and c/(1 + ct) = {viscous:.4f}",
            f"{1e-4 * c:.0e}; above c/(1 + ct) up to t = 0.1",
        )
        assert abs(curvature - expected) < 1e-4 * c
        if t <= 0.1:  # slower than viscous Hamilton-Jacobi at first, as c > lambda
            assert curvature > viscous


def test_example_15_equations_28_and_29(measured):
    """Along characteristics 1/min p_x = t - t*: extrapolated from early times it gives t*."""
    f = lambda x: jnp.cos(3 * x) + x**2 / 2  # noqa: E731
    grid = line(2.0, 4001)
    critical = pde.shock_time(grid, f)
    assert abs(critical - 1 / 8) < 1e-8
    times = critical * np.asarray([0.2, 0.4, 0.6])
    steepest, implicit, burgers = [], [], []
    for t in times:
        p = pde.characteristics(jax.grad(f), grid.points, t)
        residual = p - jax.vmap(jax.grad(f))(grid.points - t * p)
        implicit.append(jnp.abs(residual).max())
        # p = u_x: of Hopf-Lax, which knows nothing of Burgers' equation or characteristics.
        burgers.append(jnp.abs(p - pde.hopf_lax(grid, f, t).gradient)[abs(grid.points) < 1.5].max())
        steepest.append(float(grid.gradient(p).min()))
    slope, intercept = np.polyfit(times, 1 / np.asarray(steepest), 1)
    measured("(28)", f"p - p0(x - t p): {max(implicit):.0e}", "1e-12")
    largest = grid.spacing[0] / times[0]
    measured(
        "Example 15", f"p of Burgers {max(burgers):.3f} from Hopf-Lax's u_x", f"h/t = {largest:.3f}"
    )
    assert max(implicit) < 1e-12
    assert max(burgers) < largest
    assert abs(-intercept / slope - critical) < 1e-4
    # Past t* the minimiser of f(y) + |x - y|^2/(2t) jumps (Remark 6); before, it does not.
    fine = line(2.0, 40001)
    jumps = [float(jnp.diff(pde.hopf_lax(fine, f, critical * a).prox).max()) for a in (0.9, 1.5)]
    measured(
        "(29)",
        f"t* = {-intercept / slope:.6f} from earlier slopes for {critical:.6f}; the proximal "
        f"point jumps by {jumps[0]:.4f} at 0.9 t*, {jumps[1]:.2f} at 1.5 t*",
        "1e-4; below 0.01, above 0.3",
    )
    assert jumps[0] < 0.01
    assert jumps[1] > 0.3


@pytest.mark.parametrize("a", [0.1, 0.5, 0.9])
def test_example_16(a, measured):
    f = lambda x: -jnp.cos(x) + 0.1 * x  # noqa: E731
    grid = line(4.0, 4001)
    t = a * pde.shock_time(grid, f)
    minimum = -np.arcsin(0.1)
    interval = pde.convex_interval(grid, f, minimum)
    low, high = pde.widened_interval(f, interval, t)
    p = pde.characteristics(jax.grad(f), grid.points, t)
    u = jax.vmap(f)(grid.points - t * p) + t * p**2 / 2
    found = pde.convex_interval(grid, u, minimum)
    measured(
        "Example 16",
        f"t = {a} t*: [{interval[0]:.3f}, {interval[1]:.3f}] grew to [{found[0]:.3f}, "
        f"{found[1]:.3f}], {np.abs(np.subtract(found, (low, high))).max():.0e} off",
        "1e-4",
    )
    np.testing.assert_allclose(found, (low, high), rtol=0, atol=1e-4)
    assert low < interval[0] < interval[1] < high
    np.testing.assert_allclose(high - interval[1], t * 1.1, rtol=1e-5)  # t f'(x+)


class TestRemark17:
    skew = staticmethod(lambda x: jnp.exp(x) - 2 * x + x**2 / 10)  # convex, not symmetric

    @pytest.mark.parametrize("beta", [2.0, 1e6])
    def test_convex_stays_convex(self, beta, measured):
        patch, u = relaxed(self.skew, 1, 1.0, beta)
        lowest = pde.hessian(patch, u).min()
        measured("Remark 17", f"convex, beta = {beta:g}: least curvature {lowest:.3f}", "above 0")
        assert lowest > 0

    def test_minimisers_stay_without_viscosity(self, measured):
        grid = line(4.0, 8001)
        start = grid.points[int(jnp.argmin(grid.sample(self.skew)))]
        moves = [
            abs(grid.points[int(jnp.argmin(pde.hopf_lax(grid, self.skew, t).value))] - start)
            for t in (0.1, 1.0, 10.0)
        ]
        measured("Remark 17", f"HJ: minimiser moves by {max(moves):g}", "0")
        assert max(moves) == 0

    def test_minimisers_of_a_skew_loss_move_with_viscosity(self, measured):
        # "The same minimisers" is a statement about HJ: noise pushes towards the flatter side.
        patch, u = relaxed(self.skew, 1, 1.0, 2.0)
        moved = patch.points[int(jnp.argmin(u))]
        start = patch.points[int(jnp.argmin(patch.sample(self.skew)))]
        measured(
            "Remark 17",
            f"fails for viscous HJ, skew f, beta = 2: minimiser moves by {moved - start:.4f}",
            f"beyond the nodes' distance {patch.spacing[0]:.4f}",
        )
        assert moved < start - 1.5 * patch.spacing[0]  # each is known to half a spacing

    def test_local_minima_persist_then_vanish(self, measured):
        f = lambda x: jnp.cos(3 * x) / 2 + (x - 0.4) ** 2 / 2  # noqa: E731
        grid = line(3.0, 3001)

        def minima(values):
            slope = np.sign(np.diff(np.asarray(values)))
            slope = slope[slope != 0]
            return int(((slope[:-1] < 0) & (slope[1:] > 0)).sum())

        counts = [minima(grid.sample(f))]
        counts += [minima(pde.hopf_lax(grid, f, t).value) for t in (0.05, 3.0)]
        measured("Remark 17", f"local minima at t = 0, 0.05, 3: {counts}", "[2, 2, 1]")
        assert counts == [2, 2, 1]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    ("ndim", "seed"), [(1, 0), (1, 1), (2, 2), pytest.param(2, 3, marks=pytest.mark.slow)]
)
def test_lemmas_18_and_20(ndim, seed, beta, measured):
    """Second differences are averages of second derivatives, so the bounds hold for them, too."""
    f = landscape(seed, ndim)
    C, C_laplacian = suprema(seed, ndim)
    ratios = []
    for t in (0.1, 1.0):
        patch, u = relaxed(f, ndim, t, beta)
        H = pde.hessian(patch, u)
        diagonal = jnp.diagonal(H, axis1=-2, axis2=-1).reshape(-1, ndim)
        second = diagonal.max(axis=0) / pde.curvature_bound(C, t)
        laplacian = diagonal.sum(-1).max() / pde.curvature_bound(C_laplacian, t, ndim)

        eigenvalues = jnp.linalg.eigvalsh(H).reshape(-1, ndim)
        convex = eigenvalues[eigenvalues.min(axis=-1) > 1e-3]  # local minima are among these
        assert len(convex)
        mean = pde.harmonic_mean(convex).max() / pde.minimum_bound(C, t)
        ratios.append([float(second.max()), float(laplacian), float(mean)])
        assert (second > 0.2).all()  # no empty claim
    second, laplacian, mean = np.max(ratios, axis=0)
    case = f"{ndim}-D landscape {seed}, beta = {beta:g}"
    measured("Lemma 18", f"{case}: {second:.3f}, Laplacian {laplacian:.3f}", "1 (of the bound)")
    measured("Lemma 20", f"{case}: {mean:.3f}", "1 (of the bound)")
    # C is a maximum over nodes, hence a little low: 1e-3 covers it.
    assert max(second, laplacian, mean) <= 1 + 1e-3


def test_lemma_19(measured):
    rng = np.random.default_rng(0)
    gaps = []
    for n in (2, 3, 5, 10):
        for _ in range(50):
            A = rng.normal(size=(n, n + 1))
            A = A @ A.T
            eigenvalues = pde.harmonic_mean(np.linalg.eigvalsh(A))
            gaps.append(float(pde.harmonic_mean(np.diag(A)) / eigenvalues))
    measured(
        "Lemma 19",
        f"HM(diagonal)/HM(eigenvalues) of {len(gaps)} random matrices from {min(gaps):.3f} to "
        f"{max(gaps):.1f}",
        "at least 1",
    )
    assert min(gaps) >= 1 - 1e-12
    assert max(gaps) > 2
    D = rng.uniform(1, 2, size=5)
    np.testing.assert_allclose(pde.harmonic_mean(D), 1 / np.mean(1 / D), rtol=1e-15)


def test_an_end_that_is_only_the_grids_edge_stays():
    f = lambda x: -jnp.cos(x) + 0.1 * x  # noqa: E731
    interval = pde.convex_interval(pde.Grid(-4.0, 1.2, 401), f, 0.0)
    assert interval[1] == 1.2
    low, high = pde.widened_interval(f, interval, 0.5)
    assert high == 1.2
    np.testing.assert_allclose(low, interval[0] + 0.5 * (np.sin(interval[0]) + 0.1), rtol=1e-9)
    bowl = lambda x: x**2  # noqa: E731
    assert pde.widened_interval(bowl, (-1.0, 2.5), 10.0) == (-1.0, 2.5)


@pytest.mark.parametrize(
    ("bound", "arguments", "message"),
    [
        (pde.curvature_bound, {"curvature": [1.0, -2.0], "t": 1.0}, "curvature with -2.0"),
        (pde.curvature_bound, {"curvature": 1.0, "t": -1.0}, "t must be finite and >= 0"),
        (pde.curvature_bound, {"curvature": 1.0, "t": 1.0, "ndim": 0}, "ndim must be an integer"),
        (pde.heat_curvature, {"curvature": 1.0, "t": -1.0, "eigenvalue": 1.0}, "got t with -1.0"),
        (pde.heat_curvature, {"curvature": 1.0, "t": 1.0, "eigenvalue": np.nan}, "eigenvalue must"),
        (pde.harmonic_mean, {"values": [1.0, -1.0]}, "values must be > 0; got values with -1.0"),
        (pde.minimum_bound, {"curvatures": [1.0, 0.0], "t": 1.0}, "curvatures must be > 0"),
        (pde.minimum_bound, {"curvatures": [1.0], "t": np.inf}, "got t with inf"),
    ],
)
def test_bounds_refuse_what_is_out_of_range(bound, arguments, message):
    arrays = {name: a if name == "ndim" else np.asarray(a) for name, a in arguments.items()}
    with pytest.raises(ValueError, match=message):
        bound(**arrays)


def test_bounds_take_traced_values_and_the_flat_limit():
    assert float(pde.curvature_bound(0.0, 1.0)) == 0
    np.testing.assert_allclose(jax.jit(pde.curvature_bound)(2.0, 1.5), 0.5, rtol=1e-15)
    beside_a_number = jax.jit(lambda C: pde.curvature_bound(C, 1.5))
    np.testing.assert_allclose(beside_a_number(2.0), 0.5, rtol=1e-15)


def test_infinite_curvature_is_concave_or_convex():
    grid = pde.Grid(0.0, 4.0, 5)
    assert pde.shock_time(grid, jnp.sqrt) == 0
    assert pde.shock_time(grid, [0, 1, np.inf, 2, 2]) == 0
    for convex in (lambda x: x**1.5, [np.inf, 1, 0, 1, np.inf]):
        assert pde.shock_time(grid, convex) == float("inf")
    plane = pde.Grid((0.0, 0.0), (1.0, 1.0), (3, 3))
    with pytest.raises(ValueError, match="f must have second derivatives at all nodes"):
        pde.shock_time(plane, lambda p: jnp.sqrt(p[0]) + p[1] ** 2)


def test_times_may_be_a_list():
    np.testing.assert_allclose(pde.heat_curvature(2.0, [0.0, 1.0], 0.5), [2, 2 * np.exp(-0.5)])
    np.testing.assert_allclose(pde.curvature_bound(2.0, [0.0, 1.5]), [2, 0.5])


def test_rejections():
    with pytest.raises(ValueError, match=r"interval must be two numbers, low < high; got \(1, 0\)"):
        pde.widened_interval(jnp.cos, (1, 0), 0.1)
    grid = line(2.0, 101)
    with pytest.raises(ValueError, match="convex at minimum=0.0"):
        pde.convex_interval(grid, jnp.cos, 0.0)
    with pytest.raises(ValueError, match="one dimension"):
        pde.convex_interval(pde.Grid((0.0, 0.0), (1.0, 1.0), (4, 4)), lambda x: x[0], 0.0)
    assert pde.shock_time(grid, lambda x: x**2) == float("inf")
    undefined = r"second derivatives at all nodes; the one at 0\.0 is not a number.*jnp\.sinc"
    for of_curvature in (pde.shock_time, lambda grid, f: pde.convex_interval(grid, f, 1.0)):
        with pytest.raises(ValueError, match=undefined):  # NaN compares with nothing: "convex"
            of_curvature(grid, lambda x: jnp.sin(x) / x)
    values = np.asarray(grid.sample(lambda x: -(x**2))).copy()
    values[50] = np.nan
    with pytest.raises(ValueError, match="is not a number"):
        pde.shock_time(grid, values)
    assert pde.shock_time(grid, grid.sample(lambda x: -(x**2))) == pytest.approx(0.5)
    for convex in (lambda x: 3 * x, jnp.abs, lambda x: 0 * x + 1e6):  # differences are rounding
        assert pde.shock_time(grid, grid.sample(convex)) == float("inf")
