"""Finished trials on disk: a search that was interrupted goes on where it was."""

import hashlib
import json
import math
import os
import pathlib
from typing import Any

from flax.traverse_util import flatten_dict

from entropix.files import write_atomic, writing

Trial = dict[str, float]
_IDENTITY = "tune.json"


class TrialLog:
    """The trials of one algorithm, in `tune_ALGORITHM.jsonl`, each on disk when it is finished.

    Args:
      workdir: of the search; made if missing. `tune.json` keeps the identity of its searches.
      algorithm: name.
      identity: all that decides a trial's result, as nested JSON; a search goes on only with
        an equal one.

    Raises:
      ValueError: if `workdir` holds another search of `algorithm`, or a file cannot be read.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   TrialLog(folder, "sgd", {"seed": 0}).append({"learning_rate": 0.1, "val_error": 2.5})
      ...   TrialLog(folder, "sgd", {"seed": 0}).trials
      [{'learning_rate': 0.1, 'val_error': 2.5}]
    """

    def __init__(self, workdir: str | pathlib.Path, algorithm: str, identity: dict[str, Any]):
        workdir = pathlib.Path(workdir)
        self._path = workdir / f"tune_{algorithm}.jsonl"
        self.trials = _read(self._path)
        self._identity = {algorithm: json.loads(json.dumps(identity))}
        if self.trials:
            known = _read_identities(workdir / _IDENTITY)
            _check_same(self._path, known.get(algorithm, {}), self._identity[algorithm])

    def append(self, trial: Trial) -> None:
        """Adds a finished trial; it is on disk when this returns.

        Raises:
          OSError: naming the file, if the disk is full.
        """
        if not self.trials:
            self._write_identity()
        # JSON has no word for infinity.
        plain: dict[str, Any] = {k: v if math.isfinite(v) else None for k, v in trial.items()}
        plain["digest"] = _digest(plain)
        with writing(self._path), self._path.open("a") as file:
            file.write(json.dumps(plain) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.trials.append(trial)

    def _write_identity(self) -> None:
        """Before the first trial: one without an identity could belong to any search."""
        path = self._path.parent / _IDENTITY
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_read_identities(path) | self._identity, indent=1, sort_keys=True) + "\n"
        write_atomic(path, text.encode())


def _read(path: pathlib.Path) -> list[Trial]:
    """The complete lines; a last one that was only half written is cut off the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        with writing(path):
            os.truncate(path, len(complete))
    trials = []
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            trial = json.loads(line)
            if trial.pop("digest", None) not in (None, _digest(trial)):
                raise ValueError("it was changed after it was written")
            trials.append({k: math.inf if v is None else float(v) for k, v in trial.items()})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}, is no trial: {error}. Remove that line and the later "
                "ones; their trials will be run again."
            ) from error
    return trials


def _digest(trial: dict[str, Any]) -> str:
    """Of a trial's numbers as they are written."""
    return hashlib.sha256(json.dumps(trial).encode()).hexdigest()[:16]


def _read_identities(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Choose another --workdir, or move that folder away."
        ) from error


def _check_same(path: pathlib.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    before, now = flatten_dict(old, sep="."), flatten_dict(new, sep=".")
    fields = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if fields:
        raise ValueError(
            f"{path} holds trials of another search (it differs in {', '.join(fields)}). Choose "
            "another --workdir, or move that folder away."
        )
