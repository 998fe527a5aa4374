"""How flat the minima are that runs have found: the instruments of `entropix.landscape` on runs."""

import io
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from entropix.experiment.run import Run
from entropix.files import write_atomic
from entropix.landscape.networks import Estimate, Spectrum, arithmetic_mean, harmonic_mean
from entropix.landscape.networks.estimate import mean_of_samples
from entropix.report import check_workdir
from entropix.report.cells import markdown
from entropix.report.flatness import Entry, draw_spectra, flatness_table
from entropix.report.saved import read_runs
from entropix.report.series import baseline_of
from entropix.runs.flatness import BATCH_SIZE, EXAMPLES, Sample, sample
from entropix.runs.loading import load
from entropix.training.state import Point


class Flatness(NamedTuple):
    """What was measured around one seed's x.

    Attributes:
      run: its name.
      label: in tables.
      seed: which one.
      measures: name -> number; a standard error stands under the same name with `_se`.
    """

    run: str
    label: str
    seed: int
    measures: Mapping[str, float]


def landscape(
    folders: Iterable[str | pathlib.Path],
    workdir: str | pathlib.Path,
    *,
    runs: Sequence[Run] = (),
    examples: int = EXAMPLES,
    batch_size: int = BATCH_SIZE,
    num_samples: int = 20,
    num_eigenvalues: int = 3,
    sigmas: Sequence[float] = (0.1, 0.3),
    spectra: int = 0,
    key: int = 0,
    baseline: str | None = None,
    report: Callable[[str], Any] = print,
) -> list[Flatness]:
    """Measures flatness at the x of finished runs, on a fixed sample of training examples.

    Args:
      folders: of runs, or of comparisons; seeds that were added to a run later count.
      workdir: gets `landscape.jsonl`, `landscape.md` and, with `spectra`, `spectra.png` and
        `spectra.npz` (the arrays of every `Spectrum`, under `LABEL, seed N/FIELD`).
      runs: the `Run`s of folders that were made from Python (see `entropix.experiment.load`).
      examples: of the training set, the first ones.
      batch_size: examples in memory at once; what `examples` has beyond a multiple is left out.
      num_samples: random vectors of traces and energies, even, >= 4.
      num_eigenvalues: the largest ones, >= 1.
      sigmas: relative sizes of noise, for local energies.
      spectra: of so many seeds of every run the density of eigenvalues is drawn, and its means are
        tabled.
      key: of all random vectors: the same for every seed and run.
      baseline: the run that others are compared with; see
        `entropix.report.flatness.flatness_table`.
      report: called with an estimate of the time, with what is measured, and with the table.

    Returns:
      One `Flatness` for every run and seed.

    Raises:
      ValueError: if a folder holds no run, or an argument is outside its range; nothing is measured
        before.
    """
    check_workdir(workdir)
    workdir = pathlib.Path(workdir).expanduser()
    known = {run.name: run for run in runs}
    saved = read_runs(folders)
    baseline = baseline_of([run.name for run in saved], baseline)
    trained = [load(run.folder, run=known.get(run.name)) for run in saved]
    problems = [json.dumps(network.identity["problem"], sort_keys=True) for network in trained]
    # Runs of one problem share its functions, and so the compiled programs.
    samples: dict[str, Sample] = {}
    for problem, network in zip(problems, trained, strict=True):
        if problem not in samples:
            samples[problem] = sample(network.problem, examples, batch_size)
    found: list[Flatness] = []
    entries: list[Entry] = []
    densities: dict[str, Spectrum] = {}
    for (_, name, label, *_), problem, network in zip(saved, problems, trained, strict=True):
        measured = samples[problem]
        for index, seed in enumerate(network.seeds):
            at = Point(network.params, network.model_state)
            point = jax.tree.map(lambda leaf, k=index: leaf[k], at)
            report(f"{label}, seed {seed}")
            values = measured.measures(
                point,
                key,
                num_eigenvalues=num_eigenvalues,
                num_samples=num_samples,
                sigmas=sigmas,
                announce=report if not found else None,  # the time is that of every seed
            )
            found.append(Flatness(name, label, seed, values))
            entries.append(Entry(name, label, seed, measured.named(values)))
            if index < spectra:
                density = measured.spectrum(point, key)
                densities[f"{label}, seed {seed}"] = jax.tree.map(np.asarray, density)
            _write(workdir, found)  # what is measured is never lost
    table = flatness_table(entries, baseline)
    if densities:
        table += "\n" + spectra_table(densities)
        draw_spectra(densities, workdir / "spectra.png")
        _save(densities, workdir / "spectra.npz")
    write_atomic(workdir / "landscape.md", table.encode())
    report(table)
    return found


def _write(workdir: pathlib.Path, found: Sequence[Flatness]) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(entry._asdict()) + "\n" for entry in found)
    write_atomic(workdir / "landscape.jsonl", lines.encode())


CUTOFFS = (1e-3, 1e-2, 1e-1, 1.0)
"""Above which eigenvalues count in the means of `spectra_table`."""


def spectra_table(densities: Mapping[str, Spectrum]) -> str:
    """Makes a table of the means of spectra, with standard errors in brackets, in Markdown.

    A row is a spectrum and a cut-off c: the share of the eigenvalues within c of zero, and of
    those above c the share, the harmonic and the arithmetic mean (the paper's section 6.3).

    Example:
      >>> import jax.numpy as jnp
      >>> from entropix.landscape import spectrum
      >>> diagonal = jnp.asarray([0.0, 0.0, 0.0, 2.0])
      >>> found = spectrum(lambda v: diagonal * v, jnp.zeros(4), key=0, num_samples=4)
      >>> print(spectra_table({"SGD": found}).splitlines()[-1].split("|")[6].split()[0])
      2
    """
    records = []
    for label, density in densities.items():
        harmonic, arithmetic = (
            mean(density, np.asarray(CUTOFFS)) for mean in (harmonic_mean, arithmetic_mean)
        )
        for k, cutoff in enumerate(CUTOFFS):
            records.append(
                {
                    "spectrum": label,
                    "c": f"{cutoff:g}",
                    "share within c": _shown(_share(density, abs(density.nodes) <= cutoff)),
                    "share above c": _shown(_share(density, density.nodes > cutoff)),
                    "harmonic mean above c": _shown(jax.tree.map(lambda a, k=k: a[k], harmonic)),
                    "arithmetic mean": _shown(jax.tree.map(lambda a, k=k: a[k], arithmetic)),
                }
            )
    return markdown(records) + "\n"


def _share(density: Spectrum, counted: Any) -> Estimate:
    return mean_of_samples(np.sum(np.where(counted, density.weights, 0), axis=-1))


def _shown(estimate: Estimate) -> str:
    value, error = map(float, estimate)
    return f"{value:.3g} ({error:.1g})" if np.isfinite(value) else "none"


def _save(densities: Mapping[str, Spectrum], path: pathlib.Path) -> None:
    """Writes the arrays of every spectrum."""
    buffer = io.BytesIO()
    arrays = {f"{n}/{field}": a for n, d in densities.items() for field, a in d._asdict().items()}
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())
