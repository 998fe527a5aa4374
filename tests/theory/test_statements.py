"""docs/statements.md: a row for every numbered statement, in order, made from tests that exist."""

import ast
import pathlib

import pytest
from theory.table import PAGE, STATEMENTS, page, row

REQUIRED = [
    "(8)", "(9)", "(10)", "Lemma 1", "Lemma 2", "Lemma 3", "Lemma 4", "Theorem 5", "Remark 6",
    "(19)", "Remark 7", "(22)", "(23)", "Remark 8", "(24)", "(25)", "Remark 9", "(26)",
    "Remark 10", "Remark 11", "(27)", "Theorem 12", "Example 13", "Example 14", "Example 15",
    "(28)", "(29)", "Example 16", "Remark 17", "Lemma 18", "Lemma 19", "Lemma 20", "(32)",
]  # fmt: skip


def rows():
    """The page's table, every row as five cells."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [line.strip("|").split("|") for line in lines[2:]]


def measuring():
    """The tests that call `measured`, by the statement that they name."""
    found = {}

    def visit(node, path):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{path}::{child.name}")
            elif isinstance(child, ast.FunctionDef) and child.name.startswith("test_"):
                for call in ast.walk(child):
                    if isinstance(call, ast.Call) and ast.unparse(call.func) == "measured":
                        statement = ast.literal_eval(call.args[0])
                        found.setdefault(statement, set()).add(f"{path}::{child.name}")

    for file in sorted(pathlib.Path(__file__).parent.glob("test_*.py")):
        visit(ast.parse(file.read_text()), file.name)
    return found


def test_every_numbered_statement_has_one_row_in_order():
    numbers = [cells[0].strip() for cells in rows()]
    assert [number for number in numbers if not number.startswith("§")] == REQUIRED
    assert len(set(numbers)) == len(numbers)
    assert numbers == list(STATEMENTS)


def test_no_cell_is_empty():
    for cells in rows():
        assert len(cells) == 5
        assert all(part.strip() for cell in cells for part in cell.split("<br>")), cells[0]


def test_rows_name_the_tests_that_measure_them():
    named = {
        number.strip(): {test.strip(" `") for test in tests.split("<br>")}
        for number, _, tests, _, _ in rows()
    }
    assert named == measuring()


def test_no_statement_is_a_guess():
    assert "not at hand" not in PAGE.read_text()
    for cells in rows():
        assert cells[1].strip() == STATEMENTS[cells[0].strip()]


def test_cases_of_one_test_are_merged():
    records = [
        ["Lemma 3", "tests/theory/test_a.py::test_rate[1]", "rate 2", 1],
        ["Lemma 3", "tests/theory/test_a.py::test_rate[2]", "rate 3", 1],
        ["Lemma 3", "tests/theory/test_b.py::test_other", "4", "5"],
    ]
    cells = row("Lemma 3", records).split(" | ")
    assert cells[2] == "`test_a.py::test_rate`<br>`test_b.py::test_other`"
    assert cells[3:] == ["rate 2; rate 3<br>4", "1<br>5 |\n"]


def test_a_statement_without_a_test_stops():
    with pytest.raises(SystemExit, match=r"statements without a test: \['§1.1', "):
        page([])
