"""Real processes that are asked to stop, or meet a full disk, go on to the very same end.

Those that are killed are in `tests/faults/test_kills.py`.
"""

import signal
import time

import pytest
from runs.survival import Experiment, assert_identical


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """One evaluation only, at the end, some seconds after the start."""
    experiment = Experiment(
        tmp_path_factory.mktemp("long"), gradients_per_eval=20_000, num_evals=1, width=256,
        checkpoint_seconds=1000.0,
    )  # fmt: skip
    experiment.finish("whole")
    return experiment


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_saves_first(long_run, signum):
    name = signum.name
    process = long_run.start(name)
    metrics = long_run.folder / name / "metrics.jsonl"  # made when the loop begins
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "The same command continues there" in said
    stopped = long_run.newest(name)
    assert 0 < stopped < 4000
    assert metrics.read_text() == ""  # in the middle of an interval
    said = long_run.finish(name)
    assert f"continuing at outer step {stopped}, with {5 * stopped} of 20000 gradients" in said
    assert_identical(long_run.result(name), long_run.result("whole"))


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(long_run):
    """No file may grow beyond 64 KiB: smaller than an array, larger than all else."""
    process = long_run.start("full")
    metrics = long_run.folder / "full" / "metrics.jsonl"
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    stopped = long_run.newest("full")

    process = long_run.start("full", "--config.checkpoint_seconds=0", file_limit=65536)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert "could not be written to" in said
    assert "is as it was" in said
    assert long_run.newest("full") == stopped
    said = long_run.finish("full")
    assert f"continuing at outer step {stopped}, with {5 * stopped} of 20000 gradients" in said
    assert_identical(long_run.result("full"), long_run.result("whole"))


def test_a_folder_that_cannot_be_written_is_named_before_work_starts(tmp_path):
    experiment = Experiment(tmp_path)
    (tmp_path / "file").touch()
    process = experiment.start("file/below")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert "cannot write to workdir=" in said
