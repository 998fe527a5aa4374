"""Reference solvers for the paper's partial differential equations, in double precision."""

from entropix.pde.burgers import burgers, characteristics
from entropix.pde.grid import Grid, Relaxed, check_float64
from entropix.pde.hamilton_jacobi import hamilton_jacobi, monotone_steps
from entropix.pde.heat import heat, heat_on_grid
from entropix.pde.hopf_lax import Proximal, hopf_lax
from entropix.pde.viscous import cole_hopf, viscous_hj

__all__ = [
    "Grid",
    "Proximal",
    "Relaxed",
    "burgers",
    "characteristics",
    "check_float64",
    "cole_hopf",
    "hamilton_jacobi",
    "heat",
    "heat_on_grid",
    "hopf_lax",
    "monotone_steps",
    "viscous_hj",
]
