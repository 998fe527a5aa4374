"""Figures, made from saved results only."""

from entropix.figures.accuracy import accuracy
from entropix.figures.convergence import convergence
from entropix.figures.figure1 import figure1, scoping_animation

__all__ = ["accuracy", "convergence", "figure1", "scoping_animation"]
