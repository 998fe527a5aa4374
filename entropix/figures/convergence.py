"""Training loss and validation error against effective epochs, as in the paper's Figures 4-5."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from entropix.training import curve
from entropix.training.metrics import Row
from entropix.training.table import LABELS

# Okabe and Ito's palette, readable with any colour vision; one fixed colour per algorithm.
COLOURS = {
    "sgd": "#000000",
    "entropy_sgd": "#0072B2",
    "hj": "#D55E00",
    "heat": "#E69F00",
    "elastic_sgd": "#009E73",
}
_PANELS = (("train_loss", "training loss"), ("val_error", "validation error, %"))


def convergence(rows: Sequence[Row], path: str | pathlib.Path | None = None) -> Figure:
    """Draws a comparison: mean over seeds, and a band of one standard deviation.

    An effective epoch is as many gradient evaluations as there are batches in the training set.

    Args:
      rows: of `metrics.jsonl`.
      path: where to save the figure, if given; the suffix says the format.

    Returns:
      The matplotlib `Figure`.

    Raises:
      ValueError: if there are no rows.

    Example:
      >>> rows = [{"algorithm": "hj", "seed": 0, "effective_epochs": e, "train_loss": 1 / e,
      ...          "val_error": 10 / e} for e in (1.0, 2.0)]
      >>> [panel.get_ylabel() for panel in convergence(rows).axes]
      ['training loss', 'validation error, %']
    """
    if not rows:
        raise ValueError("convergence needs at least one row of metrics; got none.")
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, (name, label) in zip(panels, _PANELS, strict=True):
        for algorithm in dict.fromkeys(row["algorithm"] for row in rows):
            own = [row for row in rows if row["algorithm"] == algorithm]
            epochs, values = curve(own, name)
            whole = np.isfinite(values).all(axis=0)
            values = values[:, whole] if whole.any() else values  # as the table: seeds to the end
            mean = values.mean(axis=1)
            # The standard deviation of one seed is unknown, and no band is drawn.
            spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros_like(mean)
            colour = COLOURS.get(algorithm)
            panel.plot(epochs, mean, color=colour, label=LABELS.get(algorithm, algorithm))
            low = np.maximum(mean - spread, 0.5 * mean)  # stays visible on a logarithmic axis
            panel.fill_between(epochs, low, mean + spread, color=colour, alpha=0.2, linewidth=0)
        panel.set_xlabel("effective epochs")
        panel.set_ylabel(label)
        panel.set_yscale("log")
        panel.grid(which="both", alpha=0.2)
    # Errors span little more than a decade: ticks within it, written as the table writes them.
    panels[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[1].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[1].yaxis.set_minor_formatter(NullFormatter())
    panels[0].legend(frameon=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
