"""The names of version 0.1 still answer."""

import numpy as np
import pytest

from entropix import training
from entropix.data import Dataset


def make(algorithms="", **options):
    fields = {"seeds": 1, "gradients_per_eval": 10, "num_evals": 1, "batch_size": 8}
    return training.experiment(
        dataset="digits", model={"name": "mlp", "widths": (4,), "dropout": 0.0},
        optimizers={"sgd": {}, "hj": {}}, algorithms=algorithms, **fields | options,
    )  # fmt: skip


def data(seed):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(60, 5)).astype(np.float32)
    y = (x[:, seed] > 0).astype(int)
    return Dataset(x[:40], y[:40], x[40:], y[40:])


def test_every_former_name_is_there():
    for name in training._FORMER:
        assert getattr(training, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        training.tarin  # noqa: B018


def test_configs_train_compare_and_tune(tmp_path):
    training.check_config(make())
    assert list(training.runs(make())) == ["sgd", "hj"]
    rows = training.compare(make(), tmp_path / "both", progress=False, report=lambda text: None)
    assert [(row["algorithm"], row["gradients"]) for row in rows] == [("sgd", 10), ("hj", 10)]
    assert training.read_metrics([tmp_path / "both"]) == rows
    assert training.train(make("hj"), tmp_path / "both" / "hj", progress=False) == rows[1:]
    tried = training.tune(make("sgd"), tmp_path / "tune", trials=1, progress=False)
    assert list(tried) == ["sgd"]


def test_own_arrays_have_an_identity(tmp_path):
    """A folder of other data, or of NumPy arrays that were never converted, does not answer."""
    config = make("sgd")
    training.train(config, tmp_path / "a", data=data(1), progress=False)
    with pytest.raises(ValueError, match=r"results of another run: it differs in problem\.digest"):
        training.train(config, tmp_path / "a", data=data(2), progress=False)
