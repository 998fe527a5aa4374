"""A process that dies before any change of the disk while it saves leaves what it had saved."""

import pytest
from faults.rehearsal import SHARE, WELL, Case
from runs.test_checkpoints import every_death

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("keep", [1, 2])
def test_death_at_any_change_of_the_disk(keep, tmp_path, counted):
    each = max(1, round(1 / SHARE))
    found = every_death(tmp_path, keep, each)
    if each == 1:  # before and after each of the two saves is done
        assert set(found) >= {(4, 4), (4, 5), (5, 5), (5, 6)}
    counted("death at any change of the disk", [Case(WELL)] * len(found))
