"""Notebooks run from top to bottom, carry their outputs, and agree with their text twins."""

import pathlib

import nbclient
import nbformat
import pytest
from pairing import NOTEBOOKS, unpaired

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


def test_there_are_notebooks():
    assert ALL


def test_notebooks_match_their_text_twins():
    assert unpaired() == []


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
    # Notebooks train: unlike in other tests, what is compiled runs for long.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "false")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
