"""All algorithms of a config, side by side, from the same number of gradients."""

import collections
import json
import pathlib
from collections.abc import Callable, Iterable

from ml_collections import ConfigDict

from entropix.data import load
from entropix.files import write_atomic
from entropix.training.config import check_config, runs
from entropix.training.folder import RunFolder
from entropix.training.metrics import METRICS_FILE, Row, read_metrics
from entropix.training.run import train
from entropix.training.table import make_table


def compare(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    fork: bool = False,
    progress: bool = True,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Trains every algorithm of `config` and writes their metrics and table.

    Each algorithm keeps its files in a folder of its own, so that calling this again runs only
    what is missing. Seeds that diverge are reported, and missing from the table; they stop neither
    other seeds nor other algorithms.

    Args:
      config: with `optimizers`; see `entropix.training.config.experiment`.
      workdir: gets `ALGORITHM/…`, `metrics.jsonl` (all rows) and `table.md`.
      fork: whether to continue runs of another config, from their last checkpoints.
      progress: whether to show progress bars.
      report: called with what went wrong, and with the finished table.

    Returns:
      All rows.

    Raises:
      ValueError: for a config that cannot run, before anything is run, or if every seed of every
        algorithm diverged before it was measured.
    """
    check_config(config)
    workdir = pathlib.Path(workdir)
    single = runs(config)
    folders = {name: RunFolder(workdir / name, run) for name, run in single.items()}
    for folder in folders.values():
        folder.check(fork)
    data = None
    for algorithm, run in single.items():
        if data is None and folders[algorithm].failures() is None:
            data = load(config.dataset, config.data_dir)  # once for all that are not finished
        try:
            train(run, workdir / algorithm, data=data, fork=fork, progress=progress)
        except FloatingPointError as error:
            report(str(error))
    return gather([workdir / algorithm for algorithm in single], workdir, report=report)


def gather(
    folders: Iterable[str | pathlib.Path],
    workdir: str | pathlib.Path,
    *,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Makes a comparison of runs from their metric files alone.

    Args:
      folders: of runs or of comparisons, each with a `metrics.jsonl`.
      workdir: gets `metrics.jsonl` (all rows) and `table.md`.
      report: called with the finished table.

    Returns:
      All rows.

    Raises:
      ValueError: if there are no rows, a file cannot be read, or two of them hold measurements of
        the same algorithm, seed and time.
    """
    rows = read_metrics([pathlib.Path(folder) for folder in folders])
    if not rows:
        raise ValueError("a comparison needs at least one measurement; the runs have none.")
    seen = collections.Counter(
        (r["algorithm"], r["replicas"], r["seed"], r["gradient_evaluations"]) for r in rows
    )
    (algorithm, replicas, seed, gradients), count = seen.most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"a comparison must have one measurement of {algorithm} (replicas={replicas}), seed "
            f"{seed}, after {gradients} gradients; the runs hold {count}. Name the folders of each "
            "run once."
        )
    table = make_table(rows)
    workdir = pathlib.Path(workdir)
    if (workdir / "config.json").exists():
        raise ValueError(
            f"{workdir} is the folder of a run, whose own metrics a comparison would replace. "
            "Choose another --workdir."
        )
    workdir.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(workdir / METRICS_FILE, lines.encode())
    write_atomic(workdir / "table.md", table.encode())
    report(table)
    return rows
