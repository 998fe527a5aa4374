"""Settings that must stand before JAX starts; pytest reads this file first."""

import os

import pytest

# A test that passes or fails by the machine's accelerator is no test: CPU unless asked otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Nor should a test find what an earlier one compiled.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")


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
