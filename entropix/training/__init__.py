"""The compiled programs of a run: its state, its steps, its evaluation.

The names that this room had in version 0.1 answer with those of `entropix.experiment`.
"""

import importlib
from typing import Any

_FORMER = (
    "Checkpoint",
    "Checkpoints",
    "Interrupted",
    "MetricWriter",
    "check_config",
    "compare",
    "experiment",
    "gather",
    "keep_compiled",
    "make_table",
    "read_metrics",
    "runs",
    "spread_replicas",
    "train",
    "tune",
)


def __getattr__(name: str) -> Any:
    """Imports a former name when it is asked for."""
    if name in _FORMER:
        return getattr(importlib.import_module("entropix.former"), name)
    raise AttributeError(f"module 'entropix.training' has no attribute {name!r}")
