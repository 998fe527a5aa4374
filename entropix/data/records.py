"""From a prepared copy's records to arrays, checked."""

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from entropix.data.catalogue import Entry
from entropix.data.errors import (
    DataError,
    DataPackageError,
    LabelRangeError,
    SplitSizeError,
    UnreadableDataError,
)
from entropix.data.prepared import Prepared

_BATCH = 1000  # records a call: one by one takes three times as long


class RawDataset(NamedTuple):
    """A data set as it is stored, on the host.

    Attributes:
      train_images: shape (n, height, width, channels), uint8.
      train_labels: shape (n,), int32.
      test_images: like `train_images`.
      test_labels: like `train_labels`.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def read_records(prepared: Prepared, entry: Entry) -> RawDataset:
    """Decodes both splits of a prepared copy, in its own order, without TensorFlow.

    Args:
      prepared: the copy.
      entry: what it must look like.

    Returns:
      A `RawDataset`.

    Raises:
      DataPackageError: if TensorFlow Datasets or array_record is not installed.
      UnreadableDataError: if a record cannot be read, or an image or a label has another shape or
        type (pixels that are NaN, labels that are fractions).
      SplitSizeError: if a split has the wrong number of examples.
      LabelRangeError: if a label is outside the known classes.
    """
    tfds = import_tfds(prepared.name)
    splits: list[np.ndarray] = []
    for split, size in entry.sizes.items():
        try:
            with quiet():
                images, labels = _read(tfds, prepared, split, size)
        except DataError:
            raise
        except Exception as error:  # the readers' own errors share no class but this one
            raise UnreadableDataError(
                f"{prepared.name}: split {split!r} in {prepared.folder} cannot be read "
                f"({first_line(error)}). {_way_out(prepared)}"
            ) from error
        splits += _check(prepared, entry, split, images, labels)
    return RawDataset(*splits)


def import_tfds(name: str) -> Any:
    """Imports TensorFlow Datasets and what it reads array_record with, or says what to install."""
    try:
        for module in ("array_record.python.array_record_module", "PIL.Image"):
            importlib.import_module(module)
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise DataPackageError(
            f"reading {name} needs TensorFlow Datasets, array_record and Pillow, and an import "
            f"failed ({error}): run `pip install tensorflow-datasets array-record pillow "
            "importlib-resources`, or use the data set 'digits', which needs none of them."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TensorFlow Datasets from logging advice that is not for our users."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _read(
    tfds: Any, prepared: Prepared, split: str, size: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    source = tfds.data_source(
        f"{prepared.name}:{prepared.version}", split=split, data_dir=prepared.root, download=False
    )
    if len(source) != size:
        raise SplitSizeError(
            f"{prepared.name}: split {split!r} must have {size} examples; {prepared.folder} has "
            f"{len(source)}. {_way_out(prepared)}"
        )
    images, labels = [], []
    for start in range(0, size, _BATCH):
        for record in source.__getitems__(range(start, min(start + _BATCH, size))):
            images.append(np.asarray(record["image"]))
            labels.append(np.asarray(record["label"]))
    return images, labels


def _check(
    prepared: Prepared,
    entry: Entry,
    split: str,
    images: list[np.ndarray],
    labels: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns one split as arrays, if every image and label is what the entry says."""
    where = f"split {split!r} in {prepared.folder}"
    for what, arrays, shape, kind in (
        ("images", images, entry.image_shape, np.uint8),
        ("labels", labels, (), np.integer),
    ):
        for number, array in enumerate(arrays):
            if array.shape != shape or not np.issubdtype(array.dtype, kind):
                nan = array.dtype.kind == "f" and np.isnan(array).any()
                raise UnreadableDataError(
                    f"{prepared.name}: {what} must be {kind.__name__} of shape {shape}; record "
                    f"{number} of {where} is {array.dtype} of shape {array.shape}"
                    f"{', with NaN' if nan else ''}. {_way_out(prepared)}"
                )
    numbers = np.asarray(labels, np.int64)
    bad = np.flatnonzero((numbers < 0) | (numbers >= entry.num_classes))
    if bad.size:
        raise LabelRangeError(
            f"{prepared.name}: labels must be in 0 ... {entry.num_classes - 1}; record {bad[0]} of "
            f"{where} has {numbers[bad[0]]}. {_way_out(prepared)}"
        )
    return np.stack(images), numbers.astype(np.int32)


def check_raw(arrays: Mapping[str, np.ndarray], entry: Entry) -> None:
    """Refuses arrays, read from a cache, that `read_records` cannot have made.

    Args:
      arrays: by the names of `RawDataset`.
      entry: what the data set must look like.

    Raises:
      ValueError: naming the first array that is not what it has to be.
    """
    if arrays.keys() != set(RawDataset._fields):
        raise ValueError(f"its arrays are {', '.join(sorted(arrays))}")
    for split, size in entry.sizes.items():
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if (images.dtype, images.shape) != (np.uint8, (size, *entry.image_shape)):
            raise ValueError(f"{split}_images is {images.dtype} of shape {images.shape}")
        if (labels.dtype, labels.shape) != (np.int32, (size,)):
            raise ValueError(f"{split}_labels is {labels.dtype} of shape {labels.shape}")
        if labels.min() < 0 or labels.max() >= entry.num_classes:
            raise ValueError(f"{split}_labels is not in 0 ... {entry.num_classes - 1}")


def first_line(error: BaseException) -> str:
    """An error in one line: its class, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _way_out(prepared: Prepared) -> str:
    return f"Delete {prepared.folder} and prepare it again, or name another folder with --data_dir."
