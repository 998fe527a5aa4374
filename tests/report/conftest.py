"""Rows and folders of runs, made up."""

import json

import numpy as np
import pytest

from entropix.rows import Measurement, Row, rows_as_lines

UNITS = {"val_error": ("%", "lower"), "val_accuracy": ("%", "higher")}
IDENTITY = {
    "problem": {"name": "digits", "arguments": {"size": 3}, "digest": "abc", "batch_size": 32},
    "algorithm": {"name": "hj", "options": {}},
    "budget": {"gradients": 36, "evaluations": 3},
    "replicas": 1,
    "evaluation": {"examples": 100},
}


@pytest.fixture
def make_rows():
    def make(run, *, seeds=None, replicas=1, epochs=True, label=None, **measures):
        """Rows of one run; measures are arrays (evaluations, seeds), NaN for None."""
        first = np.asarray(next(iter(measures.values())), float)
        rows = []
        for place in range(first.shape[0]):
            for column, seed in enumerate(seeds or range(first.shape[1])):
                values = {name: np.asarray(v, float)[place, column] for name, v in measures.items()}
                gradients = 12 * (place + 1)
                rows.append(
                    Row(
                        run, run, label or run.upper(), seed, replicas, 1, gradients,
                        gradients // replicas, place + 1.0 if epochs else None, gradients, None,
                        0.01, 0.5,
                        {
                            name: Measurement(None if np.isnan(v) else v, *UNITS.get(name, ()))
                            for name, v in values.items()
                        },
                    )
                )  # fmt: skip
        return rows

    return make


@pytest.fixture
def save():
    def write(folder, rows, *, finished=True, versions=None, colour=None, run=None, **changes):
        """A run's folder; `changes` are of its identity, by dotted name with __ for a dot."""
        folder.mkdir(parents=True)
        identity = json.loads(json.dumps(IDENTITY))
        for path, value in changes.items():
            *above, last = path.split("__")
            place = identity
            for name in above:
                place = place[name]
            place[last] = value
        content = {
            "identity": identity, "run": run or rows[0].run,
            "seeds": sorted({row.seed for row in rows}), "label": "L" if run else rows[0].label,
            "colour": colour, "versions": versions or {"jax": "0.10.2"},
        }  # fmt: skip
        (folder / "run.json").write_text(json.dumps(content))
        (folder / "metrics.jsonl").write_bytes(rows_as_lines(rows))
        if finished:
            (folder / "complete.json").write_text("{}")
        return folder

    return write
