"""Numbers as cells of Markdown tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from entropix.report.paired import holm, student


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
    """A table with a row for every record."""

    def cell(content: Any) -> str:
        return str(content).replace("|", "\\|")

    escaped = [{cell(key): cell(value) for key, value in record.items()} for record in records]
    return str(pd.DataFrame(escaped).to_markdown(index=False, disable_numparse=True))


def spread(values: np.ndarray, unit: str) -> str:
    """Mean ± standard deviation; of a single value, whose deviation is unknown, the value.

    Example:
      >>> spread(np.asarray([1.0, 1.2]), "nats"), spread(np.asarray([3.25]), "%")
      ('1.10 ± 0.14', '3.25')
    """
    error = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return number(values.mean(), unit, error) + plus_minus(values, lambda v: number(v, unit, v))


def plus_minus(values: Sequence[float] | np.ndarray, write: Callable[[float], str]) -> str:
    """The standard deviation, unknown for a single value; of equal values exactly 0.

    Example:
      >>> plus_minus([6.1, 6.1, 6.1], "{:g}".format)
      ' ± 0'
    """
    centred = np.asarray(values) - values[0]
    return f" ± {write(float(np.std(centred, ddof=1)))}" if len(values) > 1 else ""


def number(value: float, unit: str, error: float, sign: str = "") -> str:
    """Hundredths of a per cent; of any other unit, two digits of the error, if there is one."""
    if unit == "%":
        return f"{value:{sign}.2f}"
    if not 1e-8 < error < 1e8:
        return f"{value:{sign}.4g}"
    exponent = int(f"{error:.1e}".partition("e")[2])
    return f"{value:{sign}.{max(0, 1 - exponent)}f}"


def short(value: float) -> str:
    """Whole numbers from ten on, two digits below."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def intervals(pairs: Mapping[str, Sequence[float]], unit: str) -> dict[str, str]:
    """Differences from a baseline: the mean, Student's 95 % interval and, of several runs, p.

    Differences that are equal with all seeds have neither: how they would spread is not known.

    Args:
      pairs: run -> differences, seed by seed.
      unit: of the measure.

    Returns:
      Run -> cell; p-values are corrected by Holm's method for all the runs.

    Example:
      >>> intervals({"hj": [1.0, 2.0, 3.0], "heat": [0.5]}, "nats")
      {'hj': '+2.0 (-0.5 to +4.5), p = 0.074', 'heat': 'too few seeds'}
      >>> intervals({"sam": [0.1, 0.1, 0.1]}, "%")
      {'sam': '+0.10 with all 3 seeds'}
    """
    tests = {name: test for name, pair in pairs.items() if (test := student(pair))}
    p_values = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    cells = dict.fromkeys(pairs, "too few seeds")
    for name, (mean, half, _) in tests.items():
        if half == 0:
            cells[name] = f"{number(mean, unit, 0.0, '+')} with all {len(pairs[name])} seeds"
            continue
        ends = mean, mean - half, mean + half
        middle, low, high = (number(value, unit, half, "+") for value in ends)
        p = f", p {_p_value(p_values[name])}" if len(pairs) > 1 else ""
        cells[name] = f"{middle} ({low} to {high}){p}"
    return cells


def _p_value(p: float) -> str:
    """Two digits, or as many as tell p from 0.05, on which answers depend.

    Example:
      >>> _p_value(0.0496), _p_value(0.0)
      ('= 0.0496', '< 1e-16')
    """
    if p < 1e-16:  # no difference is as sure as that; 0 it may be by rounding alone
        return "< 1e-16"
    digits = next((k for k in range(2, 9) if float(f"{p:.{k}g}") != 0.05), 2)
    return f"= {p:.{digits}g}"
