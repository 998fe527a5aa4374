"""Landscapes of losses: what relaxation does to them, and how flat their minima are.

`entropix.landscape.networks` measures the flatness of any loss around any pytree of parameters; its
names are imported on first use, since Lanczos comes from `matfree`.
`entropix.landscape.functions` treats functions of one or two variables, where the reference
solvers of `entropix.pde` give the truth.
"""

import importlib
from typing import Any

from entropix.landscape.functions import (
    EQUATIONS,
    METHODS,
    SOLVERS,
    Accuracy,
    Expression,
    Relaxations,
    Scoping,
    accuracy,
    accuracy_table,
    convex_intervals,
    convex_nodes,
    descend_while_scoping,
    estimates,
    load_accuracy,
    load_landscape,
    parse,
    relaxations,
    save_accuracy,
    save_landscape,
    sweep,
    true_gradient,
    widened,
)

_NETWORKS = (
    "Eigenpairs",
    "Estimate",
    "Sampling",
    "Segment",
    "Slice2d",
    "Spectrum",
    "arithmetic_mean",
    "batched",
    "eigenpairs",
    "eigenvalues",
    "frobenius_norm",
    "gauss_newton",
    "ggn_vp",
    "harmonic_mean",
    "hessian",
    "hvp",
    "local_energy",
    "local_entropy",
    "measures",
    "normalised",
    "relative",
    "segment",
    "sharpness",
    "slice2d",
    "spectrum",
    "trace",
)

__all__ = [
    "EQUATIONS",
    "METHODS",
    "SOLVERS",
    "Accuracy",
    "Eigenpairs",
    "Estimate",
    "Expression",
    "Relaxations",
    "Sampling",
    "Scoping",
    "Segment",
    "Slice2d",
    "Spectrum",
    "accuracy",
    "accuracy_table",
    "arithmetic_mean",
    "batched",
    "convex_intervals",
    "convex_nodes",
    "descend_while_scoping",
    "eigenpairs",
    "eigenvalues",
    "estimates",
    "frobenius_norm",
    "gauss_newton",
    "ggn_vp",
    "harmonic_mean",
    "hessian",
    "hvp",
    "load_accuracy",
    "load_landscape",
    "local_energy",
    "local_entropy",
    "measures",
    "normalised",
    "parse",
    "relative",
    "relaxations",
    "save_accuracy",
    "save_landscape",
    "segment",
    "sharpness",
    "slice2d",
    "spectrum",
    "sweep",
    "trace",
    "true_gradient",
    "widened",
]


def __getattr__(name: str) -> Any:
    """Imports the instruments of flatness when one is first asked for."""
    if name in _NETWORKS:
        return getattr(importlib.import_module("entropix.landscape.networks"), name)
    raise AttributeError(f"module 'entropix.landscape' has no attribute {name!r}")
