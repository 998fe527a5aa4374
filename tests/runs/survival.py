"""Runs as they lie on the disk, and as real processes, for tests of what interrupts them."""

import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from entropix.runs.checkpoint import Checkpoints

# What the storage library had still to write, or to read, when a file failed complains when it is
# collected: in a later test, perhaps.
leaves_coroutines = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG = """
from entropix.experiment import make_config

def get_config(algorithms=""):
    return make_config(
        dataset="digits",
        model={{"name": "mlp", "widths": ({width},), "input_dropout": 0.1, "dropout": 0.2}},
        optimizers={{"entropy_sgd": {{"num_steps": 5, "gamma_end": 0.5}}}},
        algorithms="entropy_sgd",
        seeds=2,
        batch_size=32,
        gradients_per_eval={gradients_per_eval},
        num_evals={num_evals},
        checkpoint_seconds={checkpoint_seconds},
    )
"""


@contextlib.contextmanager
def no_file_beyond(size: int):
    """No file of this process may be longer, as where no space is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Experiment:
    """One experiment that processes run, again and again, in folders below `folder`."""

    def __init__(self, folder: pathlib.Path, config: str = CONFIG, **options):
        defaults = {"width": 16, "gradients_per_eval": 20, "num_evals": 4}
        self.folder = folder
        self.config = folder / "config.py"
        self.config.write_text(config.format(**{"checkpoint_seconds": 0.0} | defaults | options))

    def argv(self, name: str, *flags: str, command: str = "train") -> list[str]:
        """The command line, without the program's name, of a run in the folder `name`."""
        workdir = f"--workdir={self.folder / name}"
        return [command, f"--config={self.config}", workdir, "--noprogress", *flags]

    def start(self, name: str, *flags: str, file_limit: int | None = None) -> subprocess.Popen:
        """Starts a process that trains; none of its files may exceed `file_limit` bytes."""
        command = [sys.executable, "-m", "entropix"]
        if file_limit is not None:  # by a shell, since forking with threads is not safe
            command = ["sh", "-c", f'ulimit -f {file_limit // 512}; exec "$@"', "sh", *command]
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled"),
            "JAX_ENABLE_COMPILATION_CACHE": "true",
        }
        return subprocess.Popen(
            [*command, *self.argv(name, *flags)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, name: str, *flags: str) -> str:
        """Runs to the end and returns what was said on standard error."""
        process = self.start(name, *flags)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def newest(self, name: str) -> int:
        """Outer steps of the newest checkpoint, or -1."""
        steps = (self.folder / name / "checkpoints").glob("[0-9]*")
        return max((int(path.name) for path in steps if path.name.isdigit()), default=-1)

    def result(self, name: str) -> tuple[list[dict], dict[str, np.ndarray]]:
        """All measurements but the clock's, and all arrays of the last checkpoint."""
        return result(self.folder / name)


def result(workdir: pathlib.Path) -> tuple[list[dict], dict[str, np.ndarray]]:
    """What a run left, but for the clock."""
    return rows(workdir), arrays(workdir)


def rows(workdir: pathlib.Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(li).items() if "seconds" not in k} for li in lines]


def arrays(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    with Checkpoints(workdir) as checkpoints:
        found = checkpoints.restore()
    flat = flatten_dict(found.state, sep="/")
    return {name: value for name, value in flat.items() if hasattr(value, "dtype")}


def assert_identical(result, other) -> None:
    assert result[0] == other[0]
    assert result[1].keys() == other[1].keys()
    for name, array in result[1].items():
        np.testing.assert_array_equal(array, other[1][name], err_msg=name)
