"""The data sets known by name, and what each must look like."""

import difflib
from typing import Literal, NamedTuple

DIGITS = "digits"


class Entry(NamedTuple):
    """What a data set of TensorFlow Datasets is known to be; reading it checks this.

    Attributes:
      image_shape: (height, width, channels).
      num_classes: labels are 0 ... num_classes - 1.
      num_train: examples in the split "train".
      num_test: examples in the split "test".
      preprocessing: "scale" divides pixels by 255; "zca" is global contrast normalisation, then
        ZCA whitening.
      digest: of the records that this project's results were made with, where there are some; runs
        on others say so in their identity.
    """

    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    preprocessing: Literal["scale", "zca"]
    digest: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """Split -> number of examples."""
        return {"train": self.num_train, "test": self.num_test}


CATALOGUE = {
    "mnist": Entry((28, 28, 1), 10, 60_000, 10_000, "scale", digest="80cffb4e16df2119"),
    "fashion_mnist": Entry((28, 28, 1), 10, 60_000, 10_000, "scale"),
    "cifar10": Entry((32, 32, 3), 10, 50_000, 10_000, "zca"),
}

DATASETS = (DIGITS, *CATALOGUE)


def check_dataset(name: str, argument: str = "dataset") -> None:
    """Raises `ValueError` unless `name` is a known data set, naming the nearest that is."""
    if not isinstance(name, str) or name not in DATASETS:
        near = difflib.get_close_matches(str(name), DATASETS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"{argument} must be one of {', '.join(DATASETS)}; got {name!r}. Did you mean {near!r}?"
        )
