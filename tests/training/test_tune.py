import json

import pytest

from entropix.training import experiment, tune
from entropix.training.tune import RANGES

MODEL = {"name": "mlp", "widths": (16,), "input_dropout": 0.0, "dropout": 0.0}


def make(**options):
    return experiment(
        dataset="digits",
        model=MODEL,
        optimizers={"sgd": {}, "hj": {}},
        seeds=1,
        gradients_per_eval=20,
        num_evals=1,
        batch_size=32,
        **options,
    )


def test_every_algorithm_gets_the_same_trials(tmp_path):
    best = tune(make(), tmp_path, trials=4, progress=False)
    tried = {
        name: json.loads((tmp_path / f"tune_{name}.json").read_text()) for name in ("sgd", "hj")
    }
    rates = {name: sorted(t["learning_rate"] for t in trials) for name, trials in tried.items()}
    assert rates["sgd"] == rates["hj"]
    assert len(rates["sgd"]) == 4
    assert all("gamma" not in trial for trial in tried["sgd"])
    for trial in tried["hj"]:
        for name, (low, high) in RANGES.items():
            assert low <= trial[name] <= high
    for name, trials in tried.items():
        assert best[name] == min(trials, key=lambda t: (t["val_error"], t["val_loss"]))


def test_no_trials_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="trials must be >= 1; got trials=0"):
        tune(make(), tmp_path, trials=0)
