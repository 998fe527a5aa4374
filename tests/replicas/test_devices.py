"""Replicas over four devices, which a process must ask for before JAX starts."""

import pathlib

import pytest
from processes import assert_tests_pass

PROGRAM = pathlib.Path(__file__).with_name("four_devices.py")


@pytest.mark.parametrize("tests", [pytest.param("agree", marks=pytest.mark.slow), "not agree"])
def test_on_four_devices(tests):
    assert_tests_pass(PROGRAM, 4, tests)
