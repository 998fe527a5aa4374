"""The command in child processes that are forked where all is imported: a start takes a moment.

A child tells its parent in which phase it is (`PHASES`), so that a fault can hit a phase, and not
just a time. What it prints goes to a file.
"""

import contextlib
import multiprocessing
import os
import pathlib
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import entropix.cli
import entropix.report
import entropix.workflow
import entropix_command
from entropix.runs import checkpoint, loop
from entropix.runs import train as train_module

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["faults.children", "pytest", "sklearn.datasets", "matplotlib.pyplot"]
)

# Phase -> the function that begins it.
PHASES: dict[str, tuple[Any, str]] = {
    "start": (entropix.cli, "parse"),
    "load": (entropix.workflow, "plan"),
    "compile": (train_module, "make_programs"),
    "train": (loop.Loop, "_advance"),
    "evaluate": (loop.Loop, "_evaluate"),
    "save": (checkpoint.Checkpoints, "save"),
    "tune": (entropix.workflow, "tune_runs"),
    "report": (entropix.workflow, "gather"),
    "figure": (entropix.report, "convergence"),
}


class Child:
    """One command that runs in a process of its own.

    Args:
      argv: the command line, without the program's name.
      said: gets what it prints.
    """

    def __init__(self, argv: list[str], said: pathlib.Path):
        self._phases, theirs = _CONTEXT.Pipe(duplex=False)
        self._said, self._process = said, _CONTEXT.Process(target=_main, args=(argv, said, theirs))
        self._process.start()
        theirs.close()

    def reaches(self, phase: str, times: int = 1, seconds: float = 120.0) -> bool:
        """Waits until a phase has begun so many times; False if the process ends before."""
        deadline = time.monotonic() + seconds
        while times > 0:
            assert self._phases.poll(deadline - time.monotonic()), f"no {phase}: {self.said}"
            try:
                times -= self._phases.recv() == phase
            except EOFError:
                return False
        return True

    def kill(self, signum: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self._process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signum)

    def end(self, seconds: float = 300.0) -> int:
        """Waits for the end: its exit status, or -n for signal n."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            raise AssertionError(f"still running after {seconds} s: {self.said}")
        self._phases.close()
        return self._process.exitcode

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._said.read_text() if self._said.exists() else ""


def _main(argv: list[str], said: pathlib.Path, phases: Connection) -> None:
    with said.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    for name, (owner, attribute) in PHASES.items():
        setattr(owner, attribute, _announced(getattr(owner, attribute), name, phases))
    sys.argv = ["entropix", *argv]
    status = entropix_command.main()
    sys.stdout.flush()
    os._exit(status)


def _announced(function: Any, name: str, phases: Connection) -> Any:
    def announced(*arguments: Any, **options: Any) -> Any:
        phases.send(name)
        return function(*arguments, **options)

    return announced
