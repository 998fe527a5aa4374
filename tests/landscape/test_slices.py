"""Segments and planes, and the rescaling of directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import landscape

ONE = jnp.zeros(1)


def test_a_segment_of_a_convex_loss_has_no_barrier(quadratic):
    f = quadratic([0.5, 1.0, 4.0])
    a, b = jnp.asarray([1.0, 0.0, 0.0]), jnp.asarray([0.0, 2.0, -1.0])
    line = landscape.segment(f.loss, a, b, f.batches, num_points=9)
    points = [(1 - s) * np.asarray(a) + s * np.asarray(b) for s in np.linspace(0, 1, 9)]
    expected = [f.p @ x + x @ f.Q @ x / 2 for x in points]
    np.testing.assert_allclose(line.value, expected, rtol=1e-5)
    assert float(line.barrier) == 0


def test_a_barrier_is_measured_from_the_line_between_the_ends():
    loss = lambda x, batch: {"tilted": jnp.sum((x**2 - 1) ** 2 + 3 * x), "flat": 0 * x[0]}  # noqa: E731
    line = landscape.segment(loss, -jnp.ones(1), jnp.ones(1), ONE, num_points=101)
    assert float(line.barrier["tilted"]) == pytest.approx(1, abs=1e-5)
    assert float(line.barrier["flat"]) == 0
    assert line.value["tilted"].shape == (101,)


def test_leaves_that_cannot_move_come_from_the_first_end():
    loss = lambda p, batch: p["n"] * p["w"]  # noqa: E731
    line = landscape.segment(loss, {"n": 2, "w": 1.0}, {"n": 7, "w": 3.0}, ONE, num_points=3)
    assert line.value.tolist() == [2.0, 4.0, 6.0]


def test_a_plane_through_a_quadratic(quadratic):
    f = quadratic([1.0, 3.0, 5.0])
    x = jnp.asarray([1.0, -1.0, 0.5])
    d, e = jnp.asarray([1.0, 0.0, 2.0]), jnp.asarray([0.0, 1.0, 1.0])
    plane = landscape.slice2d(
        f.loss, x, f.batches, directions=(d, e), normalise="none", extent=0.5, num_points=5
    )
    for i, s in enumerate(np.linspace(-0.5, 0.5, 5)):
        for j, t in enumerate(np.linspace(-0.5, 0.5, 5)):
            y = np.asarray(x + s * d + t * e, np.float64)
            assert float(plane.value[i, j]) == pytest.approx(f.p @ y + y @ f.Q @ y / 2, rel=1e-4)


def test_directions_have_the_norms_of_the_filters():
    rng = np.random.default_rng(0)
    params = {
        "conv": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32),
        "dense": jnp.asarray(rng.normal(size=(5, 6)), jnp.float32),
        "bias": jnp.ones(6),
    }
    plane = landscape.slice2d(lambda p, batch: jnp.sum(p["dense"]), params, ONE, 0, num_points=2)
    norms = lambda leaf: jnp.sqrt(jnp.sum(leaf**2, axis=tuple(range(leaf.ndim - 1))))  # noqa: E731
    first, second = plane.directions
    for direction in plane.directions:
        for name in ("conv", "dense"):
            np.testing.assert_allclose(norms(direction[name]), norms(params[name]), rtol=1e-5)
        assert not direction["bias"].any()
    assert not np.allclose(first["dense"], second["dense"])
    layer = landscape.normalised(jax.tree.map(jnp.ones_like, params), params, "layer")
    for name, leaf in params.items():
        assert float(jnp.linalg.norm(layer[name].ravel())) == pytest.approx(
            float(jnp.linalg.norm(leaf.ravel())), rel=1e-5
        )


def test_eigenvectors_are_directions(classifier, row):
    net = classifier()
    operator = landscape.hessian(net.loss, net.params, net.batches)
    pairs = landscape.eigenpairs(operator, net.params, 2, 0)
    directions = [row(pairs.vectors, n) for n in range(2)]
    h = 0.05
    plane = landscape.slice2d(
        net.loss, net.params, net.batches, directions=directions, normalise="none",
        extent=h, num_points=3,
    )  # fmt: skip
    along = (plane.value[2, 1] - 2 * plane.value[1, 1] + plane.value[0, 1]) / h**2
    assert float(along) == pytest.approx(float(pairs.value[0]), rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda f, x: landscape.segment(f, x, x, ONE, num_points=1),
            "num_points must be >= 2, both ends; got num_points=1",
        ),
        (
            lambda f, x: landscape.segment(f, x, jnp.ones(4), ONE),
            r"b must have the shapes of the parameters: at the only leaf, expected \(3,\)",
        ),
        (lambda f, x: landscape.slice2d(f, x, ONE, num_points=1), "num_points must be >= 2"),
        (lambda f, x: landscape.slice2d(f, x, ONE, extent=0.0), "extent must be a number > 0"),
        (lambda f, x: landscape.slice2d(f, x, ONE, normalise="unit"), "normalise must be 'filter'"),
        (
            lambda f, x: landscape.slice2d(f, x, ONE, directions=(x,), normalise="none"),
            "directions must be two trees",
        ),
        (
            lambda f, x: landscape.slice2d(f, x, ONE),
            "got normalise='filter', of which nothing would move. Write normalise='layer'",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(lambda x, batch: jnp.sum(x**2), jnp.ones(3))
