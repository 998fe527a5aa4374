"""The tables against SciPy and against counting by hand."""

import pathlib

import numpy as np
import pytest
from scipy import stats

from entropix.training import make_table, read_metrics

RESULTS = pathlib.Path(__file__).parent.parent.parent / "results"
EPOCHS = (1.0, 2.0, 3.0)


def make_rows(algorithm, errors, replicas=1):
    """`errors`: evaluations x seeds; a NaN is a measurement that was not made."""
    return [
        {
            "algorithm": algorithm, "seed": seed, "effective_epochs": epoch, "val_error": error,
            "train_loss": error / 10, "num_steps": 1, "replicas": replicas,
            "seconds_per_gradient": 0.01, "gradient_evaluations": int(12 * epoch),
        }
        for epoch, per_seed in zip(EPOCHS, errors, strict=True)
        for seed, error in enumerate(per_seed)
        if not np.isnan(error)
    ]  # fmt: skip


SGD = np.asarray([[9.0, 8.0, 8.5], [4.0, 3.0, 3.5], [2.0, 2.2, 2.7]])
HJ = np.asarray([[6.0, 6.5, 7.0], [2.0, 2.3, 3.0], [1.9, 2.1, 2.0]])


def cells(table, label, part):
    """A row of one of the two tables."""
    lines = [line for line in table.split("\n\n")[part].splitlines() if f"| {label} |" in line]
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_differences_are_paired_students_intervals():
    table = make_table(make_rows("sgd", SGD) + make_rows("hj", HJ))
    test = stats.ttest_rel(HJ[-1], SGD[-1])
    low, high = test.confidence_interval(0.95)
    mean = (HJ[-1] - SGD[-1]).mean()
    _, error, loss, _ = cells(table, "HJ", 1)
    assert error == f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
    assert loss == f"{mean / 10:+.4f} ({low / 10:+.4f} to {high / 10:+.4f})"


def test_when_the_final_error_of_sgd_is_reached():
    table = make_table(make_rows("sgd", SGD) + make_rows("hj", HJ))
    # SGD ends at 2.3 on average: HJ's seeds are there after 2, 2 and 3 epochs, SGD's after 3, 3,
    # and never.
    assert cells(table, "HJ", 1)[3] == f"{7 / 3:.1f} ± {np.std([2, 2, 3], ddof=1):.1f}"
    assert cells(table, "SGD", 1)[3] == "3.0 ± 0.0, 1 of 3 seeds never"
    worse = make_table(make_rows("sgd", SGD) + make_rows("heat", HJ + 5))
    assert cells(worse, "HEAT", 1)[3] == "not reached"


def test_seeds_that_diverged_are_left_out_and_named():
    ill = HJ.copy()
    ill[1:, 0] = np.nan
    table = make_table(make_rows("sgd", SGD) + make_rows("hj", ill))
    expected = f"{ill[-1, 1:].mean():.2f} ± {ill[-1, 1:].std(ddof=1):.2f} @ 3"
    assert cells(table, "HJ", 0)[4] == expected
    assert "Diverged or unfinished, and left out: HJ's seed 0." in table
    ill[1:] = np.nan  # nobody got beyond the first evaluation
    table = make_table(make_rows("sgd", SGD) + make_rows("hj", ill))
    assert cells(table, "HJ", 0)[4] == "not at the end"
    assert cells(table, "HJ", 1)[1:] == ["too few seeds", "too few seeds", "not reached"]
    assert "left out: HJ's seed 0, HJ's seed 1, HJ's seed 2." in table
    table = make_table(make_rows("sgd", ill) + make_rows("hj", HJ))
    assert "SGD has no seed at the end" in table


def test_runs_with_several_numbers_of_replicas_stand_apart():
    table = make_table(
        make_rows("sgd", SGD) + make_rows("parle", HJ, 3) + make_rows("parle", HJ - 1, 6)
    )
    assert cells(table, "SGD", 0)[2:4] == ["1", "36, 36"]
    assert cells(table, "Parle, p = 3", 0)[2:4] == ["3", "36, 12"]
    assert cells(table, "Parle, p = 6", 0)[2:4] == ["6", "36, 6"]
    assert cells(table, "Parle, p = 6", 0)[4].startswith("1.00 ")
    alone = make_table(make_rows("sgd", SGD) + make_rows("elastic_sgd", HJ, 3))
    assert cells(alone, "Elastic-SGD", 0)[2] == "3"


def test_no_second_table_without_sgd_or_with_one_seed():
    assert "against SGD" not in make_table(make_rows("hj", HJ))
    one = make_rows("sgd", SGD[:, :1]) + make_rows("hj", HJ[:, :1])
    assert "against SGD" not in make_table(one)


@pytest.mark.parametrize(
    "folder",
    sorted(path.parent for path in RESULTS.glob("*/metrics.jsonl")),
    ids=lambda folder: folder.name,
)
def test_committed_tables_are_made_from_committed_metrics(folder):
    assert (folder / "table.md").read_text() == make_table(read_metrics([folder]))
