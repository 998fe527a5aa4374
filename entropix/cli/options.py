"""The options of every command, each defined once."""

import argparse
import difflib
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import entropix
from entropix.cli.values import count, list_of, path, within

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
files that you trust. `digits`, `mnist` and `cifar10` are installed with the package. Behind a colon
stand the runs, with commas, after the network where the file has several: --config=mnist:lenet,hj

--config.FIELD=VALUE replaces a field of the experiment:
  --config.optimizer.gamma=10           of one algorithm (train)
  --config.optimizers.hj.gamma=10       of one among several (compare, tune)
  --config.length=0.1                   a tenth of the run, its schedules included
  --config.replicas='(3, 6)'            a run with each number of replicas (compare)
  --config.layout=vmap                  replicas on one device; on several: shard_map or pmap
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
        raise UsageError(" ".join(message.split()).removeprefix("argument ") + ".")

    def option(self, *names: str, **how: Any) -> None:
        """Adds an option, and remembers its names for those who misspell them."""
        self.names += names
        self.add_argument(*names, **how)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line.

    Args:
      argv: arguments without the program's name.

    Returns:
      The options of the command, and `command`, `overrides` (pairs of field and text).

    Raises:
      UsageError: for a command line that is none of ours.
      SystemExit: after --help or --version, which are answered on the standard output.
    """
    if list(argv) in ([], ["help"]):
        argv = ["--help"]
    rest, overrides = _split(argv)
    parser, parsers = _parsers()
    first = rest[0] if rest else ""
    if not first.startswith("-") and first not in parsers:
        near = difflib.get_close_matches(first, parsers, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"unknown command {first!r}; known: {', '.join(parsers)}. Did you mean {near!r}?"
        )
    options, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UsageError(_unknown(unknown[0], options.command, parsers))
    if overrides and not hasattr(options, "config"):
        raise UsageError(f"{options.command} has no --config, and so no --config.{overrides[0][0]}.")
    options.overrides = overrides
    return _checked(options)


def _split(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes out `--config.FIELD=VALUE` and `--config.FIELD VALUE`."""
    rest, overrides, pending = [], [], ""
    for text in argv:
        if pending:
            overrides.append((pending, text))
            pending = ""
        elif text.startswith("--config."):
            field, equals, value = text.removeprefix("--config.").partition("=")
            pending = "" if equals else field
            overrides += [(field, value)] if equals else []
        else:
            rest.append(text)
    if pending:
        raise UsageError(f"--config.{pending} needs a value: --config.{pending}=VALUE.")
    return rest, overrides


def _unknown(text: str, command: str, parsers: dict[str, Parser]) -> str:
    if not text.startswith("--"):
        return f"unexpected {text!r}; options are written --name=value."
    name = text.partition("=")[0]
    if name == "--write":
        return (
            "--write is gone: a search leaves its best values and all trials in tuning.md, in "
            "the folder --workdir. Copy the values that you want into the config's file."
        )
    owners = [owner for owner, parser in parsers.items() if name in parser.names]
    if owners:
        return f"{name} is an option of {', '.join(owners)}, and not of {command}."
    near = difflib.get_close_matches(name, parsers[command].names, n=1, cutoff=0.0)[0]
    return f"unknown option {name} of {command}. Did you mean {near}?"


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    """What several options must be together."""
    if getattr(options, "config", "") is None:
        raise UsageError("--config=FILE is missing, for instance --config=digits.")
    if options.command == "report" and not options.folders:
        raise UsageError("report needs folders of runs, for instance entropix report runs/digits.")
    if getattr(options, "processes", 1) > 1 and options.coordinator is None:
        raise UsageError(f"--processes={options.processes} needs --coordinator=HOST:PORT.")
    return options


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and that of each command."""
    parser = Parser(prog="entropix", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"entropix {entropix.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {}
    for name, (add, summary, example) in _COMMANDS.items():
        configured = add in (_train, _compare, _tune)
        text = f"{summary[0].upper()}{summary[1:]}.\n\n  {example}\n{_CONFIG if configured else ''}"
        parsers[name] = commands.add_parser(name, help=summary, description=text)
        add(parsers[name])
    return parser, parsers


def _config(parser: Parser, workdir: str) -> None:
    """Options of the commands that take an experiment."""
    parser.option("--config", metavar="FILE[:RUNS]", help="the experiment: a file, or a known name")
    parser.option("--workdir", type=path, metavar="FOLDER", help=f"of results (default: {workdir})")
    parser.option(
        "--data_dir", type=path, metavar="FOLDER",
        help="of prepared data sets (default: $TFDS_DATA_DIR, then ~/tensorflow_datasets)",
    )  # fmt: skip
    parser.option("--progress", action="store_true", default=None,
                  help="progress bars, rather than a line per evaluation (default: in a terminal)")  # fmt: skip
    parser.option("--noprogress", "--no-progress", dest="progress", action="store_false",
                  help="a line per evaluation")  # fmt: skip


def _fork(parser: Parser) -> None:
    parser.option("--fork", action="store_true",
                  help="continue a run of another config, from its last checkpoint")  # fmt: skip


def _train(parser: Parser) -> None:
    _config(parser, "runs/CONFIG/RUN")
    _fork(parser)
    parser.option("--coordinator", metavar="HOST:PORT", help="of process 0, for several processes")
    parser.option("--processes", type=count(1), default=1, metavar="N", help="of one run")
    parser.option("--process", type=count(0), default=0, metavar="K", help="number of this one")


def _compare(parser: Parser) -> None:
    _config(parser, "runs/CONFIG")
    _fork(parser)


def _tune(parser: Parser) -> None:
    _config(parser, "runs/CONFIG/tune")
    parser.option("--trials", type=count(1), default=16, metavar="N",
                  help="of every algorithm, at the first rung (default: %(default)s)")  # fmt: skip


def _report(parser: Parser) -> None:
    parser.add_argument("folders", nargs="*", type=path, help="of runs or of comparisons")
    _workdir(parser, "report")
    parser.option("--mixed", action="store_true",
                  help="allow runs that differ in problem, budget or evaluation")  # fmt: skip


def _workdir(parser: Parser, name: str) -> None:
    parser.option("--workdir", type=path, default=os.path.join("runs", name), metavar="FOLDER",
                  help="of results (default: %(default)s)")  # fmt: skip


def _figure1(parser: Parser) -> None:
    number, numbers = within(float), list_of(float)
    default = {"help": "(default: %(default)s)"}
    parser.option("--function", default=FIGURE1, metavar="TEXT",
                  help="of x, or of x and y; numbers, pi, e, + - * / **, sin, exp and others")  # fmt: skip
    parser.option("--interval", type=numbers, default=[-4.0, 4.0], metavar="LOW,HIGH",
                  help="of x; in 2-D also LOW,HIGH,LOW,HIGH of x and y (default: -4,4)")  # fmt: skip
    parser.option("--times", type=numbers, default=[0.05, 0.2, 1.0], metavar="T,T,...",
                  help="of the relaxations; gamma begins at the largest (default: 0.05,0.2,1)")  # fmt: skip
    parser.option("--beta", type=number, default=10.0, metavar="B",
                  help="inverse temperature (default: 10)")  # fmt: skip
    parser.option("--start", type=numbers, metavar="X[,Y]",
                  help="of the descents (default: an eighth from the upper end)")  # fmt: skip
    parser.option("--nodes", type=count(11, 4001), metavar="N",
                  help="a dimension (default: 401; in 2-D 61, taking minutes)")  # fmt: skip
    parser.option("--frames", type=count(0, 1000), default=60, metavar="N",
                  help="of the animation, 0 for none (default: 60)")  # fmt: skip
    _workdir(parser, "figure1")


def _accuracy(parser: Parser) -> None:
    numbers, number = list_of(float), within(float)
    parser.option("--function", default=RUGGED, metavar="TEXT", help="as for figure1")
    parser.option("--interval", type=numbers, default=[-2.5, 2.5], metavar="LOW,HIGH",
                  help="as for figure1 (default: -2.5,2.5)")  # fmt: skip
    parser.option("--gammas", type=numbers, default=[0.1, 0.3, 1.0, 3.0], metavar="G,G,...",
                  help="scopes (default: 0.1,0.3,1,3)")  # fmt: skip
    parser.option("--temperatures", type=numbers, default=[0.001, 0.01, 0.1], metavar="T,T,...",
                  help="(default: 0.001,0.01,0.1)")  # fmt: skip
    parser.option("--steps", type=list_of(int), default=[5, 20, 80, 320], metavar="L,L,...",
                  help="gradients for one estimate (default: 5,20,80,320)")  # fmt: skip
    parser.option("--step_size", type=number, default=0.1, metavar="S",
                  help="of inner steps (default: 0.1)")  # fmt: skip
    parser.option("--averaging", type=number, default=0.75, metavar="A",
                  help="weight of the old average in Entropy-SGD's (default: 0.75)")  # fmt: skip
    parser.option("--chains", type=count(2), default=1024, metavar="N",
                  help="estimates at each point (default: 1024)")  # fmt: skip
    _workdir(parser, "accuracy")


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
