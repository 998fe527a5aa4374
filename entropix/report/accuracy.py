"""How far the optimisers' estimates of relaxed gradients are from the truth; from saved rows."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from entropix.report.style import fixed_style, save_figure

_TITLES = {
    "local_entropy": "Entropy-SGD",
    "hamilton_jacobi": "HJ (T = 0)",
    "heat": "HEAT",
    "elastic_coupling": "Elastic-SGD,\ncentre at rest",
    "live_centre": "Elastic-SGD,\nlive centre",
    "sharpness": "SAM",
}


@fixed_style
def accuracy(data: Mapping[str, Any], path: str | pathlib.Path | None = None) -> Figure:
    """Draws bias and spread against L: a column for each method, a row for each temperature.

    Args:
      data: what `entropix.landscape.load_accuracy` returns.
      path: where to save the figure, if given; the suffix says the format.

    Returns:
      The matplotlib `Figure`.

    Example:
      >>> rows = [{"method": "heat", "gamma": 1.0, "temperature": T, "steps": L, "truth": 1.0,
      ...          "bias": 0.03, "error": 0.01, "spread": 0.5 / L}
      ...         for T in (0.1, 1.0) for L in (5, 20)]
      >>> figure = accuracy({"function": "x**2 / 2", "rows": rows})
      >>> [panel.get_ylabel().splitlines()[0] for panel in figure.axes]
      ['T = 0.1', 'T = 1']
    """
    rows = data["rows"]
    methods = [m for m in _TITLES if any(row["method"] == m for row in rows)]
    # A method without noise has rows of T = 0, which are drawn beside every other temperature.
    heats = sorted({r["temperature"] for r in rows if r["temperature"] > 0}) or [0.0]
    figure = Figure(
        figsize=(2.1 * len(methods) + 0.8, 2.0 * len(heats) + 1.1), layout="constrained"
    )
    panels = figure.subplots(len(heats), len(methods), sharex=True, sharey=True, squeeze=False)
    for column, method in enumerate(methods):
        panels[0, column].set_title(_TITLES[method], fontsize=10)
        for line, T in enumerate(heats):
            panel = panels[line, column]
            chosen = [row for row in rows if row["method"] == method]
            _curves(panel, [row for row in chosen if row["temperature"] in (0, T)])
    for panel, T in zip(panels[:, 0], heats, strict=True):
        panel.set_ylabel(f"T = {T:g}\nrelative error")
    for panel in panels[-1]:
        panel.set_xlabel("L")
    panels[0, 0].set_ylim(1e-3, 3)
    _legend(figure, sorted({row["gamma"] for row in rows}))
    figure.suptitle(f"f = {data['function']}", fontsize=9)
    if path is not None:
        save_figure(figure, path, dpi=110)
    return figure


def _curves(panel: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Bias, full where it is seen and hollow within 2 errors of none; spread, dashed."""
    gammas = sorted({row["gamma"] for row in rows})
    for gamma, colour in zip(gammas, _colours(len(gammas)), strict=True):
        chosen = sorted((r for r in rows if r["gamma"] == gamma), key=lambda row: row["steps"])
        steps = [row["steps"] for row in chosen]
        bias = [row["bias"] / row["truth"] for row in chosen]
        panel.plot(steps, bias, color=colour, linewidth=1.3)
        panel.plot(
            steps, [r["spread"] / r["truth"] for r in chosen], "--", color=colour, linewidth=1
        )
        for L, b, row in zip(steps, bias, chosen, strict=True):
            seen = row["bias"] >= 2 * row["error"]
            panel.plot(L, b, "o", color=colour, markersize=4, mfc=colour if seen else "white")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(steps, [str(L) for L in steps], fontsize=8)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.tick_params(axis="y", labelsize=8)
    panel.grid(alpha=0.2)


def _legend(figure: Figure, gammas: Sequence[float]) -> None:
    lines = [
        Line2D([], [], color=colour, label=rf"$\gamma$ = {gamma:g}")
        for gamma, colour in zip(gammas, _colours(len(gammas)), strict=True)
    ]
    lines += [
        Line2D([], [], color="gray", marker="o", markersize=4, label="bias"),
        Line2D([], [], color="gray", marker="o", markersize=4, mfc="white", label="none seen"),
        Line2D([], [], color="gray", linestyle="--", label="spread of one estimate"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False,
                  fontsize=8)  # fmt: skip


def _colours(count: int) -> list[Any]:
    return [colormaps["viridis"](0.9 * k / max(count - 1, 1)) for k in range(count)]
