"""The handwritten digits that come with scikit-learn: the data set that needs no download."""

from sklearn.datasets import load_digits

from entropix.data.dataset import Dataset, split


def read_digits() -> Dataset:
    """Returns 1,437 training and 360 test images of 8 x 8 pixels in [0, 1], a fixed split."""
    images, labels = load_digits(return_X_y=True)
    return split((images / 16.0).reshape(-1, 8, 8, 1), labels, num_test=360, seed=0)
