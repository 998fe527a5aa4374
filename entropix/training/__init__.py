"""Experiments: from a config to trained networks, metrics and tables."""

from entropix.training.checkpoint import Checkpoint, Checkpoints
from entropix.training.compare import compare, gather
from entropix.training.compilation import keep_compiled
from entropix.training.config import check_config, experiment, runs
from entropix.training.devices import spread_replicas
from entropix.training.metrics import MetricWriter, read_metrics
from entropix.training.preemption import Interrupted
from entropix.training.run import train
from entropix.training.table import curve, make_table
from entropix.training.tune import describe_effort, tune

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Interrupted",
    "MetricWriter",
    "check_config",
    "compare",
    "curve",
    "describe_effort",
    "experiment",
    "gather",
    "keep_compiled",
    "make_table",
    "read_metrics",
    "runs",
    "spread_replicas",
    "train",
    "tune",
]
