"""Prepared copies from folder to device: what is read, kept, made again and refused."""

import io
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from entropix.data import (
    DataPackageError,
    LabelRangeError,
    SplitSizeError,
    UnreadableDataError,
    cache,
    catalogue,
    check_dataset,
    fit_zca,
    global_contrast_normalise,
    load,
    loading,
    records,
    whiten,
)
from entropix.experiment import classification


def caches(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.rglob("*.cache"))


def equal(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


@pytest.fixture
def no_decoding(monkeypatch):
    """Returns a function after whose call every decoding fails."""

    def refuse(*args):
        raise AssertionError("records were decoded again")

    return lambda: monkeypatch.setattr(loading, "read_records", refuse)


def test_mnist_is_read_in_order_and_scaled(small, write_copy):
    folder, images = write_copy("mnist")
    data = load("mnist", folder)
    assert data.train_images.shape == (30, 28, 28, 1)
    assert data.train_images.dtype == data.test_images.dtype == np.float32
    assert data.train_labels.dtype == np.int32
    for mine, split in ((data.train_images, "train"), (data.test_images, "test")):
        np.testing.assert_array_equal(np.round(np.asarray(mine) * 255), images[split])
        assert float(mine.max()) <= 1.0
    np.testing.assert_array_equal(data.train_labels, np.arange(30) % 10)


def test_tfds_data_dir_is_searched(small, write_copy, monkeypatch):
    folder, _ = write_copy("mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    assert load("mnist").train_images.shape == (30, 28, 28, 1)


def test_the_second_read_decodes_nothing(small, write_copy, no_decoding):
    folder, _ = write_copy("mnist")
    first = load("mnist", folder)
    assert [path.parent for path in caches(folder)] == [folder / "mnist" / "3.0.1"]
    no_decoding()
    assert equal(load("mnist", folder), first)


def test_a_read_only_copy_is_left_alone(small, write_copy, tmp_path, monkeypatch, no_decoding):
    """Whoever runs this, the superuser too: a folder nobody may write is so on purpose."""
    folder, _ = write_copy("mnist")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder / "mnist" / "3.0.1").chmod(0o555)
    first = load("mnist", folder)
    assert caches(folder) == []
    assert [path.parent for path in caches(tmp_path / "cache")] == [tmp_path / "cache/entropix"]
    no_decoding()
    assert equal(load("mnist", folder), first)


def test_a_damaged_cache_is_made_again(small, write_copy):
    folder, _ = write_copy("mnist")
    first = load("mnist", folder)
    (path,) = caches(folder)
    good = path.read_bytes()
    path.write_bytes(good[:-1000])
    with pytest.warns(UserWarning, match=r"is damaged .its checksum is wrong.; made again"):
        assert equal(load("mnist", folder), first)
    assert path.read_bytes() == good


def test_another_copy_in_its_place_is_read_anew(small, write_copy):
    folder, _ = write_copy("mnist", labels=[1])
    assert set(np.asarray(load("mnist", folder).train_labels)) == {1}
    write_copy("mnist", labels=[2])
    assert set(np.asarray(load("mnist", folder).train_labels)) == {2}


def test_cifar_is_whitened_by_what_the_training_set_taught(small, write_copy):
    folder, images = write_copy("cifar10")
    data = load("cifar10", folder, zca_regulariser=0.01)
    train = global_contrast_normalise(images["train"])
    whitening = fit_zca(train, 0.01)
    np.testing.assert_allclose(data.train_images, whiten(whitening, train), atol=1e-5)
    test = whiten(whitening, global_contrast_normalise(images["test"]))
    np.testing.assert_allclose(data.test_images, test, atol=1e-5)


def test_a_fitted_whitening_is_kept_for_its_regulariser(small, write_copy, monkeypatch):
    folder, _ = write_copy("cifar10")
    first = load("cifar10", folder)
    fitted = []
    monkeypatch.setattr(
        loading, "fit_zca", lambda images, eps: fitted.append(eps) or fit_zca(images, eps)
    )
    assert equal(load("cifar10", folder), first)
    load("cifar10", folder, zca_regulariser=0.5)
    load("cifar10", folder, zca_regulariser=0.50000001)  # another number in the same file name
    assert fitted == [0.5, 0.50000001]
    assert len(caches(folder)) == 3


@pytest.mark.parametrize("regulariser", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_regularisers_are_refused_before_anything_is_read(regulariser):
    with pytest.raises(ValueError, match="zca_regulariser must be a number > 0"):
        load("cifar10", "/nowhere", zca_regulariser=regulariser)


def test_wrong_split_size(small, write_copy):
    folder, _ = write_copy("mnist", sizes={"test": 19})
    message = r"mnist: split 'test' must have 20 examples; .* has 19. Delete .* or name another"
    with pytest.raises(SplitSizeError, match=message):
        load("mnist", folder)


@pytest.mark.parametrize("label", [10, -1])
def test_label_out_of_range(small, write_copy, label):
    folder, _ = write_copy("mnist", labels=[3, label])
    message = rf"labels must be in 0 ... 9; record 1 of split 'train' in .* has {label}"
    with pytest.raises(LabelRangeError, match=message):
        load("mnist", folder)
    assert caches(folder) == []


def test_images_of_another_shape(small, write_copy):
    folder, _ = write_copy("mnist", shape=(28, 27, 1))
    with pytest.raises(UnreadableDataError, match=r"mnist: .*28, 27, 1"):
        load("mnist", folder)


def test_pixels_that_are_no_bytes_are_named_with_their_record(small, write_copy, monkeypatch):
    folder, _ = write_copy("mnist")
    read = records._read

    def poisoned(*arguments):
        images, labels = read(*arguments)
        images[3] = np.full((28, 28, 1), np.nan, np.float32)
        return images, labels

    monkeypatch.setattr(records, "_read", poisoned)
    message = (
        r"mnist: images must be uint8 of shape \(28, 28, 1\); record 3 of split 'train' in .* is "
        r"float32 of shape \(28, 28, 1\), with NaN\. Delete .* or name another"
    )
    with pytest.raises(UnreadableDataError, match=message):
        load("mnist", folder)
    assert caches(folder) == []


@pytest.mark.parametrize("label", [np.float32(2.5), np.float64("nan"), np.arange(2), np.True_, "1"])
def test_labels_that_are_no_integers_are_named(small, write_copy, monkeypatch, label):
    folder, _ = write_copy("mnist")
    read = records._read

    def poisoned(*arguments):
        images, labels = read(*arguments)
        labels[0] = np.asarray(label)
        return images, labels

    monkeypatch.setattr(records, "_read", poisoned)
    message = r"labels must be integer of shape \(\); record 0"
    with pytest.raises(UnreadableDataError, match=message):
        load("mnist", folder)


def test_records_without_images(small, write_copy):
    folder, _ = write_copy("mnist")
    features = folder / "mnist" / "3.0.1" / "features.json"
    features.write_text(features.read_text().replace('"image": {"image"', '"other": {"image"'))
    with pytest.raises(UnreadableDataError, match=r"split 'train' in .* cannot be read .*image"):
        load("mnist", folder)


def forge(path: pathlib.Path, **changes) -> None:
    """Changes arrays in a cache file, and its digest with them."""
    header, _, payload = path.read_bytes().partition(b"\n")
    with np.load(io.BytesIO(payload)) as found:
        arrays = {k: v for k, v in (dict(found) | changes).items() if v is not None}
    cache._write(path, json.loads(header)["key"], arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_labels": np.full(30, 99, np.int32)},
        {"train_labels": np.full(30, -1, np.int32)},
        {"train_labels": np.zeros(30)},
        {"train_images": np.full((30, 28, 28, 1), np.nan)},
        {"test_images": np.zeros((20, 28, 28), np.uint8)},
        {"test_images": np.zeros((21, 28, 28, 1), np.uint8)},
        {"test_images": None},
        {"more": np.zeros(3)},
    ],
)
def test_a_forged_cache_of_arrays_is_made_again(small, write_copy, changes):
    folder, _ = write_copy("mnist")
    first = load("mnist", folder)
    (path,) = caches(folder)
    forge(path, **changes)
    with pytest.warns(UserWarning, match="is damaged .it holds something else: .*; made again"):
        assert equal(load("mnist", folder), first)
    assert equal(load("mnist", folder), first)


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": np.full(90, np.nan, np.float32)},
        {"matrix": np.zeros((90, 89), np.float32)},
        {"matrix": np.eye(90)},
        {"mean": None},
    ],
)
def test_a_forged_cache_of_a_whitening_is_made_again(small, write_copy, changes):
    folder, _ = write_copy("cifar10")
    first = load("cifar10", folder)
    (path,) = (path for path in caches(folder) if "zca" in path.name)
    forge(path, **changes)
    with pytest.warns(UserWarning, match="is damaged .it holds something else: m"):
        assert equal(load("cifar10", folder), first)


def test_a_whitening_of_nan_is_refused():
    images = np.ones((5, 2, 2, 1))
    images[3, 1, 1] = np.nan
    with pytest.raises(ValueError, match="images must be finite .*; image 3 has NaN or infinity"):
        fit_zca(images)


def halve(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[5000:9000] = bytes(4000)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [halve, scribble, pathlib.Path.unlink])
def test_unreadable_records(small, write_copy, damage):
    folder, _ = write_copy("mnist")
    damage(folder / "mnist" / "3.0.1" / "mnist-train.array_record-00000-of-00001")
    with pytest.raises(
        UnreadableDataError, match=r"split 'train' in .* cannot be read .*name another"
    ):
        load("mnist", folder)


def test_a_missing_split(small, write_copy):
    folder, _ = write_copy("mnist")
    info = folder / "mnist" / "3.0.1" / "dataset_info.json"
    info.write_text(info.read_text().replace('"name": "test"', '"name": "tset"'))
    with pytest.raises(UnreadableDataError, match=r"split 'test' in .* cannot be read"):
        load("mnist", folder)


@pytest.mark.parametrize("package", ["tensorflow_datasets", "array_record", "PIL"])
def test_a_missing_package_is_named_with_its_command(small, write_copy, package, monkeypatch):
    folder, _ = write_copy("mnist")
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataPackageError, match="pip install tensorflow-datasets array-record"):
        load("mnist", folder)
    assert load("digits").num_train == 1437


@pytest.mark.parametrize(
    ("name", "near"), [("digit", "digits"), ("minst", "mnist"), ("cifar-10", "cifar10")]
)
def test_unknown_name_suggests_the_nearest(name, near):
    for function in (load, check_dataset):
        with pytest.raises(ValueError, match=f"got '{name}'. Did you mean '{near}'"):
            function(name)


def test_no_tensorflow_and_for_digits_no_tensorflow_datasets():
    code = (
        "import sys, entropix.data; entropix.data.load('digits');"
        "assert not {'tensorflow', 'tensorflow_datasets', 'array_record'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_runs_on_other_records_are_other_runs(small, write_copy, monkeypatch):
    """The catalogue's records need no digest; those of any other copy are told apart."""

    def identity(**options):
        folder, _ = write_copy("mnist", **options)
        made = classification("mnist", {"name": "mlp", "widths": (4,)}, data_dir=str(folder))
        return made.identity["digest"]

    first, other = identity(), identity(labels=[1, 2, 3])
    assert len(first) == len(other) == 16
    assert first != other == identity(labels=[1, 2, 3])
    monkeypatch.setitem(small, "mnist", small["mnist"]._replace(digest=first))
    monkeypatch.setitem(catalogue.CATALOGUE, "mnist", small["mnist"])
    assert [identity(), identity(labels=[1, 2, 3])] == ["by name", other]


def test_a_newer_copy_in_another_format_hides_no_good_one(small, write_copy):
    folder, _ = write_copy("mnist")
    newer = folder / "mnist" / "3.1.0"
    newer.mkdir()
    info = json.loads((folder / "mnist" / "3.0.1" / "dataset_info.json").read_text())
    (newer / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    assert load("mnist", folder).train_images.shape == (30, 28, 28, 1)
