"""A comparison's tables, from its metric rows alone."""

import collections
from collections.abc import Sequence

import numpy as np
from scipy import stats

from entropix.training.metrics import Row

LABELS = {
    "sgd": "SGD",
    "entropy_sgd": "Entropy-SGD",
    "hj": "HJ",
    "heat": "HEAT",
    "elastic_sgd": "Elastic-SGD",
}
_BASELINE = "sgd"


def make_table(rows: Sequence[Row]) -> str:
    """Makes a comparison's tables, in Markdown.

    The first one has the results; errors are mean ± standard deviation over seeds (the unbiased
    one). With SGD among the algorithms, and two seeds or more, the second one has the differences
    from SGD, taken seed by seed (equal seeds begin at equal parameters), with Student's 95 %
    intervals, and how soon SGD's final error was reached. Effective epochs count every gradient
    evaluation, of all inner steps and all replicas.

    Args:
      rows: of `metrics.jsonl`.

    Returns:
      The tables, ending in a line that says how to read them.
    """
    by_algorithm = collections.defaultdict(list)
    for row in rows:
        by_algorithm[row["algorithm"]].append(row)
    end = max(row["effective_epochs"] for row in rows)
    parts = [_results(by_algorithm, end)]
    seeds = len({row["seed"] for row in rows})
    if _BASELINE in by_algorithm and len(by_algorithm) > 1 and seeds > 1:
        parts.append(_differences(by_algorithm, end))
    parts.append(
        f"Mean ± standard deviation over {seeds} seeds; effective epochs count all gradient "
        f"evaluations, inner steps and replicas included.{_missing(by_algorithm, end)}"
    )
    return "\n\n".join(parts) + "\n"


def curve(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Collects one algorithm's curve.

    Args:
      rows: of one algorithm.
      name: of a measurement, such as "val_error".

    Returns:
      Effective epochs, shape (evaluations,), and values, shape (evaluations, seeds); what was not
      measured, because a seed had diverged, or was not finite is NaN.
    """
    seeds = sorted({row["seed"] for row in rows})
    epochs = sorted({row["effective_epochs"] for row in rows})
    values = np.full((len(epochs), len(seeds)), np.nan)
    for row in rows:
        value = row[name]
        place = epochs.index(row["effective_epochs"]), seeds.index(row["seed"])
        values[place] = np.nan if value is None else value
    return np.asarray(epochs), values


def _results(by_algorithm: dict[str, list[Row]], end: float) -> str:
    lines = [
        "| algorithm | L | replicas | validation error, % @ effective epochs "
        "| lowest mean, % @ effective epochs | training loss | ms per gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    for algorithm, own in by_algorithm.items():
        epochs, errors = _whole(own, "val_error", end)
        _, losses = _whole(own, "train_loss", end)
        if not errors.size:
            results = "not at the end | | "
        else:
            best = int(np.argmin(errors.mean(axis=1)))
            results = (
                f"{_spread(errors[-1])} @ {_short(epochs[-1])} "
                f"| {errors[best].mean():.2f} @ {_short(epochs[best])} "
                f"| {_spread(losses[-1], 4)}"
            )
        milliseconds = 1e3 * np.median([row["seconds_per_gradient"] for row in own])
        lines.append(
            f"| {LABELS.get(algorithm, algorithm)} | {own[0]['num_steps']} | {own[0]['replicas']} "
            f"| {results} | {milliseconds:.2f} |"
        )
    return "\n".join(lines)


def _differences(by_algorithm: dict[str, list[Row]], end: float) -> str:
    """Differences from SGD at the end, and when each seed first had SGD's final error."""
    lines = [
        "| against SGD | validation error, % | training loss "
        "| SGD's final error reached @ effective epochs |",
        "|---|---|---|---|",
    ]
    baseline = _whole(by_algorithm[_BASELINE], "val_error", end)[1]
    if not baseline.size:
        return "SGD has no seed at the end to compare with."
    for algorithm, own in by_algorithm.items():
        cells = [_reached(own, baseline[-1].mean(), end)]
        if algorithm == _BASELINE:
            cells = ["", "", *cells]
        else:
            pair = by_algorithm[_BASELINE], own
            intervals = [_interval(*pair, "val_error", end), _interval(*pair, "train_loss", end, 4)]
            cells = [*intervals, *cells]
        lines.append(f"| {LABELS.get(algorithm, algorithm)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(
    baseline: Sequence[Row], own: Sequence[Row], name: str, end: float, digits: int = 2
) -> str:
    """The mean difference at the end over the seeds that both have, and its 95 % interval."""
    last = [
        {
            row["seed"]: row[name]
            for row in rows
            if row["effective_epochs"] == end and row[name] is not None
        }
        for rows in (baseline, own)
    ]
    seeds = sorted(last[0].keys() & last[1].keys())
    if len(seeds) < 2:
        return "too few seeds"
    difference = np.asarray([last[1][seed] - last[0][seed] for seed in seeds])
    half = stats.t.ppf(0.975, len(seeds) - 1) * difference.std(ddof=1) / np.sqrt(len(seeds))
    mean = difference.mean()
    return f"{mean:+.{digits}f} ({mean - half:+.{digits}f} to {mean + half:+.{digits}f})"


def _reached(rows: Sequence[Row], target: float, end: float) -> str:
    """When each seed's error was first at most `target`: mean, and how many never were."""
    epochs, errors = _whole(rows, "val_error", end)
    first = [epochs[np.argmax(column <= target)] for column in errors.T if (column <= target).any()]
    if not first:
        return "not reached"
    never = errors.shape[1] - len(first)
    missing = f", {never} of {errors.shape[1]} seeds never" if never else ""
    return f"{_spread(np.asarray(first), 1)}{missing}"


def _whole(rows: Sequence[Row], name: str, end: float) -> tuple[np.ndarray, np.ndarray]:
    """The curve of the seeds that got to the comparison's end, in effective epochs."""
    epochs, values = curve(rows, name)
    finite = np.isfinite(values).all(axis=0) & (epochs[-1] >= end)
    return epochs, values[:, finite]


def _missing(by_algorithm: dict[str, list[Row]], end: float) -> str:
    """A sentence about seeds that are not in the means."""
    everyone = {row["seed"] for own in by_algorithm.values() for row in own}
    lost = []
    for algorithm, own in by_algorithm.items():
        there = {r["seed"] for r in own if r["effective_epochs"] >= end}
        there -= {r["seed"] for r in own if r["val_error"] is None or r["train_loss"] is None}
        label = LABELS.get(algorithm, algorithm)
        lost += [f"{label}'s seed {seed}" for seed in sorted(everyone - there)]
    if not lost:
        return ""
    return f" Diverged or unfinished, and left out: {', '.join(lost)}."


def _spread(values: np.ndarray, digits: int = 2) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def _short(epochs: float) -> str:
    """Whole epochs where there are many, two digits where there are few."""
    return f"{epochs:.0f}" if epochs >= 10 else f"{epochs:.2g}"
