"""Rows as series: runs, measures, and the curve of a measure over gradients."""

import collections
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from entropix.rows import FLATNESS, Row

_BASELINE = "sgd"


class Measure(NamedTuple):
    """What tables and figures need to know about a measure.

    Attributes:
      name: in the rows, such as "val_error".
      unit: "%", "nats", ...
      better: "lower" or "higher".
    """

    name: str
    unit: str
    better: str

    @property
    def words(self) -> str:
        """The name in words.

        Example:
          >>> Measure("val_error", "%", "lower").words
          'validation error'
        """
        name = self.name
        for short, long in (("val_", "validation_"), ("train_", "training_")):
            name = long + name.removeprefix(short) if name.startswith(short) else name
        return name.replace("_", " ")

    @property
    def title(self) -> str:
        """The name in words, and the unit."""
        return f"{self.words}, {self.unit}" if self.unit else self.words


def measures_of(rows: Sequence[Row], names: Sequence[str] | None = None) -> list[Measure]:
    """The measures of rows that a table or figure shows.

    Args:
      rows: of all runs.
      names: of the measures, the most important first. By default all that begin with `val_`,
        losses after others, then `train_loss`; if the rows have none of these, all there are but
        those of flatness, which have tables of their own.

    Raises:
      ValueError: for a name that no row has, one name in place of a list, or a measure that has
        two units or directions.
    """
    if isinstance(names, str):
        raise ValueError(f"measures must be a list of names; got {names!r}. Write [{names!r}].")
    found: dict[str, Measure] = {}
    for row in rows:
        for name, entry in row.measures.items():
            measure = Measure(name, entry.unit, entry.better)
            if measure != (first := found.setdefault(name, measure)):
                raise ValueError(
                    f"the measure {name} has the unit {first.unit!r}, {first.better} is better, in "
                    f"one run, and {measure.unit!r}, {measure.better}, in the run {row.run}. "
                    "Report these runs apart, or rename the measure."
                )
    if names is None:
        validation = (name for name in found if name.startswith("val_"))
        names = sorted(validation, key=lambda name: name.endswith("loss"))
        names += [name for name in ("train_loss",) if name in found]
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"no measure is called {unknown[0]!r}; the rows have {', '.join(found)}.")
    names = names or [name for name in found if not name.startswith(FLATNESS)]
    return [found[name] for name in names]


def baseline_of(runs: Collection[str], given: str | None = None) -> str:
    """The run that others are compared with: the given one, else "sgd", else the first.

    Raises:
      ValueError: if no run is called so.
    """
    baseline = given or (_BASELINE if _BASELINE in runs else next(iter(runs)))
    if baseline not in runs:
        raise ValueError(f"no run is called {baseline!r} (the baseline); known: {', '.join(runs)}.")
    return baseline


def by_run(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Groups rows by run, under labels; where several runs have one label, their names follow."""
    runs: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        runs[row.run].append(row)
    labels = distinct({run: of_run[0].label for run, of_run in runs.items()})
    return {labels[run]: of_run for run, of_run in runs.items()}


def distinct(labels: Mapping[str, str]) -> dict[str, str]:
    """Run -> label; where several runs have one label, their names follow.

    Example:
      >>> distinct({"hj": "HJ", "hj_wide": "HJ", "sgd": "SGD"})
      {'hj': 'HJ (hj)', 'hj_wide': 'HJ (hj_wide)', 'sgd': 'SGD'}
    """
    used = collections.Counter(labels.values())
    return {run: label if used[label] == 1 else f"{label} ({run})" for run, label in labels.items()}


def axis_of(rows: Sequence[Row]) -> str:
    """What rows are drawn over: effective epochs where all have them, else gradients."""
    has_epochs = all(row.effective_epochs is not None for row in rows)
    return "effective_epochs" if has_epochs else "gradients"


def curve(rows: Sequence[Row], name: str, axis: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Collects one curve.

    Args:
      rows: of one run.
      name: of a measure or of another field with numbers, such as "val_error" or "gamma".
      axis: "effective_epochs" or "gradients"; by default, the first if all rows have it.

    Returns:
      Effective epochs or gradients (of all replicas), shape (evaluations,), and values, shape
      (evaluations, seeds); what was not measured, or was not finite, is NaN.

    Raises:
      KeyError: for an axis that rows do not have.
      ValueError: for rows of several runs, where two rows are of one seed and one place on the
        axis; and for a field whose values are no numbers.

    Example:
      >>> from entropix.rows import Measurement, Row
      >>> rows = [Row("hj", "hj", "HJ", seed, 1, 5, 60 * n, 60 * n, 5.0 * n, 12 * n, 1.0, 1e-3, 0.3,
      ...             {"val_error": Measurement((9 + seed) / n, "%")})
      ...         for n in (1, 2) for seed in (0, 1)]
      >>> epochs, errors = curve(rows, "val_error")
      >>> epochs.tolist(), errors.tolist()  # a column for each seed
      ([5.0, 10.0], [[9.0, 10.0], [4.5, 5.0]])
    """
    axis = axis or axis_of(rows)
    values = [row.measures[name].value if name in row.measures else getattr(row, name, None)
              for row in rows]  # fmt: skip
    frame = pd.DataFrame(
        {"x": [row[axis] for row in rows], "seed": [row.seed for row in rows], "value": values}
    )
    table = frame.astype({"value": float}).pivot(index="x", columns="seed", values="value")
    return table.index.to_numpy(float), table.to_numpy(float)


def seeds_by_state(rows: Sequence[Row], unfinished: Collection[int] = ()) -> dict[str, list[int]]:
    """Sorts the seeds of one run into those that finished, diverged, and are unfinished.

    A seed has diverged if a measure of it was not finite. It is unfinished if it has not, and got
    less far than another seed, or is among those named.
    """
    states: dict[str, list[int]] = {"finished": [], "diverged": [], "unfinished": []}
    end = max((row.gradients for row in rows), default=0)
    for seed in sorted({row.seed for row in rows}):
        of_seed = [row for row in rows if row.seed == seed]
        if any(entry.value is None for row in of_seed for entry in row.measures.values()):
            states["diverged"].append(seed)
        elif seed in unfinished or max(row.gradients for row in of_seed) < end:
            states["unfinished"].append(seed)
        else:
            states["finished"].append(seed)
    return states
