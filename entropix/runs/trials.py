"""The trials of a search on disk."""

import math
import pathlib
from typing import Any

from entropix.runs.log import Fields, Log

Trial = dict[str, float]


def trial_log(workdir: str | pathlib.Path, algorithm: str, identity: dict[str, Any]) -> Log[Trial]:
    """The trials of one algorithm, in `tune_ALGORITHM.jsonl`, each on disk when it is finished.

    Args:
      workdir: of the search; made if missing. `tune.json` keeps the identity of its searches.
      algorithm: name.
      identity: all that decides a trial's result.

    Raises:
      ValueError: if `workdir` holds another search of `algorithm`, or a file cannot be read.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   trial_log(folder, "sgd", {"seed": 0}).append({"learning_rate": 0.1, "val_error": 2.5})
      ...   trial_log(folder, "sgd", {"seed": 0}).records
      [{'learning_rate': 0.1, 'val_error': 2.5}]
    """
    path, index = pathlib.Path(workdir) / f"tune_{algorithm}.jsonl", ("tune.json", algorithm)
    return Log(path, identity, index, ("trial", "search"), read=_trial, write=_fields)


def _trial(fields: Fields) -> Trial:
    return {name: math.inf if value is None else float(value) for name, value in fields.items()}


def _fields(trial: Trial) -> Fields:
    """JSON has no word for infinity."""
    return {name: value if math.isfinite(value) else None for name, value in trial.items()}
