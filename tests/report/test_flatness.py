"""Tables of flatness: means, and paired intervals of differences, against SciPy."""

import numpy as np
import pytest
from scipy import stats

from entropix.report import convergence, make_table
from entropix.report.flatness import Entry, flatness_table
from entropix.rows import Measurement

TRACES = {"sgd": [4.0, 5.0, 7.0], "hj": [2.0, 2.5, 4.0], "heat": [5.0, 5.5, 9.0]}


def entries(traces, labels=None, **errors):
    return [
        Entry(
            run, (labels or {}).get(run, run.upper()), seed,
            {"trace": Measurement(value, "nats")}
            | {name: Measurement(error, "nats") for name, error in errors.items()},
        )
        for run, values in traces.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip


def cells(table, part):
    """The columns of the only row of a table, by their heads."""
    lines = table.split("\n\n")[part].splitlines()
    head, _, row = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return dict(zip(head, row, strict=True))


def test_means_and_paired_intervals_are_scipys():
    table = flatness_table(entries(TRACES))
    assert cells(table, 0) == {
        "measure": "trace, nats", "SGD": "5.3 ± 1.5", "HJ": "2.8 ± 1.0", "HEAT": "6.5 ± 2.2"
    }  # fmt: skip
    raw = {run: stats.ttest_rel(TRACES[run], TRACES["sgd"]) for run in ("hj", "heat")}
    low, high = raw["hj"].confidence_interval(0.95)
    p = min(1, 2 * raw["hj"].pvalue)  # Holm's, for the smaller one of two
    assert raw["hj"].pvalue < raw["heat"].pvalue
    assert cells(table, 1)["HJ"] == f"{-2.5:+.1f} ({low:+.1f} to {high:+.1f}), p = {p:.2g}"
    low, high = raw["heat"].confidence_interval(0.95)
    p = max(p, raw["heat"].pvalue)
    assert cells(table, 1)["HEAT"] == f"{7 / 6:+.1f} ({low:+.1f} to {high:+.1f}), p = {p:.2g}"
    assert "differences are paired by seed, with 95 % intervals; p is Holm's" in table


def test_the_baseline_may_be_chosen():
    two = {"sgd": TRACES["sgd"], "hj": TRACES["hj"]}
    table = flatness_table(entries(two), baseline="hj")
    assert list(cells(table, 1)) == ["against HJ", "SGD"]
    assert "p = " not in table
    with pytest.raises(ValueError, match=r"no run is called 'x' \(the baseline\); known: sgd, hj"):
        flatness_table(entries(two), baseline="x")


def test_runs_may_have_different_numbers_of_seeds():
    table = flatness_table(entries({"sgd": TRACES["sgd"], "hj": TRACES["hj"][:2]}))
    test = stats.ttest_rel(TRACES["hj"][:2], TRACES["sgd"][:2])
    low, high = test.confidence_interval(0.95)
    assert cells(table, 1)["HJ"] == f"{-2.25:+.1f} ({low:+.1f} to {high:+.1f})"
    assert "Mean ± standard deviation over 2 to 3 seeds" in table


def test_one_seed_has_the_error_of_its_estimate_and_no_differences():
    table = flatness_table(entries({"sgd": [4.0], "hj": [2.0]}, trace_se=0.25))
    assert cells(table, 0) == {"measure": "trace, nats", "SGD": "4 (0.25)", "HJ": "2 (0.25)"}
    assert "against" not in table


def test_runs_of_one_label_stay_apart():
    table = flatness_table(entries({"a": [1.0, 2.0], "b": [3.0, 4.0]}, {"a": "HJ", "b": "HJ"}))
    assert list(cells(table, 0)) == ["measure", "HJ (a)", "HJ (b)"]
    assert list(cells(table, 1)) == ["against HJ (a)", "HJ (b)"]


def test_what_a_seed_lacks_is_said_and_not_compared():
    found = entries({"sgd": [4.0, 5.0, 7.0], "hj": [2.0, 2.5, 4.0]})
    found[-1] = found[-1]._replace(measures={})
    table = flatness_table(found)
    assert cells(table, 0)["HJ"] == "2.25 ± 0.35 (2 of 3 seeds)"
    test = stats.ttest_rel([2.0, 2.5], [4.0, 5.0])
    low, high = test.confidence_interval(0.95)
    assert cells(table, 1)["HJ"] == f"-2.2 ({low:+.1f} to {high:+.1f})"


def with_flatness(rows, traces, places=(3,)):
    """Rows with a trace at some of the evaluations, 1 to 3, of 12 gradients each."""
    return [
        row.__class__(**vars(row) | {
            "measures": {**row.measures, "flatness/trace": Measurement(traces[row.seed], "nats")}
        })
        if row.gradients // 12 in places else row
        for row in rows
    ]  # fmt: skip


ERRORS = np.asarray([[9.0, 8.0, 8.5], [4.0, 3.0, 3.5], [2.0, 2.2, 2.7]])


def test_the_table_of_a_comparison_ends_with_flatness(make_rows):
    plain = [make_rows(run, val_error=ERRORS) for run in ("sgd", "hj")]
    rows = [r for own in plain for r in with_flatness(own, TRACES[own[0].run])]
    table, without = make_table(rows), make_table(plain[0] + plain[1])
    assert table.startswith(without.rstrip())
    assert table.split("\n\n")[3:4] == ["Flatness at the end of the runs:"]
    two = {run: TRACES[run] for run in ("sgd", "hj")}
    assert table.endswith("\n\n" + flatness_table(entries(two)))
    assert [panel.get_ylabel() for panel in convergence(rows).axes] == ["validation error, %"]


def test_rows_without_a_validation_set_show_flatness_in_its_own_table_alone(make_rows):
    rows = with_flatness(make_rows("sgd", train_error=ERRORS), TRACES["sgd"])
    assert make_table(rows).split("\n\n")[0].count("trace") == 0


def test_flatness_that_was_measured_before_the_end_says_when(make_rows):
    rows = with_flatness(make_rows("sgd", val_error=ERRORS), TRACES["sgd"], places=(1, 2))
    assert "Flatness at the end of the runs, but SGD after 24 of 36 gradients:" in make_table(rows)


def test_seeds_that_are_unfinished_or_diverged_are_not_in_the_table(make_rows):
    errors = ERRORS.copy()
    errors[-1, 1] = np.nan
    rows = with_flatness(make_rows("sgd", val_error=errors), TRACES["sgd"])
    assert "5.5 ± 2.1" in make_table(rows)  # of 4 and 7
    assert "Flatness" not in make_table(rows, unfinished={"sgd": [0, 2]})
