"""Double precision for every check of the theory, and a record of what each of them saw."""

import json

import jax
import pytest


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def measured(request, record_property):
    """`measured("Lemma 3", "rate 8.96", "at least 3.37")`: a row of docs/statements.md.

    Statement, figure and its bound, as words; standard errors stand in brackets. They travel in
    the test's report, from which `table.py` makes the page.
    """

    def record(statement, figure, bound):
        record_property("measured", json.dumps([statement, request.node.nodeid, figure, bound]))

    return record
