"""A row: what one seed of one run measured at one evaluation, and the file that holds rows."""

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# In the folder of a run: its rows, and that it is finished.
METRICS_FILE, COMPLETE_FILE = "metrics.jsonl", "complete.json"
TABLE_FILE, FIGURE_FILE = "table.md", "figure.png"  # in the folder of a comparison
CHECKPOINTS = "checkpoints"  # in the folder of a run
PARTS = "seeds_*"  # folders, within that of a run, of seeds that were added later
FLATNESS = "flatness/"  # what names of measures of flatness begin with


class Measurement(NamedTuple):
    """A measured value.

    Attributes:
      value: None where it was not measured, because the seed had diverged, or was not finite.
      unit: "%", "nats", ...
      better: "lower" or "higher".
    """

    value: float | None
    unit: str = ""
    better: str = "lower"


@dataclasses.dataclass(frozen=True)
class Row:
    """One seed of one run at one evaluation.

    Attributes:
      run: the name of the run in its comparison; also that of its folder.
      algorithm: the name of its algorithm in the registry, or of its transformation.
      label: what tables and figures call the run.
      seed: of initial parameters, data order and noise.
      replicas: p; 1 for an algorithm without replicas.
      num_steps: L, gradients per outer step and replica.
      gradients: gradient evaluations so far, over all replicas.
      gradients_per_replica: those of one replica.
      effective_epochs: gradients x batch size / size of the training set; None where the data have
        no known size.
      outer_steps: done so far.
      gamma: scope at this outer step; None for an algorithm without one.
      seconds_per_gradient: since the evaluation before, without compilation and evaluation.
      minibatch_loss: mean over the outer steps since the evaluation before; None if not finite.
      measures: name -> `Measurement`, such as "val_error".

    Example:
      >>> row = Row(run="hj", algorithm="hj", label="HJ", seed=0, replicas=1, num_steps=5,
      ...           gradients=60, gradients_per_replica=60, effective_epochs=5.3, outer_steps=12,
      ...           gamma=1.0, seconds_per_gradient=1e-3, minibatch_loss=0.3,
      ...           measures={"val_error": Measurement(3.5, "%")})
      >>> row["val_error"], row["seed"], Row.from_json(row.to_json()) == row
      (3.5, 0, True)
    """

    run: str
    algorithm: str
    label: str
    seed: int
    replicas: int
    num_steps: int
    gradients: int
    gradients_per_replica: int
    effective_epochs: float | None
    outer_steps: int
    gamma: float | None
    seconds_per_gradient: float
    minibatch_loss: float | None
    measures: Mapping[str, Measurement]

    def __getitem__(self, name: str) -> Any:
        """The value of a measure or, for any other name, a field."""
        if name in self.measures:
            return self.measures[name].value
        if name not in self.__dataclass_fields__:
            known = ", ".join((*self.__dataclass_fields__, *self.measures))
            raise KeyError(f"a row has no {name!r}; it has {known}")
        return getattr(self, name)

    def to_json(self) -> str:
        """One line of JSON, which has no word for NaN: a number that is not finite becomes null."""
        fields = {f: getattr(self, f) for f in self.__dataclass_fields__}
        fields["measures"] = {name: list(m) for name, m in self.measures.items()}
        return json.dumps(_finite(fields), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Row":
        """Reads what `to_json` wrote.

        Raises:
          ValueError: if the line is no row, naming what is wrong.
        """
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("it is no JSON object")
        expected = set(cls.__dataclass_fields__)
        if fields.keys() != expected:
            differing = ", ".join(sorted(expected ^ fields.keys()))
            raise ValueError(f"it is no row of this version: it differs in the fields {differing}")
        wrong = [name for name, kinds in _KINDS.items() if not _is_one_of(fields[name], kinds)]
        if wrong:
            raise ValueError(f"its fields {', '.join(wrong)} have values of the wrong type")
        try:
            measures = {name: Measurement(*entry) for name, entry in fields["measures"].items()}
        except TypeError as error:
            raise ValueError("its measures are not triples of value, unit, better") from error
        return cls(**fields | {"measures": measures})


def read_rows(folder: str | pathlib.Path) -> list[Row]:
    """Reads the rows in a folder's metric file.

    Raises:
      ValueError: if there is none, a line of it is no row, or the run is finished and these are
        not the rows that it finished with.
    """
    path = pathlib.Path(folder) / METRICS_FILE
    if not path.exists():
        raise ValueError(f"{path} does not exist: no run has written rows there.")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            rows.append(Row.from_json(line.decode()))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}, is not a row: {error}. If its run was killed, run the "
                "same command again: it writes the file anew from the checkpoint."
            ) from error
    complete = path.with_name(COMPLETE_FILE)
    if complete.exists() and _finished_with(complete) not in (None, digest_of_rows(rows)):
        raise ValueError(
            f"{path} has other rows than its run finished with. Run the same command again: it "
            "writes the file anew from the checkpoint."
        )
    return rows


def _finished_with(path: pathlib.Path) -> str | None:
    """The digest of a finished run's rows; None where the file has none."""
    try:
        found = json.loads(path.read_bytes()).get("digest")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Run the same command again: it writes the file anew "
            "from the checkpoint."
        ) from error
    return None if found is None else str(found)


def rows_as_lines(rows: Iterable[Row]) -> bytes:
    """The content of a metric file."""
    return "".join(row.to_json() + "\n" for row in rows).encode()


def digest_of_rows(rows: Iterable[Row]) -> str:
    """SHA-256 of the rows as they are written."""
    return hashlib.sha256(rows_as_lines(rows)).hexdigest()


_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "run": (str,),
    "algorithm": (str,),
    "label": (str,),
    "seed": (int,),
    "replicas": (int,),
    "num_steps": (int,),
    "gradients": (int,),
    "gradients_per_replica": _NUMBER,
    "effective_epochs": (*_NUMBER, type(None)),
    "outer_steps": (int,),
    "gamma": (*_NUMBER, type(None)),
    "seconds_per_gradient": (*_NUMBER, type(None)),
    "minibatch_loss": (*_NUMBER, type(None)),
    "measures": (dict,),
}


def _is_one_of(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def has_results(folder: pathlib.Path) -> bool:
    """Whether the folder of a run holds rows or checkpoints."""
    metrics = folder / METRICS_FILE
    measured = metrics.exists() and metrics.stat().st_size > 0
    return measured or any((folder / CHECKPOINTS).glob("[0-9]*"))
