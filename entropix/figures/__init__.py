"""Figures, made from saved results only."""

from entropix.figures.convergence import convergence

__all__ = ["convergence"]
