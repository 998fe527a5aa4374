"""Functions of one or two variables: read from text, relaxed, and descended.

`parse` reads a function; `relaxations` and `descend_while_scoping` compute what `entropix figure1`
draws; `estimates` and `sweep` compare the optimisers' gradients with those of the reference solvers
of `entropix.pde`, which `entropix accuracy` tabulates.
"""

from entropix.landscape.functions.equations import EQUATIONS, SOLVERS, widened
from entropix.landscape.functions.estimators import (
    METHODS,
    Accuracy,
    accuracy,
    estimates,
    sweep,
    true_gradient,
)
from entropix.landscape.functions.expression import Expression, parse
from entropix.landscape.functions.relaxations import (
    Relaxations,
    Scoping,
    convex_intervals,
    convex_nodes,
    descend_while_scoping,
    relaxations,
)
from entropix.landscape.functions.saved import (
    load_accuracy,
    load_landscape,
    save_accuracy,
    save_landscape,
)
from entropix.landscape.functions.table import accuracy_table

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
