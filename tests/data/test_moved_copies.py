"""Runs on a prepared copy that has moved since."""

import numpy as np
import pytest

from entropix.cli import main
from entropix.data import DataNotFoundError
from entropix.experiment import load

CONFIG = """
from entropix.experiment import make_config


def get_config(runs=""):
    return make_config(
        dataset="mnist", model={"name": "mlp", "widths": (4,)}, optimizers={"sgd": {}},
        algorithms=runs, seeds=1, gradients_per_eval=2, num_evals=1, batch_size=8,
        eval_train_examples=0,
    )
"""


@pytest.fixture
def trained(small, write_copy, tmp_path, monkeypatch):
    """The folder of a run that was trained with a relative path, and that of its data."""
    folder, _ = write_copy("mnist")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CONFIG)
    argv = ["train", "--config=mine.py:sgd", "--workdir=run", "--noprogress"]
    assert main([*argv, f"--data_dir={folder.name}"]) == 0
    return tmp_path / "run", folder


def test_a_run_finds_its_data_from_another_folder(trained, tmp_path, monkeypatch):
    run, folder = trained
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load(run).config["data_dir"] == str(folder)


def test_data_that_have_moved_are_found_where_they_are_said_to_be(trained, tmp_path, monkeypatch):
    run, folder = trained
    params = load(run).params
    folder.rename(tmp_path / "moved")
    with pytest.raises(DataNotFoundError):
        load(run)
    moved = str(tmp_path / "moved")
    again = load(run, data_dir=moved).params
    assert all(map(np.array_equal, params.values(), again.values()))
    argv = ["landscape", str(run), "--examples=16", "--batch_size=8", "--samples=4"]
    assert main([*argv, "--workdir=named", f"--data_dir={moved}"]) == 0
    monkeypatch.setenv("TFDS_DATA_DIR", moved)
    assert main([*argv, "--workdir=usual"]) == 0
    tables = [(tmp_path / name / "landscape.md").read_text() for name in ("named", "usual")]
    assert tables[0] == tables[1]
