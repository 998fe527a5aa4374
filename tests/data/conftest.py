"""Tiny data sets in the files TensorFlow Datasets writes, and no network for anybody."""

import io
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import requests

from entropix.data import catalogue
from entropix.data.catalogue import Entry

SMALL = {
    "mnist": Entry((28, 28, 1), 10, 30, 20, "scale"),
    "cifar10": Entry((6, 5, 3), 10, 300, 20, "zca"),
}
SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "tfds"


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory):
    """No network, and neither the user's data nor the user's cache."""

    def unplugged(*args, **options):
        raise requests.ConnectionError("no network in tests")

    home = tmp_path_factory.mktemp("home")
    monkeypatch.setattr(requests, "head", unplugged)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


@pytest.fixture
def small(monkeypatch):
    """The known sizes, made small; returns the catalogue."""
    for name, entry in SMALL.items():
        monkeypatch.setitem(catalogue.CATALOGUE, name, entry)
    return SMALL


Images = dict[str, np.ndarray]


@pytest.fixture
def write_copy(tmp_path) -> Callable[..., tuple[pathlib.Path, Images]]:
    """A function that writes a prepared copy under `tmp_path / "tfds"`, and returns its images."""

    def write(name="mnist", labels=None, sizes=None, shape=None, file_format="array_record"):
        entry = SMALL[name]
        shape = shape or entry.image_shape
        sizes = entry.sizes | (sizes or {})
        folder = tmp_path / "tfds" / name / "3.0.1"
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        images = {
            split: rng.integers(0, 256, (n, *shape), dtype=np.uint8) for split, n in sizes.items()
        }
        for split, values in images.items():
            given = labels if labels is not None else np.arange(len(values)) % 10
            path = folder / f"{name}-{split}.array_record-00000-of-00001"
            write_records(path, values, [int(given[i % len(given)]) for i in range(len(values))])
        (folder / "dataset_info.json").write_text(_info(name, sizes, file_format))
        (folder / "features.json").write_text(_features(entry.image_shape))
        return tmp_path / "tfds", images

    return write


def write_records(path: pathlib.Path, images: np.ndarray, labels: Sequence[int]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for image, label in zip(images, labels, strict=True):
        png = io.BytesIO()
        Image.fromarray(image.squeeze()).save(png, "png")
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(png.getvalue())
        example.features.feature["label"].int64_list.value.append(label)
        writer.write(example.SerializeToString())
    writer.close()


def _info(name: str, sizes: dict[str, int], file_format: str) -> str:
    splits = [
        {
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "name": split,
            "numBytes": "1",
            "shardLengths": [str(size)],
        }
        for split, size in sizes.items()
    ]
    return json.dumps(
        {"name": name, "version": "3.0.1", "fileFormat": file_format, "splits": splits}
    )


def _features(shape: Sequence[int]) -> str:
    package = "tensorflow_datasets.core.features"
    dimensions = {"dimensions": [str(size) for size in shape]}
    features = {
        "image": {
            "image": {"dtype": "uint8", "shape": dimensions},
            "pythonClassName": f"{package}.image_feature.Image",
        },
        "label": {
            "classLabel": {"numClasses": "10"},
            "pythonClassName": f"{package}.class_label_feature.ClassLabel",
        },
    }
    return json.dumps(
        {
            "featuresDict": {"features": features},
            "pythonClassName": f"{package}.features_dict.FeaturesDict",
        }
    )
