"""The command line: parses and dispatches, nothing else."""

import difflib
import logging
import shlex
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

USAGE = """\
usage: entropix COMMAND --config=FILE[:ALGORITHMS] --workdir=FOLDER [--config.FIELD=VALUE ...]

commands:
  train    run one algorithm:      entropix train --config=configs/digits.py:hj
  compare  run several and make their table and figure:
                                   entropix compare --config=configs/digits.py
  tune     search learning rate, gamma and temperature within config.search, with equal effort
           for every algorithm, on a validation split held out of the training set; called
           again, continue:        entropix tune --config=configs/digits.py --trials=16

  report   make table and figure again, from metric files alone:
                                   entropix report RUNS ... --workdir=FOLDER
  figure1  draw a function of x, or of x and y, with its viscous Hamilton-Jacobi, Hamilton-Jacobi
           and heat relaxations, and animate a descent while gamma goes to 0:
                                   entropix figure1 --function="x**2/10 + sin(3*x)"
  accuracy measure how far each algorithm's estimates of relaxed gradients are from the truth, for
           a function and a grid of gamma, temperature and L:
                                   entropix accuracy --function="x**2/10 + sin(3*x)"

options:
  --config=FILE[:ALGORITHMS]  an experiment; after the colon one algorithm or several, with commas
  --config.FIELD=VALUE        overrides a field, for instance --config.optimizer.gamma=10 (train)
                              or --config.optimizers.hj.gamma=10 (compare, tune)
  --workdir=FOLDER            where results go (default: runs/COMMAND)
  --data_dir=FOLDER           where prepared data sets lie: short for --config.data_dir=FOLDER
                              (default: $TFDS_DATA_DIR, then ~/tensorflow_datasets)
  --config.replicas=P         of Elastic-SGD and Parle; '(3, 6)' for a run with each (compare)
  --config.layout=LAYOUT      where replicas live: on one device (vmap), on several (pmap,
                              shard_map), or wherever they are fastest (auto)
  --coordinator=HOST:PORT --processes=N --process=K
                              one run in N processes, this one being number K (train)
  --fork                      continue a run of another config, from its last checkpoint
  --trials=N                  trials per algorithm (tune; default 16)
  --write                     also record choice and trials in the header of the config file, in
                              place of an older record; the values in its code stay yours (tune)
  --[no]progress              progress bars (default: in a terminal)

options of figure1:
  --function=TEXT             numbers, x, y, pi, e, + - * / **, and functions such as sin and exp
  --interval=LOW,HIGH         of x; in 2-D also LOW,HIGH,LOW,HIGH of x and y (default: -4,4)
  --times=T,T,...             of the relaxations (default: 0.05,0.2,1); gamma begins at the largest
  --beta=NUMBER               inverse temperature (default: 10)
  --start=X[,Y]               where the descents begin (default: an eighth from the upper end)
  --nodes=N                   nodes a dimension (default: 401; in 2-D 61, taking minutes)
  --frames=N                  of the animation (default: 60; 0 for none)

options of accuracy:
  --function, --interval      as for figure1 (default: a rugged bowl on -2.5,2.5)
  --gammas=G,G,...            scopes (default: 0.1,0.3,1,3)
  --temperatures=T,T,...      (default: 0.001,0.01,0.1)
  --steps=L,L,...             gradients for one estimate (default: 5,20,80,320)
  --step_size=NUMBER          of inner steps (default: 0.1)
  --averaging=NUMBER          weight of the old average in Entropy-SGD's (default: 0.75)
  --chains=N                  estimates at each point (default: 1024)
"""

# A wide minimum, and a lower one too narrow to be worth finding.
FIGURE1 = "(x - 1)**2/8 + cos(6*x)/5 - exp(-((x + 1.6)/0.08)**2)"
RUGGED = "x**2/4 + cos(7*x)/16 + sin(11*x)/32"


class UsageError(Exception):
    """A command line that cannot be run; its text is for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      argv: arguments without the program's name; those of the process by default.

    Returns:
      The exit status: 0; 2 after a message for what cannot be run, or went wrong; 128 + n after
      signal n, which asked to stop.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("entropix").setLevel(logging.INFO)
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    options = None
    try:
        parse, run = _COMMANDS[_known_command(argv[0])]
        options = parse(argv)
        run(options)
    except (UsageError, ValueError, FloatingPointError, OSError) as error:
        return _fail(error, 2, options)
    except Exception as stop:
        signum = getattr(stop, "signum", None)  # of `entropix.training.Interrupted`
        if signum is None:
            raise
        return _fail(stop, 128 + signum, options)
    return 0


def _fail(error: Exception, status: int, options: Any) -> int:
    """Says what went wrong; one process of several ends here, without the others' farewell."""
    print(f"entropix: {error}", file=sys.stderr)
    if getattr(options, "processes", 1) > 1:
        from entropix.replicas import leave

        leave(status)
    return status


def _known_command(name: str) -> str:
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=1, cutoff=0.0)[0]
        known = ", ".join(_COMMANDS)
        raise UsageError(f"unknown command {name!r}; known: {known}. Did you mean {near!r}?")
    return name


def _parse(argv: list[str]) -> Any:
    """Parses the flags after the command into an object with config, workdir, trials, progress."""
    values = flags.FlagValues()  # not the process-wide ones: `main` may be called again
    config_flags.DEFINE_config_file("config", None, "experiment", flag_values=values, sys_argv=argv)
    flags.DEFINE_string("workdir", f"runs/{argv[0]}", "results", flag_values=values)
    flags.DEFINE_string("data_dir", None, "prepared data sets", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("processes", 1, "of one run", 1, flag_values=values)
    flags.DEFINE_integer("process", 0, "which one this is", 0, flag_values=values)
    flags.DEFINE_bool("fork", False, "continue another config's run", flag_values=values)
    flags.DEFINE_integer("trials", 16, "trials per algorithm", 1, flag_values=values)
    flags.DEFINE_bool("write", False, "record in the config file", flag_values=values)
    flags.DEFINE_bool("progress", sys.stderr.isatty(), "progress bars", flag_values=values)
    try:
        rest = values(argv)[1:]
    except flags.Error as error:
        raise UsageError(_complaint(str(error))) from error
    except (AttributeError, KeyError) as error:  # an unknown field, with the nearest known one
        raise UsageError(f"unknown config field {_innermost(error)}") from error
    if rest:
        raise UsageError(f"unexpected {rest[0]!r}; options are written --name=value.")
    if not isinstance(values.config, ConfigDict):
        raise UsageError(
            "--config=FILE must name a Python file with a get_config function, such as "
            f"configs/digits.py; got {values['config'].config_filename!r}."
            if values["config"].present
            else "--config=FILE is missing, for instance --config=configs/digits.py."
        )
    if values.data_dir is not None:
        values.config.data_dir = values.data_dir
    if values.processes > 1 and (values.coordinator is None or argv[0] != "train"):
        raise UsageError(
            f"--processes={values.processes} needs --coordinator=HOST:PORT, and is for `train`."
        )
    names = (
        "config", "workdir", "fork", "trials", "write", "progress",
        "coordinator", "processes", "process",
    )  # fmt: skip
    return types.SimpleNamespace(
        **{name: values[name].value for name in names},
        config_file=values["config"].config_filename,
        changes=_changes(values),
    )


def _changes(values: flags.FlagValues) -> list[str]:
    """The flags given that change results: overrides, but not where the data lie."""
    given = [name for name in values if name.startswith("config.") and values[name].present]
    return [f"--{name}={values[name].value}" for name in given if name != "config.data_dir"]


def _parse_folders(argv: list[str]) -> Any:
    """Parses `report FOLDER ... [--workdir=FOLDER]`."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "runs/report", "results", flag_values=values)
    try:
        folders = values(argv)[1:]
    except flags.Error as error:
        raise UsageError(str(error)) from error
    if not folders:
        raise UsageError("report needs folders of runs, for instance entropix report runs/digits.")
    return types.SimpleNamespace(folders=folders, workdir=values.workdir)


def _parse_figure1(argv: list[str]) -> Any:
    """Parses `figure1 [--function=TEXT] ...`."""
    values = flags.FlagValues()
    flags.DEFINE_string("function", FIGURE1, "f", flag_values=values)
    flags.DEFINE_list("interval", ["-4", "4"], "of x, or of x and y", flag_values=values)
    flags.DEFINE_list("times", ["0.05", "0.2", "1"], "of the relaxations", flag_values=values)
    flags.DEFINE_float("beta", 10.0, "inverse temperature", flag_values=values)
    flags.DEFINE_list("start", None, "of the descents", flag_values=values)
    flags.DEFINE_integer("nodes", None, "a dimension", 11, 4001, flag_values=values)
    flags.DEFINE_integer("frames", 60, "of the animation", 0, 1000, flag_values=values)
    flags.DEFINE_string("workdir", "runs/figure1", "results", flag_values=values)
    return _only_options(values, argv, interval=float, times=float, start=float)


def _parse_accuracy(argv: list[str]) -> Any:
    """Parses `accuracy [--function=TEXT] ...`."""
    values = flags.FlagValues()
    flags.DEFINE_string("function", RUGGED, "f", flag_values=values)
    flags.DEFINE_list("interval", ["-2.5", "2.5"], "of x, or of x and y", flag_values=values)
    flags.DEFINE_list("gammas", ["0.1", "0.3", "1", "3"], "scopes", flag_values=values)
    flags.DEFINE_list("temperatures", ["0.001", "0.01", "0.1"], "T", flag_values=values)
    flags.DEFINE_list("steps", ["5", "20", "80", "320"], "L", flag_values=values)
    flags.DEFINE_float("step_size", 0.1, "eta_y", flag_values=values)
    flags.DEFINE_float("averaging", 0.75, "alpha", flag_values=values)
    flags.DEFINE_integer("chains", 1024, "estimates per point", 2, flag_values=values)
    flags.DEFINE_string("workdir", "runs/accuracy", "results", flag_values=values)
    return _only_options(values, argv, interval=float, gammas=float, temperatures=float, steps=int)


def _only_options(values: flags.FlagValues, argv: list[str], **lists: Callable[[str], Any]) -> Any:
    """Parses a command of options alone; those named are lists of numbers."""
    try:
        rest = values(argv)[1:]
    except flags.Error as error:
        raise UsageError(str(error)) from error
    if rest:
        raise UsageError(f"unexpected {rest[0]!r}; options are written --name=value.")
    for name, kind in lists.items():
        if values[name].value is not None:
            values[name].value = [_number(name, text, kind) for text in values[name].value]
    return types.SimpleNamespace(**{name: values[name].value for name in values})


def _number(name: str, text: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UsageError(f"--{name} must be {what} with commas between; got {text!r}.") from None


def _complaint(text: str) -> str:
    """A config file's own complaint without the way it took; a bug in one keeps its traceback."""
    last = text.strip().splitlines()[-1]
    return last.removeprefix("ValueError: ") if last.startswith("ValueError: ") else text


def _innermost(error: BaseException) -> str:
    """The text of the first of nested errors, in one line."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return ". ".join(str(error.args[0]).splitlines())


def _train(options: Any) -> None:
    from entropix.replicas import connected
    from entropix.training import keep_compiled, make_table, runs, spread_replicas, train

    keep_compiled()
    single = runs(options.config)
    if len(single) > 1 and "optimizers" in options.config:
        raise UsageError(
            f"train runs one algorithm; choose one of {', '.join(single)} behind a colon, for "
            f"instance --config=FILE.py:{next(iter(single))}, or use `entropix compare`."
        )
    spread_replicas(options.config)
    with connected(options.coordinator or ":0", options.processes, options.process):
        rows = train(options.config, options.workdir, fork=options.fork, progress=options.progress)
    if rows:  # process 0 of several has them
        print(make_table(rows))


def _compare(options: Any) -> None:
    from entropix.training import compare, keep_compiled, spread_replicas

    keep_compiled()
    spread_replicas(options.config)
    rows = compare(options.config, options.workdir, fork=options.fork, progress=options.progress)
    _draw(rows, options.workdir)


def _report(options: Any) -> None:
    from entropix.training import gather

    _draw(gather(options.folders, options.workdir), options.workdir)


def _draw(rows: Any, workdir: str) -> None:
    from entropix.figures import convergence

    convergence(rows, f"{workdir}/figure.png")
    print(f"{workdir}/ now holds metrics.jsonl, table.md, figure.png")


def _tune(options: Any) -> None:
    from entropix.training import describe_effort, keep_compiled, record, spread_replicas, tune

    keep_compiled()
    spread_replicas(options.config)
    path = options.config_file.split(":")[0]
    if options.write:
        record.split_header(path)  # complains now rather than after the search
    tried = tune(options.config, options.workdir, trials=options.trials, progress=options.progress)
    for algorithm, trials in tried.items():
        values = ", ".join(f"{name}={value:.4g}" for name, value in trials[0].items())
        print(f"{algorithm}: {values}")
    print(f"{options.workdir}/ now holds tuning.md and the trials")
    if options.write:
        effort = describe_effort(options.config, options.trials)
        given = [f"--config={options.config_file}", f"--trials={options.trials}", *options.changes]
        command = shlex.join(["entropix", "tune", *given])
        record.write_record(path, record.make_record(tried, effort, command))
        print(f"{path}: its header now holds the record; its values are as they were")


def _figure1(options: Any) -> None:
    from entropix.figures import figure1, scoping_animation
    from entropix.landscape.functions.saved import load_landscape, save_landscape

    save_landscape(
        options.workdir, options.function, options.interval, options.times, options.beta,
        start=options.start, nodes=options.nodes, frames=options.frames,
    )  # fmt: skip
    made = ["relaxations.npz", "figure1.png"]
    figure1(load_landscape(f"{options.workdir}/relaxations.npz"), f"{options.workdir}/figure1.png")
    if options.frames:
        made += ["scoping.npz", "scoping.gif"]
        descent = load_landscape(f"{options.workdir}/scoping.npz")
        scoping_animation(descent, f"{options.workdir}/scoping.gif")
    print(f"{options.workdir}/ now holds {', '.join(made)}")


def _accuracy(options: Any) -> None:
    from entropix.figures import accuracy
    from entropix.landscape.functions.saved import load_accuracy, save_accuracy
    from entropix.landscape.functions.table import accuracy_table

    folder = options.workdir
    save_accuracy(
        folder, options.function, options.interval, options.gammas, options.temperatures,
        options.steps, step_size=options.step_size, averaging=options.averaging,
        num_chains=options.chains,
    )  # fmt: skip
    data = load_accuracy(f"{folder}/accuracy.json")
    with open(f"{folder}/table.md", "w") as file:
        file.write(accuracy_table(data))
    accuracy(data, f"{folder}/accuracy.png")
    print(f"{folder}/ now holds accuracy.json, table.md, accuracy.png")


_COMMANDS: dict[str, tuple[Callable[[list[str]], Any], Callable[[Any], None]]] = {
    "train": (_parse, _train),
    "compare": (_parse, _compare),
    "tune": (_parse, _tune),
    "report": (_parse_folders, _report),
    "figure1": (_parse_figure1, _figure1),
    "accuracy": (_parse_accuracy, _accuracy),
}

if __name__ == "__main__":
    sys.exit(main())
