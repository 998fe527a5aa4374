"""A record of what became of every case, from which `table.py` makes docs/reliability.md."""

import collections
import json

import pytest
from faults.rehearsal import FOREIGN, WRONG
from runs.conftest import compiled_once as compiled_once


@pytest.fixture
def counted(record_property):
    """`counted("random configs", cases)` notes how the cases ended, and fails for faults."""

    def count(kind, cases):
        ends = collections.Counter(case.end for case in cases)
        record_property("counted", json.dumps([kind, ends]))
        faults = [f"{case.end}: {case.told}" for case in cases if case.end in (FOREIGN, WRONG)]
        assert not faults, "\n".join([f"{len(faults)} faults:", *faults[:30]])
        return ends

    return count
