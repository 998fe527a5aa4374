"""The earlier place of the figures, which are in `entropix.report`."""

from entropix.figures.convergence import COLOURS
from entropix.report import accuracy, convergence, figure1, scoping_animation

__all__ = ["COLOURS", "accuracy", "convergence", "figure1", "scoping_animation"]
