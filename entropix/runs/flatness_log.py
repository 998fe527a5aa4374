"""The flatness of runs on disk, seed by seed."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from entropix.report.flatness import Entry
from entropix.report.saved import SavedRun
from entropix.rows import Measurement
from entropix.run_file import digest_of_json
from entropix.runs.log import Fields, Log


class _Line(NamedTuple):
    """Of `landscape.jsonl`: an entry of the table, and a digest of the run's identity."""

    identity: str
    entry: Entry


class FlatnessLog:
    """What was measured in a folder, in `landscape.jsonl`; `landscape.json` says how.

    Args:
      workdir: the folder.
      how: all that decides a measurement but the run, as JSON.
      runs: that are to be measured.

    Raises:
      ValueError: if the folder holds what was measured in another way, or of another run of the
        same name, or cannot be read.
    """

    def __init__(self, workdir: pathlib.Path, how: Fields, runs: Iterable[SavedRun]):
        path, index = workdir / "landscape.jsonl", ("landscape.json", "landscape")
        self._log = Log(path, how, index, ("measurement", "sample"), read=_read, write=_write)
        known = {line.entry.run: line.identity for line in self._log.records}
        self._labels: dict[str, str] = {}
        for run in runs:
            self._labels[run.name] = run.label
            if known.get(run.name, _digest(run)) != _digest(run):
                raise ValueError(
                    f"{workdir} holds measurements of another run called {run.name} than that in "
                    f"{run.folder}. Choose another workdir."
                )

    @property
    def entries(self) -> dict[tuple[str, int], Entry]:
        """Run and seed -> what was measured last, under the label that the run has now."""
        labels = self._labels
        return {
            (entry.run, entry.seed): entry._replace(label=labels.get(entry.run, entry.label))
            for _, entry in self._log.records
        }

    def has(self, run: SavedRun, seed: int) -> bool:
        """Whether a seed was measured where its run has come to."""
        entry = self.entries.get((run.name, seed))
        return entry is not None and entry.gradients == _spent(run)

    def append(self, run: SavedRun, seed: int, measures: Mapping[str, Measurement]) -> None:
        """Adds what was measured at the x that a run has come to; then it is on disk."""
        entry = Entry(run.name, run.label, seed, measures, _spent(run))
        self._log.append(_Line(_digest(run), entry))


def _spent(run: SavedRun) -> int:
    return max((row.gradients for row in run.rows), default=0)


def _digest(run: SavedRun) -> str:
    return digest_of_json(run.identity)[:16]


def _read(fields: Fields) -> _Line:
    measures = {name: Measurement(*triple) for name, triple in fields["measures"].items()}
    identity = fields.pop("identity")
    return _Line(identity, Entry(**fields | {"measures": measures}))


def _write(line: _Line) -> Fields:
    triples = {name: list(measurement) for name, measurement in line.entry.measures.items()}
    return {"identity": line.identity} | line.entry._asdict() | {"measures": triples}
