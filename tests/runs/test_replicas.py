"""Training with replicas as real processes: over devices, and over several processes."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from processes import ended, free_port
from runs.survival import arrays, rows

from entropix.replicas.processes import LOST

CONFIG = """
from entropix.experiment import make_config

def get_config(algorithms=""):
    return make_config(
        problem="smooth:digits",
        optimizers={
            "elastic_sgd": {"learning_rate": 0.1},
            "parle": {"num_steps": 5, "gamma_end": 0.5, "temperature": 1e-3},
        },
        algorithms=algorithms,
        replicas=(4,),
        seeds=2,
        batch_size=32,
        gradients_per_eval=40,
        num_evals=3,
        checkpoint_seconds=0.0,
    )
"""


# Without kinks: rounding decides at none of them, whatever the machine.
SMOOTH = """
import jax, jax.numpy as jnp
from entropix.experiment import classification

def init(key):
    first, last = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (64, 16)) / 8,
        "last": jax.random.normal(last, (16, 10)) / 4,
    }

def apply(params, x, train=False, key=None):
    x = x.reshape(len(x), -1)
    x = x * jax.random.bernoulli(key, 0.9, x.shape) if train else x
    return jnp.tanh(x @ params["first"]) @ params["last"]

def digits(batch_size):
    return classification("digits", (init, apply), batch_size=batch_size)
"""


class Trainings:
    """Runs of one experiment, in folders below `folder`."""

    def __init__(self, folder):
        self.folder, self.config = folder, folder / "config.py"
        self.config.write_text(CONFIG)
        (folder / "smooth.py").write_text(SMOOTH)

    def start(self, name, *flags, algorithm="elastic_sgd", devices=1):
        command = [sys.executable, "-m", "entropix", "train", "--noprogress"]
        command += [f"--config={self.config}:{algorithm}", f"--workdir={self.folder / name}"]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_ENABLE_COMPILATION_CACHE": "true",
        }
        return subprocess.Popen(
            [*command, *flags], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def pair(self, name, *flags):
        """Starts two processes with two devices each."""
        shared = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", *flags]
        return [self.start(name, f"--process={k}", *shared, devices=2) for k in range(2)]


def finish(process, seconds=180):
    return ended(process, seconds)


def assert_close(workdir, other):
    """The same run but for the order in which means over replicas are summed."""
    for row, expected in zip(rows(workdir), rows(other), strict=True):
        near = [(row.pop("minibatch_loss"), expected.pop("minibatch_loss"))]
        measures = row.pop("measures"), expected.pop("measures")
        assert row == expected
        for name, (value, *kind) in measures[0].items():
            known, *known_kind = measures[1][name]
            assert kind == known_kind
            if "loss" in name:  # an error jumps where one example is undecided
                near.append((value, known))
        assert len(near) == 3
        for value, known in near:
            assert value == pytest.approx(known, rel=1e-4)
    found, expected = arrays(workdir), arrays(other)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.shape == expected[name].shape, name
        if name.startswith("state/params"):
            np.testing.assert_allclose(array, expected[name], 2e-3, 2e-4, err_msg=name)
        elif np.issubdtype(array.dtype, np.integer):
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    made = Trainings(tmp_path_factory.mktemp("replicas"))
    for algorithm in ("elastic_sgd", "parle"):
        run = made.start(algorithm, "--config.layout=vmap", algorithm=algorithm)
        status, _, err = finish(run)
        assert status == 0, err
    return made


@pytest.mark.parametrize(
    ("algorithm", "layout", "devices"),
    [
        ("parle", "shard_map", 4),
        pytest.param("elastic_sgd", "vmap", 1, marks=pytest.mark.slow),
        pytest.param("elastic_sgd", "pmap", 2, marks=pytest.mark.slow),
        pytest.param("elastic_sgd", "shard_map", 4, marks=pytest.mark.slow),
        pytest.param("parle", "vmap", 1, marks=pytest.mark.slow),
        pytest.param("parle", "pmap", 2, marks=pytest.mark.slow),
    ],
)
def test_layouts_agree(trainings, algorithm, layout, devices):
    name = f"{algorithm}_{layout}"
    run = trainings.start(name, f"--config.layout={layout}", algorithm=algorithm, devices=devices)
    status, _, err = finish(run)
    assert status == 0, err
    assert_close(trainings.folder / name, trainings.folder / algorithm)


@pytest.mark.slow
def test_a_run_moves_from_one_device_to_several(trainings):
    """Where replicas live is no part of a result: the run continues, unasked."""
    short = trainings.start("moved", "--config.layout=vmap", "--config.num_evals=1")
    assert finish(short)[0] == 0
    flags = ("--config.layout=shard_map", "--config.num_evals=3", "--fork")
    status, _, err = finish(trainings.start("moved", *flags, devices=4))
    assert status == 0, err
    assert "continuing at outer step 10" in err
    assert_close(trainings.folder / "moved", trainings.folder / "elastic_sgd")


def test_more_devices_than_there_are(trainings):
    flags = ("--config.replicas=8", "--config.layout=shard_map")
    status, _, err = finish(trainings.start("many", *flags))
    assert status == 2
    assert "spreads replicas=8 over devices, and JAX sees 1 cpu device. Two ways out" in err
    assert len(err.strip().splitlines()) == 1


class TestTwoProcesses:
    """Two processes with two devices each, over the loopback interface."""

    def test_they_train_as_one_process_does(self, trainings):
        said = []
        for process in trainings.pair("two", "--config.layout=shard_map"):
            status, out, err = finish(process)
            assert status == 0, err
            said.append(out)
        assert "Elastic-SGD" in said[0]
        assert "Elastic-SGD" not in said[1]  # process 0 has the rows
        assert_close(trainings.folder / "two", trainings.folder / "elastic_sgd")

    @pytest.mark.slow
    @pytest.mark.parametrize("victim", [0, 1])
    def test_one_is_killed_the_other_ends_and_both_resume(self, trainings, victim):
        name = f"killed_{victim}"
        long = ("--config.layout=shard_map", "--config.num_evals=20")
        pair = trainings.pair(name, *long)
        deadline = time.monotonic() + 120
        folder = trainings.folder / name / "checkpoints"
        while not any(int(p.name) >= 20 for p in folder.glob("[0-9]*") if p.name.isdigit()):
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in pair)
            time.sleep(0.02)
        pair[victim].send_signal(signal.SIGKILL)
        status, _, err = finish(pair[1 - victim], seconds=60)
        assert status == LOST, err
        assert f"process {victim} has ended before its work was done" in err
        finish(pair[victim])
        for process in trainings.pair(name, *long):
            status, _, err = finish(process)
            assert status == 0, err
            assert "continuing at outer step" in err
        whole = trainings.start(f"{name}_whole", *long, devices=4)
        assert finish(whole)[0] == 0
        ends = [rows(trainings.folder / n)[-1] for n in (name, f"{name}_whole")]
        assert ends[0]["outer_steps"] == ends[1]["outer_steps"] == 200
        assert len(rows(trainings.folder / name)) == len(rows(trainings.folder / f"{name}_whole"))
        metrics = (trainings.folder / name / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["outer_steps"] for line in metrics if '"seed": 0' in line]
        assert steps == list(range(10, 201, 10))

    def test_a_request_to_stop_reaches_all(self, trainings):
        long = ("--config.layout=shard_map", "--config.num_evals=20")
        pair = trainings.pair("stopped", *long)
        folder = trainings.folder / "stopped" / "checkpoints"
        deadline = time.monotonic() + 120
        while not any(p.name.isdigit() for p in folder.glob("[0-9]*")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pair[1].send_signal(signal.SIGTERM)
        ends = [finish(process, seconds=60) for process in pair]
        assert {status for status, _, _ in ends} <= {128 + signal.SIGTERM, LOST}, ends
        assert any("asked to stop by signal 15" in err for _, _, err in ends), ends

    def test_replicas_must_reach_every_process(self, trainings):
        flags = ("--config.layout=shard_map", "--config.replicas=2")
        ends = [finish(process) for process in trainings.pair("few", *flags)]
        assert all(status in (2, LOST) for status, _, _ in ends), ends
        assert any("multiple of their 4 devices" in err for _, _, err in ends), ends
