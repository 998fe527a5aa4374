"""The tables of a comparison, from rows alone."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from entropix.report.cells import intervals, markdown, plus_minus, short, spread
from entropix.report.flatness import flatness_of, flatness_table
from entropix.report.paired import paired
from entropix.report.series import (
    Measure,
    axis_of,
    baseline_of,
    by_run,
    curve,
    measures_of,
    seeds_by_state,
)
from entropix.rows import Row

_ASCII = str.maketrans({"±": "+-", "×": "x", "−": "-", "–": "-", "…": "...", "γ": "gamma"})


class _Run(NamedTuple):
    """A run as the tables need it: rows of the seeds that count, finished ones if there are any."""

    label: str
    states: dict[str, list[int]]
    rows: list[Row]
    axis: str

    @property
    def title(self) -> str:
        """The label, and whether the results are those so far."""
        so_far = self.states["unfinished"] and not self.states["finished"]
        return f"{self.label} (unfinished)" if so_far else self.label

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Where all seeds that count have a value, and the values: (evaluations, seeds)."""
        if not self.rows:
            return np.empty(0), np.empty((0, 0))
        x, values = curve(self.rows, name, self.axis)
        measured = np.isfinite(values).all(axis=1)
        return x[measured], values[measured]

    def last(self, name: str) -> dict[int, float]:
        """Seed -> the value at the end, of those seeds that finished and have one."""
        return self._at_the_end(name)[1] if self.states["finished"] else {}

    def at_the_end(self, measure: Measure) -> str:
        """Mean and deviation at the end, with how many seeds have a value, if not all have."""
        at, last = self._at_the_end(measure.name)
        values = np.asarray([*last.values()])
        if not self.states["finished"]:  # where all seeds have been
            _, so_far = self.values(measure.name)
            return spread(so_far[-1], measure.unit) if so_far.size else ""
        if not len(values):
            return ""
        of = len(self.states["finished"])
        some = f" ({len(values)} of {of} seeds)" if len(values) < of else ""
        return spread(values, measure.unit) + some + f" @ {short(at)}" * self.is_early(measure.name)

    def is_early(self, name: str) -> bool:
        """Whether no seed has a value at the end, but some have one before."""
        at, last = self._at_the_end(name)
        return bool(last) and at < max(row[self.axis] for row in self.rows)

    def _at_the_end(self, name: str) -> tuple[float, dict[int, float]]:
        """The last evaluation at which any seed has a value, and the values there."""
        known = [row for row in self.rows if name in row.measures and row[name] is not None]
        at = max((row[self.axis] for row in known), default=0.0)
        return at, {row.seed: row[name] for row in known if row[self.axis] == at}


def make_table(
    rows: Sequence[Row],
    *,
    baseline: str | None = None,
    measures: Sequence[str] | None = None,
    unfinished: Mapping[str, Collection[int]] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Makes the tables of a comparison, in Markdown.

    The first table has the results at the end of each run: mean ± standard deviation over seeds
    (the unbiased one). The second table needs two runs and two seeds. It has the differences from
    the baseline, taken seed by seed (equal seeds begin at equal parameters), with Student's 95 %
    intervals, and how soon the baseline's final value of the first measure was reached. Where there
    are several comparisons with the baseline, p-values of the paired test stand beside,
    corrected by Holm's method for all comparisons in their column. Runs that measured flatness
    have the tables of `entropix.report.flatness.flatness_table` at the end, of finished seeds.

    Args:
      rows: of all runs, such as `gather` returns.
      baseline: name of a run. By default "sgd" if there is one, else the first run.
      measures: names, the most important first. By default all that begin with `val_`, losses
        after others, then `train_loss`.
      unfinished: run -> its seeds whose rows are not all there yet.
      notes: sentences that stand below.

    Returns:
      The tables, ending in a paragraph that says how to read them.

    Raises:
      ValueError: if there are no rows, or no run or measure of a name.

    Example:
      >>> from entropix.rows import Measurement, Row
      >>> rows = [Row("hj", "hj", "HJ", seed, 1, 5, 60 * n, 60 * n, 5.0 * n, 12 * n, 1.0, 1e-3, 0.3,
      ...             {"val_error": Measurement((9 + seed) / n, "%")})
      ...         for n in (1, 2) for seed in (0, 1)]
      >>> [cell.strip() for cell in make_table(rows).splitlines()[0].split("|")[1:4]]
      ['run', 'seeds', 'L']
      >>> "4.75 ± 0.35" in make_table(rows)  # at the end: 4.5 and 5
      True
    """
    if not rows:
        raise ValueError("make_table needs at least one row; got none.")
    shown, axis = measures_of(rows, measures), axis_of(rows)
    runs = {}
    for label, of_run in by_run(rows).items():
        states = seeds_by_state(of_run, (unfinished or {}).get(of_run[0].run, ()))
        counted = states["finished"] or states["unfinished"]
        runs[of_run[0].run] = _Run(label, states, [r for r in of_run if r.seed in counted], axis)
    baseline = baseline_of(runs, baseline)
    parts = [_results(rows, runs, shown)]
    how = ["Mean ± standard deviation over seeds."]
    if any(run.is_early(measure.name) for run in runs.values() for measure in shown):
        how.append("Values with @ are from before the end, and are not compared.")
    if axis == "effective_epochs":
        how.append("Effective epochs count all gradient evaluations, inner steps and replicas.")
    if len(runs) > 1 and len({row.seed for row in rows}) > 1:
        parts.append(_differences(runs, baseline, shown))
        if runs[baseline].states["finished"]:
            how.append("Differences: paired by seed, with 95 % intervals.")
            how += ["p: Holm's, for all comparisons in a column."] if len(runs) > 2 else []
    parts += [" ".join([*how, *_missing(runs), *notes]), *_flatness(runs, baseline)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def as_text(table: str, encoding: str | None = None) -> str:
    """A table for a terminal: in ASCII where the terminal's encoding lacks a character.

    Args:
      table: of `make_table`.
      encoding: of the terminal; by default that of the standard output.

    Returns:
      The table, in characters that the encoding has.

    Raises:
      LookupError: for an encoding that Python does not know.

    Example:
      >>> as_text("2.0 ± 0.1", "ascii"), as_text("2.0 ± 0.1", "utf-8")
      ('2.0 +- 0.1', '2.0 ± 0.1')
    """
    encoding = encoding or sys.stdout.encoding or "ascii"
    try:
        table.encode(encoding)
    except UnicodeEncodeError:
        return table.translate(_ASCII).encode("ascii", "replace").decode()
    return table


def _results(rows: Sequence[Row], runs: Mapping[str, _Run], shown: Sequence[Measure]) -> str:
    records = []
    for name, run in runs.items():
        of_run = [row for row in rows if row.run == name]
        last = max(run.rows or of_run, key=lambda row: row.gradients)
        record: dict[str, Any] = {
            "run": run.title,
            "seeds": _seeds(run.states),
            "L": last.num_steps,
            "replicas": last.replicas,
            "gradients: all, per replica": f"{last.gradients:,}, {last.gradients_per_replica:,.0f}",
        }
        if last.effective_epochs is not None and run.axis == "effective_epochs":
            record["effective epochs"] = short(last.effective_epochs)
        for measure in shown:
            record[measure.title] = run.at_the_end(measure)
            if measure == shown[0]:
                record |= _best(*run.values(measure.name), measure, run.axis)
        if not run.rows:
            record[shown[0].title] = "diverged"
        seconds = [r.seconds_per_gradient for r in of_run if r.seconds_per_gradient is not None]
        record["ms per gradient"] = f"{1e3 * np.median(seconds):.2f}" if seconds else ""
        records.append(record)
    return markdown(records)


def _best(x: np.ndarray, values: np.ndarray, measure: Measure, axis: str) -> dict[str, str]:
    """The best mean over seeds, and when."""
    extreme, find = ("lowest", np.argmin) if measure.better == "lower" else ("highest", np.argmax)
    title = f"{extreme} mean @ {axis.replace('_', ' ')}"
    if not values.size:
        return {title: ""}
    best = int(find(values.mean(axis=1)))
    mean = spread(values[best], measure.unit).partition(" ")[0]
    return {title: f"{mean} @ {short(x[best])}"}


def _differences(runs: Mapping[str, _Run], baseline: str, shown: Sequence[Measure]) -> str:
    """Differences from the baseline, and when each seed first had the baseline's final value."""
    base, first = runs[baseline], shown[0]
    target = list(base.last(first.name).values())
    if not target:
        return f"{base.label} has no finished seed to compare with."
    others = {name: run for name, run in runs.items() if name != baseline}
    records = {name: {f"against {base.label}": run.title} for name, run in runs.items()}
    for measure in shown:
        pairs = {name: _paired(base, run, measure.name) for name, run in others.items()}
        for name, cell in ({baseline: ""} | intervals(pairs, measure.unit)).items():
            records[name][measure.title] = cell
    when = f"final {first.words} of {base.label} reached @ {base.axis.replace('_', ' ')}"
    for name, run in runs.items():
        records[name][when] = _reached(run, first, float(np.mean(target)))
    return markdown(list(records.values()))


def _paired(base: _Run, run: _Run, name: str) -> list[float]:
    """Differences at the end, for the seeds that both have finished; none from before the end."""
    if run.is_early(name) or base.is_early(name):
        return []
    return paired(run.last(name), base.last(name))


def _reached(run: _Run, measure: Measure, target: float) -> str:
    """When each seed was first at least as good as `target`: mean, and how many never were."""
    x, values = run.values(measure.name)
    good = values <= target if measure.better == "lower" else values >= target
    first = [x[np.argmax(column)] for column in good.T if column.any()]
    if not first:
        return "not reached"
    never = good.shape[1] - len(first)
    missing = f", {never} of {good.shape[1]} seeds never" if never else ""
    return f"{short(np.mean(first))}{plus_minus(first, short)}{missing}"


def _flatness(runs: Mapping[str, _Run], baseline: str) -> list[str]:
    """When flatness was measured, and its tables; nothing if it was not."""
    rows = [row for run in runs.values() if run.states["finished"] for row in run.rows]
    found, measured_at = flatness_of(rows), {}
    for name, run in runs.items():
        end = max((row.gradients for row in run.rows), default=0)
        for entry in found:
            if entry.run == name and entry.gradients < end:
                measured_at[name] = f"{run.label} after {entry.gradients:,} of {end:,} gradients"
    if not found:
        return []
    early = f", but {', '.join(measured_at.values())}" if measured_at else ""
    base = baseline if any(entry.run == baseline for entry in found) else None
    return [f"Flatness at the end of the runs{early}:", flatness_table(found, base)]


def _missing(runs: Mapping[str, _Run]) -> list[str]:
    """Sentences about seeds that are not in the means, or not at the end."""
    sentences = []
    for state, what in (("diverged", "Diverged, and left out"), ("unfinished", "Unfinished")):
        seeds = {run.label: run.states[state] for run in runs.values() if run.states[state]}
        named = [f"{label} (seed {', '.join(map(str, of_run))})" for label, of_run in seeds.items()]
        sentences += [f"{what}: {', '.join(named)}."] if named else []
    return sentences


def _seeds(states: Mapping[str, Sequence[int]]) -> str:
    total, counted = sum(map(len, states.values())), len(states["finished"] or states["unfinished"])
    return f"{counted}" if counted == total else f"{counted} of {total}"
