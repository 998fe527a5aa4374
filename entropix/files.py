"""Files that are replaced as a whole: a reader sees the old one or the new one."""

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterator

UNSUPPORTED = (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""What a file system, such as one of a network, says of what it does not know how to do."""


@contextlib.contextmanager
def if_supported(*others: int) -> Iterator[None]:
    """Steps over what the file system does not know how to do; `others` are further answers."""
    try:
        yield
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, *others):
            raise


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Names the file in an `OSError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # it is one of those
            raise
        raise OSError(
            f"{path} could not be written ({error.strerror}). Free some space, or restore the "
            "folder or its permissions, and run the same command again: what was saved before "
            "stays."
        ) from error


def write_atomic(path: str | pathlib.Path, content: bytes) -> None:
    """Writes a file, or leaves the old one as it was.

    It is written to a temporary file in the same folder, flushed to the disk and renamed. A process
    killed while writing leaves that file behind, named like `path` and eight characters more.

    Args:
      path: of the file; through a symbolic link, its target. Permissions stay as they are; a new
        file can be read by everybody, since data and results are shared.
      content: all of it.

    Raises:
      OSError: naming the file, if it cannot be written.
    """
    path = pathlib.Path(path).resolve()
    with writing(path):
        _write(path, content)
        _sync_folder(path.parent)


def _write(path: pathlib.Path, content: bytes) -> None:
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            with if_supported(errno.EPERM):  # where all files have one owner
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:  # Ctrl-C too: leave nothing half-written behind
            os.unlink(file.name)
            raise


def _sync_folder(folder: pathlib.Path) -> None:
    """The renaming itself reaches the disk only with its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with if_supported():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
