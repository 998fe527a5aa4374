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
    "parle": "Parle",
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
    own = by_curve(rows)
    end = max(row["effective_epochs"] for row in rows)
    parts = [_results(own, end)]
    seeds = len({row["seed"] for row in rows})
    if LABELS[_BASELINE] in own and len(own) > 1 and seeds > 1:
        parts.append(_differences(own, end))
    parts.append(
        f"Mean ± standard deviation over {seeds} seeds; effective epochs count all gradient "
        f"evaluations, inner steps and replicas included.{_missing(own, end)}"
    )
    return "\n\n".join(parts) + "\n"


def by_curve(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Groups rows that belong to one curve, under the curve's label.

    That is an algorithm's name and, where it was run with several numbers of replicas, p.
    """
    found = collections.defaultdict(set)
    for row in rows:
        found[row["algorithm"]].add(row["replicas"])
    groups: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        name, replicas = row["algorithm"], row["replicas"]
        label = LABELS.get(str(name), str(name))
        groups[f"{label}, p = {replicas}" if len(found[name]) > 1 else label].append(row)
    return dict(groups)


def curve(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Collects one curve.

    Args:
      rows: of one algorithm, with one number of replicas.
      name: of a measurement, such as "val_error".

    Returns:
      Effective epochs (of all replicas), shape (evaluations,), and values, shape (evaluations,
      seeds); what was not measured, because a seed had diverged, or was not finite is NaN.
    """
    seeds = sorted({row["seed"] for row in rows})
    epochs = sorted({row["effective_epochs"] for row in rows})
    values = np.full((len(epochs), len(seeds)), np.nan)
    for row in rows:
        value = row[name]
        place = epochs.index(row["effective_epochs"]), seeds.index(row["seed"])
        values[place] = np.nan if value is None else value
    return np.asarray(epochs), values


def _results(curves: dict[str, list[Row]], end: float) -> str:
    lines = [
        "| algorithm | L | replicas | gradients: all, per replica "
        "| validation error, % @ effective epochs | lowest mean, % @ effective epochs "
        "| training loss | ms per gradient |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label, own in curves.items():
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
        gradients, replicas = max(row["gradient_evaluations"] for row in own), own[-1]["replicas"]
        lines.append(
            f"| {label} | {own[0]['num_steps']} | {replicas} "
            f"| {gradients:,}, {gradients / replicas:,.0f} | {results} | {milliseconds:.2f} |"
        )
    return "\n".join(lines)


def _differences(curves: dict[str, list[Row]], end: float) -> str:
    """Differences from SGD at the end, and when each seed first had SGD's final error."""
    lines = [
        "| against SGD | validation error, % | training loss "
        "| SGD's final error reached @ effective epochs |",
        "|---|---|---|---|",
    ]
    baseline = _whole(curves[LABELS[_BASELINE]], "val_error", end)[1]
    if not baseline.size:
        return "SGD has no seed at the end to compare with."
    for label, own in curves.items():
        cells = [_reached(own, baseline[-1].mean(), end)]
        if label == LABELS[_BASELINE]:
            cells = ["", "", *cells]
        else:
            pair = curves[LABELS[_BASELINE]], own
            intervals = [_interval(*pair, "val_error", end), _interval(*pair, "train_loss", end, 4)]
            cells = [*intervals, *cells]
        lines.append(f"| {label} | {' | '.join(cells)} |")
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


def _missing(curves: dict[str, list[Row]], end: float) -> str:
    """A sentence about seeds that are not in the means."""
    everyone = {row["seed"] for own in curves.values() for row in own}
    lost = []
    for label, own in curves.items():
        there = {r["seed"] for r in own if r["effective_epochs"] >= end}
        there -= {r["seed"] for r in own if r["val_error"] is None or r["train_loss"] is None}
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
