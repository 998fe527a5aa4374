"""The look of every figure: the colours, and the independence from the user's matplotlibrc."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import matplotlib

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
