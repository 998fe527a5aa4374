"""Measures against effective epochs, as in the paper's Figures 4-5, from rows alone."""

import collections
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from entropix.report.series import axis_of, by_run, curve, measures_of
from entropix.report.style import PALETTE, fixed_style, save_figure
from entropix.rows import Row

MOST_PANELS = 4  # side by side
_DASHES = ("-", "--", ":", "-.")  # of runs with one colour, in their order


@fixed_style
def convergence(
    rows: Sequence[Row],
    path: str | pathlib.Path | None = None,
    *,
    measures: Sequence[str] | None = None,
    colours: Mapping[str, str | None] | None = None,
) -> Figure:
    """Draws a comparison: mean over seeds, and a band of one standard deviation.

    An effective epoch is as many gradient evaluations as there are batches in the training set.
    With replicas there are two ways to count them, and two rows of panels: above, the gradients of
    all replicas, which is the work done (*Deep Relaxation*'s Remark 22 counts every evaluation);
    below, those of one replica, which is the time it takes where replicas run side by side (what
    *Parle* compares is time). Algorithms without replicas are the same in both.

    Args:
      rows: of all runs, such as `gather` returns.
      path: where to save the figure, if given; the suffix says the format.
      measures: names, at most four; by default the first four of `make_table`'s.
      colours: run -> colour; None, or no entry, for the next that is free of a palette that is
        readable with any colour vision. Runs with one colour differ in their dashes.

    Returns:
      The matplotlib `Figure`.

    Raises:
      ValueError: if there are no rows, or more than four measures, or none of a name.

    Example:
      >>> from entropix.rows import Measurement
      >>> rows = [Row("hj", "hj", "HJ", 0, 1, 5, 60 * n, 60 * n, 5.0 * n, 12 * n, 1.0, 1e-3, 0.3,
      ...             {"val_error": Measurement(9 / n, "%")}) for n in (1, 2)]
      >>> [panel.get_ylabel() for panel in convergence(rows).axes]
      ['validation error, %']
    """
    if not rows:
        raise ValueError("convergence needs at least one row; got none.")
    shown = measures_of(rows, measures)
    if measures is not None and len(shown) > MOST_PANELS:
        raise ValueError(f"convergence draws at most {MOST_PANELS} measures; got {len(shown)}.")
    shown = shown[:MOST_PANELS]
    axis, runs = axis_of(rows), by_run(rows)
    styles = _styles([of_run[0].run for of_run in runs.values()], colours or {})
    counts = {axis.replace("_", " "): False}
    if any(row.replicas > 1 for row in rows):
        counts = {f"{axis} of {who}".replace("_", " "): who == "one replica"
                  for who in ("all replicas", "one replica")}  # fmt: skip
    width = max(4.5 * len(shown), 6)
    columns = max(1, int(width / (0.08 * max(map(len, runs)) + 0.7)))  # inches of a label
    height = 3.6 * len(counts) + 0.22 * math.ceil(len(runs) / columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(counts), len(shown), squeeze=False)
    for panels, (count, per_replica) in zip(grid, counts.items(), strict=True):
        for panel, measure in zip(panels, shown, strict=True):
            known = [row[measure.name] for row in rows if measure.name in row.measures]
            finite = [value for value in known if value is not None]
            positive = measure.better == "lower" and min(finite, default=0.0) > 0
            for (label, of_run), style in zip(runs.items(), styles, strict=True):
                # Flatness, for one, is not measured at every evaluation.
                measured = [row for row in of_run if measure.name in row.measures] or of_run
                x, values = curve(measured, measure.name, axis)
                if per_replica:
                    shares = {
                        row[axis]: row.gradients_per_replica / row.gradients for row in of_run
                    }
                    x = x * np.asarray([shares[at] for at in x])
                _draw(panel, x, values, positive, label=label, **style)
            panel.set_xlabel(count)
            panel.set_ylabel(measure.title, parse_math=False)
            panel.grid(which="both", alpha=0.2)
            if positive:
                _logarithmic(panel)
    lines = grid[0][0].get_legend_handles_labels()
    legend = figure.legend(*lines, loc="outside upper center", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    if path is not None:
        save_figure(figure, path, dpi=150)
    return figure


def _styles(names: Sequence[str], colours: Mapping[str, str | None]) -> list[dict[str, str]]:
    """A colour for each run, and dashes for further runs with the same colour."""
    given = {name: c for name in names if (c := colours.get(name)) and is_color_like(c)}
    free = [c for c in PALETTE.values() if c not in given.values()] or list(PALETTE.values())
    cycle, seen, styles = itertools.cycle(free), collections.Counter[str](), []
    for name in names:
        colour = given.get(name) or next(cycle)
        styles.append({"color": colour, "linestyle": _DASHES[seen[colour] % len(_DASHES)]})
        seen[colour] += 1
    return styles


def _draw(panel: Axes, x: np.ndarray, values: np.ndarray, positive: bool, **style: Any) -> None:
    """One curve: the mean of the seeds that got to its end, where all have a value; the spread."""
    ended = np.isfinite(values[-1])
    if ended.any():
        values = values[:, ended]
        common = np.isfinite(values).all(axis=1)
        x, values = x[common], values[common]
    mean = values.mean(axis=1)
    # The standard deviation of one seed is unknown, and no band is drawn.
    spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros_like(mean)
    low = np.maximum(mean - spread, 0.5 * mean) if positive else mean - spread
    marker = "o" if np.isfinite(mean).sum() == 1 else None  # no line joins a single point
    panel.plot(x, mean, marker=marker, **style)
    panel.fill_between(x, low, mean + spread, color=style["color"], alpha=0.2, linewidth=0)


def _logarithmic(panel: Axes) -> None:
    """A logarithmic axis, with ticks within a decade where it spans little more than one."""
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    if high < 1000 * low:
        ticks = LogLocator(subs=(1, 2, 5)) if high > 10 * low else MaxNLocator(6)
        panel.yaxis.set_major_locator(ticks)
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
