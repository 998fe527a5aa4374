"""Experiments: any problem, any algorithm, from equally many gradients.

`train`, `compare`, `tune` and `load` need the `train` extra and are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from entropix.experiment.algorithms import ALGORITHMS, Algorithm, algorithm, register
from entropix.experiment.classification import classification
from entropix.experiment.config import make_config
from entropix.experiment.label_noise import noisy_labels
from entropix.experiment.language import language_model
from entropix.experiment.plan import plan
from entropix.experiment.problem import Measure, Problem
from entropix.experiment.run import Run
from entropix.experiment.settings import Budget, Settings

if TYPE_CHECKING:
    from entropix.runs.loading import load
    from entropix.workflow import compare, runs, train, tune

_LATER = {
    "compare": "entropix.workflow",
    "load": "entropix.runs.loading",
    "runs": "entropix.workflow",
    "train": "entropix.workflow",
    "tune": "entropix.workflow",
}

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Budget",
    "Measure",
    "Problem",
    "Run",
    "Settings",
    "algorithm",
    "classification",
    "compare",
    "language_model",
    "load",
    "make_config",
    "noisy_labels",
    "plan",
    "register",
    "runs",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Imports what runs experiments when it is first asked for."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'entropix.experiment' has no attribute {name!r}")
