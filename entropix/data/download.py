"""TensorFlow Datasets' own download, tried only where it can succeed."""

import importlib.util
import os
import pathlib
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from entropix.data.errors import DataNotFoundError
from entropix.data.prepared import Prepared, find_prepared, search_folders
from entropix.data.records import first_line, import_tfds, quiet

# Left to itself, TensorFlow Datasets retries for more than three minutes without a network.
_PROBE_SECONDS = 6.0


def locate(name: str, data_dir: str | os.PathLike[str] | None = None) -> Prepared:
    """Finds a prepared copy of a data set, or downloads and prepares one.

    Args:
      name: of the data set.
      data_dir: folder to look in and to download to. By default those of `search_folders`, and
        the first of them.

    Returns:
      The copy.

    Raises:
      DataNotFoundError: within seconds, if there is no copy and no network or no TensorFlow, which
        TensorFlow Datasets needs to prepare a copy, though not to read one.
      DataPackageError: if TensorFlow Datasets is not installed and there is no copy.
      UnreadableDataError: if the copy's metadata is damaged or its format is not array_record.
    """
    folders = search_folders(data_dir)
    prepared = find_prepared(name, folders)
    if prepared is None:
        obstacles = _obstacles(name)
        if obstacles:
            raise _not_found(name, folders, "; ".join(obstacles))
        _prepare(name, folders)
        prepared = find_prepared(name, folders[:1])
    if prepared is None:
        raise _not_found(name, folders, "its preparation left nothing behind")
    return prepared


def _obstacles(name: str) -> list[str]:
    """What keeps TensorFlow Datasets from downloading and preparing a data set, all at once."""
    tfds = import_tfds(name)
    packages = ("tensorflow", "importlib_resources")
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    found = [f"preparing it needs {' and '.join(missing)}"] if missing else []
    if "importlib_resources" not in missing:  # without it the addresses are not known
        url = next(iter(tfds.builder_cls(name).url_infos))
        unreachable = probe(url)
        found += [unreachable] if unreachable else []
    return found


def probe(url: str, seconds: float = _PROBE_SECONDS) -> str:
    """Asks whether a server answers at all.

    Args:
      url: an address there; a proxy named in the environment is used.
      seconds: to wait, > 0.

    Returns:
      "" if it does (with whatever status), or else why there seems to be no network.
    """
    import requests

    host = urlsplit(url).hostname
    outcome = [f"no network: {host} did not answer within {seconds:g} s"]

    def ask() -> None:
        try:
            requests.head(url, timeout=seconds)
            outcome[0] = ""
        except requests.RequestException as error:
            outcome[0] = f"no network: {host} cannot be reached, {type(error).__name__}"

    # A thread, because looking up a host name heeds no timeout; a daemon, to be left behind.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0]


def _prepare(name: str, folders: Sequence[pathlib.Path]) -> None:
    tfds = import_tfds(name)
    try:
        with quiet():
            # Its default format would be the one that only TensorFlow reads.
            builder = tfds.builder(name, data_dir=folders[0], file_format="array_record")
            builder.download_and_prepare()
    except Exception as error:  # network, disk, checksums: each has a class of its own
        raise _not_found(name, folders, first_line(error)) from error


def _not_found(name: str, folders: Sequence[pathlib.Path], reason: str) -> DataNotFoundError:
    searched = ", ".join(str(folder / name) for folder in folders)
    return DataNotFoundError(
        f"no copy of {name} in {searched}, and it cannot be downloaded ({reason}): name a folder "
        "that holds a copy prepared as array_record with --data_dir or TFDS_DATA_DIR, or connect "
        "to the network and `pip install tensorflow importlib-resources` so that TensorFlow "
        "Datasets prepares one, or use the data set 'digits', which needs no download."
    )
