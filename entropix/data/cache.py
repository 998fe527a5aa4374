"""Arrays kept in a file that is either whole and right, or made again."""

import contextlib
import glob
import hashlib
import io
import json
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from entropix.files import write_atomic

Arrays = dict[str, np.ndarray]

_LEFTOVER_SECONDS = 3600.0  # writing the largest cache takes seconds


class _DamagedError(Exception):
    """A cache file that is not what was once written."""


def cached(
    folders: Sequence[pathlib.Path], name: str, key: str, make: Callable[[], Mapping[str, object]]
) -> Arrays:
    """Reads arrays from a cache file, or makes them and writes it.

    The file is one line of JSON with its key and the SHA-256 of all that follows, then the arrays
    in NumPy's .npz format. It is written to a temporary file, flushed to the disk and renamed, so
    that a crash leaves the old file or none; what is read is checked against the digest, and
    anything else than what was written is made again, with a warning.

    Args:
      folders: where to look, in this order; the first that can be written gets the file. A folder
        whose permissions let nobody write is left alone, even by those whom no permission binds.
      name: of the file.
      key: of what the arrays were made from; a file with another key is out of date.
      make: makes the arrays.

    Returns:
      The arrays by name. If the file cannot be written, there is a warning and no file.

    Example:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from entropix.data.cache import cached
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> cached([folder], "squares", "5", lambda: {"x": np.arange(5) ** 2})["x"].tolist()
      [0, 1, 4, 9, 16]
      >>> cached([folder], "squares", "5", lambda: 1 / 0)["x"].tolist()  # not made again
      [0, 1, 4, 9, 16]
    """
    for folder in folders:
        try:
            arrays = _read(folder / name, key)
        except _DamagedError as error:
            warnings.warn(f"{folder / name} is damaged ({error}); made again.", stacklevel=2)
            continue
        if arrays is not None:
            return arrays
    made = {k: np.asarray(v) for k, v in make().items()}
    try:
        _write(_first_writable(folders) / name, key, made)
    except OSError as error:
        warnings.warn(f"{name} is not cached ({error}); it is made anew each time.", stacklevel=2)
    return made


def user_folder() -> pathlib.Path:
    """Returns `$XDG_CACHE_HOME/entropix`, or `~/.cache/entropix` if that is not set."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(root) / "entropix"


def _read(path: pathlib.Path, key: str) -> Arrays | None:
    """Returns the arrays of a whole file with this key; None if there is none."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _DamagedError(str(error)) from error
    header, _, payload = content.partition(b"\n")
    try:
        stated = json.loads(header)
        written_key, written_digest = stated["key"], stated["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError("its first line is no header") from error
    if written_digest != _digest(written_key, payload):
        raise _DamagedError("its checksum is wrong")
    if written_key != key:
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return dict(arrays)


def _write(path: pathlib.Path, key: str, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stub forgets that ** may name all
    payload = buffer.getvalue()
    header = json.dumps({"key": key, "sha256": _digest(key, payload)}).encode()
    _remove_leftovers(path)
    write_atomic(path, header + b"\n" + payload)


def _remove_leftovers(path: pathlib.Path) -> None:
    """Removes what writers of this file left behind when they were killed, if they are long gone.

    A younger one may belong to another process that is writing the same file at this moment.
    """
    # Eight characters that `tempfile` appends; the file itself has none of them.
    for left in path.parent.glob(f"{glob.escape(path.name)}{'[0-9a-z_]' * 8}"):
        with contextlib.suppress(OSError):  # another process may have been quicker
            if time.time() - left.stat().st_mtime > _LEFTOVER_SECONDS:
                left.unlink()


def _digest(key: str, payload: bytes) -> str:
    digest = hashlib.sha256(str(key).encode() + b"\n")
    digest.update(payload)
    return digest.hexdigest()


def _first_writable(folders: Sequence[pathlib.Path]) -> pathlib.Path:
    refused = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.stat().st_mode & 0o222 and os.access(folder, os.W_OK):
                return folder
            refused.append(f"{folder} is read-only")
        except OSError as error:
            refused.append(str(error))
    raise OSError("; ".join(refused))
