import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from entropix.data import Dataset, hold_out, load, sample_batch


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def rows(images):
    """Images as a set of hashable rows."""
    return [bytes(np.round(np.asarray(image) * 16).astype(np.uint8)) for image in images]


def test_digits_are_split_once_and_completely(digits):
    source = sorted(rows(load_digits().images / 16.0))
    split = sorted(rows(digits.train_images) + rows(digits.test_images))
    assert split == source
    assert digits.train_images.shape == (1437, 8, 8, 1)
    assert digits.test_images.shape == (360, 8, 8, 1)
    assert float(digits.train_images.min()) == 0.0
    assert float(digits.train_images.max()) == 1.0


def test_split_is_stratified(digits):
    train = np.bincount(digits.train_labels, minlength=10) / 1437
    test = np.bincount(digits.test_labels, minlength=10) / 360
    assert np.abs(train - test).max() < 1.5 / 360


def test_split_is_fixed(digits):
    again = load("digits")
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), digits, again)))


def test_held_out_part_comes_from_the_training_set_alone(digits):
    split = hold_out(digits, fraction=0.2)
    assert sorted(rows(split.train_images) + rows(split.test_images)) == sorted(
        rows(digits.train_images)
    )
    assert len(split.test_labels) == 288


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2])
def test_bad_fraction(digits, fraction):
    with pytest.raises(ValueError, match=rf"fraction must be in \(0, 1\); got fraction={fraction}"):
        hold_out(digits, fraction)


def test_held_out_whole_numbers_stay_whole(digits):
    tokens = digits._replace(train_images=digits.train_images.astype(jnp.int32))
    split = hold_out(tokens)
    assert split.train_images.dtype == split.test_images.dtype == jnp.int32
    pictures = digits._replace(train_images=digits.train_images.astype(jnp.uint8))
    assert hold_out(pictures).train_images.dtype == jnp.float32


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        ([0] * 9 + [5], 0.5, "two examples of every class or more; got one with label 5"),
        ([0, 1, 2] * 5, 0.1, r"fraction must leave .*3 classes.*=0.1, which holds out 2 of 15"),
        ([0, 1, 2] * 5, 0.9, r"fraction must leave .*3 classes.*=0.9, which holds out 14 of 15"),
        ([0, 1, 2] * 5, "half", r"fraction must be in \(0, 1\); got fraction='half'"),
    ],
)
def test_what_cannot_be_stratified_is_refused(labels, fraction, message):
    labels = jnp.asarray(labels)
    images = jnp.zeros((len(labels), 2, 2, 1))
    with pytest.raises(ValueError, match=message):
        hold_out(Dataset(images, labels, images, labels), fraction)


def test_batches_depend_on_the_key_alone(digits):
    sample = jax.jit(sample_batch, static_argnums=2)
    first, again = sample(jax.random.key(1), digits, 64), sample(jax.random.key(1), digits, 64)
    other = sample(jax.random.key(2), digits, 64)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[1], other[1])


def test_batches_of_arrays_of_numpy_are_the_same(digits):
    sample = jax.jit(lambda key: sample_batch(key, hosted, 8))
    hosted = Dataset(*map(np.asarray, digits))
    found, expected = sample(jax.random.key(1)), sample_batch(jax.random.key(1), digits, 8)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_batches_are_uniform(digits):
    """Counts of 1,437 examples in 200,000 draws: chi-squared within 5 standard deviations."""
    index = jnp.arange(digits.num_train, dtype=jnp.float32)
    numbered = digits._replace(train_images=index[:, None, None, None])
    images, _ = sample_batch(jax.random.key(0), numbered, 200_000)
    counts = np.bincount(np.asarray(images).ravel().astype(int), minlength=digits.num_train)
    expected = 200_000 / digits.num_train
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), digits.num_train - 1
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_images_and_labels_stay_together(digits):
    images, labels = sample_batch(jax.random.key(3), digits, 256)
    label_of = dict(zip(rows(digits.train_images), digits.train_labels.tolist(), strict=True))
    assert [label_of[row] for row in rows(images)] == labels.tolist()
