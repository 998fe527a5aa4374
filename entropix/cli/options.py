"""The options of every command, each defined once."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

import entropix
from entropix.cli.values import count, names, number, numbers, path, whole_numbers

# A wide minimum, and a lower one too narrow to be worth finding.
FIGURE1 = "(x - 1)**2/8 + cos(6*x)/5 - exp(-((x + 1.6)/0.08)**2)"
RUGGED = "x**2/4 + cos(7*x)/16 + sin(11*x)/32"

_DESCRIPTION = """\
Relaxation optimisers, compared by experiments.

  entropix compare --config=digits           the paper's algorithms on handwritten digits
  entropix train --config=digits:hj          one algorithm
  entropix COMMAND --help                    the options of a command
"""
_CONFIG = """
An experiment is a Python file with a function get_config, which the command executes: give it only
files that you trust. `digits`, `mnist`, `mnist_hard`, `mnist_scope`, `cifar10`, `language` and
`little_communication` are installed with the package. Behind a colon stand the runs, with commas,
after the network where the file has several: --config=mnist:lenet,hj

--config.FIELD=VALUE replaces a field of the experiment:
  --config.optimizer.gamma=10           of one algorithm (train)
  --config.optimizers.hj.gamma=10       of one among several (compare, tune)
  --config.length=0.1                   a tenth of the run, and of the learning rate's schedule
  --config.replicas='(3, 6)'            a run with each number of replicas (compare)
  --config.layout=vmap                  replicas on one device; on several: shard_map or pmap
  --config.flatness_at=1.0              measure how flat the minima are, at the end of the runs
"""


class UsageError(Exception):
    """A command line that cannot be run; its text is for the user."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, in an exception."""

    def __init__(self, **options: Any):
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(**options, formatter_class=form, allow_abbrev=False)
        self.names: list[str] = []

    def error(self, message: str) -> NoReturn:
        """Raises `UsageError`."""
        text = " ".join(message.split()).removeprefix("argument ").replace(": ", " ", 1)
        raise UsageError(f"{text.rstrip('.')}.")

    def option(
        self,
        name: str,
        what: str,
        kind: Callable[[str], Any] = str,
        default: Any = None,
        metavar: str = "TEXT",
    ) -> None:
        """Adds an option with a value, and remembers its name for those who misspell it."""
        self.names.append(name)
        self.add_argument(name, help=what, type=kind, default=default, metavar=metavar)

    def switch(self, *names: str, what: str, to: bool = True, **how: Any) -> None:
        """Adds an option without a value."""
        self.names += names
        action = "store_true" if to else "store_false"
        self.add_argument(*names, help=what, action=action, **how)


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and that of each command."""
    parser = Parser(prog="entropix", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"entropix {entropix.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    found = {}
    for name, (add, summary, example) in _COMMANDS.items():
        configured = add in (_train, _compare, _tune)
        text = f"{summary[0].upper()}{summary[1:]}.\n\n  {example}\n{_CONFIG if configured else ''}"
        found[name] = commands.add_parser(name, help=summary, description=text)
        add(found[name])
    return parser, found


def _config(parser: Parser, workdir: str) -> None:
    """Options of the commands that take an experiment."""
    progress = "progress bars, rather than a line per evaluation (default: in a terminal)"
    lines = "a line per evaluation"
    parser.option("--config", "the experiment: a file or a known name", metavar="FILE[:RUNS]")
    parser.option("--workdir", f"of results (default: {workdir})", path, metavar="FOLDER")
    _data_dir(parser, "$TFDS_DATA_DIR, then ~/tensorflow_datasets")
    parser.switch("--progress", what=progress, default=None)
    parser.switch("--noprogress", "--no-progress", what=lines, to=False, dest="progress")


def _fork(parser: Parser) -> None:
    parser.switch("--fork", what="continue a run of another config, from its last checkpoint")


def _train(parser: Parser) -> None:
    _config(parser, "runs/CONFIG/RUN")
    _fork(parser)
    parser.option("--coordinator", "of process 0, for several processes", metavar="HOST:PORT")
    parser.option("--processes", "of one run (default: 1)", count(1), 1, "N")
    parser.option("--process", "number of this process (default: 0)", count(0), 0, "K")


def _compare(parser: Parser) -> None:
    _config(parser, "runs/CONFIG")
    _fork(parser)


def _tune(parser: Parser) -> None:
    _config(parser, "runs/CONFIG/tune")
    parser.option("--trials", "of every algorithm (default: 16)", count(1), 16, "N")
    parser.option("--objective", "that trials are judged by (default: error)", metavar="MEASURE")


def _report(parser: Parser) -> None:
    mixed = (
        "allow runs that differ in problem, budget or evaluation; different runs of one name are "
        "called by their folders"
    )
    measures = "of the tables and the figure, such as val_error,train_error"
    parser.add_argument("folders", nargs="*", type=path, help="of runs or of comparisons")
    _workdir(parser, "runs/report")
    parser.switch("--mixed", what=mixed)
    parser.option("--baseline", "the run that others are compared with", metavar="RUN")
    parser.option("--measures", measures, names, metavar="NAME,...")


def _landscape(parser: Parser) -> None:
    samples = "random vectors of traces and energies, an even number (default: 20)"
    spectra = "seeds of every run whose spectrum is drawn (default: 0)"
    parser.add_argument("folders", nargs="*", type=path, help="of runs or of comparisons")
    _workdir(parser, "runs/landscape")
    register = "a Python file to execute first, such as the config that registers these algorithms"
    parser.option("--register", register, path, metavar="FILE")
    parser.option("--examples", "of the training set (default: 4096)", count(1), 4096, "N")
    parser.option("--batch_size", "in memory at once (default: 128)", count(1), 128, "N")
    parser.option("--eigenvalues", "the largest ones (default: 3)", count(1), 3, "N")
    parser.option("--samples", samples, count(4), 20, "N")
    parser.option("--spectra", spectra, count(0), 0, "N")
    parser.option("--baseline", "the run that others are compared with", metavar="RUN")
    _data_dir(parser, "that of the runs")


def _data_dir(parser: Parser, folders: str) -> None:
    parser.option(
        "--data_dir", f"of prepared data sets (default: {folders})", path, metavar="FOLDER"
    )


def _workdir(parser: Parser, folder: str) -> None:
    parser.option("--workdir", f"of results (default: {folder})", path, folder, "FOLDER")


def _figure1(parser: Parser) -> None:
    function = "of x, or of x and y: numbers, pi, e, + - * / **, functions such as sin and exp"
    interval = "of x; in 2-D also LOW,HIGH,LOW,HIGH of x and y (default: -4,4)"
    times = "of the relaxations; gamma begins at the largest (default: 0.05,0.2,1)"
    start = "of the descents (default: an eighth from the upper end)"
    nodes = "a dimension (default: 401; in 2-D 61, taking minutes)"
    frames = "of the animation, 0 for none (default: 60)"
    equations = (
        "panels (default: viscous_hj,hj,heat); also sharpness, the maximum over a ball that SAM "
        "descends, and live_centre, what replicas around their own mean descend"
    )
    parser.option("--function", function, default=FIGURE1)
    parser.option("--interval", interval, numbers, [-4.0, 4.0], "LOW,HIGH")
    parser.option("--times", times, numbers, [0.05, 0.2, 1.0], "T,T,...")
    parser.option("--beta", "inverse temperature (default: 10)", number, 10.0, "B")
    parser.option("--start", start, numbers, metavar="X[,Y]")
    parser.option("--nodes", nodes, count(11, 4001), metavar="N")
    parser.option("--frames", frames, count(0, 1000), 60, "N")
    parser.option("--equations", equations, names, ["viscous_hj", "hj", "heat"], "NAME,...")
    _workdir(parser, "runs/figure1")


def _accuracy(parser: Parser) -> None:
    averaging = "weight of the old average in Entropy-SGD's (default: 0.75)"
    parser.option("--function", "as for figure1 (default: a rugged bowl)", default=RUGGED)
    parser.option("--interval", "of x (default: -2.5,2.5)", numbers, [-2.5, 2.5], "LOW,HIGH")
    parser.option(
        "--gammas", "scopes (default: 0.1,0.3,1,3)", numbers, [0.1, 0.3, 1.0, 3.0], "G,.."
    )
    parser.option(
        "--temperatures", "T (default: 0.001,0.01,0.1)", numbers, [1e-3, 1e-2, 0.1], "T,.."
    )
    parser.option("--steps", "L (default: 5,20,80,320)", whole_numbers, [5, 20, 80, 320], "L,..")
    parser.option("--step_size", "of inner steps (default: 0.1)", number, 0.1, "S")
    parser.option("--averaging", averaging, number, 0.75, "A")
    parser.option("--chains", "estimates at each point (default: 1024)", count(2), 1024, "N")
    _workdir(parser, "runs/accuracy")


# Command -> its options, what it does, an example.
_COMMANDS: dict[str, tuple[Callable[[Parser], None], str, str]] = {
    "train": (_train, "run one algorithm", "entropix train --config=digits:hj"),
    "compare": (
        _compare,
        "run several algorithms, from equally many gradients, and make their table and figure",
        "entropix compare --config=digits",
    ),
    "tune": (
        _tune,
        "search learning rate, gamma and temperature, with equal effort for every algorithm, on a "
        "held-out part of the training set",
        "entropix tune --config=digits --trials=16",
    ),
    "report": (
        _report,
        "make table and figure again, from saved runs alone",
        "entropix report runs/digits --workdir=runs/report",
    ),
    "landscape": (
        _landscape,
        "measure how flat the minima of finished runs are: eigenvalues, traces, energies, "
        "sharpness",
        "entropix landscape runs/digits",
    ),
    "figure1": (
        _figure1,
        "draw a function with its viscous Hamilton-Jacobi, Hamilton-Jacobi and heat relaxations, "
        "and animate a descent while gamma goes to 0",
        'entropix figure1 --function="x**2/10 + sin(3*x)"',
    ),
    "accuracy": (
        _accuracy,
        "measure how far estimates of relaxed gradients are from the truth, for a function and a "
        "grid of gamma, temperature and L",
        'entropix accuracy --function="x**2/10 + sin(3*x)"',
    ),
}
