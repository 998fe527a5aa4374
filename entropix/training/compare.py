"""All algorithms of a config, side by side, from the same number of gradients."""

import collections
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from ml_collections import ConfigDict

from entropix.data import load
from entropix.training.config import check_config, runs
from entropix.training.files import write_atomic
from entropix.training.folder import RunFolder
from entropix.training.metrics import METRICS_FILE, Row, read_metrics
from entropix.training.run import train

LABELS = {
    "sgd": "SGD",
    "entropy_sgd": "Entropy-SGD",
    "hj": "HJ",
    "heat": "HEAT",
    "elastic_sgd": "Elastic-SGD",
}


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
    seen = collections.Counter((r["algorithm"], r["seed"], r["gradient_evaluations"]) for r in rows)
    (algorithm, seed, gradients), count = seen.most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"a comparison must have one measurement of {algorithm}, seed {seed}, after "
            f"{gradients} gradients; the runs hold {count}. Name the folders of each run once."
        )
    table = make_table(rows)
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(workdir / METRICS_FILE, lines.encode())
    write_atomic(workdir / "table.md", table.encode())
    report(table)
    return rows


def make_table(rows: Sequence[Row]) -> str:
    """Makes the comparison's table, in Markdown, from its metric rows alone.

    Errors are mean ± standard deviation over seeds (the unbiased one). Effective epochs count
    every gradient evaluation, of all inner steps and all replicas.

    Args:
      rows: of `metrics.jsonl`.

    Returns:
      The table, ending in a line that says how to read it.
    """
    lines = [
        "| algorithm | L | replicas | validation error, % @ effective epochs "
        "| lowest mean, % @ effective epochs | training loss | ms per gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    by_algorithm = collections.defaultdict(list)
    for row in rows:
        by_algorithm[row["algorithm"]].append(row)
    for algorithm, own in by_algorithm.items():
        epochs, errors = curve(own, "val_error")
        _, losses = curve(own, "train_loss")
        best = int(np.argmin(errors.mean(axis=1)))
        milliseconds = 1e3 * np.median([row["seconds_per_gradient"] for row in own])
        lines.append(
            f"| {LABELS.get(algorithm, algorithm)} | {own[0]['num_steps']} | {own[0]['replicas']} "
            f"| {_spread(errors[-1])} @ {epochs[-1]:.0f} "
            f"| {errors[best].mean():.2f} @ {epochs[best]:.0f} "
            f"| {_spread(losses[-1], 4)} | {milliseconds:.2f} |"
        )
    seeds = len({row["seed"] for row in rows})
    lines.append(
        f"\nMean ± standard deviation over {seeds} seeds; effective epochs count all gradient "
        "evaluations, inner steps and replicas included.\n"
    )
    return "\n".join(lines)


def curve(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Collects one algorithm's curve.

    Args:
      rows: of one algorithm.
      name: of a measurement, such as "val_error".

    Returns:
      Effective epochs, shape (evaluations,), and values, shape (evaluations, seeds); a
      measurement that was not finite is NaN.
    """
    seeds = sorted({row["seed"] for row in rows})
    epochs = sorted({row["effective_epochs"] for row in rows})
    values = np.full((len(epochs), len(seeds)), np.nan)
    for row in rows:
        value = row[name]
        place = epochs.index(row["effective_epochs"]), seeds.index(row["seed"])
        values[place] = np.nan if value is None else value
    return np.asarray(epochs), values


def _spread(values: np.ndarray, digits: int = 2) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"
