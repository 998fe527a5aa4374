"""Compiled programs on disk that were cut short are written again, by JAX as it is."""

import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = """
import logging, warnings
logging.basicConfig(level=logging.INFO, format="%(message)s")
warnings.simplefilter("{filter}")
from entropix.runs.compilation import keep_compiled
keep_compiled()
import jax, jax.numpy as jnp

@jax.jit
def cut_short(x):
    return jnp.sin(x) @ x.T

print(cut_short(jnp.ones((3, 2))).shape)
"""


def run(folder, warnings="default"):
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
    }
    code = PROGRAM.replace("{filter}", warnings)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "(3, 3)\n"), done.stderr
    return done.stderr


def half(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "filter"),
    [
        (half, "default"),
        pytest.param(half, "ignore", marks=pytest.mark.slow),
        pytest.param(lambda path: path.write_bytes(b""), "error", marks=pytest.mark.slow),
        pytest.param(lambda path: path.write_bytes(b"x" * 999), "once", marks=pytest.mark.slow),
    ],
)
def test_what_was_cut_short_is_written_again(tmp_path, damage, filter):  # noqa: A002
    assert "damaged" not in run(tmp_path, filter)
    (entry,) = tmp_path.glob("jit_cut_short-*")
    others = set(tmp_path.iterdir()) - {entry}
    size = entry.stat().st_size
    damage(entry)
    said = run(tmp_path, filter)
    assert f"the compiled program jit_cut_short in {tmp_path} was damaged" in said
    assert "Warning" not in said
    assert abs(entry.stat().st_size - size) < 100  # it has the time of compilation in it
    assert others <= set(tmp_path.iterdir())
    assert "damaged" not in run(tmp_path, filter)
