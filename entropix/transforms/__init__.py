"""The relaxations, the faces that run them, and the links around them, for `optax.chain`."""

from entropix.transforms.averaging import (
    ElasticAveragingState,
    average_updates,
    elastic_averaging,
)
from entropix.transforms.coupling import ElasticState, elastic_coupling
from entropix.transforms.eval_params import eval_params
from entropix.transforms.hamilton_jacobi import hamilton_jacobi
from entropix.transforms.heat import heat
from entropix.transforms.hj_prox import HJProx, hj_prox
from entropix.transforms.keys import reseed
from entropix.transforms.local_entropy import local_entropy
from entropix.transforms.relax import relax, relaxed_grad
from entropix.transforms.relaxation import Relaxation, RelaxationState
from entropix.transforms.saving import from_arrays, to_arrays
from entropix.transforms.schedules import per_outer_step, scoping
from entropix.transforms.sharpness import sharpness
from entropix.transforms.stability import check
from entropix.transforms.stepwise import StepwiseState, stepwise

__all__ = [
    "ElasticAveragingState",
    "ElasticState",
    "HJProx",
    "Relaxation",
    "RelaxationState",
    "StepwiseState",
    "average_updates",
    "check",
    "elastic_averaging",
    "elastic_coupling",
    "eval_params",
    "from_arrays",
    "hamilton_jacobi",
    "heat",
    "hj_prox",
    "local_entropy",
    "per_outer_step",
    "relax",
    "relaxed_grad",
    "reseed",
    "scoping",
    "sharpness",
    "stepwise",
    "to_arrays",
]
