"""Compiled programs, kept between processes."""

import contextlib
import glob
import logging
import os
import pathlib
import re
import warnings
from typing import Any

import jax

from entropix.data import user_folder

_log = logging.getLogger(__name__)

_SECONDS = 0.3  # what compiles faster is not worth a file
_UNREADABLE = r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)'"


def keep_compiled() -> None:
    """Lets JAX keep compiled programs on disk, in `$XDG_CACHE_HOME/entropix/compiled`.

    A run that continues, or repeats an architecture, then starts in seconds. JAX's own variable
    `JAX_COMPILATION_CACHE_DIR`, or an earlier `jax.config.update`, decides where if it is set;
    `JAX_ENABLE_COMPILATION_CACHE=false` switches the cache off. It is never pruned: deleting the
    folder is always safe. Call it before anything is compiled.

    A process that is killed while it writes, or a full disk, leaves half a file. JAX warns of such
    a file and compiles, but neither removes nor replaces the file, so that every later process
    does the same. Here the warning removes the file, and JAX writes it again.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(user_folder() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
    warnings.filterwarnings("always", _UNREADABLE, UserWarning)  # every one, or it stays
    if not isinstance(warnings.showwarning, _Healer):
        warnings.showwarning = _Healer(warnings.showwarning)


class _Healer:
    """Shows warnings as before, but for those of unreadable programs, which it removes.

    Args:
      show: what showed warnings until now.
    """

    def __init__(self, show: Any):
        self._show = show

    def __call__(self, message: Warning | str, *where: Any, **options: Any) -> None:
        found = re.match(_UNREADABLE, str(message))
        if found is None:
            self._show(message, *where, **options)
            return
        folder = pathlib.Path(str(jax.config.values["jax_compilation_cache_dir"]))
        for path in folder.glob(f"{glob.escape(found[1])}-*"):  # one of these; the rest is no loss
            with contextlib.suppress(OSError):
                path.unlink()
        _log.info("the compiled program %s in %s was damaged: removed", found[1], folder)
