"""Rows of several runs as one comparison: read, checked, written."""

import collections
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from entropix.files import write_atomic
from entropix.report.saved import SavedRun, read_runs, told_apart, unfinished
from entropix.report.table import make_table
from entropix.rows import METRICS_FILE, TABLE_FILE, Row, rows_as_lines
from entropix.run_file import COMPARED, RUN_FILE, differing


def gather(
    folders: Iterable[str | pathlib.Path],
    workdir: str | pathlib.Path | None = None,
    *,
    mixed: bool = False,
    baseline: str | None = None,
    measures: Sequence[str] | None = None,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Makes a comparison of saved runs, from their rows alone.

    Args:
      folders: of runs or of comparisons.
      workdir: gets `metrics.jsonl` (all rows) and `table.md`; None for neither.
      mixed: whether runs may differ in problem, budget or evaluation; the table says in what.
        Different runs of one name are then called by their folders.
      baseline: see `make_table`.
      measures: see `make_table`.
      report: called with the finished table.

    Returns:
      All rows.

    Raises:
      ValueError: if there are no rows, a file is missing or damaged, runs are not comparable, two
        of them measured the same, or `workdir` is the folder of a run.
      OSError: if `workdir` cannot be written; before anything is read.

    Example:
      >>> import tempfile
      >>> from entropix import experiment
      >>> problem = experiment.classification("digits", {"name": "mlp", "widths": (8,)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = experiment.train(problem, "sgd", budget=experiment.Budget(10, evaluations=2),
      ...                          seeds=1, workdir=f"{folder}/sgd", progress=False)
      ...     rows = gather([f"{folder}/sgd"], folder, report=lambda table: None)
      >>> [(row.run, row.seed, row.gradients) for row in rows]
      [('sgd', 0, 5), ('sgd', 0, 10)]
    """
    if workdir is not None:
        check_workdir(workdir)
    runs = read_runs(folders)
    runs = told_apart(runs) if mixed else runs
    rows = [row for run in runs for row in run.rows]
    if not rows:
        raise ValueError("a comparison needs at least one measurement; the runs have none.")
    check_names(runs)
    notes = [*_check_comparable(runs, mixed), *_versions(runs)]
    waiting = sorted({run.label for run in runs if not run.rows})
    if waiting:
        notes.append(f"Begun, and not measured yet: {', '.join(waiting)}.")
    table = make_table(
        rows, baseline=baseline, measures=measures, unfinished=unfinished(runs), notes=notes
    )
    if workdir is not None:
        workdir = pathlib.Path(workdir).expanduser()
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomic(workdir / METRICS_FILE, rows_as_lines(rows))
        write_atomic(workdir / TABLE_FILE, table.encode())
    report(table)
    return rows


def colours(folders: Iterable[str | pathlib.Path]) -> dict[str, str | None]:
    """The colours of saved runs by name, for `convergence`.

    Args:
      folders: of runs or of comparisons.

    Returns:
      Run -> colour, as Matplotlib takes colours; None where a run has none. Different runs of one
      name are called by their folders.

    Raises:
      ValueError: if a folder has no run, or files of a run are missing, damaged, or those of
        another run.

    Example:
      >>> import tempfile
      >>> from entropix import experiment
      >>> problem = experiment.classification("digits", {"name": "mlp", "widths": (8,)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = experiment.train(problem, "sgd", budget=experiment.Budget(10, evaluations=2),
      ...                          seeds=1, workdir=f"{folder}/sgd", progress=False)
      ...     colours([f"{folder}/sgd"])
      {'sgd': '#000000'}
    """
    return {run.name: run.colour for run in told_apart(read_runs(folders))}


def check_workdir(workdir: str | pathlib.Path) -> None:
    """Raises an error unless tables and figures can be written to a folder; makes nothing.

    Args:
      workdir: a folder, which need not exist yet; ~ is the home folder.

    Raises:
      ValueError: if the folder is that of a run.
      OSError: if it cannot be made or written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     check_workdir(f"{folder}/comparison")
    """
    workdir = pathlib.Path(workdir).expanduser()
    if (workdir / RUN_FILE).exists():
        raise ValueError(
            f"{workdir} is the folder of a run, whose rows a comparison would replace. Choose "
            "another workdir."
        )
    above = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write to workdir={workdir} ({error.strerror}: {above}). Choose a folder "
            "that can be written."
        ) from error


def check_names(runs: Sequence[SavedRun]) -> None:
    """One name is one run, and a seed of it is measured once.

    Raises:
      ValueError: if it is not so.
    """
    first: dict[str, SavedRun] = {}
    measured: dict[tuple[str, int, int], pathlib.Path] = {}
    for run in runs:
        other = first.setdefault(run.name, run)
        if fields := _differences(other.identity, run.identity):
            raise ValueError(
                f"{run.folder} and {other.folder} hold two runs of one name, {run.name}: they "
                f"differ in {fields}. Name them in two calls; a report takes both with mixed=True "
                "(--mixed), and calls them by their folders."
            )
        for row in run.rows:
            key = (row.run, row.seed, row.gradients)
            if key in measured:
                raise ValueError(
                    f"{measured[key]} and {run.folder} both have {row.run}, seed {row.seed}, after "
                    f"{row.gradients} gradients. Name the folder of each run once."
                )
            measured[key] = run.folder


def _check_comparable(runs: Sequence[SavedRun], mixed: bool) -> list[str]:
    """In what runs differ that a comparison should keep equal: as an error, or as a note."""
    folders: dict[str, list[str]] = collections.defaultdict(list)
    for run in runs:
        parts = [{name: r.identity[name] for name in COMPARED} for r in (runs[0], run)]
        if fields := _differences(*parts):
            folders[fields].append(str(run.folder))
    if not folders:
        return []
    text = "; ".join(f"{', '.join(group)} in {fields}" for fields, group in folders.items())
    if not mixed:
        raise ValueError(
            f"the runs are not comparable. From {runs[0].folder} differ {text}. Report them "
            "apart, or allow this with mixed=True (--mixed)."
        )
    return [f"Not comparable: from {runs[0].folder} differ {text}."]


def _versions(runs: Sequence[SavedRun]) -> list[str]:
    """A note for packages whose versions differ."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for run in runs:
        for package, version in run.versions.items():
            labels = found.setdefault(package, {}).setdefault(str(version), {})
            labels[run.label] = None
    texts = [
        f"{package} " + ", ".join(f"{v} ({', '.join(labels)})" for v, labels in versions.items())
        for package, versions in found.items()
        if len(versions) > 1
    ]
    return [f"Versions differ: {'; '.join(texts)}."] if texts else []


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The fields in which two identities differ, with values; empty if in none."""
    pairs = differing(a, b)
    return ", ".join(f"{name} ({new!r} instead of {old!r})" for name, (old, new) in pairs.items())
