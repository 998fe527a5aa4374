"""Relaxation optimisers for Optax: Entropy-SGD, Hamilton-Jacobi, heat and Elastic-SGD.

The core needs JAX and Optax only. The rooms `entropix.models`, `entropix.data`,
`entropix.experiment` and `entropix.report` need their extras and are imported on first use, as are
`entropix.landscape` and `entropix.pde`, which need nothing more than the core.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from entropix import ctrl_c, replicas  # noqa: F401  ctrl_c before all that takes seconds
from entropix.optimizers import (
    easgd,
    elastic_sgd,
    entropy_sgd,
    heat_sgd,
    hj_sgd,
    parle,
    sam,
    sgd,
)
from entropix.outer_optimizers import diloco, lookahead, outer, snoo
from entropix.transforms import (
    ElasticAveragingState,
    ElasticState,
    HJProx,
    Relaxation,
    RelaxationState,
    StepwiseState,
    average_updates,
    check,
    elastic_averaging,
    elastic_coupling,
    eval_params,
    from_arrays,
    hamilton_jacobi,
    heat,
    hj_prox,
    local_entropy,
    per_outer_step,
    relax,
    relaxed_grad,
    reseed,
    scoping,
    sharpness,
    stepwise,
    to_arrays,
)

if TYPE_CHECKING:
    from entropix import data as data
    from entropix import experiment as experiment
    from entropix import figures as figures
    from entropix import landscape as landscape
    from entropix import models as models
    from entropix import pde as pde
    from entropix import report as report
    from entropix import training as training

__version__ = "0.2.0"

_ROOMS = ("data", "experiment", "figures", "landscape", "models", "pde", "report", "training")

__all__ = [
    "ElasticAveragingState",
    "ElasticState",
    "HJProx",
    "Relaxation",
    "RelaxationState",
    "StepwiseState",
    "average_updates",
    "check",
    "diloco",
    "easgd",
    "elastic_averaging",
    "elastic_coupling",
    "elastic_sgd",
    "entropy_sgd",
    "eval_params",
    "from_arrays",
    "hamilton_jacobi",
    "heat",
    "heat_sgd",
    "hj_prox",
    "hj_sgd",
    "local_entropy",
    "lookahead",
    "outer",
    "parle",
    "per_outer_step",
    "relax",
    "relaxed_grad",
    "replicas",
    "reseed",
    "sam",
    "scoping",
    "sgd",
    "sharpness",
    "snoo",
    "stepwise",
    "to_arrays",
]


def __getattr__(name: str) -> ModuleType:
    """Imports a room when it is first asked for, so that the core works without its extras."""
    if name in _ROOMS:
        return importlib.import_module(f"entropix.{name}")
    raise AttributeError(f"module 'entropix' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All names, those of rooms that were not imported yet among them."""
    return sorted({*globals(), *_ROOMS})
