"""Makes the tables and figures of `results/` again, from the saved rows alone.

    python benchmarks/tables.py                     # all of them, a minute
    python benchmarks/tables.py mnist_lenet_full    # some, after runs or seeds were added

Each is what `entropix report` makes of a folder with the baseline and the measures that stand
below. `tests/test_evidence.py` compares each `table.md` with its rows, and tables of flatness with
`landscape.jsonl`. Not among them are tables from before the rows had today's form, and those of
`benchmarks/compressed.py` and `communication.py`, which measure on weights and programs.
"""

import json
import pathlib
import sys

from entropix.cli import main as entropix
from entropix.report.flatness import flatness_table
from entropix.runs.flatness_log import FlatnessLog

RESULTS = pathlib.Path(__file__).parent.parent / "results"

# Their training losses are of a hundred windows in the order of the files, which stand for no set.
BITS = "val_loss", "val_bits"
ERRORS = "val_error", "val_loss", "train_loss"
BY_HEART = "val_error", "train_memorised", "val_loss", "train_loss"

# Folder -> the baseline and the measures, the most important first.
REPORTS = {
    "communication_language": ("data_parallel", BITS),
    "communication_language_p8": ("data_parallel", BITS[:1]),
    "communication_lenet": ("data_parallel", ERRORS),
    "communication_lenet_decay": ("averaging_10", ERRORS),
    "digits": ("sgd", ERRORS),
    "language": ("adamw", BITS),
    "language_32": ("adamw", BITS),
    "mnist_few_300": ("sgd_authors", ERRORS),
    "mnist_few_1000": ("sgd_authors", ERRORS),
    "mnist_few_1000_by_error": ("sgd", ERRORS),
    "mnist_few_3000": ("sgd_authors", ERRORS),
    "mnist_lenet_full": ("sgd_authors", ERRORS),
    "mnist_mlp_authors": ("sgd_authors", ERRORS),
    "mnist_mlp_full": ("sgd_authors", ERRORS),
    "mnist_scope_lenet": ("place_2", ERRORS),
    "mnist_scope_lenet_first": ("place_1", ERRORS),
    "mnist_scope_mlp": ("place_2", ERRORS),
    "mnist_wrong_0": ("sgd", ERRORS),
    "mnist_wrong_20": ("sgd", BY_HEART),
    "mnist_wrong_40": ("sgd", BY_HEART),
    "mnist_wrong_60": ("sgd", BY_HEART),
}
# Folder -> the baseline of its table of flatness.
FLATNESS = {
    "digits": "sgd",
    "language_32": "adamw",
    "lenet_spectrum": "sgd",
    "mnist_few_300": "sgd_authors",
    "mnist_lenet_full": "sgd_authors",
    "mnist_mlp_full": "sgd",
    "mnist_wrong_20": "sgd",
    "mnist_wrong_40": "sgd",
    "mnist_wrong_60": "sgd",
}


def flatness(name: str) -> str:
    """The table of flatness of a folder."""
    how = json.loads((RESULTS / name / "landscape.json").read_text())["landscape"]
    log = FlatnessLog(RESULTS / name, how, runs=())
    return flatness_table([*log.entries.values()], FLATNESS[name])


def write_report(name: str) -> None:
    baseline, measures = REPORTS[name]
    folder = RESULTS / name
    chosen = f"--baseline={baseline}", f"--measures={','.join(measures)}"
    entropix(["report", str(folder), f"--workdir={folder}", *chosen])


def write_flatness(name: str) -> None:
    """Leaves what stands below the table, of spectra, which the rows have not."""
    page, table = RESULTS / name / "landscape.md", flatness(name)
    below = page.read_text().split("\n\n")[len(table.split("\n\n")) :]
    page.write_text("\n\n".join([table.rstrip(), *below]).rstrip() + "\n")


def main() -> None:
    known = {**REPORTS, **FLATNESS}
    if unknown := [name for name in sys.argv[1:] if name not in known]:
        raise SystemExit(
            f"no folder of results/ is called {unknown[0]!r}; known: {', '.join(known)}."
        )
    for name in sys.argv[1:] or known:
        if name in REPORTS:
            write_report(name)
        if name in FLATNESS:
            write_flatness(name)


if __name__ == "__main__":
    main()
