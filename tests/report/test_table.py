"""The tables against SciPy and against counting by hand."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from entropix.report import as_text, make_table
from entropix.report.cells import intervals
from entropix.report.paired import holm, paired, student
from entropix.report.tuning import tuning_page

SGD = np.asarray([[9.0, 8.0, 8.5], [4.0, 3.0, 3.5], [2.0, 2.2, 2.7]])
HJ = np.asarray([[6.0, 6.5, 7.0], [2.0, 2.3, 3.0], [1.9, 2.1, 2.0]])


def cells(table, label, part):
    """A row of one of the two tables, by column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in table.split("\n\n")[part].splitlines()]  # fmt: skip
    (row,) = [line for line in lines if line[0] == label]
    return dict(zip(lines[0], row, strict=True))


def interval(a, b, form="+.2f"):
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(0.95)
    return f"{np.mean(a - b):{form}} ({low:{form}} to {high:{form}})"


def test_results_by_hand(make_rows):
    table = make_table(make_rows("hj", val_error=HJ, train_loss=HJ / 10, val_loss=HJ / 100))
    assert cells(table, "HJ", 0) == {
        "run": "HJ",
        "seeds": "3",
        "L": "1",
        "replicas": "1",
        "gradients: all, per replica": "36, 36",
        "effective epochs": "3",
        "validation error, %": "2.00 ± 0.10",  # of 1.9, 2.1, 2.0
        "lowest mean @ effective epochs": "2.00 @ 3",
        "validation loss": "0.0200 ± 0.0010",
        "training loss": "0.200 ± 0.010",
        "ms per gradient": "10.00",
    }


def test_differences_are_paired_students_intervals(make_rows):
    rows = make_rows("sgd", val_error=SGD, train_loss=SGD / 10)
    table = make_table(rows + make_rows("hj", val_error=HJ, train_loss=HJ / 10))
    row = cells(table, "HJ", 1)
    assert row["validation error, %"] == interval(HJ[-1], SGD[-1])
    assert row["training loss"] == interval(HJ[-1] / 10, SGD[-1] / 10, "+.3f")


def test_p_values_are_holms_where_several_runs_are_compared(make_rows):
    others = {"hj": HJ, "heat": SGD + [[0], [0], [0.5]] + 0.1 * HJ, "parle": SGD[:, ::-1] * 1.1}
    rows = make_rows("sgd", val_error=SGD)
    for name, errors in others.items():
        rows += make_rows(name, val_error=errors)
    raw = {name: stats.ttest_rel(errors[-1], SGD[-1]).pvalue for name, errors in others.items()}
    table = make_table(rows)
    worst = 0.0
    for factor, name in zip((3, 2, 1), sorted(raw, key=raw.get), strict=True):
        worst = max(worst, min(1.0, factor * raw[name]))
        expected = f"{interval(others[name][-1], SGD[-1])}, p = {worst:.2g}"
        assert cells(table, name.upper(), 1)["validation error, %"] == expected


@pytest.mark.parametrize("seed", range(5))
def test_students_test_is_scipys(seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 4))
    test, ours = stats.ttest_rel(a, b), student(a - b)
    low, high = test.confidence_interval(0.95)
    np.testing.assert_allclose(ours, [np.mean(a - b), (high - low) / 2, test.pvalue])


def test_students_test_of_equal_differences():
    assert student([1.0]) is None
    assert student([0.5, 0.5]) == (0.5, 0.0, 1.0)
    rounded = np.float32([0.7, 0.9]) - np.float32([0.6, 0.8])
    assert student(rounded) == (pytest.approx(0.1), 0.0, 1.0)
    assert student([0.0, 0.0]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_accuracies_that_differ_by_as_many_examples_have_equal_differences(seed):
    """Each is a mean in float32; the differences' rounding is that of 98 %, not that of 0.09 %."""
    right = np.random.default_rng(seed).integers(9700, 9850, 3)
    theirs, ours = (
        {k: 100 * float(np.float32(n) / np.float32(10_000)) for k, n in enumerate(numbers)}
        for numbers in (right, right + 9)
    )
    assert intervals({"a": paired(ours, theirs), "b": [0.1, 0.2, 0.3]}, "%") == {
        "a": "+0.09 with all 3 seeds",
        "b": "+0.20 (-0.05 to +0.45), p = 0.15",
    }
    assert paired(ours | {2: ours[2] + 0.01}, theirs) == pytest.approx([0.09, 0.09, 0.1], abs=1e-4)


def test_holm_by_hand():
    # 4 x 0.01 = 0.04; 3 x 0.013 = 0.039, not below the one before; 2 x 0.03; 1 x 0.9
    np.testing.assert_allclose(holm([0.03, 0.01, 0.9, 0.013]), [0.06, 0.04, 0.9, 0.04])
    np.testing.assert_allclose(holm([0.7, 0.6]), [1.0, 1.0])
    assert holm([]).shape == (0,)


def test_when_the_final_error_of_the_baseline_is_reached(make_rows):
    rows = make_rows("sgd", val_error=SGD)
    table = make_table(rows + make_rows("hj", val_error=HJ))
    # SGD ends at 2.3 on average: the seeds of HJ are there after 2, 2 and 3 epochs, those of SGD
    # after 3, 3, and never.
    column = "final validation error of SGD reached @ effective epochs"
    assert cells(table, "HJ", 1)[column] == f"2.3 ± {np.std([2, 2, 3], ddof=1):.2g}"
    assert cells(table, "SGD", 1)[column] == "3 ± 0, 1 of 3 seeds never"
    worse = make_table(rows + make_rows("heat", val_error=HJ + 5))
    assert cells(worse, "HEAT", 1)[column] == "not reached"


def test_higher_can_be_better(make_rows):
    rows = make_rows("a", val_accuracy=100 - SGD) + make_rows("b", val_accuracy=100 - HJ)
    table = make_table(rows)
    first = cells(table, "B", 0)
    assert first["highest mean @ effective epochs"] == "98.00 @ 3"
    row = cells(table, "B", 1)
    assert row["validation accuracy, %"] == interval(SGD[-1], HJ[-1])
    assert row["final validation accuracy of A reached @ effective epochs"].startswith("2.3 ± ")
    early = make_table(make_rows("a", val_accuracy=HJ) + rows[9:])  # best at the beginning
    column = "highest mean @ effective epochs"
    assert cells(early, "A", 0)[column] == "6.50 @ 1"


def test_the_baseline_is_sgd_else_the_first_run_else_what_is_asked_for(make_rows):
    rows = make_rows("hj", val_error=HJ) + make_rows("sgd", val_error=SGD)
    assert "against SGD" in make_table(rows)
    assert "against HJ" in make_table(rows, baseline="hj")
    assert "against HEAT" in make_table(make_rows("heat", val_error=SGD) + rows[:9])
    with pytest.raises(ValueError, match=r"no run is called 'adam' .*known: hj, sgd"):
        make_table(rows, baseline="adam")


def test_seeds_that_diverged_are_left_out_and_named(make_rows):
    ill = HJ.copy()
    ill[1:, 0] = np.nan
    rows = make_rows("sgd", val_error=SGD)
    table = make_table(rows + make_rows("hj", val_error=ill))
    row = cells(table, "HJ", 0)
    expected = f"{ill[-1, 1:].mean():.2f} ± {ill[-1, 1:].std(ddof=1):.2f}"
    assert (row["seeds"], row["validation error, %"]) == ("2 of 3", expected)
    assert "Diverged, and left out: HJ (seed 0)." in table
    assert cells(table, "HJ", 1)["validation error, %"] == interval(HJ[-1, 1:], SGD[-1, 1:])
    ill[1:] = np.nan
    everyone = make_table(rows + make_rows("hj", val_error=ill))
    assert cells(everyone, "HJ", 0)["validation error, %"] == "diverged"
    assert list(cells(everyone, "HJ", 1).values()) == ["HJ", "too few seeds", "not reached"]
    as_baseline = make_table(make_rows("sgd", val_error=ill) + make_rows("hj", val_error=HJ))
    assert "SGD has no finished seed to compare with." in as_baseline
    assert "Differences:" not in as_baseline


def test_a_seed_that_is_not_at_the_end_is_unfinished_and_not_diverged(make_rows):
    rows = [row for row in make_rows("hj", val_error=HJ) if (row.seed, row.gradients) != (2, 36)]
    table = make_table(rows)
    assert "Unfinished: HJ (seed 2)." in table
    assert "Diverged" not in table
    assert cells(table, "HJ", 0)["validation error, %"] == "2.00 ± 0.14"  # of 1.9 and 2.1


def test_an_unfinished_run_has_its_results_so_far_and_no_differences(make_rows):
    rows = make_rows("sgd", val_error=SGD) + make_rows("hj", val_error=HJ[:2])
    table = make_table(rows, unfinished={"hj": [0, 1, 2]})
    row = cells(table, "HJ (unfinished)", 0)
    assert (row["seeds"], row["effective epochs"]) == ("3", "2")
    assert row["validation error, %"] == f"2.43 ± {np.std(HJ[1], ddof=1):.2f}"
    assert cells(table, "HJ (unfinished)", 1)["validation error, %"] == "too few seeds"


def test_without_epochs_gradients_are_the_axis(make_rows):
    rows = make_rows("hj", val_error=HJ, epochs=False)
    table = make_table(rows)
    assert "epochs" not in table.lower()
    assert cells(table, "HJ", 0)["lowest mean @ gradients"] == "2.00 @ 36"


def test_any_measure_can_be_shown_and_none_has_two_units(make_rows):
    rows = make_rows("hj", perplexity=100 * HJ, ema_accuracy=HJ)
    assert cells(make_table(rows), "HJ", 0)["perplexity"] == "200 ± 10"
    table = make_table(rows, measures=["ema_accuracy"])
    assert "perplexity" not in table
    assert "| ema accuracy" in table
    with pytest.raises(ValueError, match="no measure is called 'error'; .* perplexity, ema_acc"):
        make_table(rows, measures=["error"])
    with pytest.raises(ValueError, match=r"must be a list of names; .* Write \['perplexity'\]"):
        make_table(rows, measures="perplexity")
    other = make_rows("sgd", val_error=SGD)
    wrong = [row.__class__(**vars(row) | {"run": "b", "measures": {
        "val_error": row.measures["val_error"]._replace(unit="")}}) for row in other]  # fmt: skip
    with pytest.raises(ValueError, match="measure val_error has the unit '%'.* in the run b"):
        make_table(other + wrong)


def test_labels_are_unique_and_safe_in_markdown(make_rows):
    rows = make_rows("hj", val_error=HJ) + make_rows("wide", val_error=HJ, label="HJ")
    assert cells(make_table(rows), "HJ (hj)", 0)["seeds"] == "3"
    assert cells(make_table(rows), "HJ (wide)", 0)["seeds"] == "3"
    assert r"| a\|b " in make_table(make_rows("x", label="a|b", val_error=HJ))


def test_no_second_table_for_one_run_or_one_seed(make_rows):
    assert "against" not in make_table(make_rows("sgd", val_error=SGD))
    one = make_rows("sgd", val_error=SGD[:, :1]) + make_rows("hj", val_error=HJ[:, :1])
    assert "against" not in make_table(one)
    assert cells(make_table(one), "HJ", 0)["validation error, %"] == "1.90"


def test_no_rows():
    with pytest.raises(ValueError, match="at least one row"):
        make_table([])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_text_for_a_terminal(encoding, make_rows):
    table = make_table(make_rows("hj", val_error=HJ, label="HJ, γ × 2, ∇"))
    text = as_text(table, encoding)
    text.encode(encoding)
    assert (text == table) == (encoding == "utf-8")
    assert ("+-" in text) == (encoding != "utf-8")


def without(row, measure):
    rest = {name: m for name, m in row.measures.items() if name != measure}
    return dataclasses.replace(row, measures=rest)


def test_a_measure_that_some_seeds_lack_at_the_end_is_that_of_the_others(make_rows):
    """A figure that was not finite is left out; the middle of the run is not its end."""
    sgd, hj = (make_rows(n, trace=[[50, 51], [10, end]]) for n, end in (("sgd", 11), ("hj", 12)))
    table = make_table([*sgd, *hj[:-1], without(hj[-1], "trace")], measures=["trace"])
    assert cells(table, "SGD", 0)["trace"] == "10.50 ± 0.71"
    assert cells(table, "HJ", 0)["trace"] == "10 (1 of 2 seeds)"
    assert cells(table, "HJ", 1)["trace"] == "too few seeds"


def test_a_measure_of_the_middle_says_when(make_rows):
    rows = make_rows("sgd", trace=[[50, 51], [10, 11]])
    table = make_table(
        [*rows[:2], *(without(row, "trace") for row in rows[2:])], measures=["trace"]
    )
    assert cells(table, "SGD", 0)["trace"] == "50.50 ± 0.71 @ 1"
    assert "Values with @ are from before the end, and are not compared." in table
    both = [*rows[:2], *(without(row, "trace") for row in rows[2:])]
    both += make_rows("hj", trace=[[50, 51], [10, 11]])
    assert cells(make_table(both, measures=["trace"]), "HJ", 1)["trace"] == "too few seeds"


def test_an_option_that_a_run_has_not_is_no_value_in_the_page_of_a_search():
    tried = {
        "sgd": [{"learning_rate": 0.1, "rung": 0.0, "val_error": 2.5}],
        "hj": [{"learning_rate": 0.2, "gamma": 3.0, "rung": 0.0, "val_error": 2.0}],
    }
    page = tuning_page(tried, labels={"sgd": "SGD", "hj": "HJ"}, edges={}, effort="One.")
    assert "nan" not in page
    assert "| HJ    | 0.2             | 0      | 2           | 3       |" in page


@pytest.mark.parametrize("p", ["0.0496", "0.0504", "0.049", "0.051", "0.3"])
def test_p_values_are_told_from_a_twentieth(p):
    spread = np.asarray([-1.0, 0.0, 1.0])
    mean = stats.t.isf(float(p) / 4, df=2) / np.sqrt(3)  # two sides, and Holm's factor 2
    cells = intervals({"hj": mean + spread, "heat": 0.1 + spread}, "nats")
    assert cells["hj"].endswith(f"), p = {p}")
