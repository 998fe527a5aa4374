"""Explicit sharding over eight devices, which a process must ask for before JAX starts."""

import pathlib

import pytest
from processes import assert_tests_pass

PROGRAM = pathlib.Path(__file__).with_name("eight_devices.py")


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param("keeps", marks=pytest.mark.slow),
        pytest.param("depend or replicas", marks=pytest.mark.slow),
        "communicates or mean_loss",
    ],
)
def test_on_eight_devices(tests):
    assert_tests_pass(PROGRAM, 8, tests)
