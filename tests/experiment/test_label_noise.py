"""Wrong labels: how many, which, and what learning them by heart is measured as."""

import numpy as np
import pytest

from entropix import data
from entropix.experiment import Budget, algorithm, train
from entropix.experiment.label_noise import noisy_labels

SMALL = {"name": "mlp", "widths": (32,), "input_dropout": 0.0, "dropout": 0.0}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def test_so_many_labels_are_wrong_and_all_else_is_as_it_was(digits):
    problem = noisy_labels(digits, SMALL, examples=200, wrong=0.3)
    images, labels, is_wrong = map(np.asarray, problem.data)
    assert images.shape[0] == 200
    assert is_wrong.sum() == 60
    known = {np.asarray(i).tobytes(): int(y) for i, y in zip(*digits[:2], strict=True)}
    truth = np.asarray([known[image.tobytes()] for image in images])
    np.testing.assert_array_equal(labels != truth, is_wrong)
    assert len({image.tobytes() for image in images}) > 190  # without replacement
    np.testing.assert_array_equal(problem.validation[1], digits.test_labels)
    assert not np.asarray(problem.validation[2]).any()


def test_wrong_labels_are_spread_over_all_other_classes(digits):
    problem = noisy_labels(digits, SMALL, examples=1000, wrong=0.9)
    clean = noisy_labels(digits, SMALL, examples=1000, wrong=0.0)
    shift = (np.asarray(problem.data[1]) - np.asarray(clean.data[1])) % 10
    counts = np.bincount(shift, minlength=10)
    assert counts[0] == 100
    chi2 = ((counts[1:] - 100) ** 2 / 100).sum()
    assert chi2 < 26.1  # 8 degrees of freedom, 0.1 %
    assert "memorised" not in clean.measures


def test_labels_are_those_of_their_seed(digits):
    one, same, other = (
        noisy_labels(digits, SMALL, examples=100, wrong=0.5, label_seed=s) for s in (0, 0, 1)
    )
    assert one.identity == same.identity != other.identity
    assert not np.array_equal(one.data[1], other.data[1])


def test_a_network_that_learns_by_heart_is_seen_to(digits, tmp_path):
    problem = noisy_labels(digits, SMALL, examples=60, wrong=0.5, batch_size=60)
    adamw = algorithm("adamw", learning_rate=1e-2)
    options = {"budget": Budget(400, 4), "seeds": 1, "workdir": tmp_path, "progress": False}
    rows = train(problem, adamw, **options)
    assert rows[-1]["train_error"] == 0
    assert rows[-1]["train_memorised"] == pytest.approx(100)
    assert rows[-1]["val_memorised"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_seed": -1}, "label_seed must be an integer >= 0 .*; got label_seed=-1"),
        ({"wrong": 1.0}, "wrong"),
        ({"examples": 10**6}, "at most 1437"),
        ({"examples": 0}, "exampl"),
    ],
)
def test_what_cannot_be_drawn_is_refused(digits, options, message):
    with pytest.raises(ValueError, match=message):
        noisy_labels(digits, SMALL, **options)


def test_arrays_are_data_as_for_a_classification(digits):
    arrays = tuple(map(np.asarray, digits))
    options = {"examples": 100, "wrong": 0.5}
    problem, same = (noisy_labels(d, SMALL, **options) for d in (arrays, digits))
    assert problem.identity == same.identity
    with pytest.raises(ValueError, match="data must be the name of a data set, or"):
        noisy_labels(arrays[:2], SMALL, **options)


def test_one_class_has_no_wrong_labels(digits):
    images, labels, *test = digits
    one = (images, 0 * labels, test[0], 0 * test[1])
    problem = noisy_labels(one, SMALL, examples=100, wrong=0)
    assert not np.asarray(problem.data[1]).any()
    with pytest.raises(ValueError, match="wrong must be 0 where all labels are 0; got wrong=0.4"):
        noisy_labels(one, SMALL, examples=100, wrong=0.4)
