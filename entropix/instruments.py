"""How flat the minima are that runs have found: the instruments of `entropix.landscape` on runs."""

import json
import operator
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from entropix.experiment.problem import Problem
from entropix.experiment.run import Run
from entropix.files import write_atomic
from entropix.landscape.networks import batched, hessian, measures, spectrum
from entropix.report import check_workdir
from entropix.report.flatness import draw_spectra, flatness_table
from entropix.rows import RUN_FILE
from entropix.runs.loading import Trained, load
from entropix.transforms.checks import check_count


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
    examples: int = 4096,
    batch_size: int = 512,
    num_samples: int = 20,
    num_eigenvalues: int = 3,
    sigmas: Sequence[float] = (0.1, 0.3),
    spectra: int = 0,
    key: int = 0,
    report: Callable[[str], Any] = print,
) -> list[Flatness]:
    """Measures flatness at the x of finished runs, on a fixed sample of training examples.

    Args:
      folders: of runs, or of comparisons.
      workdir: gets `landscape.jsonl`, `landscape.md` and, with `spectra`, `spectra.png`.
      runs: the `Run`s of folders that were made from Python (see `entropix.experiment.load`).
      examples: of the training set, the first ones.
      batch_size: examples in memory at once; what `examples` has beyond a multiple is left out.
      num_samples: random vectors of traces and energies, even, >= 4.
      num_eigenvalues: the largest ones, >= 1.
      sigmas: relative sizes of noise, for local energies.
      spectra: of so many seeds of every run the density of eigenvalues is drawn.
      key: of all random vectors: the same for every seed and run.
      report: called with an estimate of the time, with what is measured, and with the table.

    Returns:
      One `Flatness` for every run and seed.

    Raises:
      ValueError: if a folder holds no run, or an argument is outside its range; nothing is measured
        before.
    """
    check_workdir(workdir)
    workdir = pathlib.Path(workdir).expanduser()
    batch_size = min(check_count("batch_size", batch_size), check_count("examples", examples))
    known = {run.name: run for run in runs}
    places = [place for folder in folders for place in _run_folders(folder)]
    trained = [load(place, run=known.get(place.name)) for place in places]
    found: list[Flatness] = []
    densities: dict[str, Any] = {}
    functions: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
    for place, network in zip(places, trained, strict=True):
        batches = _sample(network, examples, batch_size)
        label = network.rows[0].label if network.rows else place.name
        problem = json.dumps(network.identity["problem"], sort_keys=True)
        # Runs of one problem share its functions, and so the compiled programs.
        loss_fn, figures_fn = functions.setdefault(problem, _functions(network.problem))
        for index, seed in enumerate(network.seeds):
            params, state = jax.tree.map(operator.itemgetter(index), network[1:3])
            loss = jax.tree_util.Partial(loss_fn, state)
            figures = jax.tree_util.Partial(figures_fn, state)
            report(f"{label}, seed {seed}")
            announce = report if not found else None  # the time is that of every seed
            values = measures(
                loss,
                params,
                batches,
                key,
                figures=figures,
                num_eigenvalues=num_eigenvalues,
                num_samples=num_samples,
                sigmas=sigmas,
                announce=announce,
            )
            found.append(Flatness(place.name, label, seed, values))
            if index < spectra:
                density = spectrum(hessian(loss, params, batches), params, key)
                densities[f"{label}, seed {seed}"] = jax.tree.map(np.asarray, density)
            _write(workdir, found)  # what is measured is never lost
    table = flatness_table(found)
    write_atomic(workdir / "landscape.md", table.encode())
    if densities:
        draw_spectra(densities, workdir / "spectra.png")
    report(table)
    return found


def _run_folders(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The folder itself, or the runs of a comparison."""
    folder = pathlib.Path(folder).expanduser()
    if (folder / RUN_FILE).exists():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}"))
    if not found:
        raise ValueError(f"{folder} holds no run: no {RUN_FILE} there or in the folders below.")
    return found


def _sample(network: Trained, examples: int, batch_size: int) -> Any:
    """The first examples of the training set, in equal batches."""
    problem = network.problem
    if problem.num_examples is None:
        raise ValueError(
            f"{problem.name}: flatness is measured on arrays, and the data are a loader on the "
            "host. Give the problem arrays."
        )
    count = min(examples, problem.num_examples)
    size = min(batch_size, count)
    kept = count // size * size
    return batched(jax.tree.map(lambda leaf: leaf[:kept], problem.data), size)


def _functions(problem: Problem) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The loss, and all measures, with the model state as an argument."""
    first = "loss" if "loss" in problem.measures else next(iter(problem.measures))

    def loss(model_state: Any, params: Any, batch: Any) -> jax.Array:
        return jnp.asarray(problem.measures[first].function(params, model_state, batch))

    def figures(model_state: Any, params: Any, batch: Any) -> dict[str, jax.Array]:
        measured = problem.measures.items()
        return {name: m.function(params, model_state, batch) for name, m in measured}

    return loss, figures


def _write(workdir: pathlib.Path, found: Sequence[Flatness]) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(entry._asdict()) + "\n" for entry in found)
    write_atomic(workdir / "landscape.jsonl", lines.encode())
