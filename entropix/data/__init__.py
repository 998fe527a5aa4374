"""Data sets as arrays on the device, and mini-batches drawn inside the compiled step."""

from entropix.data.cache import user_folder
from entropix.data.catalogue import CATALOGUE, DATASETS, check_dataset
from entropix.data.dataset import Dataset, hold_out
from entropix.data.errors import (
    DataError,
    DataNotFoundError,
    DataPackageError,
    LabelRangeError,
    SplitSizeError,
    UnreadableDataError,
)
from entropix.data.loading import load
from entropix.data.sampler import sample_batch
from entropix.data.scaling import global_contrast_normalise, scale
from entropix.data.whitening import Whitening, fit_zca, whiten

__all__ = [
    "CATALOGUE",
    "DATASETS",
    "DataError",
    "DataNotFoundError",
    "DataPackageError",
    "Dataset",
    "LabelRangeError",
    "SplitSizeError",
    "UnreadableDataError",
    "Whitening",
    "check_dataset",
    "fit_zca",
    "global_contrast_normalise",
    "hold_out",
    "load",
    "sample_batch",
    "scale",
    "user_folder",
    "whiten",
]
