"""The folder of one run: whose it is, what was asked of it, and whether it is finished."""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

import entropix
from entropix.files import write_atomic
from entropix.training.checkpoint import CHECKPOINTS
from entropix.training.metrics import METRICS_FILE

_log = logging.getLogger(__name__)
_CONFIG, _VERSIONS, _COMPLETE, _FORKS = (
    "config.json",
    "versions.json",
    "complete.json",
    "forks.jsonl",
)
# What may change between two calls without changing a result.
# (Where replicas live changes the order in which sums are rounded, and no more.)
IRRELEVANT = (
    "data_dir", "checkpoint_seconds", "checkpoints_kept", "search", "layout", "devices",
)  # fmt: skip


class RunFolder:
    """Reads and writes everything in a run's folder but metrics and checkpoints.

    Args:
      path: of the folder; it need not exist.
      config: of the run.
    """

    def __init__(self, path: str | pathlib.Path, config: ConfigDict):
        self.path = pathlib.Path(path)
        self._config = json.loads(config.to_json())

    def check(self, fork: bool) -> None:
        """Raises `ValueError` if the folder holds the results of another config.

        Args:
          fork: whether to go on all the same, from the other's checkpoint.
        """
        fields = self.changed()
        if fields and not fork:
            raise ValueError(
                f"{self.path} holds results of another config: it differs in "
                f"{', '.join(fields)}. Choose another --workdir, go back to that config, or say "
                "--fork to continue from its last checkpoint under the new config."
            )

    def failures(self) -> list[dict[str, Any]] | None:
        """The seeds that failed, if the run is finished and its metrics are whole; else None."""
        complete = self._read(_COMPLETE)
        if self.changed() or not complete:
            return None
        metrics = self.path / METRICS_FILE
        lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        return complete.get("failures", []) if lines == complete["rows"] else None

    def begin(self) -> None:
        """Writes the config and the versions; an older config goes to `forks.jsonl`."""
        if self.changed():
            with (self.path / _FORKS).open("a") as file:
                file.write(json.dumps(self._read(_CONFIG)) + "\n")
        (self.path / _COMPLETE).unlink(missing_ok=True)
        versions, old = _versions(), self._read(_VERSIONS)
        other = sorted(name for name in versions if old.get(name, versions[name]) != versions[name])
        if other:
            _log.warning(
                "%s was begun with other versions of %s: numbers may differ in their last bits "
                "from those of a run without a break.", self.path, ", ".join(other),
            )  # fmt: skip
        write_atomic(self.path / _CONFIG, _json(self._config))
        write_atomic(self.path / _VERSIONS, _json(versions))

    def finish(self, rows: int, failures: list[dict[str, Any]]) -> None:
        """Marks the run as finished."""
        write_atomic(self.path / _COMPLETE, _json({"rows": rows, "failures": failures}))

    def changed(self) -> list[str]:
        """The fields in which the config of earlier results differs; none without results."""
        old, metrics = self._read(_CONFIG), self.path / METRICS_FILE
        begun = metrics.exists() and metrics.stat().st_size > 0
        if not old or not (begun or any((self.path / CHECKPOINTS).glob("[0-9]*"))):
            return []
        old, new = flatten_dict(old, sep="."), flatten_dict(self._config, sep=".")
        fields = sorted(k for k in old | new if old.get(k) != new.get(k))
        return [field for field in fields if field.partition(".")[0] not in IRRELEVANT]

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else {}


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
            f"cannot write to --workdir={path} ({error.strerror}). Choose a folder that can be "
            "written."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until close, or death
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            f"another process is at work in {path}. Wait for it, end it, or choose another "
            "--workdir."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()  # only if it is empty: nothing was begun
        os.close(descriptor)


def _json(tree: dict[str, Any]) -> bytes:
    return (json.dumps(tree, indent=2) + "\n").encode()
