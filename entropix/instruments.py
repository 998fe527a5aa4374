"""How flat the minima are that runs have found: the instruments of `entropix.landscape` on runs."""

import json
import os
import pathlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from entropix.experiment.run import Run
from entropix.files import write_atomic
from entropix.landscape.networks.report import effort
from entropix.report import check_workdir
from entropix.report.flatness import Entry, flatness_table
from entropix.report.gathering import check_names
from entropix.report.saved import SavedRun, read_runs, states
from entropix.report.series import baseline_of, distinct
from entropix.report.spectra import draw_spectra, read_spectra, save_spectra, spectra_table
from entropix.runs.flatness import BATCH_SIZE, EXAMPLES, Sample, sample
from entropix.runs.flatness_log import FlatnessLog
from entropix.runs.folder import claimed
from entropix.runs.loading import Trained, load
from entropix.training.state import Point
from entropix.transforms.checks import check_count, check_index


class Flatness(NamedTuple):
    """What was measured around one seed's x.

    Attributes:
      run: its name.
      label: in tables.
      seed: which one.
      measures: name -> number; a standard error stands under the same name with `_se`. A number
        that is not finite is left out.
    """

    run: str
    label: str
    seed: int
    measures: Mapping[str, float]


class _Place(NamedTuple):
    """One seed of a run, in which row of its folder's arrays, and whether its spectrum is due."""

    saved: SavedRun
    row: int
    seed: int
    spectrum: bool

    @property
    def name(self) -> str:
        """Of its spectrum."""
        return _spectrum_name(self.saved.name, self.seed)


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
    data_dir: str | os.PathLike[str] | None = None,
    report: Callable[[str], Any] = print,
) -> list[Flatness]:
    """Measures flatness at the x of finished runs, on a fixed sample of training examples.

    Called again, it measures what is missing: an interrupted call goes on, further runs and seeds
    join the table, and what was measured before the end of a run is replaced. Seeds that diverged
    are left out, as in every table: their x is that of some checkpoint before.

    Args:
      folders: of runs, or of comparisons; seeds that were added to a run later count.
      workdir: gets `landscape.jsonl`, seed by seed, `landscape.json`, which says how they were
        measured, `landscape.md` and, with `spectra`, `spectra.png` and `spectra.npz` (the arrays of
        every `Spectrum`, under `RUN, seed N/FIELD`).
      runs: the `Run`s of folders that were made from Python (see `entropix.experiment.load`).
      examples: of the training set, the first ones (see `Problem.ordered`).
      batch_size: examples in memory at once; what `examples` has beyond a multiple is left out.
      num_samples: random vectors of traces and energies, even, >= 4.
      num_eigenvalues: the largest ones, >= 1.
      sigmas: relative sizes of noise, for local energies.
      spectra: of so many seeds of every run the density of eigenvalues is drawn, and its means are
        tabled.
      key: an integer >= 0, the seed of all random vectors: the same for every seed and run.
      baseline: the run that others are compared with; see
        `entropix.report.flatness.flatness_table`.
      data_dir: folder of prepared data sets; see `entropix.experiment.load`.
      report: called with an estimate of the time, with what is measured, and with the table.

    Returns:
      One `Flatness` for every run and seed in the table.

    Raises:
      ValueError: if a folder holds no run, an argument is outside its range, or `workdir` holds
        what was measured in another way or of another run of the same name; nothing is measured
        before.
    """
    check_workdir(workdir)
    workdir = pathlib.Path(workdir).expanduser()
    saved = read_runs(folders)
    check_names(saved)
    num_eigenvalues, num_samples, sigmas = effort(num_eigenvalues, num_samples, sigmas)
    how = {"num_eigenvalues": num_eigenvalues, "num_samples": num_samples, "sigmas": sigmas}
    settings = {
        "examples": check_count("examples", examples),
        "batch_size": check_count("batch_size", batch_size),
        "key": check_index("key", key),
        **how,
    }
    spectra = check_index("spectra", spectra)
    labels, found = {run.name: run.label for run in saved}, states(saved)
    diverged = {(name, k): labels[name] for name in found for k in found[name]["diverged"]}
    places = _places(saved, spectra, diverged)
    with claimed(workdir):  # what is there is read when nobody else adds to it
        done = _Done(workdir, settings, saved)
        names = dict.fromkeys(name for name, _ in done.sound(diverged))
        names |= dict.fromkeys(place.saved.name for place in places)
        if not names:
            raise ValueError("every seed diverged, so that there is no minimum to measure.")
        baseline = baseline_of(names, baseline)
        missing = [place for place in places if done.lacks(place)]
        networks = _load(missing, {run.name: run for run in runs}, data_dir)
        samples = _samples(networks.values(), examples, batch_size)
        announce: Callable[[str], Any] | None = report
        for place in missing:
            report(f"{place.saved.label}, seed {place.seed}")
            network = networks[place.saved.folder]
            done.measure(place, network, samples[_problem(network)], key, how, announce)
            announce = None  # the time is that of every seed
        measured = done.sound(diverged)
        table = _write_tables(workdir, measured, done.densities, baseline, diverged)
    report(table)
    return [
        Flatness(*entry[:3], {n: m.value for n, m in entry.measures.items() if m.value is not None})
        for entry in measured.values()
    ]


class _Done:
    """What was measured in a folder so far; every addition is on disk before the next.

    Args:
      workdir: the folder, which nobody else writes to.
      settings: all that decides a measurement but the run.
      saved: the runs that are to be measured.

    Raises:
      ValueError: see `FlatnessLog`.
    """

    def __init__(self, workdir: pathlib.Path, settings: dict[str, Any], saved: Iterable[SavedRun]):
        self._log, self._path = FlatnessLog(workdir, settings, saved), workdir / "spectra.npz"
        self.densities = read_spectra(self._path) if self._log.entries else {}

    def sound(self, diverged: Container[tuple[str, int]]) -> dict[tuple[str, int], Entry]:
        """The numbers, of seeds that did not diverge."""
        return {at: entry for at, entry in self._log.entries.items() if at not in diverged}

    def lacks(self, place: _Place) -> bool:
        """Whether numbers of a seed are due, or a spectrum."""
        return not self._log.has(place.saved, place.seed) or self._lacks_spectrum(place)

    def measure(
        self,
        place: _Place,
        network: Trained,
        taken: Sample,
        key: int,
        how: Mapping[str, Any],
        announce: Callable[[str], Any] | None,
    ) -> None:
        """Measures what is due of a seed."""
        at = Point(network.params, network.model_state)
        point = jax.tree.map(lambda leaf: leaf[place.row], at)
        if not self._log.has(place.saved, place.seed):
            values = taken.named(taken.measures(point, key, announce=announce, **how))
            self._log.append(place.saved, place.seed, values)
            if self.densities.pop(place.name, None) is not None:  # of an x before the end
                save_spectra(self.densities, self._path)
        if self._lacks_spectrum(place):
            self.densities[place.name] = jax.tree.map(np.asarray, taken.spectrum(point, key))
            save_spectra(self.densities, self._path)

    def _lacks_spectrum(self, place: _Place) -> bool:
        return place.spectrum and place.name not in self.densities


def _spectrum_name(run: str, seed: int) -> str:
    return f"{run}, seed {seed}"


def _places(
    saved: Sequence[SavedRun], spectra: int, diverged: Container[tuple[str, int]]
) -> list[_Place]:
    """All sound seeds; of each run the first ones, so many as `spectra`, with a spectrum."""
    places, seen = [], dict.fromkeys((run.name for run in saved), 0)
    for run in saved:
        for row, seed in enumerate(run.seeds):
            if (run.name, seed) in diverged:
                continue
            places.append(_Place(run, row, seed, seen[run.name] < spectra))
            seen[run.name] += 1
    return places


def _load(
    places: Iterable[_Place], runs: Mapping[str, Run], data_dir: str | os.PathLike[str] | None
) -> dict[pathlib.Path, Trained]:
    """Folder -> what was trained there, of all seeds of the folder."""
    names = {place.saved.folder: place.saved.name for place in places}
    return {
        folder: load(folder, run=runs.get(name), data_dir=data_dir)
        for folder, name in names.items()
    }


def _problem(network: Trained) -> str:
    return json.dumps(network.identity["problem"], sort_keys=True)


def _samples(networks: Iterable[Trained], examples: int, batch_size: int) -> dict[str, Sample]:
    """Problem -> sample: runs of one problem share its functions, and so the compiled programs."""
    samples: dict[str, Sample] = {}
    for network in networks:
        if _problem(network) not in samples:
            samples[_problem(network)] = sample(network.problem, examples, batch_size)
    return samples


def _write_tables(
    workdir: pathlib.Path,
    found: Mapping[tuple[str, int], Entry],
    densities: Mapping[str, Any],
    baseline: str,
    diverged: Mapping[tuple[str, int], str],
) -> str:
    """Writes `landscape.md` and, where there are spectra, their figure."""
    labels = distinct({entry.run: entry.label for entry in found.values()})
    table = flatness_table([*found.values()], baseline)
    if diverged:
        left_out = (f"{label} (seed {seed})" for (_, seed), label in diverged.items())
        table += f"\nDiverged, and left out: {', '.join(left_out)}.\n"
    titled = {
        _spectrum_name(labels[run], seed): densities[name]
        for run, seed in found
        if (name := _spectrum_name(run, seed)) in densities
    }
    if titled:
        table += "\n" + spectra_table(titled)
        draw_spectra(titled, workdir / "spectra.png")
    write_atomic(workdir / "landscape.md", table.encode())
    return table
