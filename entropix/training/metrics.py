"""Where measurements go: one JSON object a line, and TensorBoard."""

import json
import pathlib
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

METRICS_FILE = "metrics.jsonl"
_CURVES = ("minibatch_loss", "train_loss", "train_error", "val_loss", "val_error", "gamma")


class MetricWriter:
    """Appends rows to `metrics.jsonl` and TensorBoard events, flushed row by row.

    Args:
      folder: of one run; made if missing. Rows already there are replaced.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   with MetricWriter(folder) as writer:
      ...     writer.write({"algorithm": "hj", "seed": 0, "effective_epochs": 1.0,
      ...                   "gradient_evaluations": 60, "val_error": 3.5})
      ...   read_metrics([pathlib.Path(folder)])[0]["val_error"]
      3.5
    """

    def __init__(self, folder: str | pathlib.Path):
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        for stale in self._folder.glob("tensorboard/seed_*/events.*"):
            stale.unlink()
        self._rows = (self._folder / METRICS_FILE).open("w")
        self._boards: dict[int, SummaryWriter] = {}

    def write(self, row: dict[str, Any]) -> None:
        """Writes one row: the state of one seed at one evaluation."""
        self._rows.write(json.dumps({k: _plain(v) for k, v in row.items()}) + "\n")
        self._rows.flush()
        seed = row["seed"]
        if seed not in self._boards:
            folder = self._folder / "tensorboard" / f"seed_{seed}"
            self._boards[seed] = SummaryWriter(str(folder))
        for name in _CURVES:
            if row.get(name) is not None:
                self._boards[seed].add_scalar(name, row[name], row["gradient_evaluations"])

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._rows.close()
        for board in self._boards.values():
            board.close()


def read_metrics(folders: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
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
                raise ValueError(f"{path}, line {number}, is not JSON: {error}") from error
    return rows


def _plain(value: Any) -> Any:
    """A Python number or string; JSON has no word for NaN, so a non-finite number becomes null."""
    if isinstance(value, np.generic) or hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
