"""Differences between runs of `results/` of which none is the baseline of a table.

    python benchmarks/differences.py    # writes results/differences.md, some seconds

Tables of a folder have one baseline. The pages of the documentation also compare runs with others;
what they say stands in the tables that this script makes, and `tests/test_evidence.py` looks there.
"""

import functools
import pathlib
from typing import NamedTuple

import numpy as np

from entropix.report.cells import intervals, markdown
from entropix.report.paired import paired
from entropix.report.series import curve, measures_of
from entropix.rows import Row, read_rows

RESULTS = pathlib.Path(__file__).parent.parent / "results"
PAGE = RESULTS / "differences.md"

HEAD = """# Differences between runs, beside the tables of the folders

Differences are taken seed by seed, with Student's 95 % intervals; p is Holm's, for all the rows of
a table. *Lowest* is the lowest value that a seed had at any evaluation, which nobody without a test
set could have stopped at. Made by `python benchmarks/differences.py`."""

WRONG = tuple(f"mnist_wrong_{share}" for share in (20, 40, 60))
FOUR = "heat", "sam", "entropy_sgd", "hj"


class Question(NamedTuple):
    """What a table answers: in each folder, each run against the base; `*` marks the lowest."""

    words: str
    measure: str
    folders: tuple[str, ...]
    runs: tuple[str, ...]
    base: str


QUESTIONS = (
    Question(
        "Language model: is MuLoCo's gain more than Muon's?", "val_loss",
        ("language", "language_32"), ("muloco",), "muon",
    ),
    Question(
        "Language model: SNOO with K = 10 against K = 30", "val_loss", ("language",),
        ("snoo_10",), "snoo",
    ),
    Question(
        "Little communication: plain mean against DiLoCo, once in 10 gradients", "val_loss",
        ("communication_language",), ("averaging_10",), "diloco_10",
    ),
    Question(
        "Little communication: DiLoCo against plain mean, once in 50 gradients", "val_loss",
        ("communication_language",), ("diloco_50",), "averaging_50",
    ),
    *(
        Question(
            f"Little communication, {task}: against DiLoCo, once in {K} gradients", measure,
            (folder,), (f"easgd_{K}", f"parle_{K}"), f"diloco_{K}",
        )
        for task, folder, measure in (
            ("the language model", "communication_language", "val_loss"),
            ("LeNet", "communication_lenet", "val_error"),
        )
        for K in (10, 50)
    ),
    Question(
        "Right labels: against SGD with the authors' rate", "val_error", ("mnist_wrong_0",),
        (*FOUR, "sgd", "sgd_ema"), "sgd_authors",
    ),
    Question(
        "Wrong labels: HEAT against HEAT without noise", "val_error", WRONG, ("heat",), "heat_cold",
    ),
    Question(
        "40 % wrong labels: HEAT against HEAT with L = 1", "val_error", WRONG[1:2], ("heat",),
        "heat_1",
    ),
    Question(
        "Wrong labels: against SAM searched again", "val_error", WRONG,
        ("heat", "entropy_sgd_hot"), "sam_even",
    ),
    Question(
        "60 % wrong labels: second searches, against SAM's", "val_error", WRONG[-1:],
        ("sam", "heat_even", "hj_even"), "sam_even",
    ),
    Question(
        "Wrong labels: lowest against lowest of an average of SGD's weights", "val_error", WRONG,
        tuple(f"{run}*" for run in FOUR), "sgd_ema*",
    ),
    Question(
        "The same, of SAM searched again", "val_error", WRONG, ("sam_even*",), "sgd_ema*",
    ),
    Question(
        "Wrong labels: at the end, against the lowest of SGD", "val_error", WRONG, FOUR, "sgd*",
    ),
    *(
        Question(
            f"{count:,} examples: against SGD searched", "val_error", (f"mnist_few_{count}",),
            (*FOUR, "sgd_authors", "sgd_ema"), "sgd",
        )
        for count in (300, 1000, 3000)
    ),
    Question(
        "One gamma_0/N: the largest on mnistfc", "val_error", ("mnist_scope_mlp",), ("place_5",),
        "place_3",
    ),
    Question(
        "LeNet at the paper's length: against SGD searched", "val_error", ("mnist_lenet_full",),
        (
            "sgd_authors", "entropy_sgd_authors", "entropy_sgd", "entropy_sgd_paper", "hj", "heat",
            "elastic_sgd", "parle", "adamw", "sam", "snoo", "sgd_ema",
        ),
        "sgd",
    ),
)  # fmt: skip


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """All tables, with what they answer above each."""
    return "\n\n".join([HEAD, *(part for each in QUESTIONS for part in answer(each))]) + "\n"


def answer(question: Question) -> list[str]:
    """A heading and a table."""
    pairs = {}
    for folder in question.folders:
        base = values(folder, question.base, question.measure)
        for run in question.runs:
            pairs[folder, run] = paired(values(folder, run, question.measure), base)
    (measure,) = measures_of(rows_of(question.folders[0]), [question.measure])
    cells = intervals(pairs, measure.unit)
    title = f"{measure.name}, {measure.unit}: difference"
    rows = [
        {
            "folder": folder,
            "run": words(run),
            "against": words(question.base),
            "seeds": len(pairs[folder, run]),
            title: cell,
        }
        for (folder, run), cell in cells.items()
    ]
    return [f"## {question.words}", markdown(rows)]


def words(run: str) -> str:
    return f"{run[:-1]}, lowest" if run.endswith("*") else run


@functools.cache
def rows_of(folder: str) -> list[Row]:
    return read_rows(RESULTS / folder)


def values(folder: str, run: str, measure: str) -> dict[int, float]:
    """Seed -> the value at the end, or the lowest."""
    rows = [row for row in rows_of(folder) if row.run == run.rstrip("*")]
    _, found = curve(rows, measure)
    chosen = np.min(found, axis=0) if run.endswith("*") else found[-1]
    seeds = sorted({row.seed for row in rows})
    return dict(zip(seeds, chosen, strict=True))


if __name__ == "__main__":
    main()
