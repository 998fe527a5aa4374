"""From a data set's name to four arrays on the device."""

import hashlib
import os
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array

from entropix.data.cache import Arrays, cached, user_folder
from entropix.data.catalogue import CATALOGUE, DIGITS, Entry, check_dataset
from entropix.data.dataset import Dataset
from entropix.data.digits import read_digits
from entropix.data.download import locate
from entropix.data.prepared import Prepared
from entropix.data.records import RawDataset, check_raw, read_records
from entropix.data.scaling import global_contrast_normalise, scale
from entropix.data.whitening import Whitening, check_whitening, fit_zca, whiten
from entropix.transforms.checks import check_positive, refusal

# Part of the cached whitening's key: to be raised when what comes before the fit changes.
_FIT = "contrast-normalised, fit 4"


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    zca_regulariser: float = 1e-5,
) -> Dataset:
    """Loads a data set by name, preprocessed as in the paper, onto the device.

    =============  ===============  =======================  ====================================
    name           train / test     images                   preprocessing
    =============  ===============  =======================  ====================================
    digits         1,437 / 360      8 x 8 grey               pixels scaled to [0, 1]
    mnist          60,000 / 10,000  28 x 28 grey             pixels scaled to [0, 1]
    fashion_mnist  60,000 / 10,000  28 x 28 grey             pixels scaled to [0, 1]
    cifar10        50,000 / 10,000  32 x 32 colour           contrast-normalised, then whitened
    =============  ===============  =======================  ====================================

    "digits" comes with scikit-learn, in a fixed stratified split, and needs neither a network nor
    `data_dir`. The others are read from copies prepared by TensorFlow Datasets (in array_record;
    TensorFlow is not needed) or, where there is none, downloaded by it. Records are decoded once:
    arrays, and the whitening, are then cached next to them, or in `$XDG_CACHE_HOME/entropix`
    (`~/.cache/entropix`) if that folder is read-only. Deleting a cache file is always safe.

    Args:
      name: of the data set.
      data_dir: folder of prepared copies. By default the environment's `TFDS_DATA_DIR`, then
        `~/tensorflow_datasets`.
      zca_regulariser: epsilon > 0 of `fit_zca`, for cifar10, added to standard deviations.

    Returns:
      A `Dataset`.

    Raises:
      ValueError: for an unknown name, with the nearest known one.
      DataNotFoundError: within seconds, if there is neither a copy nor a way to download one.
      DataPackageError: if TensorFlow Datasets is needed and not installed.
      UnreadableDataError: if a copy cannot be read.
      SplitSizeError: if a split has the wrong number of examples.
      LabelRangeError: if a label is outside the known classes.

    Example:
      >>> import entropix
      >>> digits = entropix.data.load("digits")
      >>> digits.train_images.shape, digits.test_images.shape
      ((1437, 8, 8, 1), (360, 8, 8, 1))

    References:
      E. Alpaydin, C. Kaynak, `Optical Recognition of Handwritten Digits
      <https://doi.org/10.24432/C50P49>`_, UCI, 1998 (its test part).
      Y. LeCun, C. Cortes, C. Burges, `MNIST <http://yann.lecun.com/exdb/mnist/>`_.
      H. Xiao, K. Rasul, R. Vollgraf, `Fashion-MNIST <https://arxiv.org/abs/1708.07747>`_, 2017.
      A. Krizhevsky, `CIFAR-10 <https://www.cs.toronto.edu/~kriz/cifar.html>`_, 2009.
    """
    check_dataset(name, "name")
    if data_dir is not None and not isinstance(data_dir, str | os.PathLike):
        raise refusal("data_dir", "the path of a folder, or None", data_dir)
    zca_regulariser = check_positive("zca_regulariser", zca_regulariser, schedule=False)
    if name == DIGITS:
        return read_digits()
    prepared, entry = locate(name, data_dir), CATALOGUE[name]
    raw = _raw(prepared, entry)
    if entry.preprocessing == "scale":
        return _dataset(raw, scale(raw.train_images), scale(raw.test_images))
    train = global_contrast_normalise(raw.train_images)
    test = global_contrast_normalise(raw.test_images)
    # Fitted on the training set alone: the test set must not shape what the networks see.
    fit = lambda: fit_zca(train, zca_regulariser)  # noqa: E731
    made_with, fits = f"{_FIT} {zca_regulariser!r}", partial(check_whitening, train[0].size)
    kept = _keep(prepared, f"zca-{zca_regulariser:g}", made_with, fit, fits)
    whitening = Whitening(**{name: jnp.asarray(array) for name, array in kept.items()})
    return _dataset(raw, whiten(whitening, train), whiten(whitening, test))


def stored(name: str, data_dir: str | os.PathLike[str] | None = None) -> RawDataset:
    """Returns what a prepared copy holds, of a data set that `load` reads from one.

    Args:
      name: a key of `CATALOGUE`.
      data_dir: see `load`.

    Raises:
      DataError: as `load` does.
    """
    return _raw(locate(name, data_dir), CATALOGUE[name])


def _raw(prepared: Prepared, entry: Entry) -> RawDataset:
    read, checked = partial(read_records, prepared, entry), partial(check_raw, entry=entry)
    return RawDataset(**_keep(prepared, "arrays", "", read, checked))


def _keep(
    prepared: Prepared,
    kind: str,
    made_with: str,
    make: Callable[[], RawDataset | Whitening],
    check: Callable[[Arrays], None],
) -> Arrays:
    """Caches what is made from a prepared copy, next to it or in the user's folder."""
    # In the user's folder, copies of one data set in several places must not take turns.
    place = hashlib.sha256(str(prepared.folder.resolve()).encode()).hexdigest()[:12]
    name = f"entropix-{prepared.name}-{prepared.version}-{kind}-{place}.cache"
    key = f"{prepared.fingerprint()} {made_with}"
    return cached([prepared.folder, user_folder()], name, key, lambda: make()._asdict(), check)


def _dataset(raw: RawDataset, train_images: Array, test_images: Array) -> Dataset:
    return Dataset(
        train_images=train_images,
        train_labels=jnp.asarray(raw.train_labels),
        test_images=test_images,
        test_labels=jnp.asarray(raw.test_labels),
    )
