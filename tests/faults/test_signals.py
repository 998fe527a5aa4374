"""Signals in every phase of a command: the documented status, at most one line, nothing lost.

A child says which phase it has reached; the signal comes a random moment later, which may be in the
next phase. Afterwards the same command goes on to the very same end.
"""

import random
import signal
import subprocess
import sys
import time

import pytest
from faults.children import Child
from faults.rehearsal import FOREIGN, REFUSED, WELL, WRONG, Case, cases
from runs.survival import Experiment, assert_identical, result

pytestmark = pytest.mark.slow

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Phase -> how often a run comes to it.
PHASES = {
    "start": 1, "load": 1, "compile": 1, "train": 4, "evaluate": 4, "save": 4, "report": 1,
    "figure": 1, "tune": 1,
}  # fmt: skip


def judged(status, said, signum):
    """How a process ended after a signal: `WELL` silently or by finishing, `REFUSED` in words."""
    if "Traceback" in said or "Exception ignored" in said:
        return FOREIGN
    lines = [line for line in said.splitlines() if line.startswith("entropix: ")]
    if status == 0 or (status == -signum and signum != signal.SIGINT):
        return WRONG if lines else WELL
    return REFUSED if status == 128 + signum and len(lines) == 1 else WRONG


def outcome(folder, command):
    """What a command has left, but for the clock."""
    if command == "tune":
        return [(folder / name).read_text() for name in ("tune_entropy_sgd.jsonl", "tuning.md")]
    return result(folder / "entropy_sgd")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    made = Experiment(tmp_path_factory.mktemp("signals"), width=8)
    for command in ("compare", "tune"):
        assert run(made, command, command).end() == 0
    return made


def run(experiment, name, command):
    flags = ("--trials=3",) if command == "tune" else ()
    argv = experiment.argv(name, *flags, command=command)
    return Child(argv, experiment.folder / f"{name}_{time.monotonic_ns()}.txt")


def one_case(experiment, number, draw):
    phase, signum = list(PHASES)[number % len(PHASES)], SIGNALS[number // len(PHASES) % 4]
    command, name = "tune" if phase == "tune" else "compare", f"run_{number}"
    child = run(experiment, name, command)
    child.reaches(phase, draw.randint(1, PHASES[phase]))
    time.sleep(draw.uniform(0, 0.2) * draw.randint(0, 1))
    child.kill(signum)
    if signum == signal.SIGINT and draw.random() < 0.3:  # pressed twice
        time.sleep(draw.uniform(0, 0.1))
        child.kill(signum)
    status = child.end()
    told = f"{signal.Signals(signum).name} in {phase} of {command}: {status}, {child.said!r}"
    end = judged(status, child.said, signum)
    if end not in (WELL, REFUSED):
        return Case(end, told)
    again = run(experiment, name, command)
    if again.end() != 0:
        return Case(WRONG, f"{told}, and then {again.said!r}")
    found, expected = (outcome(experiment.folder / n, command) for n in (name, command))
    try:
        if command == "tune":
            assert found == expected
        else:
            assert_identical(found, expected)
    except AssertionError as error:
        return Case(WRONG, f"{told}: {error}")
    return Case(end, told)


def test_signals_at_every_phase(experiment, counted):
    draw = random.Random(0)
    found = [one_case(experiment, number, draw) for number in range(cases(360, len(PHASES)))]
    counted("signals in every phase", found)


def test_ctrl_c_while_the_command_is_imported_or_ends(counted):
    """A process of its own, as `python -m entropix` or the installed command, at random times."""
    installed = "import sys, entropix_command; sys.exit(entropix_command.main())"
    whole, found, draw = {}, [], random.Random(0)
    for number in range(cases(60, 4)):
        command = (["-m", "entropix"], ["-c", installed])[number % 2]
        key = command[0]
        if key not in whole:
            whole[key] = pressed(command, None)[2]
        delay = draw.uniform(0.02, whole[key])
        status, said, _ = pressed(command, delay)
        end = judged(status, said, signal.SIGINT)
        found.append(Case(end, f"Ctrl-C after {delay:.2f} s of {command}: {status}, {said!r}"))
    counted("Ctrl-C while importing or ending", found)


def pressed(command, delay):
    """Runs a short command, with Ctrl-C after a time: status, what was said, seconds."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *command, "report", "no/such/folder"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = ""
    for line in process.stderr:  # Python has imported its own modules, and the command's first
        if "entropix_command" in line:
            break
        said += line
    start = time.monotonic()
    if delay is not None:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
    said += process.communicate()[1]
    imports = ("import time:",)
    left = [line for line in said.splitlines(keepends=True) if not line.startswith(imports)]
    status, text = process.returncode, "".join(left)
    refused = status == 2 and "no/such/folder does not exist" in text  # it was done before
    return 0 if refused else status, "" if refused else text, time.monotonic() - start
