"""What a run tells while it works: a bar in a terminal, a line per evaluation elsewhere."""

import datetime
import logging
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from entropix.rows import FLATNESS, Row

_log = logging.getLogger(__name__)


def in_terminal() -> bool:
    """Whether standard error is a terminal."""
    return _is_open() and sys.stderr.isatty()


def _is_open() -> bool:
    """Whether there is a standard error; a program may be started without one, or close it."""
    return sys.stderr is not None and not sys.stderr.closed


class Progress:
    """Shows how far a run is.

    Args:
      name: of the run.
      total: gradients of the whole run.
      done: gradients done before.
      bar: True for a bar, False for a line per evaluation, None for nothing. Lines are logged, or
        written to standard error where nothing is logged at that level.
    """

    def __init__(self, name: str, total: int, done: int, bar: bool | None):
        self._name, self._total, self._first = name, total, done
        self._lines, self._start = bar is False, time.monotonic()
        self._bar = tqdm(
            total=total, initial=done, desc=f"{name:>12}", unit="gradient", unit_scale=True,
            disable=not bar,
        )  # fmt: skip

    def advance(self, gradients: int) -> None:
        """Some gradients more are done."""
        self._bar.update(gradients - self._bar.n)

    def evaluated(self, rows: Sequence[Row]) -> None:
        """An evaluation is done; `rows` are its rows, one for each seed that is running."""
        if not rows:
            return
        shown = _means(rows)
        self._bar.set_postfix(shown)
        if not self._lines:
            return
        done = rows[0].gradients
        seconds = (time.monotonic() - self._start) / max(done - self._first, 1)
        left = datetime.timedelta(seconds=max(0, round(seconds * (self._total - done))))
        values = ", ".join(f"{name} {value}" for name, value in shown.items())
        line = (
            f"{self._name}: {done:,} of {self._total:,} gradients, {values}; "
            f"{1 / max(seconds, 1e-9):.3g} gradients/s, {left} left"
        )
        # Logging is switched on by the command, or by the user.
        if _log.isEnabledFor(logging.INFO) and _log.hasHandlers():
            _log.info(line)
        elif _is_open():
            print(line, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


def _means(rows: Sequence[Row]) -> Mapping[str, str]:
    """Means over seeds of the mini-batch loss and what was measured on the validation set."""
    known = [name for name in rows[0].measures if not name.startswith(FLATNESS)]
    names = [name for name in known if name.startswith("val_")] or known
    found = {"loss": f"{_mean([row.minibatch_loss for row in rows]):.4g}"}
    for name in names:
        unit = rows[0].measures[name].unit
        unit = unit if unit == "%" else f" {unit}".rstrip()
        found[name] = f"{_mean([row[name] for row in rows]):.4g}{unit}"
    if rows[0].gamma is not None:
        found["gamma"] = f"{rows[0].gamma:.3g}"
    return found


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
