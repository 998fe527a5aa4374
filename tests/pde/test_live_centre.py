"""phi: closed forms, the Moreau envelope back to local entropy, another way in 1-D, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde import Grid, cole_hopf, hopf_lax, phi

LINE = Grid(-9.0, 9.0, 1801)


def double_well(x):
    return x**2 / 4 + jnp.exp(-(x**2)) + x / 5


@pytest.mark.parametrize("beta", [0.5, 10.0])
@pytest.mark.parametrize("t", [0.2, 3.0])
def test_a_quadratic_is_itself_and_a_constant(t, beta):
    Q = np.asarray([[2.0, 0.5], [0.5, -0.1]]) if t < 1 else np.asarray([[2.0, 0.5], [0.5, 1.0]])
    grid = Grid((-6.0, -6.0), (6.0, 6.0), (201, 201))
    grid = grid if t > 1 else Grid((-4.0, -4.0), (4.0, 4.0), (201, 201))
    grid = grid if beta > 1 else Grid((-12.0, -12.0), (12.0, 12.0), (101, 101))
    points = np.random.default_rng(0).uniform(-1, 1, size=(3, 1, 2))
    found = phi(grid, lambda x: x @ jnp.asarray(Q) @ x / 2, t, beta, points)
    np.testing.assert_allclose(found.gradient, points @ Q, rtol=0, atol=1e-8)
    constant = found.value - np.einsum("...i,ij,...j", points, Q, points) / 2
    np.testing.assert_allclose(constant, constant[0, 0], rtol=0, atol=1e-8)
    # u is |x|^2 of the curvature Q/(1 + tQ) and log det(I + tQ)/(2 beta), which is the constant.
    expected = np.log(np.linalg.det(np.eye(2) + t * Q)) / (2 * beta)
    np.testing.assert_allclose(constant[0, 0], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("temperature", [pytest.param(0.02, marks=pytest.mark.slow), 0.2])
def test_local_entropy_is_its_moreau_envelope(temperature):
    t, means = 1.0, Grid(-4.0, 4.0, 1001)
    values = phi(LINE, double_well, t, 1 / temperature, means.points).value
    back = hopf_lax(means, values, t).value
    inside = np.linspace(-2.5, 2.5, 21)
    u = cole_hopf(LINE, double_well, t, 1 / temperature, inside).value
    np.testing.assert_allclose(means.interpolate(back, inside), u, rtol=0, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.005, 0.2])
def test_slopes_along_the_means_of_all_anchors(temperature):
    """In 1-D, m = z - t u'(z) rises in z: a table of it is inverted by interpolation."""
    anchors = np.linspace(-6, 6, 3001)
    slopes = np.asarray(cole_hopf(LINE, double_well, 1.0, 1 / temperature, anchors).gradient)
    means = anchors - slopes
    points = np.linspace(-3, 3, 13)
    found = phi(LINE, double_well, 1.0, 1 / temperature, points)
    np.testing.assert_allclose(found.gradient, np.interp(points, means, slopes), rtol=0, atol=1e-3)
    step = 1e-4
    high, low = (phi(LINE, double_well, 1.0, 1 / temperature, points + s).value
                 for s in (step, -step))  # fmt: skip
    np.testing.assert_allclose(found.gradient, (high - low) / (2 * step), rtol=0, atol=1e-5)


def test_critical_points_and_curvatures_are_those_of_local_entropy():
    t, beta, box = 0.5, 2.0, Grid((-6.0, -6.0), (6.0, 6.0), (101, 101))
    f = lambda x: (x[0] ** 2 - 1) ** 2 / 4 + (x[1] - 0.4 * x[0]) ** 2 / 2  # noqa: E731
    minimum = jnp.asarray([1.0, 0.4])
    u_slope = lambda x: cole_hopf(box, f, t, beta, x, max_halvings=0).gradient  # noqa: E731
    solve = jax.jit(lambda x: jnp.linalg.solve(jax.jacfwd(u_slope)(x), u_slope(x)))
    for _ in range(12):
        minimum = minimum - solve(minimum)
    np.testing.assert_allclose(phi(box, f, t, beta, minimum).gradient, 0, atol=1e-9)
    step = 1e-4 * np.eye(2)
    nearby = phi(box, f, t, beta, np.asarray(minimum) + np.concatenate([step, -step])).gradient
    C = (nearby[:2] - nearby[2:]) / 2e-4
    expected = C @ np.linalg.inv(np.eye(2) + t * C)
    np.testing.assert_allclose(jax.jacfwd(u_slope)(minimum), expected, rtol=0, atol=1e-5)


def test_inside_jit_and_by_values():
    points = np.linspace(-1, 1, 5)
    plain = phi(LINE, double_well, 1.0, 5.0, points)
    values = LINE.sample(double_well)
    inside = jax.jit(lambda t: phi(LINE, values, t, 5.0, points).gradient)(1.0)
    np.testing.assert_allclose(inside, plain.gradient, rtol=0, atol=1e-9)


def test_derivatives_are_those_of_the_exact_anchor():
    """At a critical point, where the climb takes no step, too; by differences of close points."""
    slope = lambda m, t: phi(LINE, double_well, t, 3.0, m).gradient  # noqa: E731
    value = lambda m: phi(LINE, double_well, 1.0, 3.0, m).value  # noqa: E731
    h = 1e-4
    for m in (0.0, 0.3):
        by_m = (slope(m + h, 1.0) - slope(m - h, 1.0)) / (2 * h)
        by_t = (slope(m, 1 + h) - slope(m, 1 - h)) / (2 * h)
        np.testing.assert_allclose(jax.grad(slope)(m, 1.0), by_m, rtol=0, atol=1e-6)
        np.testing.assert_allclose(jax.grad(slope, 1)(m, 1.0), by_t, rtol=0, atol=1e-6)
        np.testing.assert_allclose(jax.jacfwd(slope)(m, 1.0), by_m, rtol=0, atol=1e-6)
        np.testing.assert_allclose(jax.grad(value)(m), slope(m, 1.0), rtol=0, atol=1e-9)


def test_messages():
    with pytest.raises(
        ValueError, match=r"f must be finite or \+infinity.*; its value at .* is nan"
    ):
        phi(LINE, jnp.log, 1.0, 5.0, [1.0])
    with pytest.raises(ValueError, match=r"points must be means .* \[9.5\] is outside"):
        phi(LINE, double_well, 1.0, 5.0, [0.0, 9.5])
    with pytest.raises(ValueError, match=r"too far apart .* got shape \(41,\), take \(\d+,\)"):
        phi(Grid(-4.0, 4.0, 41), double_well, 1.0, 500.0, [0.1])
    with pytest.raises(ValueError, match="beta must be one number > 0"):
        phi(LINE, double_well, 1.0, 0.0, [0.0])
