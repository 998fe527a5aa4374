"""Files that are replaced as a whole: a reader sees the old one or the new one."""

import os
import pathlib
import tempfile


def write_atomic(path: str | pathlib.Path, content: bytes) -> None:
    """Writes a file, or leaves the old one as it was.

    Args:
      path: of the file; through a symbolic link, its target. Permissions stay as they are.
      content: all of it.

    Raises:
      OSError: if it cannot be written.
    """
    path = pathlib.Path(path).resolve()
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:  # Ctrl-C too: leave nothing half-written behind
            os.unlink(file.name)
            raise
