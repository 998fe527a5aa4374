"""Where prepared copies of data sets lie on disk, found without importing what reads them."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from entropix.data.errors import UnreadableDataError

_INFO = "dataset_info.json"
_FORMAT = "array_record"


class Prepared(NamedTuple):
    """A copy that TensorFlow Datasets has prepared: `ROOT/NAME/VERSION/*.array_record-*`.

    Attributes:
      name: of the data set.
      version: such as "3.0.1".
      root: the data folder it was found in.
    """

    name: str
    version: str
    root: pathlib.Path

    @property
    def folder(self) -> pathlib.Path:
        """Where its records lie."""
        return self.root / self.name / self.version

    def fingerprint(self) -> str:
        """A digest that changes when the copy does: what is derived from it is then stale."""
        digest = hashlib.sha256((self.folder / _INFO).read_bytes())
        for path in sorted(self.folder.glob(f"*.{_FORMAT}*")):
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def search_folders(data_dir: str | os.PathLike[str] | None = None) -> list[pathlib.Path]:
    """Returns the folders to look for data sets in.

    Args:
      data_dir: if given, the only one.

    Returns:
      `data_dir`; or the environment's `TFDS_DATA_DIR` if it is set, then `~/tensorflow_datasets`,
      the default of TensorFlow Datasets.
    """
    if data_dir:
        folders = [data_dir]
    else:
        named = os.environ.get("TFDS_DATA_DIR")
        folders = [*([named] if named else []), "~/tensorflow_datasets"]
    # os.path leaves a "~" that stands for no home as it is, where pathlib raises
    return [pathlib.Path(os.path.expanduser(folder)) for folder in folders]


def find_prepared(name: str, folders: Sequence[pathlib.Path]) -> Prepared | None:
    """Finds the newest readable version of a data set in the first folder that has one.

    Args:
      name: of the data set.
      folders: see `search_folders`.

    Returns:
      The copy, or None. A folder without metadata is what an interrupted download leaves behind,
      and is no copy.

    Raises:
      UnreadableDataError: if there are copies, but all have damaged metadata, or records in
        another format than array_record, which cannot be read without TensorFlow.
    """
    refused = None
    for root in folders:
        found = [
            tuple(int(part) for part in path.parent.name.split("."))
            for path in (root / name).glob(f"*/{_INFO}")
            if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
        ]
        for version in sorted(found, reverse=True):
            prepared = Prepared(name, ".".join(map(str, version)), root)
            try:
                _check_format(prepared)
            except UnreadableDataError as error:  # which must not hide a good copy elsewhere
                refused = refused or error
            else:
                return prepared
    if refused is not None:
        raise refused
    return None


def _check_format(prepared: Prepared) -> None:
    path = prepared.folder / _INFO
    try:
        info = json.loads(path.read_bytes())
        written = info.get("fileFormat", "tfrecord")  # the format of files that do not say
    except (OSError, ValueError, AttributeError) as error:
        raise UnreadableDataError(
            f"{prepared.name}: {path} is damaged ({error}); delete {prepared.folder} and prepare "
            "the data set again, or name another folder with --data_dir."
        ) from error
    if written != _FORMAT:
        raise UnreadableDataError(
            f"{prepared.name}: {prepared.folder} must be in the format {_FORMAT!r}, which is read "
            f"without TensorFlow; it is in {written!r}. Name another folder with --data_dir, where "
            f"a copy is or can be prepared in {_FORMAT!r}."
        )
