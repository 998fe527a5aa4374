"""Modules that have moved answer under their former paths, and are imported only then."""

import importlib
import subprocess
import sys

import pytest

import entropix.pde
from entropix.pde.moved import MOVED


@pytest.mark.parametrize("name", MOVED)
def test_a_former_path_gives_the_names_of_the_moved_module(name):
    former = importlib.import_module(f"entropix.pde.{name}")
    moved = importlib.import_module(MOVED[name])
    public = [each for each, value in vars(moved).items() if callable(value)]
    assert public
    assert all(getattr(former, each) is getattr(moved, each) for each in public)


def test_an_unknown_name_of_a_former_path_is_an_error():
    with pytest.raises(AttributeError, match="lukewarm"):
        importlib.import_module("entropix.pde.saved").lukewarm  # noqa: B018


def test_the_solvers_import_nothing_of_the_rooms_above():
    program = (
        "import sys, entropix.pde, inspect; inspect.stack();"
        "sys.exit(any(name.startswith('entropix.landscape') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert entropix.pde.saved.load_landscape is not None  # and imports them when asked
