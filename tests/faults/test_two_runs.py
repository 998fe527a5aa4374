"""Two runs on one folder: the second is refused in one sentence, and the first is unharmed."""

import random

import pytest
from faults.children import Child
from faults.rehearsal import FOREIGN, REFUSED, WELL, WRONG, Case, cases
from runs.survival import Experiment, assert_identical, result

pytestmark = pytest.mark.slow

PHASES = ("start", "load", "compile", "train", "evaluate", "save")


def test_the_second_run_is_refused_and_the_first_unharmed(tmp_path, counted):
    """The second one begins when the first is in any of its phases, or with it."""
    experiment, draw, found = Experiment(tmp_path, width=8), random.Random(0), []
    assert Child(experiment.argv("whole"), tmp_path / "whole.txt").end() == 0
    whole = result(tmp_path / "whole")
    for number in range(cases(100, len(PHASES) + 1)):
        name, phase = f"run_{number}", ("", *PHASES)[number % (len(PHASES) + 1)]
        first = Child(experiment.argv(name), tmp_path / f"{name}_first.txt")
        if phase:
            first.reaches(phase, draw.randint(1, 3) if phase in PHASES[3:] else 1)
        second = Child(experiment.argv(name), tmp_path / f"{name}_second.txt")
        statuses = [first.end(), second.end()]
        told = f"during {phase or 'the same start'}: {statuses}, {first.said!r}, {second.said!r}"
        try:
            assert_identical(result(tmp_path / name), whole)
        except AssertionError as error:
            found.append(Case(WRONG, f"{told}: {error}"))
            continue
        found.append(Case(judged(statuses, [first.said, second.said]), told))
    counted("two runs on one folder", found)


def judged(statuses, said):
    """One of them has trained; the other one is refused, or comes when all is done."""
    if any("Traceback" in text for text in said):
        return FOREIGN
    if statuses == [0, 0]:
        return WELL
    if sorted(statuses) != [0, 2]:
        return WRONG
    last = said[statuses.index(2)].splitlines()[-1]
    return REFUSED if last.startswith("entropix: another process is at work in ") else WRONG
