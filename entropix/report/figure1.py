"""What relaxation does to a landscape, in the spirit of the paper's Figure 1; from saved arrays."""

import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from entropix.files import write_atomic, writing
from entropix.landscape.functions import EQUATIONS, convex_intervals
from entropix.report.style import PALETTE, fixed_style, save_figure

_TITLES = {
    "viscous_hj": "viscous Hamilton-Jacobi",
    "hj": "Hamilton-Jacobi",
    "heat": "heat",
    "sharpness": "maximum over a ball of radius t",
    "live_centre": "replicas around their own mean",
}
_SHORT = {
    "viscous_hj": "viscous HJ",
    "hj": "HJ",
    "heat": "heat",
    "sharpness": "ball's maximum",
    "live_centre": "replicas",
}
_COLOURS = {
    "viscous_hj": PALETTE["blue"],
    "hj": PALETTE["vermillion"],
    "heat": PALETTE["orange"],
    "sharpness": PALETTE["purple"],
    "live_centre": PALETTE["green"],
}
_PLAIN = PALETTE["green"]  # steepest descent on f, beside f in black
Data = Mapping[str, np.ndarray]


@fixed_style
def figure1(data: Data, path: str | pathlib.Path | None = None) -> Figure:
    """Draws f and its relaxations: curves with their convex intervals, or contour panels in 2-D.

    Args:
      data: the fields of `entropix.landscape.functions.Relaxations` and `function`, the text of
        f, by name: what `entropix.landscape.load_landscape` returns for `relaxations.npz`.
      path: where to save the figure, if given; the suffix says the format.

    Returns:
      The matplotlib `Figure`.

    Example:
      >>> import jax
      >>> from entropix import landscape, pde
      >>> with jax.enable_x64(True):
      ...     data = landscape.relaxations(pde.Grid(-2.0, 2.0, 41), lambda x: (x**2 - 1) ** 2,
      ...                                  times=[0.2], beta=50.0, equations=["heat"])
      >>> figure = figure1(data._asdict() | {"function": "(x**2 - 1)**2"})
      >>> [panel.get_title() for panel in figure.axes]  # curves, and where they are convex
      ['heat', '']
    """
    figure = _curves(data) if data["f"].ndim == 1 else _contours(data)
    beta = _plain_number(float(data["beta"]))
    figure.suptitle(rf"$f$ = {data['function']},  $\beta$ = {beta}", fontsize=10, parse_math=True)
    if path is not None:
        save_figure(figure, path, dpi=110)
    return figure


def _kinds(data: Data) -> list[str]:
    """The relaxations that were saved; files of former versions do not name their three."""
    return [str(kind) for kind in data.get("equations", EQUATIONS)]


def _curves(data: Data) -> Figure:
    times, x, rows, kinds = data["times"], data["points"], len(data["times"]), _kinds(data)
    figure = Figure(figsize=(10 / 3 * max(2, len(kinds)), 4.2), layout="constrained")
    panels = figure.subplots(
        2, len(kinds), sharex=True, sharey="row", squeeze=False,
        height_ratios=[5, 0.35 * (rows + 1) + 0.2],
    )  # fmt: skip
    for column, kind in enumerate(kinds):
        above, below = panels[:, column]
        shades = _shades(_COLOURS[kind], rows)
        above.plot(x, data["f"], color="black", linewidth=0.9, label="f")
        _bars(below, x, data["f_convex"], 0, "black")
        for n, (t, shade) in enumerate(zip(times, shades, strict=True)):
            label = f"t = {_plain_number(t)}"
            above.plot(x, data["values"][column, n], color=shade, linewidth=1.6, label=label)
            _bars(below, x, data["convex"][column, n], n + 1, shade)
        above.set_title(_TITLES[kind], fontsize=10)
        above.legend(frameon=False, fontsize=8)
        above.grid(alpha=0.2)
        below.set_xlabel("x")
        below.grid(axis="x", alpha=0.2)
    panels[0, 0].set_ylabel("value")
    panels[1, 0].set_ylabel("convex")
    panels[1, 0].set_yticks(
        range(rows + 1), ["f", *(f"t = {_plain_number(t)}" for t in times)], fontsize=8
    )
    panels[1, 0].set_ylim(rows + 0.6, -0.6)
    panels[0, 0].set_xlim(x[0], x[-1])
    return figure


def _bars(panel: Axes, x: np.ndarray, convex: np.ndarray, row: int, colour: object) -> None:
    for left, right in convex_intervals(x, convex):
        panel.plot([left, right], [row, row], color=colour, linewidth=4, solid_capstyle="butt")


def _contours(data: Data) -> Figure:
    times, kinds = data["times"], _kinds(data)
    size = 2.5 * (len(times) + 1) + 0.8, 7.4 / 3 * len(kinds)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(kinds), len(times) + 1, sharex=True, sharey=True, squeeze=False)
    levels = _levels(data["f"])
    for panel in panels[:-1, 0]:
        panel.remove()
    drawn = _landscape(panels[-1, 0], data, data["f"], data["f_convex"], levels)
    panels[-1, 0].set_title("f (white: convex within)", fontsize=9)
    for row, kind in enumerate(kinds):
        for n, t in enumerate(times):
            panel = panels[row, n + 1]
            _landscape(panel, data, data["values"][row, n], data["convex"][row, n], levels)
            panel.set_title(f"{_SHORT[kind]}, t = {_plain_number(t)}", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("x")
    for panel in (panels[-1, 0], *panels[:-1, 1]):
        panel.set_ylabel("y")
        panel.tick_params(labelleft=True)
    bar = figure.colorbar(drawn, ax=panels[:, 1:], shrink=0.6, label="value", format="%.2g")
    bar.ax.tick_params(labelsize=8)
    return figure


def _landscape(
    panel: Axes, data: Data, values: np.ndarray, convex: np.ndarray, levels: np.ndarray
) -> ContourSet:
    x, y = data["points"][..., 0], data["points"][..., 1]
    drawn = panel.contourf(x, y, values, levels, cmap="viridis", extend="both")
    if convex.any() and not convex.all():
        panel.contour(x, y, convex.astype(float), [0.5], colors="white", linewidths=0.9)
    panel.set_aspect("equal")
    return drawn


@fixed_style
def scoping_animation(data: Data, path: str | pathlib.Path, *, frames_a_second: int = 10) -> None:
    """Writes a GIF of gamma -> 0, with the descent on u(., gamma) and that on f.

    Args:
      data: the fields of `entropix.landscape.functions.Scoping`, `points`, `f` and `function`, by
        name: what `entropix.landscape.load_landscape` returns for `scoping.npz`.
      path: where to save it; ends in `.gif`.
      frames_a_second: speed, > 0.

    Example:
      >>> import jax, pathlib, tempfile
      >>> from entropix import landscape, pde
      >>> grid, f = pde.Grid(-2.0, 2.0, 41), lambda x: (x**2 - 1) ** 2
      >>> with jax.enable_x64(True):
      ...     data = landscape.descend_while_scoping(grid, f, 0.5, 50.0, [1.5], num_frames=2)
      >>> data = data._asdict() | {"points": grid.points, "f": f(grid.points), "function": "f"}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     scoping_animation(data, f"{folder}/scoping.gif")
      ...     pathlib.Path(folder, "scoping.gif").read_bytes()[:6]
      b'GIF89a'
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    draw = _curve_frame if data["f"].ndim == 1 else _contour_frame

    def frame(k: int) -> list:
        panel.clear()
        draw(panel, data, k)
        panel.set_xlabel("x")
        gamma = _plain_number(data["gammas"][k])
        panel.set_title(rf"viscous Hamilton-Jacobi, $\gamma$ = {gamma}", fontsize=10)
        panel.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=4, fontsize=8, frameon=False
        )
        return []

    frames = len(data["gammas"])
    animation = FuncAnimation(figure, frame, frames=frames, blit=False)
    path = pathlib.Path(path)
    # Pillow writes bit by bit.
    with writing(path), tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
        animation.save(f"{folder}/a.gif", writer=PillowWriter(fps=frames_a_second), dpi=80)
        drawn = pathlib.Path(folder, "a.gif").read_bytes()
    write_atomic(path, drawn)


def _curve_frame(panel: Axes, data: Data, k: int) -> None:
    x, f, u = data["points"], data["f"], data["values"][k]
    blue = _COLOURS["viscous_hj"]
    panel.plot(x, f, color="black", linewidth=0.9, label="f")
    panel.plot(x, u, color=blue, label=r"$u(\cdot, \gamma)$")
    past = data["path"][: k + 1]
    panel.plot(past, np.interp(past, x, u), ".", color=blue, markersize=3, alpha=0.5)
    panel.plot(past[-1], np.interp(past[-1], x, u), "o", color=blue, label="descent on u")
    plain = data["plain"][k]
    panel.plot(
        plain, np.interp(plain, x, f), "s", color=_PLAIN, mfc="none", mew=1.5, label="descent on f"
    )
    low = min(f.min(), data["values"].min())
    high = max(f.max(), data["values"].max())
    panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    panel.set_xlim(x[0], x[-1])
    panel.set_ylabel("value")


def _contour_frame(panel: Axes, data: Data, k: int) -> None:
    x, y = data["points"][..., 0], data["points"][..., 1]
    levels = _levels(data["f"])
    panel.contourf(x, y, data["values"][k], levels, cmap="viridis", extend="both")
    for name, colour, label in (
        ("path", PALETTE["vermillion"], "descent on u"),
        ("plain", "white", "descent on f"),
    ):
        past = data[name][: k + 1]
        panel.plot(past[:, 0], past[:, 1], color=colour, linewidth=1.2)
        panel.plot(*past[-1], "o", color=colour, mec="black", label=label)
    panel.set_aspect("equal")
    panel.set_ylabel("y")


def _levels(values: np.ndarray) -> np.ndarray:
    """Contour levels for the lower nine tenths of the values: minima matter, corners do not."""
    low, high = values.min(), np.quantile(values, 0.9)
    return np.linspace(low, high if high > low else low + 1, 15)


def _shades(colour: str, count: int) -> list[np.ndarray]:
    """From a light tint to the colour itself to a darker one, by time."""
    base, white = np.asarray(to_rgb(colour)), np.ones(3)
    mixes = np.linspace(0.55, -0.4, count) if count > 1 else [0.0]
    return [base + m * (white - base) if m > 0 else base * (1 + m) for m in mixes]


def _plain_number(value: float) -> str:
    return f"{value:.3g}"
