"""Reference solvers for the paper's partial differential equations, in double precision."""

import importlib
from typing import Any

from entropix.pde.burgers import burgers, characteristics
from entropix.pde.checks import check_float64
from entropix.pde.grid import Grid, Relaxed
from entropix.pde.hamiltonians import Hamiltonian
from entropix.pde.heat_equation import heat_equation, heat_on_grid
from entropix.pde.hopf_lax import Proximal, hopf_lax
from entropix.pde.inviscid import inviscid_hj, monotone_steps
from entropix.pde.live_centre import phi
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
from entropix.pde.stochastic import (
    ControlGap,
    Estimate,
    Game,
    backward_kolmogorov,
    control_gap,
    estimate,
    exit_time,
    fast_slow,
    feedback,
    first_passage,
    fokker_planck,
    free_energy,
    generator,
    gibbs,
    gradient_flow,
    kramers_time,
    logarithmic_cooling,
    mass,
    mean_field,
    mean_field_energy,
    mean_field_game,
    scoped_descent,
    scoped_flow,
    simulate,
    simulated_annealing,
    value_function,
    wasserstein_distance,
)
from entropix.pde.sup_convolution import ball_maximum, sup_convolution
from entropix.pde.viscous import cole_hopf, viscous_hj

__all__ = [
    "ControlGap",
    "Estimate",
    "Game",
    "Grid",
    "Hamiltonian",
    "Proximal",
    "Relaxed",
    "backward_kolmogorov",
    "ball_maximum",
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
    "free_energy",
    "generator",
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
    "logarithmic_cooling",
    "mass",
    "mean_field",
    "mean_field_energy",
    "mean_field_game",
    "minimum_bound",
    "monotone_steps",
    "phi",
    "scoped_descent",
    "scoped_flow",
    "shock_time",
    "simulate",
    "simulated_annealing",
    "sup_convolution",
    "value_function",
    "viscous_hj",
    "wasserstein_distance",
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
