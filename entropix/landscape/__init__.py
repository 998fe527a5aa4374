"""Landscapes of losses: what relaxation does to them, and how flat their minima are.

`entropix.landscape.functions` treats functions of one or two variables, where the reference
solvers of `entropix.pde` give the truth.
"""

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

__all__ = [
    "EQUATIONS",
    "METHODS",
    "SOLVERS",
    "Accuracy",
    "Expression",
    "Relaxations",
    "Scoping",
    "accuracy",
    "accuracy_table",
    "convex_intervals",
    "convex_nodes",
    "descend_while_scoping",
    "estimates",
    "load_accuracy",
    "load_landscape",
    "parse",
    "relaxations",
    "save_accuracy",
    "save_landscape",
    "sweep",
    "true_gradient",
    "widened",
]
