"""Reference solvers for the paper's partial differential equations, in double precision."""

from entropix.pde.grid import Grid, check_float64
from entropix.pde.sde import Estimate, estimate, simulate

__all__ = ["Estimate", "Grid", "check_float64", "estimate", "simulate"]
