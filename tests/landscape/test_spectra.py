"""Eigenvalues, spectral densities, traces and norms: closed forms and the rates of intervals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from entropix import landscape
from entropix.landscape.networks.lanczos import tridiagonalise


def sums_to(value):
    return pytest.approx(value, rel=1e-4)


class TestEigenvalues:
    @pytest.mark.parametrize(
        ("which", "expected"),
        [
            ("largest", [6.0, 5.5, 5.0]),
            ("smallest", [-9.0, -2.0, 1.0]),
            ("magnitude", [-9, 6, 5.5]),
        ],
    )
    def test_of_a_quadratic(self, quadratic, which, expected):
        f = quadratic([-9.0, -2.0, 1.0, *np.linspace(1.5, 5, 12), 5.5, 6.0])
        operator = landscape.hessian(f.loss, jnp.zeros(17), f.batches)
        found, bound = landscape.eigenvalues(operator, jnp.zeros(17), 3, 0, which=which)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert np.all(bound < 1e-3)

    @pytest.mark.parametrize("dimensions", [1, 5, 300])
    @pytest.mark.parametrize("c", [3.0, 0.0])
    def test_of_a_multiple_of_the_identity(self, dimensions, c):
        found, _ = landscape.eigenvalues(
            lambda v: c * v, jnp.zeros(dimensions), min(4, dimensions), key=0
        )
        np.testing.assert_allclose(found, c, rtol=1e-5)

    def test_repeated_eigenvalues_of_an_exhausted_space_are_all_found(self):
        diagonal = jnp.concatenate([jnp.full(4, 10.0), jnp.full(496, 1.0)])
        found, _ = landscape.eigenvalues(
            lambda v: diagonal * v, jnp.zeros(500), 6, 0, num_steps=200
        )
        assert found[0] == sums_to(10)
        assert found[5] == sums_to(1)

    def test_of_a_network_against_the_dense_hessian(self, classifier):
        net = classifier()
        operator = landscape.hessian(net.loss, net.params, net.batches)
        found, _ = landscape.eigenvalues(operator, net.params, 10, 0)
        expected = np.linalg.eigvalsh(np.asarray(net.dense_hessian(), np.float64))[::-1][:10]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)

    def test_bounds_hold_before_convergence(self, quadratic):
        spectrum = np.geomspace(1, 100, 400)
        f = quadratic(spectrum)
        for steps in (5, 10, 20):
            values, bounds = landscape.eigenvalues(f.matvec, jnp.zeros(400), 3, 0, num_steps=steps)
            distance = np.min(np.abs(np.asarray(values)[:, None] - spectrum), axis=1)
            assert np.all(distance <= bounds + 1e-3)
        assert bounds[0] > 1e-3  # twenty steps are not enough: the bound says so

    def test_vectors(self, classifier, row):
        net = classifier()
        operator = landscape.hessian(net.loss, net.params, net.batches)
        pairs = landscape.eigenpairs(operator, net.params, 3, 0)
        for n in range(3):
            vector = row(pairs.vectors, n)
            flat, image = (ravel_pytree(t)[0] for t in (vector, operator(vector)))
            np.testing.assert_allclose(image, pairs.value[n] * flat, rtol=0, atol=1e-4)
            assert jnp.linalg.norm(flat) == sums_to(1)

    def test_seeds_can_be_vmapped(self, classifier, row):
        net = classifier()
        params = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), net.params)

        def top(p, key):
            matvec = lambda v: landscape.hvp(net.loss, p, v, net.batches)  # noqa: E731
            return landscape.eigenvalues(matvec, p, 2, key).value

        together = jax.vmap(top)(params, jax.random.split(jax.random.key(0), 2))
        for seed in range(2):
            alone = top(row(params, seed), 7)
            np.testing.assert_allclose(together[seed], alone, rtol=0, atol=1e-4)

    def test_bfloat16_parameters(self, classifier):
        net = classifier()
        narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), net.params)
        rounded = net._replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.float32), narrow))
        found, _ = landscape.eigenvalues(
            landscape.hessian(net.loss, narrow, net.batches), narrow, 5, 0
        )
        expected = np.linalg.eigvalsh(np.asarray(rounded.dense_hessian()))[::-1][:5]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_lanczos_is_matfrees(x64, quadratic):
    """An independent implementation, where no Krylov space is exhausted."""
    decomp = pytest.importorskip("matfree.decomp")
    f = quadratic(np.linspace(-1, 3, 30))
    start = jnp.asarray(np.random.default_rng(0).normal(size=30))
    ours = tridiagonalise(f.matvec, start, 12, jax.random.key(0))
    basis, (diagonal, off_diagonal), *_ = decomp.tridiag_sym(12, materialize=False)(f.matvec, start)
    np.testing.assert_allclose(ours.diagonal, diagonal, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours.off_diagonal[:-1], off_diagonal, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours.basis, basis, rtol=0, atol=1e-9)


def test_lanczos_vectors_are_orthonormal_though_a_space_is_exhausted():
    diagonal = jnp.repeat(jnp.asarray([1.0, 2.0, 5.0]), 100)
    start = jnp.asarray(np.random.default_rng(0).normal(size=300), jnp.float32)
    krylov = tridiagonalise(lambda v: diagonal * v, start, 40, jax.random.key(0))
    gram = np.asarray(krylov.basis) @ np.asarray(krylov.basis).T
    np.testing.assert_allclose(gram, np.eye(40), rtol=0, atol=1e-5)


class TestSpectrum:
    def test_of_a_repeated_eigenvalue(self):
        density = landscape.spectrum(lambda v: 3 * v, jnp.zeros(50), 0, num_steps=10)
        np.testing.assert_allclose(jnp.sum(density.nodes * density.weights, axis=1), 3, rtol=1e-5)
        assert np.all(np.isfinite(density.value))

    def test_it_is_a_density(self, quadratic):
        f = quadratic(np.linspace(-1, 3, 40))
        found = landscape.spectrum(f.matvec, jnp.zeros(40), 0, num_steps=20)
        step = found.grid[1] - found.grid[0]
        assert float(jnp.sum(found.value) * step) == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(jnp.sum(found.weights, axis=1), 1, rtol=1e-5)
        assert found.nodes.shape == found.weights.shape == (8, 20)

    def test_moments_are_those_of_the_matrix(self, x64, quadratic):
        eigenvalues = np.concatenate([np.zeros(150), np.geomspace(0.01, 20, 50)])
        f = quadratic(eigenvalues)
        found = landscape.spectrum(f.matvec, jnp.zeros(200), 0, num_steps=30, num_samples=64)
        for power in (1, 2, 3):
            samples = np.sum(found.weights * found.nodes**power, axis=1)
            error = samples.std(ddof=1) / 8
            assert abs(samples.mean() - np.mean(eigenvalues**power)) < 4 * error

    def test_its_intervals_cover_the_broadened_spectrum(self, quadratic, coverage):
        eigenvalues = np.concatenate([np.zeros(60), np.linspace(1, 8, 20)])
        f = quadratic(eigenvalues)

        def run(key):
            found = landscape.spectrum(
                f.matvec, jnp.zeros(80), key, num_steps=21, num_samples=20, width=0.5
            )
            # Grids differ by rounding of the outermost nodes: read all at the same points.
            at = jnp.asarray([0.0, 2.0, 4.0, 6.0])
            read = lambda curve: jnp.interp(at, found.grid, curve)  # noqa: E731
            return read(found.value), read(found.standard_error)

        found = jax.lax.map(run, jax.random.split(jax.random.key(0), 200))
        at = np.asarray([0.0, 2.0, 4.0, 6.0])[:, None]
        truth = np.mean(np.exp(-(((at - eigenvalues) / 0.5) ** 2) / 2), axis=1)
        share = coverage(found, truth / (0.5 * np.sqrt(2 * np.pi)), degrees=19)
        assert np.all((share > 0.9) & (share < 0.99))

    def test_more_steps_than_dimensions(self):
        found = landscape.spectrum(lambda v: v * jnp.asarray([1.0, 2.0]), jnp.zeros(2), 0)
        assert found.nodes.shape == (8, 2)
        np.testing.assert_allclose(found.nodes, [[1.0, 2.0]] * 8, rtol=1e-5)


class TestMeans:
    def test_closed_form_and_cutoffs(self, quadratic):
        eigenvalues = np.concatenate([np.full(20, -1.0), np.zeros(20), [0.1, 0.5, 2, 4, 8] * 12])
        f = quadratic(eigenvalues)
        found = landscape.spectrum(f.matvec, jnp.zeros(100), 0, num_steps=30, num_samples=200)
        for cutoff in (0.05, 0.3, 3.0):
            above = eigenvalues[eigenvalues > cutoff]
            value, error = landscape.harmonic_mean(found, cutoff)
            assert abs(value - 1 / np.mean(1 / above)) < 4 * error
            value, error = landscape.arithmetic_mean(found, cutoff)
            assert abs(value - above.mean()) < 4 * error

    def test_several_cutoffs_at_once(self, quadratic):
        f = quadratic([0.1, 1.0, 10.0])
        found = landscape.spectrum(f.matvec, jnp.zeros(3), 0)
        together = landscape.harmonic_mean(found, jnp.asarray([0.05, 0.5, 20.0]))
        for n, cutoff in enumerate((0.05, 0.5)):
            alone = landscape.harmonic_mean(found, cutoff)
            np.testing.assert_allclose(together.value[n], alone.value, rtol=1e-6)
        assert np.isnan(together.value[2])

    def test_intervals_cover_the_truth(self, quadratic, coverage):
        eigenvalues = np.geomspace(0.1, 10, 30)
        f = quadratic(eigenvalues)

        def run(key):
            found = landscape.spectrum(f.matvec, jnp.zeros(30), key, num_steps=30, num_samples=16)
            return landscape.harmonic_mean(found, 0.01)

        found = jax.lax.map(run, jax.random.split(jax.random.key(0), 200))
        assert 0.9 < coverage(found, 1 / np.mean(1 / eigenvalues), degrees=15) < 0.99

    @pytest.mark.parametrize("cutoff", [0.0, -1.0])
    def test_there_is_a_cutoff(self, cutoff):
        found = landscape.spectrum(lambda v: v, jnp.zeros(3), 0)
        with pytest.raises(ValueError, match=f"cutoff must be > 0.*got cutoff={cutoff}"):
            landscape.harmonic_mean(found, cutoff)


class TestTrace:
    @pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
    @pytest.mark.parametrize("figure", ["trace", "frobenius_norm"])
    def test_intervals_cover_the_truth(self, quadratic, coverage, figure, method):
        eigenvalues = np.concatenate([[40.0, 20.0, -10.0], np.linspace(0, 2, 57)])
        f = quadratic(eigenvalues)
        estimate = getattr(landscape, figure)
        run = lambda key: estimate(f.matvec, jnp.zeros(60), key, 90, method=method)  # noqa: E731
        found = jax.lax.map(run, jax.random.split(jax.random.key(0), 400))
        truth = {
            "trace": eigenvalues.sum(),
            "frobenius_norm": np.sqrt(np.sum(eigenvalues**2)),
        }[figure]
        degrees = 89 if method == "hutchinson" else 29
        assert 0.9 < coverage(found, truth, degrees) < 0.99

    def test_a_sketch_pays_where_few_eigenvalues_carry_the_trace(self, quadratic):
        f = quadratic(np.concatenate([[100.0, 80.0, 60.0], np.full(97, 0.1)]))
        plain, sketched = (
            landscape.trace(f.matvec, jnp.zeros(100), 0, 30, method=method).standard_error
            for method in ("hutchinson", "hutch++")
        )
        assert sketched < plain / 20

    def test_the_error_of_a_sketch_of_the_whole_range_is_rounding(self):
        A = jnp.asarray(np.random.default_rng(0).normal(size=(6, 6)), jnp.float32)
        A = A + A.T
        value, error = landscape.trace(lambda v: A @ v, jnp.zeros(6), 0, 18, method="hutch++")
        assert abs(float(value) - np.trace(np.asarray(A, np.float64))) < 4 * float(error) < 1e-4

    def test_of_a_network_against_the_dense_hessian(self, classifier):
        net = classifier()
        dense = np.asarray(net.dense_hessian(), np.float64)
        operator = landscape.hessian(net.loss, net.params, net.batches)
        value, error = landscape.trace(operator, net.params, 0, 200)
        assert abs(value - np.trace(dense)) < 4 * error
        value, error = landscape.frobenius_norm(operator, net.params, 0, 200)
        assert abs(value - np.linalg.norm(dense)) < 4 * error

    def test_signs_see_a_diagonal_exactly(self):
        diagonal = jnp.arange(1.0, 11.0)
        value, error = landscape.trace(lambda v: diagonal * v, jnp.zeros(10), 0, 2)
        assert float(value) == 55
        assert 0 < float(error) < 1e-4

    def test_zero(self):
        value, error = landscape.frobenius_norm(lambda v: 0 * v, jnp.zeros(10), 0, 4)
        assert (float(value), float(error)) == (0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda A, x: landscape.eigenvalues(A, x, 0, 0), "num must be a static integer >= 1"),
        (
            lambda A, x: landscape.eigenvalues(A, x, 4, 0),
            "num must be at most .* parameters, 3; got",
        ),
        (
            lambda A, x: landscape.eigenvalues(A, x, 2, 0, num_steps=1),
            "num_steps must be at least num=2; got num_steps=1",
        ),
        (
            lambda A, x: landscape.eigenvalues(A, x, 1, 0, which="top"),
            "which must be 'largest' or 'smallest' or 'magnitude'; got which='top'",
        ),
        (lambda A, x: landscape.eigenvalues(A, x, 1, 0.5), "key must be an integer seed"),
        (lambda A, x: landscape.eigenvalues(3, x, 1, 0), "matvec must be a function of a vector"),
        (
            lambda A, x: landscape.eigenvalues(lambda v: v[:2], x, 1, 0),
            r"matvec's result must have the shapes .* expected \(3,\), got \(2,\)",
        ),
        (
            lambda A, x: landscape.spectrum(A, x, 0, num_samples=1),
            "num_samples must be >= 2, since the standard error",
        ),
        (lambda A, x: landscape.spectrum(A, x, 0, width=0.0), "width must be a number > 0"),
        (lambda A, x: landscape.trace(A, x, 0, 1), "num_samples must be >= 2"),
        (
            lambda A, x: landscape.trace(A, x, 0, 12, method="hutch++"),
            r"num_samples must be in \[6, 11\] for method='hutch\+\+' and 3 parameters",
        ),
        (
            lambda A, x: landscape.trace(A, x[:1], 0, 6, method="hutch++"),
            r"method must be 'hutchinson' for a single parameter",
        ),
        (lambda A, x: landscape.trace(A, x, 0, 6, method="xtrace"), "method must be 'hutchinson'"),
        (lambda A, x: landscape.harmonic_mean(A, 0.1), "spectrum must be what"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(lambda v: v, jnp.zeros(3))


def test_no_rank_is_promoted():
    diagonal = jnp.linspace(0.0, 5.0, 20)
    with jax.numpy_rank_promotion("raise"):
        landscape.spectrum(lambda v: diagonal * v, jnp.zeros(20), key=0, num_samples=4)


def test_means_need_no_promotion_of_ranks():
    diagonal = jnp.asarray([0.5, 1.0, 2.0])
    density = landscape.spectrum(lambda v: diagonal * v, jnp.zeros(3), key=0, num_samples=8)
    for mean in (landscape.harmonic_mean, landscape.arithmetic_mean):
        for cutoffs in (0.1, jnp.asarray([0.1, 0.7]), jnp.asarray([[0.1], [0.7]])):
            expected = mean(density, cutoffs)
            with jax.numpy_rank_promotion("raise"):
                found = mean(density, cutoffs)
            assert found.value.shape == jnp.shape(cutoffs)
            np.testing.assert_array_equal(found, expected)


def test_the_bound_of_an_eigenvalue_is_that_of_the_narrowest_leaf(x64):
    x = {"a": jnp.ones(3, jnp.float32), "b": jnp.ones(3), "c": jnp.ones(2, jnp.bfloat16)}
    scale = {"a": 6.0 - 1e-3, "b": 2.0, "c": 1.0}

    def product(v):
        return {name: (leaf * scale[name]).astype(leaf.dtype) for name, leaf in v.items()}

    found, bound = landscape.eigenvalues(product, x, 1, key=0)
    assert abs(float(found[0]) - scale["a"]) <= float(bound[0]) < 1e-5


def test_arrays_of_keys_are_refused():
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="key must be one key or an integer seed; got"):
        landscape.eigenvalues(lambda v: v, jnp.ones(3), 1, key=keys)


def test_bounds_hold_to_rounding():
    """With as many steps as dimensions a residual says nothing: 1 eps was too little."""
    rng, outside = np.random.default_rng(1), []
    for seed in range(30):
        matrix = rng.normal(size=(5, 5)).astype(np.float32)
        matrix = matrix + matrix.T
        product = functools.partial(jnp.matmul, jnp.asarray(matrix))
        values, bounds = landscape.eigenvalues(product, jnp.zeros(5), 5, seed)
        truth = np.linalg.eigvalsh(matrix.astype(np.float64))[::-1]
        outside += list(np.abs(np.asarray(values, np.float64) - truth) > np.asarray(bounds))
        assert np.all(np.asarray(bounds) < 1e-5 * np.abs(truth).max())
    assert not any(outside)
