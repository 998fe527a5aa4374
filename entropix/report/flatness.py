"""Measures of flatness as a table, and spectra as a figure."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from entropix.report.style import PALETTE, fixed_style


def flatness_table(found: Sequence[Any]) -> str:
    """Makes a table with a row for every measure and a column for every run, in Markdown.

    Cells are mean ± standard deviation over seeds; of one seed, the value and, in brackets, the
    standard error of its estimate, where there is one.

    Args:
      found: entries with `run`, `label`, `seed` and `measures`, as `entropix.instruments` makes.

    Returns:
      The table, ending in a line that says how to read it.

    Example:
      >>> from types import SimpleNamespace
      >>> seen = SimpleNamespace(run="sgd", label="SGD", seed=0,
      ...                        measures={"trace": 12.0, "trace_se": 0.5})
      >>> print(flatness_table([seen]).splitlines()[2])
      | trace     | 12 (0.5) |
    """
    rows = pd.DataFrame([{"label": entry.label, **entry.measures} for entry in found])
    names = [name for name in rows if name != "label" and not str(name).endswith("_se")]
    labels = list(dict.fromkeys(rows["label"]))
    cells = {
        label: [_cell(rows[rows["label"] == label], str(name)) for name in names]
        for label in labels
    }
    table = pd.DataFrame(cells, index=pd.Index(names, name="measure"))
    seeds = rows.groupby("label").size().max()
    how = (
        f"Mean ± standard deviation over {seeds} seeds"
        if seeds > 1
        else "One seed; in brackets the standard error of the estimate"
    )
    note = "sharpness is a lower bound, and no measure but the relative ones survives rescaling."
    return f"{table.to_markdown(disable_numparse=True)}\n\n{how}; {note}\n"


def _cell(rows: pd.DataFrame, name: str) -> str:
    values = rows[name].to_numpy(float)
    if len(values) > 1:
        return f"{values.mean():.3g} ± {values.std(ddof=1):.2g}"
    error = f"{name}_se"
    known = error in rows and np.isfinite(rows[error].iloc[0])
    return f"{values[0]:.3g}" + (f" ({rows[error].iloc[0]:.2g})" if known else "")


@fixed_style
def draw_spectra(densities: Mapping[str, Any], path: str | pathlib.Path | None = None) -> Figure:
    """Draws densities of eigenvalues, on a logarithmic axis, with a band of one standard error.

    Args:
      densities: label -> an object with `grid`, `value` and `standard_error`.
      path: where to save the figure, if given.

    Returns:
      The matplotlib `Figure`.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    panel = figure.subplots()
    for (label, density), colour in zip(densities.items(), _cycle(len(densities)), strict=True):
        floor = max(float(np.max(density.value)) * 1e-7, 1e-300)
        value = np.maximum(density.value, floor)
        panel.plot(density.grid, value, color=colour, label=label, linewidth=1)
        low = np.maximum(density.value - density.standard_error, floor)
        high = np.maximum(density.value + density.standard_error, floor)
        panel.fill_between(density.grid, low, high, color=colour, alpha=0.2, linewidth=0)
    panel.set_yscale("log")
    panel.set_xlabel("eigenvalue of the Hessian")
    panel.set_ylabel("density")
    panel.legend(frameon=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _cycle(count: int) -> list[str]:
    colours = list(PALETTE.values())
    return [colours[k % len(colours)] for k in range(count)]
