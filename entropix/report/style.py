"""The look of every figure, whatever the user's matplotlibrc says; and how figures are saved."""

import functools
import io
import pathlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import matplotlib
from matplotlib.figure import Figure

from entropix.files import write_atomic

P = ParamSpec("P")
R = TypeVar("R")

# Okabe and Ito's palette, readable with any colour vision; without yellow, too pale for a line.
PALETTE = {
    "black": "#000000",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
}


def fixed_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Makes a function draw and save with Matplotlib's defaults, whatever the user has set."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            return draw(*args, **kwargs)

    return drawn


def save_figure(figure: Figure, path: str | pathlib.Path, dpi: int) -> None:
    """Saves a figure, or leaves the old file as it was.

    The suffix says the format; without one, or with one that begins with a digit, that is PNG.

    Raises:
      ValueError: for a suffix that is no format of Matplotlib's.
      OSError: naming the file, if it cannot be written.
    """
    path = pathlib.Path(path)
    if not path.suffix[1:] or path.suffix[1].isdigit():  # as in "rate_0.1"
        path = path.with_name(f"{path.name}.png")
    known = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise ValueError(
            f"path must end in a format that Matplotlib writes: {', '.join(sorted(known))}; got "
            f"{path.name!r}. Add .png."
        )
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], dpi=dpi)
    write_atomic(path, drawn.getvalue())
