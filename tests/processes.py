"""Other processes, for tests that need several, or devices of their own."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def ended(process: subprocess.Popen, seconds: float) -> tuple[int, str, str]:
    """Exit status, output and errors of a process that has to end in time."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"still running after {seconds} s: {process.communicate()}")
    return process.returncode, out, err


def on_devices(number: int) -> dict[str, str]:
    """The environment of a process with so many CPU devices, compiled as the tests are."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags.strip()}


def assert_tests_pass(program: pathlib.Path, devices: int, selected: str) -> None:
    """Runs a file of tests on so many CPU devices, which must be asked for before JAX starts."""
    environment = on_devices(devices)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", selected]
    done = subprocess.run(
        [*command, program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
