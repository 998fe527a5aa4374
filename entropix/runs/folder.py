"""The folder of one run: whose it is, what was asked of it, and whether it is finished."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import pathlib
from collections.abc import Iterator
from importlib import metadata

import jax

import entropix
from entropix.experiment.run import Run
from entropix.files import UNSUPPORTED, write_atomic
from entropix.rows import COMPLETE_FILE, Row, digest_of_rows, has_results, read_rows
from entropix.run_file import (
    RunFile,
    differing,
    differs_beyond_budget,
    read_run_file,
    write_run_file,
)
from entropix.runs.record import Failure

_log = logging.getLogger(__name__)
_FORKS = "forks.jsonl"
# Why a run cannot be forked.
DIVERGED = (
    "has seeds that diverged, whose states are behind the others': it cannot be forked. Choose "
    "another workdir."
)
SPENT = (
    "has spent all gradients of this budget: a fork would train nothing. Raise the budget "
    "(config.num_evals), or choose another workdir."
)


class RunFolder:
    """Reads and writes everything in a run's folder but metrics and checkpoints.

    `run.json` says whose results the folder holds. It is compared with the run at every use.

    Args:
      path: of the folder; it need not exist.
      run: whose it is to be.
    """

    def __init__(self, path: str | pathlib.Path, run: Run):
        self.path, self._run = pathlib.Path(path), run
        self._identity = run.identity

    def check(self, fork: bool) -> list[str]:
        """The fields in which the folder's run differs, all of them to be forked; often none.

        Args:
          fork: whether to go on all the same, from the other's checkpoint.

        Raises:
          ValueError: if the folder holds the results of another run, and `fork` is False.
        """
        fields = self.changed()
        if fields and not fork:
            raise ValueError(
                f"{self.path} holds results of another run: it differs in {', '.join(fields)}. "
                "Choose another workdir, go back to those values, or say fork=True (--fork) to "
                "continue from its last checkpoint with the new ones."
                + self._about_versions(fields)
            )
        return fields

    def check_fork(self) -> None:
        """Raises `ValueError` if the rows tell that the folder's run cannot be forked."""
        try:
            rows = read_rows(self.path)
        except (OSError, ValueError):
            return  # the newest checkpoint has them too, and tells when the fork begins
        diverged = {row.seed for row in rows if None in (m.value for m in row.measures.values())}
        if diverged and diverged != {row.seed for row in rows}:
            raise ValueError(f"the run in {self.path} {DIVERGED}")
        ended = (self.path / COMPLETE_FILE).exists() and not diverged
        if ended and max(row.gradients for row in rows) >= self._run.budget.gradients:
            raise ValueError(f"the run in {self.path} {SPENT}")

    def _about_versions(self, fields: list[str]) -> str:
        """A digest is of a program as JAX writes it: another JAX may write it in another way."""
        before, installed = read_run_file(self.path).versions.get("jax"), metadata.version("jax")
        if before == installed or not all(field.endswith("digest") for field in fields):
            return ""
        return (
            f" (It was made with jax {before}, and this is {installed}: the digests may differ by "
            "that.)"
        )

    def changed(self) -> list[str]:
        """The fields in which the run differs from the one that the folder holds; often none."""
        if not self.begun():
            return []
        saved = read_run_file(self.path)
        before = {**saved.identity, "seeds": saved.seeds}
        return sorted(differing(before, {**self._identity, "seeds": list(self._run.seeds)}))

    def forked(self) -> bool:
        """Whether the run went on from one that differed in more than the budget."""
        parents = (json.loads(line)["identity"] for line in self._parents())
        return any(differs_beyond_budget(differing(p, self._identity)) for p in parents)

    def _parents(self) -> list[str]:
        """The runs that this one is a fork of, a line each; one half written was no fork yet."""
        forks = self.path / _FORKS
        lines = forks.read_text().splitlines(keepends=True) if forks.exists() else []
        return [line.rstrip("\n") for line in lines if line.endswith("\n")]

    def begun(self) -> bool:
        """Whether the folder holds results."""
        return has_results(self.path)

    def finished(self) -> tuple[list[Row], list[Failure]] | None:
        """The rows and failures, if the run is finished and its metrics are whole; else None."""
        path = self.path / COMPLETE_FILE
        if not path.exists() or self.changed():
            return None
        try:
            complete = json.loads(path.read_text())
            failures = [Failure(**failure) for failure in complete["failures"]]
            rows = read_rows(self.path)
            if complete["digest"] == digest_of_rows(rows):
                label = self._run.label
                return [dataclasses.replace(row, label=label) for row in rows], failures
        except (ValueError, KeyError, TypeError):
            pass
        _log.warning("%s: the metrics are damaged; they are made again", self.path)
        return None

    def begin(self) -> None:
        """Writes whose the folder is; what it was before goes to `forks.jsonl`."""
        old = read_run_file(self.path) if self.begun() else None
        changed = bool(self.changed())
        if old is not None and changed:
            lines = [*self._parents(), json.dumps(old._asdict())]
            write_atomic(self.path / _FORKS, "".join(f"{line}\n" for line in lines).encode())
        (self.path / COMPLETE_FILE).unlink(missing_ok=True)
        versions, before = _versions(), {} if old is None else old.versions
        other = sorted(n for n in versions if before.get(n, versions[n]) != versions[n])
        if other:
            _log.warning(
                "%s was begun with other versions of %s: numbers may differ in their last bits "
                "from those of a run without a break.", self.path, ", ".join(other),
            )  # fmt: skip
        run, seeds = self._run, list(self._run.seeds)
        content = RunFile(
            run.name, run.label, run.algorithm.colour, self._identity, seeds,
            before if old is not None and not changed else versions, run.config,
        )  # fmt: skip
        write_run_file(self.path, content)

    def relabel(self) -> None:
        """Takes over the run's label, which is no part of its identity."""
        saved = read_run_file(self.path)
        if saved.label != self._run.label:
            with contextlib.suppress(OSError):  # a folder that is only read keeps its own
                write_run_file(self.path, saved._replace(label=self._run.label))

    def finish(self, rows: list[Row], failures: list[Failure]) -> None:
        """Marks the run as finished, with these rows."""
        content = {
            "digest": digest_of_rows(rows),
            "failures": [failure._asdict() for failure in failures],
        }
        text = json.dumps(content, indent=2) + "\n"
        write_atomic(self.path / COMPLETE_FILE, text.encode())


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "optax", "flax", "numpy")
    return (
        {"entropix": entropix.__version__}
        | {p: metadata.version(p) for p in packages}
        | {"backend": jax.default_backend()}
    )


@contextlib.contextmanager
def claimed(path: pathlib.Path) -> Iterator[None]:
    """Makes a folder of results and keeps other processes out of it.

    Raises:
      ValueError: if another process is at work there.
      OSError: if the folder cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise OSError(
            f"cannot write to workdir={path} ({error.strerror}). Choose a folder that can be "
            "written."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until close, or death
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"another process is at work in {path}. Wait for it, end it, or choose another workdir."
        ) from error
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            os.close(descriptor)
            raise
        _log.warning("%s has no locks: start no second process there while this one works.", path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()  # only if it is empty: nothing was begun
        os.close(descriptor)
