"""docs/choosing.md: every figure that the page prints is computed, or read from the saved rows."""

import pathlib
import re

import numpy as np
import pytest

from entropix import pde
from entropix.landscape.functions import (
    accuracy,
    load_accuracy,
    parse,
    sweep,
)
from entropix.landscape.functions.table import cell

ROOT = pathlib.Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "choosing.md").read_text()
WORDS = " ".join(PAGE.split())
LANDSCAPES = ("double well", "rugged", "plane")
COLUMNS = (
    ("local_entropy", 20), ("hamilton_jacobi", 5), ("hamilton_jacobi", 20), ("heat", 20),
    ("elastic_coupling", 20),
)  # fmt: skip


def saved(name):
    folder = ROOT / "results" / "accuracy" / name.replace(" ", "_")
    return load_accuracy(folder / "accuracy.json")["rows"]


def row(name, method, gamma, temperature, steps):
    (found,) = [
        r
        for r in saved(name)
        if (r["method"], r["gamma"], r["steps"]) == (method, gamma, steps)
        and r["temperature"] in (0.0, temperature)
    ]
    return found


def percent(value):
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def bias(*which):
    found = row(*which)
    return percent(100 * found["bias"] / found["truth"])


def spread(*which):
    found = row(*which)
    return percent(100 * found["spread"] / found["truth"])


def printed(title):
    """The rows of the table that follows a line with this text."""
    lines = PAGE[PAGE.index(title) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---"))
    table = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            return table
        table.append([part.strip() for part in line.strip("|").split("|")])
    return table


def test_the_table_of_bias_and_spread():
    expected = [
        [name, f"{gamma:g}", *(cell(row(name, method, gamma, 0.01, L)) for method, L in COLUMNS)]
        for name in LANDSCAPES
        for gamma in (0.1, 0.3, 1.0, 3.0)
    ]
    assert printed("spread in %.") == expected


def test_the_table_of_sam():
    expected = []
    for name in LANDSCAPES:
        for rho in (0.02, 0.1, 0.3, 1.0):
            found = [row(f"{name} sam", "sharpness", rho, 0.0, L) for L in (2, 3, 5, 9)]
            expected.append(
                [name, f"{rho:g}", *(percent(100 * r["bias"] / r["truth"]) for r in found)]
            )
    assert printed("bias of SAM's gradient") == expected


def test_the_part_that_is_found():
    def part(ratio, L, alpha=0.75):
        r, k = 1 - 1 / ratio, np.arange(1, L + 1)
        return 1 - alpha**L - (1 - alpha) * np.sum(alpha ** (L - k) * r**k)

    steps = (5, 20, 80, 320)
    expected = [
        [f"{ratio}", *(f"{100 * part(ratio, L):.0f}" for L in steps)]
        for ratio in (1, 3, 10, 30, 100)
    ]
    assert printed("For a flat direction") == expected


ELSEWHERE = [  # a sentence of the page, and its figures
    (
        "On the rugged landscape with γ = 1, {} % of bias remain at L = 320 for T = 0.001",
        [bias("rugged", "local_entropy", 1.0, 0.001, 320)],
    ),
    ("and {} % for HJ", [bias("rugged", "hamilton_jacobi", 1.0, 0.0, 320)]),
    ("({} % for 320 of them)", [bias("rugged", "elastic_coupling", 1.0, 0.001, 320)]),
    (
        "the spread is {} % for α = 0.75 and {} % for",
        [
            spread("rugged", "local_entropy", 1.0, 0.1, 80),
            spread("rugged_longer_average", "local_entropy", 1.0, 0.1, 80),
        ],
    ),
    (
        "and its bias is {} % instead of {} %",
        [
            bias("rugged_longer_average", "local_entropy", 1.0, 0.1, 20),
            bias("rugged", "local_entropy", 1.0, 0.1, 20),
        ],
    ),
    (
        "At γ = 0.1 = η_y and T = 0.1 the rugged landscape keeps {} % of bias",
        [bias("rugged", "local_entropy", 0.1, 0.1, 20)],
    ),
]


@pytest.mark.parametrize(("sentence", "figures"), ELSEWHERE)
def test_figures_between_the_tables(sentence, figures):
    assert sentence.format(*figures) in WORDS


def test_no_other_percentage_is_printed():
    left = WORDS
    for sentence, figures in ELSEWHERE:
        left = left.replace(sentence.format(*figures), "")
    left = re.sub(SMALLER, "", left)
    assert re.findall(r"[\d.)]+ %", left) == []


def test_nothing_is_seen_where_the_page_says_so():
    warm = row("rugged", "local_entropy", 1.0, 0.1, 320)
    assert warm["bias"] < 2 * warm["error"]


SMALLER = r"([\d.]+) \(([\d.]+)\) % with η_y = 0.05 and ([\d.]+) \(([\d.]+)\) % with 0.02"


def test_smaller_inner_steps():
    """For as long a time, L eta_y = 2, on the rugged landscape."""
    f = parse("x**2/4 + cos(7*x)/16 + sin(11*x)/32").function
    found = []
    for step_size in (0.05, 0.02):
        (result,) = sweep(
            pde.Grid(-5.0, 5.0, 801), f, np.linspace(-2.5, 2.5, 17), gammas=[0.1],
            temperatures=[0.1], steps=[round(2 / step_size)], methods=["local_entropy"],
            step_size=step_size, num_chains=8192,
        )  # fmt: skip
        found += [100 * result[name] / result["truth"] for name in ("bias", "error")]
    printed_figures = [float(figure) for figure in re.search(SMALLER, WORDS).groups()]
    np.testing.assert_allclose(printed_figures, found, rtol=0.05)


def test_the_example():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(program, names)
    found = accuracy(names["samples"], names["truth"])
    comment = re.search(r"# truth ([\d.]+), bias ([\d.]+) \(([\d.]+)\), spread ([\d.]+)", PAGE)
    np.testing.assert_allclose(
        [float(figure) for figure in comment.groups()],
        [found.truth, found.bias, found.error, found.spread],
        rtol=0.05,
    )
