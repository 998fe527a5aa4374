"""One process, or one of two, or both, killed again and again: the same end, bit for bit."""

import random
import signal
import time

import pytest
from faults.children import Child
from faults.rehearsal import FOREIGN, WELL, WRONG, Case, cases
from processes import free_port
from runs.survival import Experiment, assert_identical

from entropix.replicas.processes import LOST

pytestmark = pytest.mark.slow

REPLICAS = """
from entropix.experiment import make_config

def get_config(algorithms=""):
    return make_config(
        dataset="digits",
        model={{"name": "mlp", "widths": ({width},), "dropout": 0.2}},
        optimizers={{"elastic_sgd": {{"learning_rate": 0.1}}}},
        algorithms="elastic_sgd",
        replicas=(2,),
        layout="shard_map",
        seeds=2,
        batch_size=32,
        gradients_per_eval={gradients_per_eval},
        num_evals={num_evals},
        checkpoint_seconds={checkpoint_seconds},
    )
"""


def say(experiment, name):
    return experiment.folder / f"{name}_{time.monotonic_ns()}.txt"


def wait_for(experiment, name, target, child):
    """Waits until a checkpoint of so many outer steps is there, or the process has ended."""
    deadline = time.monotonic() + 120
    while experiment.newest(name) < target and time.monotonic() < deadline and child.runs:
        time.sleep(0.005)


def last_case(experiment, said):
    """The run after all kills against the one without."""
    try:
        assert_identical(experiment.result("broken"), experiment.result("whole"))
    except AssertionError as error:
        return Case(WRONG, str(error))
    return Case(FOREIGN if "Traceback" in said else WELL, said)


def test_one_process(tmp_path, counted):
    kills = cases(50, 5)
    steps = 4 * 8 * kills  # outer ones, four of them to an evaluation
    experiment, moments, left = Experiment(tmp_path, num_evals=8 * kills), random.Random(0), []
    assert Child(experiment.argv("whole"), say(experiment, "whole")).end() == 0
    for kill in range(kills):
        child = Child(experiment.argv("broken"), say(experiment, "broken"))
        if kill % 5 == 0:  # while it starts, reads a checkpoint, or begins to run
            time.sleep(moments.uniform(0.0, 2.0))
        else:  # while it runs and saves, ever later; the last third of the run is never reached
            target = int(steps * (kill + moments.random()) / (1.5 * kills))
            wait_for(experiment, "broken", target, child)
            time.sleep(moments.uniform(0.0, 0.3))
        child.kill(signal.SIGKILL)
        assert child.end() == -signal.SIGKILL, child.said
        left.append(experiment.newest("broken"))
    assert -1 < left[-1] < steps
    assert len(set(left)) > kills // 3  # it went on, and was killed in different places
    child = Child(experiment.argv("broken"), say(experiment, "broken"))
    assert child.end() == 0, child.said
    assert f"continuing at outer step {left[-1]}, with" in child.said
    counted("SIGKILL, one process", [last_case(experiment, child.said)] * kills)


def pair(experiment, name):
    shared = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    return [
        Child(experiment.argv(name, f"--process={k}", *shared), say(experiment, f"{name}_{k}"))
        for k in range(2)
    ]


def test_one_of_two_processes_or_both(tmp_path, counted):
    """Where one is killed, the other says so and ends; both are started again."""
    kills = cases(50, 5)
    steps = 2 * 2 * kills  # outer ones, two of them to an evaluation
    sizes = {"gradients_per_eval": 4, "num_evals": 2 * kills}
    experiment = Experiment(tmp_path, REPLICAS, **sizes)
    for child in pair(experiment, "whole"):
        assert child.end() == 0, child.said
    moments, left, found = random.Random(0), [], []
    for kill in range(kills):
        children = pair(experiment, "broken")
        victims = ((0,), (1,), (0, 1))[moments.randrange(3)]
        if kill % 5 == 0:  # while they start and meet: both, or the other would wait a minute
            victims = (0, 1)
            time.sleep(moments.uniform(0.0, 2.0))
        else:  # after they have met, and up to two thirds of the run
            assert all(child.reaches("compile") for child in children)
            target = int(steps * (kill + moments.random()) / (1.5 * kills))
            wait_for(experiment, "broken", target, children[0])
            time.sleep(moments.uniform(0.0, 0.3))
        for victim in victims:
            children[victim].kill(signal.SIGKILL)
        statuses = [child.end(60) for child in children]
        left.append(experiment.newest("broken"))
        told = f"{victims}: {statuses}, {[child.said for child in children]}"
        found.append(Case(judged(victims, statuses, children), told))
    assert -1 < left[-1] < steps
    assert len(set(left)) > kills // 3
    said = ""
    for child in pair(experiment, "broken"):
        assert child.end() == 0, child.said
        said += child.said
    last = last_case(experiment, said)
    counted("SIGKILL, one of two processes or both", [last if c.end == WELL else c for c in found])


def judged(victims, statuses, children):
    for process in {0, 1} - set(victims):
        said = children[process].said
        if "Traceback" in said:
            return FOREIGN
        gone = f"entropix: process {1 - process} has ended before its work was done"
        if statuses[process] != LOST or gone not in said:
            return WRONG
    return WELL
