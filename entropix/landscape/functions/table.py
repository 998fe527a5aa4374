"""How far estimates are from the truth, as a table to choose gamma, T and L by."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

TITLES = {
    "local_entropy": "Entropy-SGD (`local_entropy`)",
    "hamilton_jacobi": "HJ (`hamilton_jacobi`)",
    "heat": "HEAT (`heat`)",
    "elastic_coupling": "Elastic-SGD around a centre that stays (`elastic_coupling`, long period)",
    "live_centre": "Elastic-SGD around its own mean (`elastic_coupling`, period 1)",
    "sharpness": "SAM, L - 1 steps of ascent (`sharpness`); gamma is rho, the radius of the ball",
}


def accuracy_table(data: Mapping[str, Any]) -> str:
    r"""Makes a table for each method, in Markdown, from what `save_accuracy` saved.

    Args:
      data: what `load_accuracy` returns.

    Returns:
      Tables with a row for each gamma and T, a column for each L: "bias, spread" in per cent of
      the relaxed gradient's size.

    Example:
      >>> from entropix import landscape
      >>> row = {"method": "heat", "gamma": 1.0, "temperature": 0.1, "steps": 20, "truth": 1.0,
      ...        "bias": 0.03, "error": 0.01, "spread": 0.12}
      >>> data = {"function": "x**2 / 2", "interval": [-1.0, 1.0], "threshold": None,
      ...         "step_size": 0.1, "averaging": 0.75, "rows": [row]}
      >>> print(*landscape.accuracy_table(data).splitlines()[7:10], sep="\n")
      | gamma | T | size | L = 20 |
      |---|---|---|---|
      | 1 | 0.1 | 1.000 | 3, 12 |
    """
    low, high = data["interval"][:2]
    lines = [f"# f = {data['function']} on [{low:g}, {high:g}]", ""]
    if data["threshold"] is None:
        lines.append("f is convex: the inner problem has one minimum for every gamma (Remark 6).")
    else:
        lines.append(
            f"Above gamma = {data['threshold']:.3g} = -1/min f'' the inner problem may have several"
            " minima (Remark 6)."
        )
    lines.append(
        f"step_size = {data['step_size']:g}, averaging = {data['averaging']}; L gradients for "
        "one estimate (L replicas for Elastic-SGD)."
    )
    for method, title in TITLES.items():
        rows = [row for row in data["rows"] if row["method"] == method]
        if rows:
            lines += ["", f"## {title}", "", *_pivot(rows)]
    lines += [
        "",
        "size: the relaxed gradient itself. In the other columns: bias (of the mean estimate) and "
        "spread (standard deviation of one estimate), in % of the size; all are root mean squares "
        'over points. "<": no bias seen; so large is twice its standard error.',
    ]
    return "\n".join(lines) + "\n"


def _pivot(rows: Sequence[Row]) -> list[str]:
    steps = sorted({row["steps"] for row in rows})
    lines = [
        f"| gamma | T | size | {' | '.join(f'L = {L}' for L in steps)} |",
        "|---" * (3 + len(steps)) + "|",
    ]
    for gamma, T in sorted({(row["gamma"], row["temperature"]) for row in rows}):
        chosen = [r for r in rows if (r["gamma"], r["temperature"]) == (gamma, T)]
        cells = [cell(row) for row in sorted(chosen, key=lambda row: row["steps"])]
        lines.append(f"| {gamma:g} | {T:g} | {chosen[0]['truth']:.3f} | {' | '.join(cells)} |")
    return lines


def cell(row: Row) -> str:
    """Bias and spread in per cent of the truth, such as "3.1, 12", or "<0.4, 5.6"; "-" of 0."""
    if row["truth"] == 0:
        return "-"
    bias, error, spread = (100 * row[name] / row["truth"] for name in ("bias", "error", "spread"))
    seen = _percent(bias) if bias >= 2 * error else f"<{_percent(2 * error)}"
    return f"{seen}, {_percent(spread)}"


def _percent(value: float) -> str:
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"
