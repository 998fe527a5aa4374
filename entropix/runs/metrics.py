"""Where measurements go: one JSON object a line, and TensorBoard."""

import contextlib
import os
import pathlib
from collections.abc import Iterable
from types import TracebackType

from tensorboardX import SummaryWriter

from entropix.files import write_atomic, writing
from entropix.rows import METRICS_FILE, Row, rows_as_lines


class MetricWriter:
    """Appends rows to `metrics.jsonl` and TensorBoard events; each row is on the disk at once.

    Args:
      folder: of one run; made if missing.
      rows: those to begin with, of a run that is continued. What the folder held is replaced.
    """

    def __init__(self, folder: str | pathlib.Path, rows: Iterable[Row] = ()):
        self._folder = pathlib.Path(folder)
        self._boards: dict[int, SummaryWriter] = {}
        self._path = self._folder / METRICS_FILE
        rows = list(rows)
        with writing(self._path):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Events are written anew; partial files are what a killed writer of the metrics left.
            for pattern in ("tensorboard/seed_*/events.*", f"{METRICS_FILE}{'?' * 8}"):
                for stale in self._folder.glob(pattern):
                    stale.unlink()
            write_atomic(self._path, rows_as_lines(rows))
            self._file = self._path.open("a")
        for row in rows:
            self._plot(row)

    def write(self, row: Row) -> None:
        """Writes one row: the state of one seed at one evaluation.

        Raises:
          OSError: naming the file, if the disk is full.
        """
        with writing(self._path):
            self._file.write(row.to_json() + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self._plot(row)

    def _plot(self, row: Row) -> None:
        seed = row.seed
        if seed not in self._boards:
            folder = self._folder / "tensorboard" / f"seed_{seed}"
            with writing(folder):
                self._boards[seed] = SummaryWriter(str(folder))
        if not _is_alive(self._boards[seed]):
            raise OSError(
                f"TensorBoard's events in {self._folder} could not be written. Free some space and "
                "run the same command again: it continues from the last checkpoint."
            )
        values = {name: measurement.value for name, measurement in row.measures.items()}
        values |= {"minibatch_loss": row.minibatch_loss, "gamma": row.gamma}
        for name, value in values.items():
            if value is not None:
                self._boards[seed].add_scalar(name, value, row.gradients)

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


def _is_alive(board: SummaryWriter) -> bool:
    """Whether its thread still writes: it dies of a full disk, and then blocks whoever waits."""
    return board.file_writer.event_writer._worker.is_alive()
