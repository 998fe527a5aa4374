"""The pages say what was measured: every table is that of its rows, every figure is in a table."""

import decimal
import json
import pathlib
import re
import runpy

import numpy as np
import pandas as pd
import pytest

from entropix.report import gather
from entropix.report.saved import read_runs
from entropix.run_file import read_run_file

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "results"
TABLES = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
REPORTS, FLATNESS = TABLES["REPORTS"], TABLES["FLATNESS"]


@pytest.mark.parametrize("name", REPORTS)
def test_a_table_is_that_of_its_rows(name):
    baseline, measures = REPORTS[name]
    made = []
    gather([RESULTS / name], baseline=baseline, measures=measures, report=made.append)
    assert (RESULTS / name / "table.md").read_text() == made[0], "python benchmarks/tables.py"


@pytest.mark.parametrize("name", FLATNESS)
def test_a_table_of_flatness_is_that_of_its_rows(name):
    made = TABLES["flatness"](name)
    assert (RESULTS / name / "landscape.md").read_text()[: len(made)] == made


def test_every_folder_with_runs_has_a_table():
    def of_runs(folder):
        return any((run / "metrics.jsonl").exists() for run in folder.iterdir() if run.is_dir())

    with_runs = {folder.name for folder in RESULTS.iterdir() if folder.is_dir() and of_runs(folder)}
    assert with_runs == set(REPORTS)
    assert {path.parent.name for path in RESULTS.glob("*/landscape.jsonl")} == set(FLATNESS)
    assert {path.parent.name for path in RESULTS.glob("*/compressed.jsonl")} == {"language_32"}


@pytest.mark.parametrize("name", REPORTS)
def test_runs_of_a_folder_have_labels_that_differ(name):
    saved = {
        run.parent.name: read_run_file(run.parent).label
        for run in RESULTS.glob(f"{name}/*/run.json")
    }
    assert len(set(saved.values())) == len(saved)


def test_the_page_of_differences_is_that_of_the_rows():
    made = runpy.run_path(str(ROOT / "benchmarks" / "differences.py"))["page"]()
    assert (RESULTS / "differences.md").read_text() == made, "python benchmarks/differences.py"


def test_p_against_another_baseline_allows_for_all_runs_of_the_folder():
    """As in a folder's own table; p of chosen rows alone is too small."""
    page = runpy.run_path(str(ROOT / "benchmarks" / "differences.py"))
    of_folders = [each for each in page["QUESTIONS"] if ": against SGD" in each.words]
    assert len(of_folders) == 5
    for each in of_folders:
        (folder,) = each.folders
        saved = {run.name for run in read_runs([RESULTS / folder])}
        assert {*each.runs, each.base} == saved, each.words


NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?(?:e-\d+)?"
INTERVAL = re.compile(rf"({NUMBER}) \(({NUMBER}) to ({NUMBER})[),;]")  # mean (low to high)
TESTED = re.compile(rf"({NUMBER}) \(({NUMBER}) to ({NUMBER})\)(?:, p = | \| (?=0))({NUMBER})")
SPREAD = re.compile(rf"({NUMBER}) ± ({NUMBER})")  # mean ± standard deviation
PAGES = [
    ROOT / "README.md",
    RESULTS / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("index", "when", "evidence", "how_to_choose")),
    *sorted((ROOT / "docs" / "algorithms").glob("*.md")),
]


def quoted(pattern: re.Pattern[str], page: pathlib.Path) -> list[tuple[str, ...]]:
    return numbers_in(pattern, " ".join(page.read_text().split()))


def numbers_in(pattern: re.Pattern[str], text: str) -> list[tuple[str, ...]]:
    found = pattern.findall(text.replace("−", "-"))
    return [tuple(n.replace(",", "") for n in groups) for groups in found]


@pytest.fixture(scope="module")
def tables() -> dict[re.Pattern[str], set[tuple[decimal.Decimal, ...]]]:
    """All intervals, and all means with their deviations, in the tables."""
    files = [file for file in RESULTS.rglob("*.md") if file.name != "README.md"]
    return {
        pattern: {tuple(map(decimal.Decimal, q)) for file in files for q in quoted(pattern, file)}
        for pattern in (INTERVAL, TESTED, SPREAD)
    }


def rounds_to(measured: tuple[decimal.Decimal, ...], text: tuple[str, ...]) -> bool:
    """Whether each number of a table, rounded to the digits of the page, is the page's."""
    for exact, shown in zip(measured, map(decimal.Decimal, text), strict=True):
        unit = decimal.Decimal(1).scaleb(shown.as_tuple().exponent)
        if abs(exact - shown) > unit / 2:
            return False
    return True


def is_measured(text: tuple[str, ...], known: set[tuple[decimal.Decimal, ...]]) -> bool:
    """Whether a table has the numbers; an interval without a sign may be of either direction."""
    if any(rounds_to(numbers, text) for numbers in known):
        return True
    if len(text) == 2 or text[0][0] in "+-":
        return False
    turned = {(-mean, -high, -low, *p) for mean, low, high, *p in known}
    return any(rounds_to(numbers, text) for numbers in turned)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_interval_and_mean_on_a_page_is_in_a_table(page, tables):
    missing = [
        " ".join(text)
        for pattern, known in tables.items()
        for text in quoted(pattern, page)
        if not is_measured(text, known)
    ]
    assert missing == []


def answer_to(mean, low, high, p) -> str:
    """What the rules of the protocol say; all measures of the page are better when lower."""
    if low <= 0 <= high:
        return "not seen"
    if p >= decimal.Decimal("0.05"):
        return "undecided"
    return "no" if mean > 0 else "yes"


def answers() -> list[tuple[str, tuple[str, ...]]]:
    """The intervals in the table of `when.md`, each with the answer that stands before."""
    page = (ROOT / "docs" / "when.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.count(" | ") == 3]
    found = []
    for _, _, cell, _ in rows:
        _, *parts = re.split(r"\*\*(yes|no)\*\*|(undecided|not seen)", cell)
        for yes_or_no, other, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            answer = yes_or_no or other
            found += [(answer, numbers) for numbers in numbers_in(INTERVAL, text)]
    return found


def test_every_answer_follows_from_its_interval_and_p(tables):
    said = answers()
    right = [
        (answer, numbers)
        for answer, numbers in said
        for known in tables[TESTED]
        if rounds_to(known[:3], numbers) and answer == answer_to(*known)
    ]
    assert [entry for entry in said if entry not in right] == []
    assert len(said) > 90


def test_a_wrong_figure_would_be_found():
    known = {tuple(map(decimal.Decimal, ("-0.273", "-0.501", "-0.045")))}
    for right in (("-0.27", "-0.50", "-0.05"), ("0.3", "0.0", "0.5")):
        assert is_measured(right, known)
    for wrong in (("-0.28", "-0.50", "-0.05"), ("+0.27", "+0.05", "+0.50")):
        assert not is_measured(wrong, known)


def test_flatness_is_read_for_rank_correlations():
    """`benchmarks/compressed.py` reads what `entropix landscape` has written of the same runs."""
    page = runpy.run_path(str(ROOT / "benchmarks" / "compressed.py"))
    saved = read_runs([RESULTS / "digits"])
    measured = page["flatness"](page["sound_seeds"](saved), RESULTS / "digits" / "landscape.jsonl")
    assert measured.shape == (25, 5)
    traces = np.split(measured["trace"].to_numpy(), 5)
    rises = {
        run.name: pd.DataFrame({"a": trace}, index=run.seeds)
        for run, trace in zip(saved, traces, strict=True)
    }
    assert "+1.00 (+1.00 to +1.00)" in page["correlations"](rises, measured)


@pytest.mark.parametrize("name", ["language_32"])
def test_a_table_of_compressed_weights_is_that_of_its_rows(name):
    rows = RESULTS / name / "compressed.jsonl"
    page = runpy.run_path(str(ROOT / "benchmarks" / "compressed.py"))
    lines, text = (
        map(json.loads, rows.read_text().splitlines()),
        rows.with_suffix(".md").read_text(),
    )
    networks = [{"run": line["run"], "seed": line["seed"]} | line["rises"] for line in lines]
    frame = pd.DataFrame(networks).set_index("seed")
    found = {run: of_run.drop(columns="run") for run, of_run in frame.groupby("run", sort=False)}
    labels = {run.name: run.label for run in read_runs([rows.parent])}
    ((unit, baseline),) = re.findall(r"\((\w+)\).*\| against (.+?) +\|", text, flags=re.DOTALL)
    base = next(run for run in found if labels[run] == baseline)
    seeds = {run: list(of_run.index) for run, of_run in found.items()}
    made = [*page["tables"](found, labels, unit, base)]
    made.append(
        page["correlations"](found, page["flatness"](seeds, rows.with_name("landscape.jsonl")))
    )
    assert text.split("\n\n", 1)[1].rstrip() == "\n\n".join(made)


def test_what_was_reached_is_of_the_seeds_that_came_to_the_end():
    page = runpy.run_path(str(ROOT / "benchmarks" / "communication.py"))
    saved = {part.name: part for part in read_runs([RESULTS / "communication_lenet"])}
    base, run = saved["data_parallel"], saved["easgd_10"]
    whole = page["at_the_end"](page["finished"]([base, run])["easgd_10"], "val_error")
    assert list(whole.index) == [0, 1, 2]
    last = max(row.gradients for row in run.rows)
    rows = [row for row in run.rows if (row.seed, row.gradients) != (1, last)]
    found = page["finished"]([base, run._replace(rows=rows)])
    part = page["at_the_end"](found["easgd_10"], "val_error")
    pd.testing.assert_series_equal(part, whole.drop(1))
    assert len(page["at_the_end"](found["data_parallel"], "val_error")) == 3


def test_names_that_tables_does_not_know_are_refused(monkeypatch):
    page = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    monkeypatch.setattr("sys.argv", ["tables.py", "digist"])
    with pytest.raises(
        SystemExit, match="no folder of results/ is called 'digist'; known: .*digits"
    ):
        page["main"]()


def test_rises_are_paired_by_seed():
    """Whatever the order, and for the seeds that both runs have alone."""
    page = runpy.run_path(str(ROOT / "benchmarks" / "compressed.py"))
    base = pd.DataFrame({"3 bits": [1.0, 2.0, 4.0]}, index=[0, 1, 2])
    other = pd.DataFrame({"3 bits": [4.5, 1.5, 9.0]}, index=[2, 0, 7])
    single = pd.DataFrame({"3 bits": [3.0]}, index=[1])
    found, labels = (
        {"sgd": base, "hj": other, "sam": single},
        {"sgd": "SGD", "hj": "HJ", "sam": "SAM"},
    )
    _, differences = page["tables"](found, labels, "nats", "sgd")
    assert "+0.5 with all 2 seeds" in differences
    assert "too few seeds" in differences
