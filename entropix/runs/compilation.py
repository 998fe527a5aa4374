"""Compiled programs, kept between processes."""

import os

import jax

from entropix.data import user_folder

_SECONDS = 0.3  # what compiles faster is not worth a file


def keep_compiled() -> None:
    """Lets JAX keep compiled programs on disk, in `$XDG_CACHE_HOME/entropix/compiled`.

    A run that continues, or repeats an architecture, then starts in seconds. JAX's own variable
    `JAX_COMPILATION_CACHE_DIR`, or an earlier `jax.config.update`, decides where if it is set;
    `JAX_ENABLE_COMPILATION_CACHE=false` switches the cache off. It is never pruned: deleting the
    folder is always safe. Call it before anything is compiled.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(user_folder() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
