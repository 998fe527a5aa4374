"""What a run has measured and spent so far: the part of a checkpoint that is no array."""

import dataclasses
import json
from typing import Any, NamedTuple

from entropix.rows import Row


class Failure(NamedTuple):
    """A seed that diverged.

    Attributes:
      run: its name.
      seed: which one.
      outer_step: at which it stopped, counted from 0.
      inner_step: whose loss was not finite; L where the parameters were not, None where the
        evaluation was not.
      num_steps: L.
      measure: the first one that was not finite, where the evaluation was not; empty in records
        from before it was noted.
    """

    run: str
    seed: int
    outer_step: int
    inner_step: int | None
    num_steps: int
    measure: str = ""

    def __str__(self) -> str:
        way_out = ""
        if self.inner_step is None:
            what, where = f"{self.measure or 'a measure'} at x is", "its evaluation"
            way_out = (
                " If the training loss is finite, the measure may not be defined on every batch "
                "(see eval_batch_size), or the examples that are measured hold a NaN."
            )
        elif self.inner_step == self.num_steps:
            what, where = "its parameters are", "the move of x"
        else:
            what, where = "its loss is", f"inner step {self.inner_step} of {self.num_steps}"
        return (
            f"{self.run}: seed {self.seed} stopped, because {what} not finite: outer step "
            f"{self.outer_step}, {where} (counted from 0). Other seeds go on. Lower the learning "
            "rate or, where there is an inner step_size, raise gamma (step_size/gamma must stay "
            f"below 2), in a new workdir.{way_out}"
        )


@dataclasses.dataclass
class Record:
    """The clocks, rows and failures of a run.

    Attributes:
      replicas: p, of the state that was saved.
      gradients: evaluations of gradients so far, over all replicas.
      per_replica: those of one replica, also where a fork has had another number of replicas.
      since_eval: outer steps since the last evaluation.
      seconds: of compiled calls since the last evaluation.
      seed_steps: outer steps in them, over all seeds.
      rows: all rows so far.
      failures: seeds that diverged.
      owner: digest of the identity, without its budget, of the run that saved the record; empty in
        records from before it was noted.
    """

    replicas: int
    gradients: int = 0
    per_replica: int = 0
    since_eval: int = 0
    seconds: float = 0.0
    seed_steps: int = 0
    rows: list[Row] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    owner: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record in JSON's types."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["rows"] = [json.loads(row.to_json()) for row in self.rows]
        fields["failures"] = [failure._asdict() for failure in self.failures]
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any], per_replica: int = 0) -> "Record":
        """Reads what `to_dict` made.

        Args:
          fields: of a checkpoint.
          per_replica: that of a record from before it was noted.

        Raises:
          ValueError: if it is no record of this version.
        """
        try:
            rows = [Row.from_json(json.dumps(row)) for row in fields["rows"]]
            failures = [Failure(**failure) for failure in fields["failures"]]
            made = {"rows": rows, "failures": failures}
            record = cls(**{"per_replica": per_replica} | fields | made)
            record._check()
            return record
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"the checkpoint is not one of this version of entropix ({error}). Choose another "
                "workdir, or continue it with the version that made it."
            ) from error

    def _check(self) -> None:
        """Raises `ValueError` for a field of another type, or outside its range."""
        counts = {
            n: getattr(self, n) for n in ("gradients", "per_replica", "since_eval", "seed_steps")
        }
        counts |= {"replicas": self.replicas - 1 if type(self.replicas) is int else None}
        wrong = [name for name, n in counts.items() if type(n) is not int or not 0 <= n < 2**62]
        if not isinstance(self.seconds, int | float) or not 0 <= self.seconds < float("inf"):
            wrong.append("seconds")
        for failure in self.failures:
            inner = 0 if failure.inner_step is None else failure.inner_step
            numbers = (failure.seed, failure.outer_step, inner, failure.num_steps)
            if type(failure.run) is not str or any(type(n) is not int for n in numbers):
                wrong.append("failures")
        if type(self.owner) is not str:
            wrong.append("owner")
        if wrong:
            raise ValueError(f"its {', '.join(wrong)} cannot be so")

    def handed_to(self, owner: str) -> "Record":
        """The record that another run goes on with: rows, and what led to the next, stay."""
        return Record(
            self.replicas, self.gradients, self.per_replica, failures=self.failures, owner=owner
        )

    def failed(self) -> set[int]:
        """The seeds that diverged."""
        return {failure.seed for failure in self.failures}
