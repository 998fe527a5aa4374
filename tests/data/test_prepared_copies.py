"""The real data sets, where prepared copies lie beside the repository."""

import os
import pathlib

import numpy as np
import pytest

from entropix.data import CATALOGUE, load
from entropix.data.loading import stored
from entropix.experiment.fingerprint import digest_arrays

FOLDER = pathlib.Path(__file__).parents[3] / "shared" / "data" / "tfds"


@pytest.fixture
def folder(request):
    name = request.param
    if not (FOLDER / name).is_dir():
        pytest.skip(f"no prepared copy of {name} in {os.path.relpath(FOLDER)}")
    return FOLDER


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["mnist"], indirect=True)
def test_mnist(folder):
    data = load("mnist", folder)
    assert data.train_labels[:10].tolist() == [4, 1, 0, 7, 8, 1, 2, 7, 1, 6]
    pixels = [np.asarray(x, np.float64) for x in (data.train_images, data.test_images)]
    means = [255 * x.mean() for x in pixels]
    np.testing.assert_allclose(means, [33.318421, 33.791224], rtol=1e-6)
    assert digest_arrays(stored("mnist", folder)) == CATALOGUE["mnist"].digest
    again = load("mnist", folder)
    for first, second in zip(data, again, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["cifar10"], indirect=True)
def test_cifar10(folder):
    """3,072 dimensions: the whitened covariance is the identity but for what is damped.

    Standard deviations s become s / (s + 1e-5), hence variances of at most 1. In float64 the
    largest one is 0.9999992; the images are whitened in float32, by a matrix in float32, after
    which it is 1.0028. Contrast normalisation leaves one direction, that of the mean image value,
    with s = 3.6e-6.
    """
    data = load("cifar10", folder)
    assert data.train_images.shape == (50_000, 32, 32, 3)
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    flat = np.asarray(data.train_images).reshape(50_000, -1)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-3)
    variances = np.linalg.eigvalsh(flat.T @ flat / len(flat))
    assert variances[0] == pytest.approx((3.6e-6 / (3.6e-6 + 1e-5)) ** 2, rel=0.1)
    assert variances[1] > 0.99
    assert variances[-1] < 1.005
