"""Reference solvers for the paper's partial differential equations, in double precision."""

from entropix.pde.burgers import burgers, characteristics
from entropix.pde.grid import Grid, Relaxed, check_float64
from entropix.pde.hamilton_jacobi import hamilton_jacobi, monotone_steps
from entropix.pde.heat import heat, heat_on_grid
from entropix.pde.hopf_lax import Proximal, hopf_lax
from entropix.pde.regularity import (
    convex_interval,
    curvature_bound,
    harmonic_mean,
    heat_curvature,
    hessian,
    minimum_bound,
    shock_time,
    widened_interval,
)
from entropix.pde.viscous import cole_hopf, viscous_hj

__all__ = [
    "Grid",
    "Proximal",
    "Relaxed",
    "burgers",
    "characteristics",
    "check_float64",
    "cole_hopf",
    "convex_interval",
    "curvature_bound",
    "hamilton_jacobi",
    "harmonic_mean",
    "heat",
    "heat_curvature",
    "heat_on_grid",
    "hessian",
    "hopf_lax",
    "minimum_bound",
    "monotone_steps",
    "shock_time",
    "viscous_hj",
    "widened_interval",
]
