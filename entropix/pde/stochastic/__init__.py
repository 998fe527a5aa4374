"""Noise and control: paths, densities, expected values, optimal control, escape, homogenisation."""

from entropix.pde.stochastic.annealing import (
    logarithmic_cooling,
    scoped_descent,
    scoped_flow,
    simulated_annealing,
)
from entropix.pde.stochastic.bellman import feedback, value_function
from entropix.pde.stochastic.control import ControlGap, control_gap
from entropix.pde.stochastic.escape import exit_time, first_passage, kramers_time
from entropix.pde.stochastic.fokker_planck import fokker_planck, gibbs, mass
from entropix.pde.stochastic.game import Game, mean_field_game
from entropix.pde.stochastic.homogenisation import fast_slow, gradient_flow
from entropix.pde.stochastic.kolmogorov import backward_kolmogorov, generator
from entropix.pde.stochastic.mean_field import mean_field, mean_field_energy
from entropix.pde.stochastic.sde import Estimate, estimate, simulate
from entropix.pde.stochastic.wasserstein import free_energy, wasserstein_distance

__all__ = [
    "ControlGap",
    "Estimate",
    "Game",
    "backward_kolmogorov",
    "control_gap",
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
    "kramers_time",
    "logarithmic_cooling",
    "mass",
    "mean_field",
    "mean_field_energy",
    "mean_field_game",
    "scoped_descent",
    "scoped_flow",
    "simulate",
    "simulated_annealing",
    "value_function",
    "wasserstein_distance",
]
