"""What each command does with its options."""

import argparse
import os
import pathlib
import sys
from typing import Any

from entropix.cli.options import UsageError
from entropix.runs.preemption import Interrupted

_Options = argparse.Namespace


def train(options: _Options) -> None:
    """One algorithm."""
    config, names = _prepare(options)
    if len(names) > 1:
        raise UsageError(_choose_one(options.config, config, names))
    from entropix import workflow
    from entropix.replicas import connected, farewell
    from entropix.report import make_table

    workdir = options.workdir or os.path.join("runs", config.name, names[0])
    with connected(options.coordinator or ":0", options.processes, options.process):
        try:
            rows = workflow.train(
                config, workdir=workdir, fork=options.fork, progress=options.progress
            )
        except (Interrupted, FloatingPointError):  # raised by all processes alike
            farewell()
            raise
    if rows:  # process 0 of several has them
        _say(make_table(rows))
        _say(f"{workdir}/ now holds run.json, metrics.jsonl and checkpoints/")


def _choose_one(given: str, config: Any, names: list[str]) -> str:
    """What to say to `train` where a config has several runs, of the `names`."""
    from entropix.cli.configs import split

    if "optimizers" not in config:
        return (
            f"train runs one number of replicas; got config.replicas={config.replicas}. Choose "
            "one, or use `entropix compare`."
        )
    # A run with several numbers of replicas has several names, which begin with its own.
    place = lambda run: [name.startswith(run) for name in names].index(True)  # noqa: E731
    known = sorted(config.optimizers, key=place)
    file, _, behind = split(given)
    kept = [word for word in behind.split(",") if word and word not in known]  # a network
    return (
        f"train runs one algorithm; choose one of {', '.join(known)} behind a colon, for instance "
        f"--config={file}:{','.join([*kept, known[0]])}, or use `entropix compare`."
    )


def compare(options: _Options) -> None:
    """Several algorithms."""
    config, names = _prepare(options)
    from entropix import workflow
    from entropix.report.series import by_run, seeds_by_state

    workdir = options.workdir or os.path.join("runs", config.name)
    rows = workflow.compare(
        config, workdir=workdir, fork=options.fork, progress=options.progress, report=_say
    )
    _draw(rows, [os.path.join(workdir, name) for name in names], workdir)
    if not any(seeds_by_state(of_run)["finished"] for of_run in by_run(rows).values()):
        raise FloatingPointError(
            f"every seed of every run diverged: {workdir}/ holds no result. Lower the learning "
            "rate, in another workdir."
        )


def tune(options: _Options) -> None:
    """A search."""
    config, _ = _prepare(options)
    from entropix import workflow
    from entropix.report.tuning import NONE_FINITE, is_finite

    workdir = options.workdir or os.path.join("runs", config.name, "tune")
    tried = workflow.tune(
        config,
        workdir=workdir,
        trials=options.trials,
        objective=options.objective,
        progress=options.progress,
    )
    searched = config.search
    for run, trials in tried.items():
        if not is_finite(trials[0]):
            _say(f"{run}: {NONE_FINITE}")
            continue
        ranges = searched[run] if run in searched else trials[0]
        values = ", ".join(f"{name}={trials[0][name]:.4g}" for name in ranges if name in trials[0])
        _say(f"{run}: {values}")
    _say(f"{workdir}/ now holds tuning.md and the trials")
    if not any(is_finite(trials[0]) for trials in tried.values()):
        raise FloatingPointError(
            f"the search found no value: no trial of any run was finite. {workdir}/tuning.md has "
            "all of them."
        )


def report(options: _Options) -> None:
    """Table and figure of saved runs."""
    from entropix.report import gather

    rows = gather(
        options.folders,
        options.workdir,
        mixed=options.mixed,
        baseline=options.baseline,
        measures=options.measures,
        report=_say,
    )
    _draw(rows, options.folders, options.workdir, options.measures)


def landscape(options: _Options) -> None:
    """Flatness of finished runs."""
    from entropix import instruments
    from entropix.cli.configs import execute

    if options.register is not None:
        execute(pathlib.Path(options.register), "--register")
    folder = options.workdir
    instruments.landscape(
        options.folders,
        folder,
        examples=options.examples,
        batch_size=options.batch_size,
        num_samples=options.samples,
        num_eigenvalues=options.eigenvalues,
        spectra=options.spectra,
        baseline=options.baseline,
        data_dir=options.data_dir,
        report=_say,
    )
    drawn = ", spectra.png, spectra.npz" if options.spectra else ""
    _say(f"{folder}/ now holds landscape.jsonl, landscape.md{drawn}")


def figure1(options: _Options) -> None:
    """Relaxations of a function."""
    from entropix.landscape.functions.saved import load_landscape, save_landscape
    from entropix.report import check_workdir, figure1, scoping_animation

    folder = options.workdir
    check_workdir(folder)
    save_landscape(
        folder, options.function, options.interval, options.times, options.beta,
        start=options.start, nodes=options.nodes, frames=options.frames,
        equations=options.equations,
    )  # fmt: skip
    for drawn in ("figure1.png", "scoping.gif"):  # of an earlier call, perhaps another function's
        pathlib.Path(folder, drawn).unlink(missing_ok=True)
    made = ["relaxations.npz", "figure1.png"]
    figure1(load_landscape(f"{folder}/relaxations.npz"), f"{folder}/figure1.png")
    if options.frames:
        made += ["scoping.npz", "scoping.gif"]
        scoping_animation(load_landscape(f"{folder}/scoping.npz"), f"{folder}/scoping.gif")
    _say(f"{folder}/ now holds {', '.join(made)}")


def accuracy(options: _Options) -> None:
    """Estimates of relaxed gradients against the truth."""
    from entropix.files import write_atomic
    from entropix.landscape.functions.saved import load_accuracy, save_accuracy
    from entropix.landscape.functions.table import accuracy_table
    from entropix.report import accuracy, check_workdir

    folder = options.workdir
    check_workdir(folder)
    save_accuracy(
        folder, options.function, options.interval, options.gammas, options.temperatures,
        options.steps, step_size=options.step_size, averaging=options.averaging,
        num_chains=options.chains,
    )  # fmt: skip
    data = load_accuracy(f"{folder}/accuracy.json")
    write_atomic(f"{folder}/table.md", accuracy_table(data).encode())
    accuracy(data, f"{folder}/accuracy.png")
    _say(f"{folder}/ now holds accuracy.json, table.md, accuracy.png")


def _prepare(options: _Options) -> tuple[Any, list[str]]:
    """The config, and the names of its runs; JAX gets its devices, and its cache of programs."""
    from entropix.cli.configs import read_config
    from entropix.experiment.fields import check_fields
    from entropix.experiment.plan import entries
    from entropix.runs.compilation import keep_compiled
    from entropix.training.devices import spread_replicas

    config = read_config(options.config, options.overrides)
    if options.data_dir is not None:
        config.data_dir = options.data_dir
    if config.data_dir:  # kept with the results, and read from any folder
        config.data_dir = os.path.abspath(os.path.expanduser(config.data_dir))
    check_fields(config)
    runs = entries(config)
    keep_compiled()
    spread_replicas([p for *_, p in runs if p], config.layout, config.devices)
    return config, [name for name, *_ in runs]


def _draw(rows: Any, folders: list[str], workdir: str, measures: list[str] | None = None) -> None:
    from entropix.report import colours, convergence
    from entropix.report.curves import MOST_PANELS
    from entropix.rows import FIGURE_FILE, METRICS_FILE, TABLE_FILE

    drawn = None if measures is None else measures[:MOST_PANELS]
    convergence(rows, f"{workdir}/{FIGURE_FILE}", measures=drawn, colours=colours(folders))
    _say(f"{workdir}/ now holds {METRICS_FILE}, {TABLE_FILE}, {FIGURE_FILE}")


def _say(text: str) -> None:
    """Prints what any terminal can show; that nobody reads the output ends no command."""
    from entropix.report import as_text

    if sys.stdout is None:  # closed from the beginning
        return
    try:
        print(as_text(text), flush=True)
    except BrokenPipeError:  # whatever comes, at exit too, goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
