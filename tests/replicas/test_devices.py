"""Replicas over four devices, which a process must ask for before JAX starts."""

import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).with_name("four_devices.py")


@pytest.mark.parametrize("tests", ["agree", "not agree"])
def test_on_four_devices(tests):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", tests]
    done = subprocess.run(
        [*command, PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
