"""Reference solvers for the paper's partial differential equations, in double precision."""

from entropix.pde.grid import Grid, check_float64

__all__ = ["Grid", "check_float64"]
