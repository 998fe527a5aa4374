"""The table and the figure of accuracies: every number is the saved one."""

import json
import pathlib
import re

import numpy as np
import pytest

from entropix.landscape.functions.table import accuracy_table, cell
from entropix.report import accuracy

RESULTS = pathlib.Path(__file__).parent.parent.parent / "results" / "accuracy"


def row(method, gamma, T, steps, bias, error, spread, truth=2.0):
    setting = {"method": method, "gamma": gamma, "temperature": T, "steps": steps}
    return setting | {"truth": truth, "bias": bias, "error": error, "spread": spread}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    rows = [
        row(method, gamma, T, L, *rng.uniform(0.01, 1, 3))
        for method in ("local_entropy", "hamilton_jacobi", "heat")
        for gamma in (0.1, 1.0)
        for T in ((0.0,) if method == "hamilton_jacobi" else (0.01, 0.2, 0.3))
        for L in (5, 20, 80)
    ]
    return {"function": "x**2", "interval": [-1.0, 1.0], "threshold": None, "step_size": 0.1,
            "averaging": 0.75, "rows": rows}  # fmt: skip


def test_cells():
    assert cell(row("heat", 1, 1, 5, bias=0.2, error=0.1, spread=0.5)) == "10, 25"
    assert cell(row("heat", 1, 1, 5, bias=0.199, error=0.1, spread=0.5)) == "<10, 25"
    assert cell(row("heat", 1, 1, 5, bias=3.456, error=0.0, spread=0.0)) == "173, 0"


def test_table_has_every_row_once(data):
    table = accuracy_table(data)
    for r in data["rows"]:
        assert table.count(cell(r)) >= 1
    assert len(re.findall(r"^\| [\d.]+ \|", table, flags=re.MULTILINE)) == 2 * (3 + 1 + 3)
    assert "f is convex" in table
    assert "Above gamma = 0.25 = -1/min f''" in accuracy_table(data | {"threshold": 0.25})


def test_curves_are_the_saved_ones(data):
    figure = accuracy(data)
    assert len(figure.axes) == 3 * 3
    for panel, T in zip(figure.axes[::3], (0.01, 0.2, 0.3), strict=True):  # of local_entropy
        lines = [line for line in panel.lines if len(line.get_xdata()) == 3]
        for k, gamma in enumerate((0.1, 1.0)):
            own = [
                r
                for r in data["rows"]
                if (r["method"], r["gamma"], r["temperature"]) == ("local_entropy", gamma, T)
            ]
            for line, name in zip(lines[2 * k : 2 * k + 2], ("bias", "spread"), strict=True):
                np.testing.assert_allclose(line.get_ydata(), [r[name] / 2 for r in own])
    hollow = [line.get_markerfacecolor() == "white" for panel in figure.axes
              for line in panel.lines if len(line.get_xdata()) == 1]  # fmt: skip
    unseen = sum(r["bias"] < 2 * r["error"] for r in data["rows"])
    unseen += 2 * sum(  # Hamilton-Jacobi stands in all three rows of panels
        r["bias"] < 2 * r["error"] for r in data["rows"] if r["method"] == "hamilton_jacobi"
    )
    assert sum(hollow) == unseen


SWEEPS = [
    "double_well", "double_well_sam", "plane", "plane_sam", "rugged", "rugged_longer_average",
    "rugged_sam",
]  # fmt: skip


def test_every_stored_sweep_is_looked_at():
    assert sorted(folder.name for folder in RESULTS.iterdir()) == SWEEPS


@pytest.mark.parametrize("name", SWEEPS)
def test_stored_tables_are_those_of_the_stored_rows(name):
    folder = RESULTS / name
    data = json.loads((folder / "accuracy.json").read_text())
    assert (folder / "table.md").read_text() == accuracy_table(data)


def test_sam_has_panels_of_its_own_beside_every_temperature(data):
    sam = [row("sharpness", 0.5, 0.0, L, 0.2, 0.0, 0.0) for L in (2, 3)]
    figure = accuracy(data | {"rows": [*data["rows"], *sam]})
    assert len(figure.axes) == 4 * 3
    drawn = [panel for panel in figure.axes if panel.get_title() == "SAM"]
    (line, *_) = drawn[0].lines
    np.testing.assert_allclose(line.get_ydata(), [0.1, 0.1])
    assert len(accuracy(data | {"rows": sam}).axes) == 1


def test_a_linear_average_is_named(data):
    assert "averaging = linear;" in accuracy_table(data | {"averaging": "linear"})
