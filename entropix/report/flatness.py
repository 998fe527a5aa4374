"""Measures of flatness as tables."""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from entropix.report.cells import intervals, markdown, spread
from entropix.report.paired import paired
from entropix.report.series import baseline_of, distinct
from entropix.rows import FLATNESS, Measurement, Row

_NOTE = (
    "sharpness is a lower bound; only relative_trace, local_energy and adaptive_sharpness stay the "
    "same when layers are rescaled without a change of the network's function."
)

Numbers = Mapping[str, float]


class Entry(NamedTuple):
    """What was measured around one seed's x.

    Attributes:
      run: its name.
      label: in tables.
      seed: which one.
      measures: name -> measurement; a standard error stands under the same name with `_se`.
      gradients: that the run had spent.
    """

    run: str
    label: str
    seed: int
    measures: Mapping[str, Measurement]
    gradients: int = 0


def flatness_of(rows: Sequence[Row]) -> list[Entry]:
    """The flatness in rows: of every run that which was measured last.

    Args:
      rows: of seeds that count.

    Returns:
      An entry for every seed; none of runs that did not measure flatness.
    """
    measured = [row for row in rows if any(name.startswith(FLATNESS) for name in row.measures)]
    last = {row.run: max(r.gradients for r in measured if r.run == row.run) for row in measured}
    return [
        Entry(
            row.run, row.label, row.seed,
            {
                name.removeprefix(FLATNESS): entry
                for name, entry in row.measures.items()
                if name.startswith(FLATNESS)
            },
            row.gradients,
        )
        for row in measured
        if row.gradients == last[row.run]
    ]  # fmt: skip


def flatness_table(found: Sequence[Entry], baseline: str | None = None) -> str:
    """Makes tables with a row for every measure and a column for every run, in Markdown.

    Cells of the first table are mean ± standard deviation over seeds; of one seed, the value and,
    in brackets, the standard error of its estimate, where there is one. The second table needs two
    runs and two seeds: differences from the baseline, taken seed by seed, with Student's 95 %
    intervals and, of several runs, Holm's p-values for all the runs in a row.

    Args:
      found: one for every run and seed.
      baseline: name of a run; by default "sgd" if there is one, else the first run.

    Returns:
      The tables, ending in a line that says how to read them.

    Raises:
      ValueError: if no run is called like the baseline.

    Example:
      >>> seen = Entry("sgd", "SGD", 0, {"trace": Measurement(12.0, "nats"),
      ...                                "trace_se": Measurement(0.5, "nats")})
      >>> print(flatness_table([seen]).splitlines()[2])
      | trace, nats | 12 (0.5) |
    """
    runs: dict[str, dict[int, Numbers]] = collections.defaultdict(dict)
    for entry in found:
        known = {n: m.value for n, m in entry.measures.items() if m.value is not None}
        runs[entry.run][entry.seed] = known
    units = {name: m.unit for entry in found for name, m in entry.measures.items()}
    titles = {
        name: f"{name}, {unit}" if unit else name
        for name, unit in units.items()
        if not (name.endswith("_se") and name.removesuffix("_se") in units)
    }
    labels = distinct({entry.run: entry.label for entry in found})
    results = [
        {"measure": title}
        | {labels[run]: _cell(list(s.values()), name, units[name]) for run, s in runs.items()}
        for name, title in titles.items()
    ]
    parts, counts = [markdown(results)], [len(of_run) for of_run in runs.values()]
    fewest, seeds = min(counts), max(counts)
    number = f"{seeds}" if fewest == seeds else f"{fewest} to {seeds}"
    how = [f"Mean ± standard deviation over {number} seeds"]
    if seeds == 1:
        how = ["One seed; in brackets the standard error of the estimate"]
    base = baseline_of(runs, baseline)
    if len(runs) > 1 and seeds > 1:
        others = {run: of_seeds for run, of_seeds in runs.items() if run != base}
        differences = []
        for name, title in titles.items():
            pairs = {run: _paired(runs[base], of_run, name) for run, of_run in others.items()}
            cells = intervals(pairs, units[name])
            differences.append(
                {f"against {labels[base]}": title} | {labels[run]: c for run, c in cells.items()}
            )
        parts.append(markdown(differences))
        how.append("differences are paired by seed, with 95 % intervals")
        how += ["p is Holm's, for all runs in a row"] if len(others) > 1 else []
    return "\n\n".join([*parts, "; ".join([*how, _NOTE])]) + "\n"


def _cell(seeds: Sequence[Numbers], name: str, unit: str) -> str:
    """One measure of one run: over seeds, or of the only one."""
    known = [numbers[name] for numbers in seeds if name in numbers]
    if not known:
        return ""
    if len(seeds) > 1:
        partly = f" ({len(known)} of {len(seeds)} seeds)" if len(known) < len(seeds) else ""
        return spread(np.asarray(known), unit) + partly
    error = seeds[0].get(f"{name}_se")
    return f"{known[0]:.3g}" + (f" ({error:.2g})" if error is not None else "")


def _paired(base: Mapping[int, Numbers], other: Mapping[int, Numbers], name: str) -> list[float]:
    """Differences for the seeds of which both have the measure."""
    ours, theirs = (
        {seed: numbers[name] for seed, numbers in run.items() if name in numbers}
        for run in (other, base)
    )
    return paired(ours, theirs)
