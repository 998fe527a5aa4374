"""What a search found, as a page of tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

Trial = Mapping[str, float]
NONE_FINITE = (
    "no trial was finite, so that there is no best one. Search lower values of the learning rate, "
    "or wider ranges."
)


def is_finite(trial: Trial) -> bool:
    """Whether a trial did not diverge."""
    return all(map(math.isfinite, trial.values()))


def tuning_page(
    tried: Mapping[str, Sequence[Trial]],
    *,
    labels: Mapping[str, str],
    edges: Mapping[str, Sequence[str]],
    effort: str,
) -> str:
    """Makes `tuning.md`: the choice, then all trials of each run.

    A run none of whose trials was finite has no choice, which the page says.

    Args:
      tried: run -> its trials, best first.
      labels: run -> what tables call it.
      edges: run -> options whose best value lies at an edge of its range.
      effort: a sentence about what every trial cost.

    Returns:
      Markdown.

    Example:
      >>> page = tuning_page({"sgd": [{"learning_rate": 0.1, "rung": 0.0, "val_error": 2.5}]},
      ...                    labels={"sgd": "SGD"}, edges={"sgd": ["learning_rate"]}, effort="One.")
      >>> "SGD: the best learning_rate lies at the edge of its range" in page
      True
    """
    best = {name: trials[0] for name, trials in tried.items() if is_finite(trials[0])}
    rows = [{"run": labels[name], **trial} for name, trial in best.items()]
    parts = ["# Tuning", effort, "## Choice"]
    parts += [_markdown(pd.DataFrame(rows))] if rows else []
    parts += [f"{labels[name]}: {NONE_FINITE}" for name in tried if name not in best]
    parts += [
        f"{labels[name]}: the best {' and '.join(options)} lies at the edge of its range; a wider "
        "one may hold a better value."
        for name, options in edges.items()
        if options and name in best
    ]
    for name, trials in tried.items():
        parts += [f"## {labels[name]}", _markdown(pd.DataFrame(trials))]
    return "\n\n".join(parts) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: Any) -> Any:
        if pd.isna(value):  # an option that other runs have
            return ""
        return f"{value:.4g}" if isinstance(value, float) else value

    return str(table.map(cell).to_markdown(index=False, disable_numparse=True))
