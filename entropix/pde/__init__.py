"""Reference solvers for the paper's partial differential equations, in double precision."""

import importlib
from typing import Any

from entropix.pde.annealing import scoped_descent, simulated_annealing
from entropix.pde.burgers import burgers, characteristics
from entropix.pde.checks import check_float64
from entropix.pde.control import ControlGap, control_gap, feedback, value_function
from entropix.pde.escape import exit_time, first_passage, kramers_time
from entropix.pde.fokker_planck import fokker_planck, gibbs, mass
from entropix.pde.grid import Grid, Relaxed
from entropix.pde.heat_equation import heat_equation, heat_on_grid
from entropix.pde.homogenisation import fast_slow, gradient_flow
from entropix.pde.hopf_lax import Proximal, hopf_lax
from entropix.pde.inviscid import inviscid_hj, monotone_steps
from entropix.pde.moved import MOVED, answer_former_paths
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
from entropix.pde.sde import Estimate, estimate, simulate
from entropix.pde.viscous import cole_hopf, viscous_hj

__all__ = [
    "ControlGap",
    "Estimate",
    "Grid",
    "Proximal",
    "Relaxed",
    "burgers",
    "characteristics",
    "check_float64",
    "cole_hopf",
    "control_gap",
    "convex_interval",
    "curvature_bound",
    "estimate",
    "exit_time",
    "fast_slow",
    "feedback",
    "first_passage",
    "fokker_planck",
    "gibbs",
    "gradient_flow",
    "harmonic_mean",
    "heat_curvature",
    "heat_equation",
    "heat_on_grid",
    "hessian",
    "hopf_lax",
    "inviscid_hj",
    "kramers_time",
    "mass",
    "minimum_bound",
    "monotone_steps",
    "scoped_descent",
    "shock_time",
    "simulate",
    "simulated_annealing",
    "value_function",
    "viscous_hj",
    "widened_interval",
]

_FORMER = {
    "hamilton_jacobi": inviscid_hj,
    "heat": heat_equation,
    "scoping": scoped_descent,
}
"""Version one's names, which relaxations and a schedule have too; they still answer."""

answer_former_paths()


def __getattr__(name: str) -> Any:
    """Answers version one's names, and imports a module that has moved when it is asked for."""
    if name in _FORMER:
        return _FORMER[name]
    if name in MOVED:
        return importlib.import_module(MOVED[name])
    raise AttributeError(f"module 'entropix.pde' has no attribute {name!r}")
