"""How flat is the loss around the parameters of a network? For any tree and any loss.

Everywhere `loss(params, batch)` is a number, the mean over the batch's examples, and `batches` a
tree of arrays with a leading axis of batches of equal size (`batched` cuts them). Functions return
an `Estimate` (value, standard_error) where random vectors are involved.
"""

from entropix.landscape.networks.batches import batched
from entropix.landscape.networks.compression import pruned, quantised
from entropix.landscape.networks.eigenvalues import Eigenpairs, eigenpairs, eigenvalues
from entropix.landscape.networks.energy import local_energy
from entropix.landscape.networks.entropy import local_entropy
from entropix.landscape.networks.estimate import Estimate
from entropix.landscape.networks.integration import Sampling
from entropix.landscape.networks.products import gauss_newton, ggn_vp, hessian, hvp, relative
from entropix.landscape.networks.report import measures
from entropix.landscape.networks.sharpness import sharpness
from entropix.landscape.networks.slices import Segment, Slice2d, normalised, segment, slice2d
from entropix.landscape.networks.spectrum import (
    Spectrum,
    arithmetic_mean,
    harmonic_mean,
    spectrum,
)
from entropix.landscape.networks.trace import frobenius_norm, trace

__all__ = [
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
    "pruned",
    "quantised",
    "relative",
    "segment",
    "sharpness",
    "slice2d",
    "spectrum",
    "trace",
]
