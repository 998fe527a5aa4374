"""Training loss and validation error against effective epochs, as in the paper's Figures 4-5."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from entropix.training import curve
from entropix.training.metrics import Row
from entropix.training.table import by_curve

# Okabe and Ito's palette, readable with any colour vision; one fixed colour per algorithm.
COLOURS = {
    "sgd": "#000000",
    "entropy_sgd": "#0072B2",
    "hj": "#D55E00",
    "heat": "#E69F00",
    "elastic_sgd": "#009E73",
    "parle": "#CC79A7",
}
_PANELS = (("train_loss", "training loss"), ("val_error", "validation error, %"))
_DASHES = ("-", "--", ":", "-.")  # of the numbers of replicas, in their order


def convergence(rows: Sequence[Row], path: str | pathlib.Path | None = None) -> Figure:
    """Draws a comparison: mean over seeds, and a band of one standard deviation.

    An effective epoch is as many gradient evaluations as there are batches in the training set.
    With replicas there are two ways to count them, and two rows of panels: above, the gradients of
    all replicas, which is the work done (*Deep Relaxation*'s Remark 22 counts every evaluation);
    below, those of one replica, which is the time it takes where replicas run side by side (what
    *Parle* compares is time). Algorithms without replicas are the same in both.

    Args:
      rows: of `metrics.jsonl`.
      path: where to save the figure, if given; the suffix says the format.

    Returns:
      The matplotlib `Figure`.

    Raises:
      ValueError: if there are no rows.

    Example:
      >>> rows = [{"algorithm": "hj", "replicas": 1, "seed": 0, "effective_epochs": e,
      ...          "train_loss": 1 / e, "val_error": 10 / e} for e in (1.0, 2.0)]
      >>> [panel.get_ylabel() for panel in convergence(rows).axes]
      ['training loss', 'validation error, %']
    """
    if not rows:
        raise ValueError("convergence needs at least one row of metrics; got none.")
    curves = by_curve(rows)
    if all(row["replicas"] == 1 for row in rows):
        axes = {"effective epochs": False}
    else:
        axes = {"effective epochs, all replicas": False, "effective epochs of one replica": True}
    figure = Figure(figsize=(9, 3.6 * len(axes)), layout="constrained")
    grid = figure.subplots(len(axes), 2, squeeze=False)
    for panels, (label, per_replica) in zip(grid, axes.items(), strict=True):
        for panel, (name, measured) in zip(panels, _PANELS, strict=True):
            for curve_label, style in zip(curves, _styles(curves), strict=True):
                _draw(panel, curves[curve_label], name, per_replica, label=curve_label, **style)
            panel.set_xlabel(label)
            panel.set_ylabel(measured)
            panel.set_yscale("log")
            panel.grid(which="both", alpha=0.2)
        # Errors span little more than a decade: ticks within it, written as the table writes them.
        panels[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[1].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panels[1].yaxis.set_minor_formatter(NullFormatter())
    grid[0][0].legend(frameon=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _styles(curves: dict[str, list[Row]]) -> list[dict[str, str | None]]:
    """A colour for each algorithm, and dashes for further numbers of replicas."""
    seen: dict[str, int] = {}
    styles = []
    for rows in curves.values():
        name = rows[0]["algorithm"]
        dashes = _DASHES[seen.get(name, 0) % len(_DASHES)]
        seen[name] = seen.get(name, 0) + 1
        styles.append({"color": COLOURS.get(name), "linestyle": dashes})
    return styles


def _draw(panel: Axes, rows: Sequence[Row], name: str, per_replica: bool, **style: Any) -> None:
    """One curve: the mean of the seeds that got to its end, and their spread."""
    epochs, values = curve(rows, name)
    if per_replica:
        epochs = epochs / rows[-1]["replicas"]
    whole = np.isfinite(values).all(axis=0)
    values = values[:, whole] if whole.any() else values  # as the table: seeds to the end
    mean = values.mean(axis=1)
    # The standard deviation of one seed is unknown, and no band is drawn.
    spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros_like(mean)
    (line,) = panel.plot(epochs, mean, **style)
    low = np.maximum(mean - spread, 0.5 * mean)  # stays visible on a logarithmic axis
    panel.fill_between(epochs, low, mean + spread, color=line.get_color(), alpha=0.2, linewidth=0)
