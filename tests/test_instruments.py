"""Flatness of finished runs: read back, measured on a fixed sample, and tabled."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import experiment
from entropix.cli import main
from entropix.instruments import landscape
from entropix.run_file import read_run_file, write_run_file
from entropix.training.keys import split_seed

SCALES = np.asarray([1.0, 2.0, 3.0], np.float32)


def quadratic(name="bowl"):
    """A loss whose Hessian is known: the diagonal of SCALES squared."""

    def loss(params, model_state, batch, key):
        return 0.5 * jnp.mean(jnp.sum((SCALES * (params - batch)) ** 2, axis=-1)), model_state

    data = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    return experiment.Problem(
        name=name,
        init=lambda key: (jax.random.normal(key, (3,)), ()),
        loss=loss,
        data=data,
        validation=data,
        batch_size=8,
        measures={"loss": (lambda p, s, b: loss(p, s, b, None)[0], "lower", "")},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    arguments = quadratic(), {"SGD": "sgd", "HJ": "hj"}
    options = {"budget": experiment.Budget(20, 1), "seeds": 2}
    experiment.compare(
        *arguments, **options, workdir=folder, report=lambda text: None, progress=False
    )
    return folder, experiment.runs(*arguments, **options)


def test_measures_of_a_quadratic_are_its_curvatures(trained, tmp_path):
    folder, runs = trained
    said = []
    found = landscape(
        [folder], tmp_path, runs=runs, examples=64, batch_size=16, num_samples=4, spectra=1,
        report=said.append,
    )  # fmt: skip
    assert sorted((f.label, f.seed) for f in found) == [
        ("HJ", 0), ("HJ", 1), ("SGD", 0), ("SGD", 1)
    ]  # fmt: skip
    for entry in found:
        assert entry.measures["eigenvalue_1"] == pytest.approx(9.0, rel=1e-4)
        assert entry.measures["trace"] == pytest.approx(14.0, rel=1e-4)
    assert sum("about" in text for text in said) == 1  # the time, before the work
    assert "| trace" in said[-1]
    assert "| against SGD" in said[-1]
    saved = [json.loads(line) for line in (tmp_path / "landscape.jsonl").read_text().splitlines()]
    assert [entry["seed"] for entry in saved] == [f.seed for f in found]
    assert (tmp_path / "landscape.md").read_text() == said[-1]
    assert (tmp_path / "spectra.png").stat().st_size > 10_000
    with np.load(tmp_path / "spectra.npz") as saved:
        nodes, weights = saved["HJ, seed 0/nodes"], saved["HJ, seed 0/weights"]
    np.testing.assert_allclose(nodes.max(axis=-1), 9.0, rtol=1e-4)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-4)
    rows = [line for line in said[-1].splitlines() if line.startswith("| HJ, seed 0")]
    shares = [[float(cell.split()[0]) for cell in row.split("|")[3:5]] for row in rows]
    assert [sum(pair) for pair in shares] == pytest.approx([1.0] * 4, abs=1e-2)
    assert [pair[0] for pair in shares[:3]] == [0.0, 0.0, 0.0]  # all curvatures are 1, 4 and 9


OPTIONS = {"examples": 64, "batch_size": 16, "num_samples": 4}


def measure(folders, workdir, runs, report=lambda text: None, **options):
    return landscape(folders, workdir, runs=runs, report=report, **OPTIONS | options)


def test_what_was_measured_is_not_measured_again(trained, tmp_path):
    folder, runs = trained
    first, said = measure([folder], tmp_path, runs, spectra=1), []
    stored = (tmp_path / "landscape.jsonl").read_bytes()
    assert measure([folder], tmp_path, runs, said.append, spectra=1) == first
    assert said == [(tmp_path / "landscape.md").read_text()]
    assert "SGD, seed 0" in said[0]  # the table of spectra
    assert (tmp_path / "landscape.jsonl").read_bytes() == stored


def test_a_changed_label_needs_no_new_measurement(trained, tmp_path):
    folder, runs = shutil.copytree(trained[0] / "SGD", tmp_path / "SGD"), trained[1]
    first, said = measure([folder], tmp_path / "flat", runs), []
    write_run_file(folder, read_run_file(folder)._replace(label="plain"))
    again = measure([folder], tmp_path / "flat", runs, said.append)
    assert again == [entry._replace(label="plain") for entry in first]
    assert said == [(tmp_path / "flat" / "landscape.md").read_text()]
    assert "| plain" in said[0]


def test_runs_join_a_table(trained, tmp_path):
    folder, runs = trained
    together = measure([folder], tmp_path / "both", runs)
    measure([folder / "SGD"], tmp_path / "one", runs)
    assert measure([folder / "HJ"], tmp_path / "one", runs) == together
    tables = [(tmp_path / name / "landscape.md").read_text() for name in ("both", "one")]
    assert tables[0] == tables[1]


def test_an_interrupted_measurement_goes_on(trained, tmp_path):
    folder, runs = trained

    def stop(text):
        if text == "SGD, seed 1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([folder], tmp_path / "stopped", runs, stop, spectra=1)
    said = []
    found = measure([folder], tmp_path / "stopped", runs, said.append, spectra=1)
    assert found == measure([folder], tmp_path / "whole", runs, spectra=1)
    assert "SGD, seed 0" not in said
    assert {"SGD, seed 1", "HJ, seed 0", "HJ, seed 1"} <= set(said)


def test_a_spectrum_can_be_added_later(trained, tmp_path):
    folder, runs = trained
    measure([folder], tmp_path, runs)
    said = []
    measure([folder], tmp_path, runs, said.append, spectra=1)
    assert said[:-1] == ["SGD, seed 0", "HJ, seed 0"]
    assert "| HJ, seed 0 " in said[-1]


def test_an_unfinished_run_is_measured_again_at_its_end(tmp_path):
    problem, budget = quadratic(), experiment.Budget(20, 2)
    options = {"budget": budget, "seeds": 1, "workdir": tmp_path / "sgd", "progress": False}

    def stop(row):
        raise KeyboardInterrupt

    runs = experiment.runs(problem, {"sgd": "sgd"}, budget=budget, seeds=1)
    with pytest.raises(KeyboardInterrupt):
        experiment.train(problem, "sgd", callbacks=[stop], **options)
    early = measure([tmp_path / "sgd"], tmp_path / "out", runs)
    experiment.train(problem, "sgd", **options)
    late = measure([tmp_path / "sgd"], tmp_path / "out", runs)
    assert [f.seed for f in early] == [f.seed for f in late] == [0]
    assert late == measure([tmp_path / "sgd"], tmp_path / "fresh", runs)


def test_another_way_to_measure_and_another_run_are_refused(trained, tmp_path):
    folder, runs = trained
    measure([folder / "SGD"], tmp_path / "out", runs)
    with pytest.raises(ValueError, match=r"another sample \(it differs in num_samples\)"):
        measure([folder / "SGD"], tmp_path / "out", runs, num_samples=6)
    problem, budget = quadratic(), experiment.Budget(10, 1)
    experiment.compare(
        problem, {"SGD": "sgd"}, budget=budget, seeds=1, workdir=tmp_path / "other",
        report=lambda text: None, progress=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"measurements of another run called SGD than that in"):
        measure([tmp_path / "other" / "SGD"], tmp_path / "out", runs)


def test_an_unknown_baseline_is_refused_before_work(trained, tmp_path, capsys):
    folder, _ = trained
    argv = ["landscape", str(folder), f"--workdir={tmp_path}/out", "--baseline=adamw"]
    assert main(argv) == 2
    assert "no run is called 'adamw' (the baseline); known: SGD, HJ" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigmas": 0.1}, r"sigmas must be a list of numbers > 0.*got sigmas=0.1"),
        ({"sigmas": (0.1, -1.0)}, "sigmas must be a list of numbers > 0"),
        ({"sigmas": (0.1, 0.10000001)}, "sigmas must be numbers whose first six digits differ"),
        ({"spectra": -1}, "spectra must be an integer >= 0 .*got spectra=-1"),
        ({"spectra": 1.5}, "spectra must be an integer >= 0 .*got spectra=1.5"),
        ({"key": jax.random.key(0)}, "key must be an integer >= 0"),
        ({"num_samples": 5}, "num_samples must be an even number >= 4"),
        ({"examples": 0}, "examples must be a static integer"),
    ],
)
def test_bad_settings_are_refused_before_work(trained, tmp_path, options, message):
    folder, runs = trained
    with pytest.raises(ValueError, match=message):
        landscape([folder], tmp_path / "out", runs=runs, **options)
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_are_numbers(trained, tmp_path):
    folder, runs = trained
    given = {"num_eigenvalues": np.int64(1), "sigmas": np.asarray([0.1], np.float32)}
    found = measure([folder / "SGD"], tmp_path / "out", runs, **given)
    assert all("local_energy_0.1/loss" in of_seed.measures for of_seed in found)


def test_one_folder_is_no_list_of_folders(trained, tmp_path):
    folder, runs = trained
    with pytest.raises(ValueError, match=r"folders must be a list .* Write \["):
        measure(str(folder), tmp_path / "out", runs)


def test_folders_without_runs_are_refused_before_work(tmp_path, capsys):
    assert main(["landscape", str(tmp_path), f"--workdir={tmp_path}/out"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def without_a_value_for(seed):
    """The bowl, whose loss is NaN where one seed of three begins and goes."""
    bowl = quadratic()
    first = bowl.init(jax.random.fold_in(split_seed(seed).model, 0))[0][0]

    def init(key):
        x, _ = bowl.init(key)
        return x, jnp.abs(x[0] - first) < 1e-6

    def loss(params, broken, batch, key):
        return jnp.where(broken, jnp.nan, bowl.loss(params, (), batch, key)[0]), broken

    measures = {"loss": lambda p, s, b: loss(p, s, b, None)[0]}
    return dataclasses.replace(bowl, init=init, loss=loss, measures=measures)


def test_a_seed_that_diverged_is_in_no_mean(tmp_path):
    """The network of its last checkpoint, here the untrained one, was taken for its minimum."""
    problem, options = without_a_value_for(1), {"budget": experiment.Budget(20, 1)}
    runs = experiment.runs(problem, {"sgd": "sgd"}, seeds=3, **options)
    with pytest.raises(FloatingPointError, match="sgd: seed 1 stopped"):
        experiment.train(problem, "sgd", seeds=3, workdir=tmp_path / "sgd", **options)
    said = []
    measured = {"runs": runs, "examples": 64, "num_samples": 4, "report": said.append}
    found = landscape([tmp_path / "sgd"], tmp_path / "flat", **measured)
    assert [entry.seed for entry in found] == [0, 2]
    assert "over 2 seeds" in said[-1]
    assert "Diverged, and left out: SGD (seed 1)." in said[-1]
    assert landscape([tmp_path / "sgd"], tmp_path / "flat", **measured) == found
    # The sound seeds can be had alone.
    sound = experiment.train(problem, "sgd", seeds=[0, 2], workdir=tmp_path / "sgd", **options)
    assert {row.seed for row in sound} == {0, 2}


def test_without_a_sound_seed_there_is_nothing_to_measure(tmp_path):
    problem, options = without_a_value_for(0), {"budget": experiment.Budget(20, 1), "seeds": 1}
    with pytest.raises(FloatingPointError):
        experiment.train(problem, "sgd", workdir=tmp_path / "sgd", **options)
    with pytest.raises(ValueError, match="every seed diverged"):
        landscape([tmp_path / "sgd"], tmp_path / "flat",
                  runs=experiment.runs(problem, {"sgd": "sgd"}, **options))  # fmt: skip


def test_two_runs_of_one_name_are_refused_before_work(trained, tmp_path):
    folder, runs = trained
    experiment.compare(
        quadratic(), {"SGD": "sgd"}, budget=experiment.Budget(10, 1), seeds=3,
        workdir=tmp_path / "other", report=lambda text: None, progress=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"hold two runs of one name, SGD: they differ in budget"):
        measure([folder, tmp_path / "other"], tmp_path / "out", runs)
    assert not (tmp_path / "out").exists()
