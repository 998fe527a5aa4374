"""Where measurements go: one JSON object a line, and TensorBoard."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

from entropix.files import write_atomic

Row = dict[str, Any]

METRICS_FILE = "metrics.jsonl"
_CURVES = ("minibatch_loss", "train_loss", "train_error", "val_loss", "val_error", "gamma")


class MetricWriter:
    """Appends rows to `metrics.jsonl` and TensorBoard events; each row is on the disk at once.

    Args:
      folder: of one run; made if missing.
      rows: those to begin with, of a run that is continued. What the folder held is replaced.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   with MetricWriter(folder) as writer:
      ...     writer.write({"algorithm": "hj", "seed": 0, "effective_epochs": 1.0,
      ...                   "gradient_evaluations": 60, "val_error": 3.5})
      ...   read_metrics([pathlib.Path(folder)])[0]["val_error"]
      3.5
    """

    def __init__(self, folder: str | pathlib.Path, rows: Iterable[Row] = ()):
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Events are written anew; partial files are what a killed writer of the metrics left.
        for pattern in ("tensorboard/seed_*/events.*", f"{METRICS_FILE}{'?' * 8}"):
            for stale in self._folder.glob(pattern):
                stale.unlink()
        self._boards: dict[int, SummaryWriter] = {}
        self._path = self._folder / METRICS_FILE
        rows = list(rows)
        with self._named_errors():
            write_atomic(self._path, "".join(_line(row) for row in rows).encode())
            self._file = self._path.open("a")
        for row in rows:
            self._plot(row)

    def write(self, row: Row) -> None:
        """Writes one row: the state of one seed at one evaluation.

        Raises:
          OSError: naming the file, if the disk is full.
        """
        with self._named_errors():
            self._file.write(_line(row))
            self._file.flush()
            os.fsync(self._file.fileno())
        self._plot(row)

    def _plot(self, row: Row) -> None:
        seed = row["seed"]
        if seed not in self._boards:
            folder = self._folder / "tensorboard" / f"seed_{seed}"
            self._boards[seed] = SummaryWriter(str(folder))
        if not _is_alive(self._boards[seed]):
            raise OSError(
                f"TensorBoard's events in {self._folder} could not be written. Free some space and "
                "run the same command again: it continues from the last checkpoint."
            )
        for name in _CURVES:
            if row.get(name) is not None:
                self._boards[seed].add_scalar(name, row[name], row["gradient_evaluations"])

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"{self._path} could not be written ({error.strerror}). Free some space, or "
                "restore the permissions, and run the same command again: it continues from the "
                "last checkpoint."
            ) from error

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        boards = [board for board in self._boards.values() if _is_alive(board)]
        for closing in (self._file, *boards):
            with contextlib.suppress(OSError):  # a full disk is being reported already
                closing.close()


def read_metrics(folders: Iterable[pathlib.Path]) -> list[Row]:
    """Reads the rows of several runs, in order.

    Raises:
      ValueError: if a folder has no metric file, or a line of it is not a JSON object.
    """
    rows = []
    for folder in folders:
        path = pathlib.Path(folder) / METRICS_FILE
        if not path.exists():
            raise ValueError(f"{path} does not exist: no run of `entropix` has finished there.")
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}, is not JSON: {error}. If its run was killed, run the "
                    "same command again."
                ) from error
    return rows


def _is_alive(board: SummaryWriter) -> bool:
    """Whether its thread still writes: it dies of a full disk, and then blocks whoever waits."""
    return board.file_writer.event_writer._worker.is_alive()


def _line(row: Row) -> str:
    return json.dumps({k: _plain(v) for k, v in row.items()}) + "\n"


def _plain(value: Any) -> Any:
    """A Python number or string; JSON has no word for NaN, so a non-finite number becomes null."""
    if isinstance(value, np.generic) or hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
