"""Notebooks run from top to bottom, carry their outputs, and agree with their text twins."""

import importlib.util
import pathlib
import shlex
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import heads
import nbclient
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename
from pairing import NOTEBOOKS, unpaired

import entropix

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


def test_there_are_notebooks():
    assert ALL


def test_notebooks_match_their_text_twins():
    assert unpaired() == []


def test_badges_and_install_cells_lead_to_the_release_of_this_version():
    assert heads.headless() == [], "run: python tests/heads.py"


def test_a_notebook_has_at_most_250_lines():
    long = {
        p.name: n for p in NOTEBOOKS.glob("*.py") if (n := len(p.read_text().splitlines())) > 250
    }
    assert not long


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_wheel_is_installed_only_where_the_package_is_missing(path, monkeypatch):
    first = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    code, asked = TransformerManager().transform_cell(first.source), []
    shell = SimpleNamespace(run_line_magic=lambda magic, line: asked.append((magic, line)))
    folder = ModuleSpec("entropix", loader=None)  # an unpacked sdist, say, beside the notebook
    for found, calls in ((ModuleSpec("entropix", None, origin="file"), 0), (None, 1), (folder, 2)):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, found=found: found)
        exec(code, {"get_ipython": lambda: shell})
        assert len(asked) == calls
    magic, line = asked[0]
    command, quiet, requirement, *_ = shlex.split(line)
    wanted = Requirement(requirement)
    assert (magic, command, quiet, wanted.extras) == ("pip", "install", "--quiet", {"train"})
    name, version, *_ = parse_wheel_filename(wanted.url.rpartition("/")[2])
    assert (name, str(version)) == (wanted.name, entropix.__version__)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_outputs_are_stored(path: pathlib.Path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any("image/png" in out.get("data", {}) for cell in code for out in cell.outputs)
    assert not any(out.output_type == "error" for cell in code for out in cell.outputs)


def quick_first(path: pathlib.Path):
    """What newcomers begin with; the others are slow, and tests elsewhere make their checks too."""
    marks = [] if path.stem == "quickstart" else [pytest.mark.slow]
    return pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.parametrize("path", [quick_first(path) for path in ALL])
def test_notebook_runs(path: pathlib.Path, monkeypatch):
    # Notebooks train: unlike in other tests, what is compiled runs for long (conftest.py).
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "false")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
