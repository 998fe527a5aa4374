"""The tables of a comparison, from rows alone."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from entropix.report.paired import holm, student
from entropix.report.series import Measure, axis_of, by_run, curve, measures_of, seeds_by_state
from entropix.rows import Row

_BASELINE = "sgd"
_ASCII = str.maketrans({"±": "+-", "×": "x", "−": "-", "–": "-", "…": "...", "γ": "gamma"})


class _Run(NamedTuple):
    """A run as the tables need it: rows of the seeds that count, finished ones if there are any."""

    label: str
    states: dict[str, list[int]]
    rows: list[Row]
    axis: str

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Where all seeds that count have a value, and the values: (evaluations, seeds)."""
        if not self.rows:
            return np.empty(0), np.empty((0, 0))
        x, values = curve(self.rows, name, self.axis)
        measured = np.isfinite(values).all(axis=1)
        return x[measured], values[measured]

    def last(self, name: str) -> dict[int, float]:
        """Seed -> the last value, for seeds that finished."""
        _, values = self.values(name)
        return dict(zip(self.states["finished"], values[-1], strict=True)) if values.size else {}


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
    corrected by Holm's method for all comparisons in their column.

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
    """
    if not rows:
        raise ValueError("make_table needs at least one row; got none.")
    shown, axis = measures_of(rows, measures), axis_of(rows)
    runs = {}
    for label, own in by_run(rows).items():
        states = seeds_by_state(own, (unfinished or {}).get(own[0].run, ()))
        counted = states["finished"] or states["unfinished"]
        label += " (unfinished)" if states["unfinished"] and not states["finished"] else ""
        runs[own[0].run] = _Run(label, states, [r for r in own if r.seed in counted], axis)
    baseline = baseline or (_BASELINE if _BASELINE in runs else next(iter(runs)))
    if baseline not in runs:
        raise ValueError(f"no run is called {baseline!r} (the baseline); known: {', '.join(runs)}.")
    parts = [_results(rows, runs, shown)]
    how = ["Mean ± standard deviation over seeds."]
    if axis == "effective_epochs":
        how.append("Effective epochs count all gradient evaluations, inner steps and replicas.")
    if len(runs) > 1 and len({row.seed for row in rows}) > 1:
        parts.append(_differences(runs, baseline, shown))
        how.append("Differences: paired by seed, with 95 % intervals.")
        if len(runs) > 2:
            how.append("p: Holm's, for all comparisons in a column.")
    return "\n\n".join([*parts, " ".join([*how, *_missing(runs), *notes])]) + "\n"


def as_text(table: str, encoding: str | None = None) -> str:
    """A table for a terminal: in ASCII where the terminal's encoding lacks a character.

    Args:
      table: of `make_table`.
      encoding: of the terminal; by default that of the standard output.

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
        own = [row for row in rows if row.run == name]
        last = max(run.rows or own, key=lambda row: row.gradients)
        record: dict[str, Any] = {
            "run": run.label,
            "seeds": _seeds(run.states),
            "L": last.num_steps,
            "replicas": last.replicas,
            "gradients: all, per replica": f"{last.gradients:,}, {last.gradients_per_replica:,.0f}",
        }
        if run.axis == "effective_epochs":
            record["effective epochs"] = _short(last.effective_epochs)
        for measure in shown:
            x, values = run.values(measure.name)
            record[measure.title] = _spread(values[-1], measure.unit) if values.size else ""
            if measure == shown[0]:
                record |= _best(x, values, measure, run.axis)
        if not run.rows:
            record[shown[0].title] = "diverged"
        seconds = [r.seconds_per_gradient for r in own if r.seconds_per_gradient is not None]
        record["ms per gradient"] = f"{1e3 * np.median(seconds):.2f}" if seconds else ""
        records.append(record)
    return _markdown(records)


def _best(x: np.ndarray, values: np.ndarray, measure: Measure, axis: str) -> dict[str, str]:
    """The best mean over seeds, and when."""
    extreme, find = ("lowest", np.argmin) if measure.better == "lower" else ("highest", np.argmax)
    title = f"{extreme} mean {measure.words} @ {axis.replace('_', ' ')}"
    if not values.size:
        return {title: ""}
    means = values.mean(axis=1)
    best = int(find(means))
    return {title: f"{_number(means[best], measure.unit)} @ {_short(x[best])}"}


def _differences(runs: Mapping[str, _Run], baseline: str, shown: Sequence[Measure]) -> str:
    """Differences from the baseline, and when each seed first had the baseline's final value."""
    base, first = runs[baseline], shown[0]
    target = list(base.last(first.name).values())
    if not target:
        return f"{base.label} has no finished seed to compare with."
    others = {name: run for name, run in runs.items() if name != baseline}
    records = {name: {f"against {base.label}": run.label} for name, run in runs.items()}
    for measure in shown:
        pairs = {name: _paired(base, run, measure.name) for name, run in others.items()}
        tests = {name: test for name, pair in pairs.items() if (test := student(pair))}
        p_values = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
        for name in runs:
            records[name][measure.title] = "" if name == baseline else "too few seeds"
        for name, (mean, half, _) in tests.items():
            middle, low, high = (
                _number(value, measure.unit, "+", 3) for value in (mean, mean - half, mean + half)
            )
            p = f", p = {p_values[name]:.2g}" if len(others) > 1 else ""
            records[name][measure.title] = f"{middle} ({low} to {high}){p}"
    when = f"final {first.words} of {base.label} reached @ {base.axis.replace('_', ' ')}"
    for name, run in runs.items():
        records[name][when] = _reached(run, first, float(np.mean(target)))
    return _markdown(list(records.values()))


def _paired(base: _Run, run: _Run, name: str) -> list[float]:
    """Differences at the end, for the seeds that both have finished."""
    ours, theirs = run.last(name), base.last(name)
    return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]


def _reached(run: _Run, measure: Measure, target: float) -> str:
    """When each seed was first at least as good as `target`: mean, and how many never were."""
    x, values = run.values(measure.name)
    good = values <= target if measure.better == "lower" else values >= target
    first = [x[np.argmax(column)] for column in good.T if column.any()]
    if not first:
        return "not reached"
    never = good.shape[1] - len(first)
    missing = f", {never} of {good.shape[1]} seeds never" if never else ""
    return f"{_short(np.mean(first))}{_plus_minus(first, _short)}{missing}"


def _missing(runs: Mapping[str, _Run]) -> list[str]:
    """Sentences about seeds that are not in the means, or not at the end."""
    sentences = []
    for state, what in (("diverged", "Diverged, and left out"), ("unfinished", "Unfinished")):
        seeds = [f"{r.label}, seed {seed}" for r in runs.values() for seed in r.states[state]]
        sentences += [f"{what}: {'; '.join(seeds)}."] if seeds else []
    return sentences


def _markdown(records: Sequence[Mapping[str, Any]]) -> str:
    def cell(content: Any) -> str:
        return str(content).replace("|", "\\|")

    escaped = [{cell(key): cell(value) for key, value in record.items()} for record in records]
    return str(pd.DataFrame(escaped).to_markdown(index=False, disable_numparse=True))


def _seeds(states: Mapping[str, Sequence[int]]) -> str:
    total, counted = sum(map(len, states.values())), len(states["finished"] or states["unfinished"])
    return f"{counted}" if counted == total else f"{counted} of {total}"


def _spread(values: np.ndarray, unit: str) -> str:
    return _number(values.mean(), unit) + _plus_minus(values, lambda v: _number(v, unit, digits=2))


def _plus_minus(values: Sequence[float], write: Callable[[float], str]) -> str:
    """The standard deviation, unknown for a single value."""
    return f" ± {write(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""


def _number(value: float, unit: str, sign: str = "", digits: int = 4) -> str:
    """Hundredths of a per cent; of any other unit, significant digits."""
    if unit == "%":
        return f"{value:{sign}.2f}"
    return f"{value:{sign}#.{digits}g}".rstrip(".")


def _short(value: float) -> str:
    """Whole numbers from ten on, two digits below."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
