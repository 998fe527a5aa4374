"""Settings that must stand before JAX starts; pytest reads this file first."""

import atexit
import gc
import os
import subprocess
import sys
import tempfile

import pytest

# A test that passes or fails by the machine's accelerator is no test: CPU unless asked otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Nor is one that finds what an earlier session compiled: programs are kept in a folder that is new
# in every session, and shared by its workers and by the processes that tests start.
if "PYTEST_XDIST_WORKER" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="compiled-")
    atexit.register(compiled.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Compiling is most of the suite's time, and what tests compile runs for milliseconds. What holds
# must hold however it is compiled; `false`, as in the second part of .ci/run, is as for users.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# Without its newer emitters of loops, and with one module of machine code a program, XLA compiles
# three times as fast again.
QUICK = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def understood(*flags: str) -> bool:
    """Whether this XLA knows the flags: one that it does not know ends the process."""
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    return not subprocess.run(start, env=environment, capture_output=True).returncode


quickly = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "true"
if quickly and "PYTEST_XDIST_WORKER" not in os.environ:
    known = QUICK if understood(*QUICK) else filter(understood, QUICK)
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *known]).strip()

# JAX keeps all that was traced and compiled, and the garbage collector looks through it again and
# again, in a quarter of the suite's time: it looks less often, and less is kept (below).
gc.set_threshold(100_000, 50, 50)


def pytest_collection_finish():
    """What is imported by now stays: the collector need not look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def programs_go_with_their_module():
    """Forgets what a module has traced and compiled; programs stay in the session's folder."""
    yield
    import jax

    jax.clear_caches()
    gc.collect()


@pytest.fixture
def compilations():
    """A list that grows by one with every program that JAX compiles during the test."""
    import jax

    events = []

    def listen(event: str, seconds: float, **details) -> None:
        if "backend_compile" in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def x64():
    """Double precision, for identities that hold up to rounding."""
    import jax

    with jax.enable_x64(True):
        yield
