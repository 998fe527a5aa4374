"""Checkpoints: the complete state of a run, written atomically and checked when read."""

import contextlib
import functools
import hashlib
import json
import logging
import pathlib
import shutil
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax import tree_util

CHECKPOINTS = "checkpoints"


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

    Orbax writes each one to a temporary folder and renames it when it is whole, so a process killed
    while saving leaves the ones before. A digest of all arrays and of the record travels with them:
    what comes back is what was saved, or it counts as damaged.

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
    def _manager(self) -> ocp.CheckpointManager:
        """Made on first need, since it makes the folder."""
        if self._keep > 0:
            self._folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep or None,
            enable_async_checkpointing=False,  # the state is donated to the next step
            cleanup_tmp_directories=self._keep > 0,
            read_only=self._keep == 0,
            create=False,
            multiprocessing_options=_alone(),
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def save(self, checkpoint: Checkpoint) -> Any:
        """Writes a checkpoint, unless it is the newest one already; replaces one of the same step.

        Returns:
          The state as it was written: a copy, of `to_host`.

        Raises:
          OSError: if it could not be written; those before are intact.
        """
        state = to_host(checkpoint.state)
        digest = _digest(state, checkpoint.record)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            record=ocp.args.JsonSave(checkpoint.record | {"digest": digest}),
        )
        try:
            earlier = None
            if self._manager.latest_step() == checkpoint.step:
                if self._newest == digest:
                    return state
                earlier = self._set_aside(checkpoint.step, "replaced")
            with _without_tracebacks():
                saved = self._manager.save(checkpoint.step, args=items)
            if not saved:
                raise OSError("the storage library declined to")
            if earlier is not None:
                shutil.rmtree(earlier.parent)
        except Exception as error:  # the storage library has its own types for a full disk
            raise OSError(
                f"the checkpoint of outer step {checkpoint.step} could not be written to "
                f"{self._folder}: {_first_line(error)}. Earlier ones are intact. If the disk is "
                "full or read-only, remedy that and run the same command again."
            ) from error
        self._newest = digest
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
        if not self._folder.is_dir():
            return None
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                with _without_tracebacks():
                    state, record = self._read(step)
            except (PermissionError, MemoryError):
                raise  # no damage
            except Exception as error:  # whatever a damaged file may cause
                warnings.warn(
                    f"the checkpoint of outer step {step} in {self._folder} is damaged "
                    f"({_first_line(error)}); the one before it is used or, if there is none, the "
                    "run begins again.",
                    stacklevel=2,
                )
                if self._keep > 0:
                    self._set_aside(step, "damaged")
                continue
            return Checkpoint(
                step, state if template is None else from_host(template, state), record
            )
        return None

    def _read(self, step: int) -> tuple[Any, dict[str, Any]]:
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore()
            ),
        )
        record = dict(restored.record)
        digest = record.pop("digest")
        if digest != _digest(restored.state, record):
            raise ValueError("its checksum is wrong")
        self._newest = digest
        return restored.state, record

    def keep_copy(self) -> None:
        """Copies the newest checkpoint out of the way of later ones, to `checkpoints_forked`."""
        step = self._manager.latest_step()
        if step is not None:
            copy = self._folder.parent / f"{CHECKPOINTS}_forked" / str(step)
            shutil.copytree(self._folder / str(step), copy, dirs_exist_ok=True)

    def _set_aside(self, step: int, why: str) -> pathlib.Path:
        """Renames a checkpoint, so that nothing is thrown away and another can take its place."""
        folder = self._folder.parent / f"{CHECKPOINTS}_{why}"
        folder.mkdir(exist_ok=True)
        aside = folder / f"{step}.{sum(1 for _ in folder.iterdir())}"
        (self._folder / str(step)).rename(aside)
        self._manager.reload()
        return aside

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        if "_manager" in self.__dict__:
            with contextlib.suppress(Exception):  # an error of saving is being reported already
                self._manager.close()


def _alone() -> ocp.options.MultiprocessingOptions:
    """In a run of several processes one writes, whole arrays: the library waits for no other."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
    )


def to_host(tree: Any) -> Any:
    """Copies arrays to NumPy, keys as their data: free of devices, and safe from donation."""
    return jax.tree.map(lambda leaf: np.array(leaf), optax.tree.unwrap_random_key_data(tree))


def from_host(template: Any, state: Any) -> Any:
    """Puts what `to_host` made on the default device, in the structure of `template`.

    Raises:
      ValueError: if `state` has not just the arrays of `template`, by name, shape and dtype.
    """
    found = _named(state)

    def place(path: Any, like: Any) -> jax.Array:
        name = tree_util.keystr(path, simple=True, separator="/")
        leaf = found.pop(name, None)
        is_key = jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key)
        leaf = jax.random.wrap_key_data(leaf) if is_key and leaf is not None else leaf
        if leaf is None or (leaf.shape, leaf.dtype) != (like.shape, like.dtype):
            saved = "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
            raise ValueError(
                f"the checkpoint holds {saved} where this config needs {name} to be "
                f"{like.dtype}{list(like.shape)}: the model, the number of seeds or the algorithm "
                "is another. Choose another --workdir."
            )
        return jnp.array(leaf)

    placed = tree_util.tree_map_with_path(place, template)
    if found:
        raise ValueError(
            f"the checkpoint holds {', '.join(sorted(found)[:3])}, which this config does not "
            "know: the model or the algorithm is another. Choose another --workdir."
        )
    return placed


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, written alike for the tuples that are saved and the dictionaries read."""
    leaves = tree_util.tree_leaves_with_path(tree)
    return {tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _digest(state: Any, record: dict[str, Any]) -> str:
    """SHA-256 of the record and of every array's name, dtype, shape and bits."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, array in sorted(_named(state).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextlib.contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Keeps the storage library from printing the tracebacks of an error that we report ourselves.

    It logs them; and what else it was writing then reports to an event loop that it has closed, at
    any later time, so that after an error such reports stay filtered out.
    """
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level

    def filtered(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    logger.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = filtered
    try:
        yield
        sys.unraisablehook = hook
    finally:
        logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    """What happened, in one line; a long one's end has the operating system's reason."""
    line = (str(error).strip().splitlines() or [""])[0]
    line = line if len(line) <= 240 else f"{line[:80]} … {line[-160:]}"
    return f"{type(error).__name__}: {line}"
