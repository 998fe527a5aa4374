"""Scaling, contrast normalisation and whitening against their formulas in NumPy."""

import jax
import numpy as np
import pytest

from entropix.data import fit_zca, global_contrast_normalise, scale, whiten


@pytest.fixture(scope="module")
def images():
    """Correlated images whose variances span three decades, of a mean that is not zero."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    sources = rng.normal(size=(4000, 60)) * np.geomspace(0.03, 1, 60)
    return (sources @ directions + 3.0).reshape(-1, 5, 4, 3).astype(np.float32)


def covariance(images) -> np.ndarray:
    return np.cov(np.asarray(images, np.float64).reshape(len(images), -1).T, bias=True)


def test_scaling():
    pixels = np.arange(256, dtype=np.uint8)
    scaled = scale(pixels)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, pixels / 255.0, rtol=2e-7)


def test_contrast_normalisation_is_its_formula():
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)
    flat = pixels.reshape(7, -1).astype(np.float64)
    centred = flat - flat.mean(1, keepdims=True)
    expected = centred / np.sqrt(5.0 + centred.var(1, keepdims=True))
    mine = global_contrast_normalise(pixels, bias=5.0)
    np.testing.assert_allclose(mine.reshape(7, -1), expected, atol=1e-6)


def test_an_image_of_one_colour_becomes_zero():
    assert not np.any(global_contrast_normalise(np.full((2, 4, 4, 3), 200, np.uint8)))


def test_whitened_training_covariance_is_the_identity(images):
    white = whiten(fit_zca(images, 1e-6), images)
    assert white.shape == images.shape
    assert white.dtype == np.float32
    np.testing.assert_allclose(covariance(white), np.eye(60), atol=2e-3)
    np.testing.assert_allclose(np.asarray(white).reshape(4000, -1).mean(0), 0, atol=1e-3)


def test_a_regulariser_damps_as_the_docstring_says(images):
    variances, directions = np.linalg.eigh(covariance(images))
    deviations = np.sqrt(variances) / (np.sqrt(variances) + 0.5)
    expected = (directions * deviations**2) @ directions.T
    white = whiten(fit_zca(images, 0.5), images)
    np.testing.assert_allclose(covariance(white), expected, atol=1e-3)


def test_zca_is_symmetric_and_positive(images):
    matrix = np.asarray(fit_zca(images).matrix)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_zca_is_the_inverse_root_of_the_covariance(images):
    matrix = np.asarray(fit_zca(images, 1e-5).matrix, np.float64)
    inverse = np.linalg.inv(covariance(images))
    np.testing.assert_allclose(matrix @ matrix, inverse, atol=1e-3 * abs(inverse).max())


def test_a_direction_without_variance_stays_finite():
    """Contrast normalisation leaves one: no image has a mean."""
    rng = np.random.default_rng(0)
    images = global_contrast_normalise(rng.integers(0, 256, (500, 4, 4, 3), dtype=np.uint8))
    white = np.asarray(whiten(fit_zca(images, 1e-3), images))
    assert np.isfinite(white).all()
    variances = np.linalg.eigvalsh(covariance(white))
    assert variances[0] < 1e-3
    np.testing.assert_allclose(variances[1:], 1, atol=0.02)


def test_other_images_get_the_same_transform(images):
    """An image's whitening does not depend on the company it is whitened in."""
    whitening = fit_zca(images[:3000], 0.1)
    together = whiten(whitening, images[3000:])
    alone = whiten(whitening, images[3000:3001])
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)
    own = whiten(fit_zca(images[3000:], 0.1), images[3000:])
    assert float(abs(together - own).max()) > 0.1


def test_preprocessing_needs_no_promotion_of_ranks(images):
    with jax.numpy_rank_promotion("raise"):
        whiten(fit_zca(images[:60]), global_contrast_normalise(images[:2]))


def test_small_variances_are_whitened_beside_large_ones():
    """Variances 1e7 apart, as those of CIFAR-10: float32 would lose the small ones."""
    rng = np.random.default_rng(0)
    scales = np.geomspace(30, 0.01, 40)
    images = (rng.normal(size=(5000, 40)) * scales) @ np.linalg.qr(rng.normal(size=(40, 40)))[0]
    white = np.asarray(whiten(fit_zca(images.astype(np.float32)), images), np.float64)
    deviations = np.sqrt(np.linalg.eigvalsh(np.cov(white.T)))
    np.testing.assert_allclose(deviations, 1, atol=0.02)


def test_one_image_is_not_enough(images):
    with pytest.raises(ValueError, match="needs two images or more; got 1"):
        fit_zca(images[:1])
