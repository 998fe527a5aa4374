"""Checkpoints: the complete state of a run, written beside the old one and checked when read."""

import contextlib
import functools
import pathlib
import re
import shutil
import warnings
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from entropix.experiment.names import is_file_name
from entropix.rows import CHECKPOINTS
from entropix.runs.arrays import digest as digest_of
from entropix.runs.arrays import from_host, to_host
from entropix.runs.storage import alone, first_line, identity_of, without_tracebacks

# A checkpoint's folder: its outer step and, for a moment, which replacement of that step it is.
_NAME = re.compile(r"(0|[1-9]\d{0,17})(?:\.([1-9]\d{0,8}))?", re.ASCII)
_UNFINISHED = "*.orbax-checkpoint-tmp*"


class Checkpoint(NamedTuple):
    """What was saved.

    Attributes:
      step: outer steps done.
      state: the arrays.
      record: what is not an array: metric rows, failures, clocks.
    """

    step: int
    state: Any
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, newest last, at most `keep` of them.

    Orbax writes each one to a temporary folder and renames it when it is whole; only then are older
    ones removed, or one of the same step replaced. So a process killed at any moment, or a full
    disk, leaves the newest or the one before it, whole. A digest of all arrays and of the record
    travels with them: what comes back is what was saved, or it counts as damaged.

    Args:
      workdir: of the run; checkpoints are in its folder `checkpoints`.
      keep: how many, so that one can be damaged: two, or more. With 0 they are only read, and a
        run that is writing them is not disturbed.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> with tempfile.TemporaryDirectory() as workdir, Checkpoints(workdir, 2) as checkpoints:
      ...   _ = checkpoints.save(Checkpoint(5, {"x": jnp.ones(3)}, {"rows": []}))
      ...   checkpoints.restore({"x": jnp.zeros(3)}).state["x"].tolist()
      [1.0, 1.0, 1.0]
    """

    def __init__(self, workdir: str | pathlib.Path, keep: int = 0):
        self._folder = pathlib.Path(workdir).resolve() / CHECKPOINTS
        self._keep = keep
        self._newest = ""  # its digest, once known

    @functools.cached_property
    def _storage(self) -> ocp.Checkpointer:
        if self._keep > 0:
            self._remove_unfinished()  # what a killed writer left
        options = alone()
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(
                multiprocessing_options=options,
                # Else threads wait for a folder that a full disk refuses: 300 s, after the end.
                async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
            ),
            state=ocp.StandardCheckpointHandler(multiprocessing_options=options),
            record=ocp.JsonCheckpointHandler(multiprocessing_options=options),
        )
        return ocp.Checkpointer(handler, multiprocessing_options=options)

    @property
    def newest(self) -> int | None:
        """Outer step of the newest checkpoint on disk, or None if there is none."""
        found = self._found()
        return found[-1][0] if found else None

    def save(self, checkpoint: Checkpoint) -> Any:
        """Writes a checkpoint, unless it is the newest one already; replaces one of the same step.

        Returns:
          The state as it was written: a copy, of `to_host`.

        Raises:
          OSError: if it could not be written; the message says which one is left.
        """
        state = to_host(checkpoint.state)
        digest = digest_of(state, checkpoint.record)
        if self.newest == checkpoint.step and self._newest == digest:
            return state
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            record=ocp.args.JsonSave(checkpoint.record | {"digest": digest}),
        )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with without_tracebacks():
                self._storage.save(self._beside(checkpoint.step), args=items)
        except Exception as error:  # the storage library has its own types for a full disk
            self._remove_unfinished()
            left = "There is no earlier one" if self.newest is None else (
                f"The checkpoint of outer step {self.newest} is as it was"
            )  # fmt: skip
            raise OSError(
                f"the checkpoint of outer step {checkpoint.step} could not be written to "
                f"{self._folder}: {first_line(error)}. {left}. If the disk is full or read-only, "
                "remedy that and run the same command again."
            ) from error
        self._newest = digest
        try:
            self._remove_older()
        except OSError as error:
            warnings.warn(
                f"the checkpoint of outer step {checkpoint.step} is saved, but an older one in "
                f"{self._folder} could not be removed ({error}).", stacklevel=2,
            )  # fmt: skip
        return state

    def restore(self, template: Any = None) -> Checkpoint | None:
        """Reads the newest checkpoint that is whole; damaged ones are passed over, with a warning.

        Args:
          template: arrays, or their `jax.ShapeDtypeStruct`s, like the state that was saved. None
            gives nested dictionaries, for a look at a run from outside.

        Returns:
          The `Checkpoint`, or None if there is none.

        Raises:
          ValueError: if the newest whole checkpoint's state does not look like `template`.
        """
        passed: list[object] = [None]
        while found := [
            (step, path, identity)
            for step, _, path in self._found()
            if (identity := identity_of(path)) not in passed
        ]:
            step, path, identity = found[-1]
            passed.append(identity)
            try:
                with without_tracebacks():
                    state, record = self._read(path)
            except (PermissionError, MemoryError):
                raise  # no damage
            except Exception as error:  # whatever a damaged file may cause
                if identity_of(path) != identity:
                    continue  # a run that goes on has replaced it meanwhile
                warnings.warn(
                    f"the checkpoint of outer step {step} in {self._folder} is damaged "
                    f"({first_line(error)}); the one before it is used or, if there is none, the "
                    "run begins again.",
                    stacklevel=2,
                )
                if self._keep > 0:
                    self._set_aside(path)
                continue
            return Checkpoint(
                step, state if template is None else from_host(template, state), record
            )
        return None

    def _read(self, path: pathlib.Path) -> tuple[Any, dict[str, Any]]:
        restored = self._storage.restore(
            path,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore()
            ),
        )
        record = dict(restored.record)
        digest = record.pop("digest")
        if digest != digest_of(restored.state, record):
            raise ValueError("its checksum is wrong")
        check_record(record)
        self._newest = digest
        return restored.state, record

    def keep_copy(self) -> None:
        """Copies the newest checkpoint out of the way of later ones, to `checkpoints_forked`."""
        if found := self._found():
            step, _, path = found[-1]
            copy = self._folder.parent / f"{CHECKPOINTS}_forked" / str(step)
            shutil.copytree(path, copy, dirs_exist_ok=True)

    def _found(self) -> list[tuple[int, int, pathlib.Path]]:
        """(outer step, replacement, folder) of each, oldest first; links lead elsewhere."""
        paths = self._folder.iterdir() if self._folder.is_dir() else []
        named = [(_NAME.fullmatch(path.name), path) for path in paths]
        return sorted(
            (int(name[1]), int(name[2] or 0), path)
            for name, path in named
            if name and path.is_dir() and not path.is_symlink()
        )

    def _beside(self, step: int) -> pathlib.Path:
        """Where a checkpoint can be written, such that it is then the newest of its step."""
        numbers = [number for at, number, _ in self._found() if at == step]
        return self._folder / (f"{step}.{numbers[-1] + 1}" if numbers else str(step))

    def _remove_older(self) -> None:
        """Leaves the newest of each of the last `keep` steps, under its plain name."""
        newest = {step: path for step, _, path in self._found()}
        kept = sorted(newest)[-self._keep :]
        for step, _, path in self._found():
            if step not in kept or path != newest[step]:
                shutil.rmtree(path)
        for step in kept:
            newest[step].rename(self._folder / str(step))

    def _remove_unfinished(self) -> None:
        for path in self._folder.glob(_UNFINISHED):
            shutil.rmtree(path, ignore_errors=True)

    def _set_aside(self, path: pathlib.Path) -> None:
        """Renames a damaged checkpoint, so that nothing is thrown away."""
        folder = self._folder.parent / f"{CHECKPOINTS}_damaged"
        folder.mkdir(exist_ok=True)
        taken = sum(1 for _ in folder.iterdir())
        while (aside := folder / f"{path.name}.{taken}").exists():
            taken += 1
        path.rename(aside)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        if "_storage" in self.__dict__:
            with contextlib.suppress(Exception):  # an error of saving is being reported already
                self._storage.close()


def check_record(record: dict[str, Any]) -> None:
    """Refuses a record whose rows cannot be written: their seeds and names become names of files.

    Raises:
      ValueError: if a row or a failure is no dictionary, its seed is no integer >= 0, or its run
        or algorithm is no name without slashes, of at most 200 characters.

    Example:
      >>> check_record({"rows": [{"algorithm": "../../x", "seed": 0}]})
      Traceback (most recent call last):
      ValueError: a row's algorithm must be the name of a file; got '../../x'
    """
    for row in (*record.get("rows", ()), *record.get("failures", ())):
        if not isinstance(row, dict):
            raise ValueError(f"a row must be a dictionary; got {type(row).__name__}")
        seed = row.get("seed", 0)
        if type(seed) is not int or seed < 0:
            raise ValueError(f"a row's seed must be an integer >= 0; got {seed!r:.60}")
        for field in ("run", "algorithm"):
            name = row.get(field, "-")
            if not is_file_name(name):
                raise ValueError(f"a row's {field} must be the name of a file; got {name!r:.60}")
