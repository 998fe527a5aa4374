"""Section 2 and (23): Lemmas 1, 2 and 4 and HEAT, against sums and minima over nodes in NumPy."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entropix
from entropix import pde


class Landscape(NamedTuple):
    f: Callable  # of a point, or of coordinates, the first axis in 2-D
    slope: Callable  # grad f by hand, in NumPy
    grid: pde.Grid
    points: np.ndarray

    @property
    def nodes(self):
        """Twice as fine as what cole_hopf begins with; coordinates first, shape (ndim, n)."""
        axes = [np.linspace(a[0], a[-1], 2 * len(a) - 1) for a in self.grid.axes]
        return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(self.grid.ndim, -1)


def wave_slope(x):
    return x - 1.5 * np.sin(3 * x) + 0.3 * np.cos(x)


def valley_slope(x):
    across = x[1] - 0.4 * x[0]
    return np.stack([x[0] ** 3 - x[0] - 0.4 * across, across - 0.8 * np.sin(4 * x[1])])


LANDSCAPES = {
    "1-D": Landscape(
        lambda x: x**2 / 2 + jnp.cos(3 * x) / 2 + 0.3 * jnp.sin(x),
        wave_slope, pde.Grid(-8.0, 8.0, 2001), np.asarray([-1.7, -0.4, 0.05, 0.9, 2.1]),
    ),
    "2-D": Landscape(
        lambda x: (x[0] ** 2 - 1) ** 2 / 4 + (x[1] - 0.4 * x[0]) ** 2 / 2 + jnp.cos(4 * x[1]) / 5,
        valley_slope, pde.Grid((-3.5, -3.5), (3.5, 3.5), (161, 161)),
        np.asarray([[0.2, -0.3], [-1.1, 0.4], [1.3, 1.2]]),
    ),
}  # fmt: skip


@pytest.fixture(params=LANDSCAPES)
def landscape(request):
    return request.param, LANDSCAPES[request.param]


def energy(f, y, x, t):
    """f(y) + |x - y|^2/(2t) at nodes y, shape (ndim, n)."""
    return np.asarray(f(np.squeeze(y))) + ((x - y) ** 2).sum(axis=0) / (2 * t)


def gibbs(h, beta):
    """Weights exp(-beta h) of a sum over equidistant nodes: the trapezoidal rule."""
    weight = np.exp(-beta * (h - h.min()))
    return weight / weight.sum()


def derivative(function, points, width=1e-3):
    """Central differences of fourth order of `function(points)`, in every dimension."""
    ndim = 1 if points.ndim == 1 else points.shape[1]
    shifts = width * (np.eye(ndim) if points.ndim > 1 else np.ones(1))
    near = [[np.asarray(function(points + k * shift)) for shift in shifts] for k in (-2, -1, 1, 2)]
    slope = np.tensordot([1, -8, 8, -1], near, axes=1) / (12 * width)
    return np.moveaxis(slope, 0, -1).reshape(points.shape)


class TestLemma1:
    """Both integrals, the solver's gradient and the derivative of its value are one number."""

    @pytest.mark.parametrize(("t", "beta"), [(0.3, 2.0), (1.0, 8.0), (0.1, 40.0)])
    def test_both_integrals(self, landscape, t, beta, measured):
        name, (f, slope, grid, points) = landscape
        y = landscape[1].nodes
        proximal, gradient = [], []
        for x in points.reshape(len(points), -1, 1):
            proximal.append(np.squeeze(x - y) / t @ gibbs(energy(f, y, x, t), beta))
            # rho_2 is a measure of displacements: f's argument and the nodes change places.
            h = np.asarray(f(np.squeeze(x - y))) + (y**2).sum(axis=0) / (2 * t)
            gradient.append(slope(np.squeeze(x - y)) @ gibbs(h, beta))
        solve = functools.partial(pde.cole_hopf, grid, f, t)
        u = solve(beta, points)
        rise = derivative(lambda p: solve(beta, p).value, points)
        errors = [np.abs(other - np.asarray(proximal)).max() for other in (gradient, u[1], rise)]
        measured(
            "Lemma 1",
            f"{name}, t = {t}, beta = {beta:g}: second integral {errors[0]:.0e}, "
            f"cole_hopf {errors[1]:.0e}, derivative of its value {errors[2]:.0e} from the first",
            "1e-11, 1e-11, 1e-8",
        )
        assert max(errors[:2]) < 1e-11
        assert errors[2] < 1e-8
        # Power: neither grad f nor another temperature would pass.
        assert np.abs(slope(points.T).T - u.gradient).max() > 0.1
        assert np.abs(solve(2 * beta, points).gradient - u.gradient).max() > 1e-3


def proximal_point(f, nodes, x, t):
    """The minimiser of f(y) + |x - y|^2/(2t) and its value, by ever finer brute force."""
    y, width = nodes, 0.05
    cube = np.stack(np.meshgrid(*[np.linspace(-1, 1, 21)] * len(x), indexing="ij"))
    for _ in range(12):
        best = y[:, [np.argmin(energy(f, y, x, t))]]
        y, width = best + width * cube.reshape(len(x), -1), width / 5
    return best[:, 0], energy(f, best, x, t).min()


class TestLemma2:
    def brute_force(self, landscape, t, points):
        rows = points.reshape(len(points), -1, 1)
        p, u = zip(*(proximal_point(landscape.f, landscape.nodes, x, t) for x in rows), strict=True)
        return np.asarray(p).reshape(points.shape), np.asarray(u)

    @pytest.mark.parametrize("t", [0.15, 1.0])  # below and above the threshold of Remark 6
    def test_hopf_lax(self, landscape, t, measured):
        name, case = landscape
        p, _ = self.brute_force(case, t, case.points)
        expected = (case.points - p) / t
        condition = np.abs(case.slope(p.T).T - expected).max()
        rise = derivative(lambda x: self.brute_force(case, t, x)[1], case.points)
        # hopf_lax chooses among nodes; so it is asked at the nodes next to the points.
        nodes = case.grid.points.reshape(-1, *case.grid.point_shape)
        distance = [((nodes - x) ** 2).reshape(len(nodes), -1).sum(axis=1) for x in case.points]
        index = np.argmin(distance, axis=1)
        got = pde.hopf_lax(case.grid, case.f, t)
        near, truth = self.brute_force(case, t, nodes[index])
        value = np.abs(got.value.ravel()[index] - truth).max()
        prox = np.abs(got.prox.reshape(nodes.shape)[index] - near).max()
        h = max(case.grid.spacing)
        measured(
            "Lemma 2",
            f"{name}, t = {t}: grad f(p) {condition:.0e} and the derivative of the minimum "
            f"{np.abs(rise - expected).max():.0e} from (x - p)/t; hopf_lax, h = {h:.3f}: value "
            f"{value:.0e}, p {prox:.0e}",
            "1e-6, 1e-6; 4 h^2, h",
        )
        assert condition < 1e-6
        assert np.abs(rise - expected).max() < 1e-6
        assert value < 4 * h**2
        assert prox < h

    @pytest.mark.parametrize("form", ["proximal", "gradient"])
    def test_the_inner_loop_finds_it(self, landscape, form, measured):
        name, case = landscape
        t = 0.15  # one minimiser
        p, _ = self.brute_force(case, t, case.points)
        hj = entropix.hamilton_jacobi(t, num_steps=400, step_size=0.05, form=form)
        slope = jax.vmap(jax.grad(case.f))
        x = jnp.asarray(case.points)
        got, _ = entropix.relaxed_grad(hj, lambda y, i: slope(y))(x, hj.init(x))
        error = np.abs(got - (case.points - p) / t).max()
        measured("Lemma 2", f"{name}: hamilton_jacobi, {form} form, {error:.0e} off", "1e-6")
        assert error < 1e-6

    def test_limit_of_lemma_1(self, landscape, measured):
        name, case = landscape
        t, betas = 0.15, np.asarray([1e3, 1e4, 1e5])
        p, _ = self.brute_force(case, t, case.points)
        errors = [
            np.abs(pde.cole_hopf(case.grid, case.f, t, b, case.points)[1] - (case.points - p) / t)
            for b in betas
        ]
        largest = np.asarray([e.max() for e in errors])
        order = np.polyfit(np.log(betas), np.log(largest), 1)[0]
        measured(
            "Lemma 2",
            f"{name}: Lemma 1's gradient tends to it as beta^{order:.2f}, {largest[-1]:.0e} off "
            f"at beta = {betas[-1]:.0e}",
            "-1 up to 0.05",
        )
        assert order == pytest.approx(-1, abs=0.05)


QUADRATICS = {  # p, Q and x; the second has a direction that curves down
    "1-D": (np.asarray([0.8]), np.asarray([[1.5]]), np.asarray([1.2])),
    "2-D": (
        np.asarray([0.5, -1.0]), np.asarray([[2.0, 0.7], [0.7, -0.3]]), np.asarray([1.2, -0.4]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", QUADRATICS)
class TestLemma4:
    t, beta = 0.8, 3.0

    def closed_form(self, name, t):
        p, Q, x = QUADRATICS[name]
        A = Q + np.eye(len(x)) / t
        return x - np.linalg.solve(A, p + Q @ x), np.linalg.inv(A) / self.beta

    def moments(self, name, t):
        """Mean and covariance of rho_1, summed over nodes within 12 standard deviations."""
        p, Q, x = QUADRATICS[name]
        sides = 12 * np.sqrt(np.diag(self.closed_form(name, t)[1]))
        axes = [np.linspace(a - s, a + s, 401) for a, s in zip(x, sides, strict=True)]
        y = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(len(x), -1)
        h = p @ y + (y * (Q @ y)).sum(axis=0) / 2 + ((x[:, None] - y) ** 2).sum(axis=0) / (2 * t)
        weight = gibbs(h, self.beta)
        mean = y @ weight
        return mean, (y - mean[:, None]) * weight @ (y - mean[:, None]).T

    def test_moments(self, name, measured):
        mu, Sigma = self.closed_form(name, self.t)
        mean, covariance = self.moments(name, self.t)
        errors = np.abs(mean - mu).max(), np.abs(covariance - Sigma).max()
        measured(
            "Lemma 4",
            f"{name}: mean {errors[0]:.0e}, covariance {errors[1]:.0e} from quadrature's",
            "1e-12",
        )
        assert max(errors) < 1e-12

    def test_chain(self, name, measured):
        p, Q, x = QUADRATICS[name]
        chains, step_size = 20_000, 0.05
        tx = entropix.local_entropy(
            self.t, num_steps=150, step_size=step_size, averaging=0, temperature=1 / self.beta,
            output="displacement",
        )  # fmt: skip
        start = jnp.broadcast_to(jnp.asarray(x), (chains, len(x)))
        moved, _ = jax.jit(entropix.relaxed_grad(tx, lambda y, i: p + y @ Q))(start, tx.init(start))
        y = x - np.asarray(moved)
        mu, Sigma = self.closed_form(name, self.t)
        # Euler-Maruyama keeps the mean and has the covariance Sigma (1 - step_size A/2)^-1.
        A = Q + np.eye(len(x)) / self.t
        discrete = Sigma @ np.linalg.inv(np.eye(len(x)) - step_size * A / 2)
        mean = pde.estimate(y)
        square = pde.estimate((y - mu)[:, :, None] * (y - mu)[:, None, :])
        assert np.abs((mean.mean - mu) / mean.error).max() < 4
        assert np.abs((square.mean - discrete) / square.error).max() < 4
        measured(
            "Lemma 4",
            f"{name}, chain of local_entropy: mean {mean.mean[0]:.4f} ({mean.error[0]:.4f}) for "
            f"{mu[0]:.4f}, variance {square.mean[0, 0]:.4f} ({square.error[0, 0]:.4f}) for "
            f"{Sigma[0, 0]:.4f}, or {discrete[0, 0]:.4f} with its step",
            "4 s.e.",
        )
        assert np.abs((mean.mean - x) / mean.error).min() > 20  # power: it did move

    def test_small_times(self, name, measured):
        p, Q, x = QUADRATICS[name]
        times = np.asarray([0.04, 0.02, 0.01, 0.005])
        errors = [np.abs(self.moments(name, t)[0] - (x - t * (p + Q @ x))).max() for t in times]
        order = np.polyfit(np.log(times), np.log(errors), 1)[0]
        measured("Lemma 4", f"{name}: mean = x - t grad f(x) + O(t^{order:.2f})", "2 up to 0.1")
        assert order == pytest.approx(2, abs=0.1)


def test_heat_23_is_an_average_of_gradients(landscape, measured):
    name, (f, slope, grid, points) = landscape
    gamma, T, chains = 0.6, 0.4, 4000
    s, ndim = np.sqrt(gamma * T), grid.ndim
    z = np.stack(np.meshgrid(*[np.linspace(-9, 9, 201)] * ndim, indexing="ij")).reshape(ndim, -1)
    weight = gibbs((z**2).sum(axis=0) / 2, 1.0)
    truth = np.asarray(
        [slope(np.squeeze(x + s * z)) @ weight for x in points.reshape(len(points), -1, 1)]
    )
    exact = np.abs(pde.heat_equation(grid, f, gamma, 1 / T, points).gradient - truth).max()
    relaxation = entropix.heat(gamma, num_steps=20, temperature=T)
    start = jnp.broadcast_to(jnp.asarray(points), (chains, *points.shape))
    grad = jax.vmap(jax.vmap(jax.grad(f)))
    fn = entropix.relaxed_grad(relaxation, lambda x, i: grad(x))
    got, _ = jax.jit(fn)(start, relaxation.init(start))
    mean, error = pde.estimate(got)
    scaled = np.abs((mean - truth) / error).max()
    measured(
        "(23)",
        f"{name}: pde.heat_equation {exact:.0e} off; entropix.heat {mean.ravel()[0]:.4f} "
        f"({error.ravel()[0]:.4f}) for {truth.ravel()[0]:.4f}, at most {scaled:.1f} s.e. off",
        "1e-12; 4 s.e.",
    )
    assert exact < 1e-12
    assert scaled < 4
    assert np.abs((slope(points.T).T - truth) / error).max() > 20  # power: smoothing matters
