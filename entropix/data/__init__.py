"""Data sets as arrays on the device, and mini-batches drawn inside the compiled step."""

from entropix.data.dataset import Dataset, hold_out, load
from entropix.data.sampler import sample_batch

__all__ = ["Dataset", "hold_out", "load", "sample_batch"]
