"""Random, wrong and extreme command lines: status 0, or status 2 and one line that says why.

A command line is drawn from right options and overrides; most of them then get one mistake: a
misspelt command, option or field, a wrong value, a config's file that is missing or broken. The
work itself is left out: a command line is right if it gets as far.

Of the 1,500 command lines of the slow test 0 are faults, and none takes a file for another.
"""

import collections
import contextlib
import io
import pathlib

import numpy as np
import pytest
from faults.rehearsal import cases, drawn

import entropix.workflow
from entropix.cli import commands, main
from entropix.experiment.plan import check_plan
from entropix.rows import Row

HUGE, DIGITS = "1" + "0" * 400, "9" * 5_000
WRONG_NUMBERS = (
    "x",
    "nan",
    "",
    "(1,)",
    "[",
    "{'a': 1}",
    "True",
    "1j",
    "-1",
    "0",
    "((((",
    "1e",
    "é",
)
OPTIONS = {
    "report": {"--workdir=out": [], "--mixed": ["--mixed=1"]},
    "figure1": {
        "--interval=-1,2": ["--interval=1,a", "--interval=", "--interval", "--interval=nan,1"],
        "--times=0.1": ["--times=0.1,,1", "--times=inf", "--times=é"],
        "--beta=3": ["--beta=x", f"--beta={HUGE}", "--beta="],
        "--nodes=21": ["--nodes=3", "--nodes=2.5", f"--nodes={DIGITS}"],
        "--frames=0": ["--frames=-1", "--frames=1001", "--frames"],
    },
    "accuracy": {
        "--steps=5,20": ["--steps=5,2.5", "--steps=x", f"--steps={DIGITS}"],
        "--gammas=1": ["--gammas=1;2", "--gammas="],
        "--chains=16": ["--chains=1", "--chains=1e3", f"--chains={HUGE}"],
    },
    "train": {
        "--fork": ["--fork=1"],
        "--process=0": ["--process=-1", "--process=x"],
        "--processes=1": ["--processes=0", "--processes=2", f"--processes={DIGITS}"],
    },
    "compare": {"--fork": ["--fork=1"], "--progress": ["--progress=2", "--trials=3"]},
    "tune": {"--trials=3": ["--trials=0", "--trials=2.5", "--write", "--fork", f"--trials={HUGE}"]},
}
FIELDS = {
    "seeds=2": ["0", "2.5", HUGE, "'3'", "1e3", "x", ""],
    "num_evals=3": ["0", "nan", DIGITS, "None"],
    "length=0.5": ["0", "2", "nan", "-inf", "half"],
    "batch_size=64": ["0", "-1", "1.5", HUGE],
    "layout=vmap": ["threads", "map", "1", ""],
    "replicas=3": ["0", "()", "(3, 3)", "2.5", "x", "(3, 0)"],
    "data_dir=~/data": [],
    "eval_train_examples=0": ["-1", "0.5", "all"],
    "flatness_at=1.0": ["0", "2", "(1, 0.5)", "nan", "end", "None"],
    "flatness_examples=64": ["0", "-1", "1.5", "all"],
    "checkpoint_seconds=10": ["-1", "inf", "nan", "soon"],
    "dataset=digits": ["digit", "", "3", "(1, 2)"],
    "model.widths=16": ["0", "16.5", "()", "x", "(8, 0)", "None"],
    "model.dropout=0": ["1", "x", "None", "-0.1", "nan"],
    "model.name=mlp": ["lenet", "mpl", ""],
}
OPTION_FIELDS = {
    "learning_rate=0.5": WRONG_NUMBERS,
    "momentum=None": ("1", "x", "nan", "()"),
    "drop_at=0.3,0.6": ("30,60", "x", "0", "1", "nan", "None"),
    "weight_decay=1e-4": ("-1", "x", "None", "inf"),
    "algorithm=sgd": ("hj", "x", "", "None"),
    "schedule=drops": ("linear", "", "1"),
}
FILES = {
    "missing.py": None,
    "empty.py": "",
    "syntax.py": "def get_config(:\n",
    "raises.py": "raise RuntimeError('two\\nlines')\n",
    "imports.py": "import no_such_package\n",
    "number.py": "get_config = 3\n",
    "returns.py": "def get_config(runs=''):\n    return {'seeds': 3}\n",
    "nothing.py": "def get_config(runs=''):\n    pass\n",
    "alone.py": "from entropix.experiment import make_config\n"
    "def get_config():\n"
    "    return make_config(dataset='digits', model={'name': 'mlp'}, optimizers={'sgd': {}})\n",
    "wrong.py": "from entropix.experiment import make_config\n"
    "def get_config(runs=''):\n"
    "    return make_config(dataset='digits', model={'name': 'mlp'}, optimizers={'sgdd': {}})\n",
    "bytes.py": "\0\0",
    "latin.py": b"x = '\xe9'\n",
    "deep.py": "x = " + "(" * 400 + ")" * 400 + "\n",
    "calls.py": "from entropix.experiment import make_config\n"
    "def get_config(runs=''):\n"
    "    return make_config(data='digits')\n",
}
# Of these, `alone.py` is wrong only with a colon, and is never given without.
POINTING = ("missing.py", "empty.py", "number.py", "returns.py", "nothing.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    for name, text in FILES.items():
        if text is not None:
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.fixture(autouse=True)
def without_work(monkeypatch):
    for name in ("report", "figure1", "accuracy"):
        monkeypatch.setattr(commands, name, lambda options: None)
    monkeypatch.setattr(commands, "_draw", lambda *arguments: None)
    row = Row("sgd", "sgd", "SGD", 0, 1, 1, 60, 60, 1.0, 60, None, 1e-3, 0.5, {})
    tried = {"sgd": [{"learning_rate": 0.1}]}
    for name, result in (("train", []), ("compare", [row]), ("tune", tried)):
        checked = lambda config, result=result, **options: check_plan(config) or result  # noqa: E731
        monkeypatch.setattr(entropix.workflow, name, checked)


def draw(rng: np.random.Generator, folder: pathlib.Path) -> tuple[list[str], str, int]:
    """A command line; what its message must have in it, or nothing; how many lines that has."""
    take = lambda values: values[rng.integers(len(values))]  # noqa: E731
    command = take(list(OPTIONS))
    configured = command in ("train", "compare", "tune")
    run = take(["sgd", "sgd,hj"]) if command != "train" else "sgd"
    group = "optimizer" if run == "sgd" else "optimizers.sgd"
    options = [option for option in OPTIONS[command] if rng.random() < 0.3]
    fields = {f: f"--config.{f}" for f in FIELDS if configured and rng.random() < 0.1}
    for field in OPTION_FIELDS if configured else ():
        if rng.random() < 0.15:
            fields[field] = f"--config.{group}.{field}"
    config = [f"--config=digits:{run}"] if configured else []
    rest = [*config, *options, *fields.values()]
    kind, wrong, lines = rng.integers(9), "", 1
    if command == "report":
        rest.append("runs/x")
    if kind == 0:
        command, wrong = take(["trian", "", "é", "comparee", "run", "1"]), "unknown command"
    elif kind == 1:
        text = take(["--wokdir=x", "--é", "--trails=3", "--interva=1,2", "-x", "--=1", "---a"])
        rest.append(text)
        wrong = "option"
    elif kind == 2 and any(OPTIONS[command].values()):
        option = take([option for option, bad in OPTIONS[command].items() if bad])
        rest = [text for text in rest if not text.startswith(option.partition("=")[0])]
        rest.append(take(OPTIONS[command][option]))
        wrong = rest[-1].lstrip("-").partition("=")[0]
    elif kind in (3, 4) and configured:
        known = {**FIELDS, **OPTION_FIELDS}
        field = take([field for field, bad in known.items() if bad])
        name = field.partition("=")[0]
        place = f"{group}.{name}" if field in OPTION_FIELDS else name
        rest = [text for text in rest if not text.startswith(f"--config.{place}=")]
        value = take(known[field])
        rest += take([[f"--config.{place}={value}"], [f"--config.{place}", value]])
        wrong = "model" if name == "model.name" else name.removeprefix("model.")
    elif kind == 5 and configured:
        name = take(list(FILES))
        rest[0] = f"--config={folder / name}" + ":sgd" * (name == "alone.py")
        rest[1:] = []
        wrong, lines = "sgdd" if name == "wrong.py" else name, 13 if name in POINTING else 1
    elif kind == 6 and configured:
        text = take(["--config.seds=3", "--config.=3", "--config.a.b.c=1", "--config.model=3",
                     "--config.seeds.x=1", "--config.lock=1", "--config.items=1", "--config.é=1",
                     "--config.model.__class__=1", "--config.search=1", "--config.a"])  # fmt: skip
        rest.append(text)
        wrong = "config"
    elif kind == 7 and configured:
        rest[0] = take(["--config=", "--config=digit", "--config=:", f"--config={DIGITS}",
                        "--config=/", "--config=digits.py/x", "--config=a\0b"])  # fmt: skip
        wrong, lines = "--config", 13
    return [command, *rest], wrong, lines


def outcome(rng: np.random.Generator, folder: pathlib.Path) -> str:
    argv, wrong, lines = draw(rng, folder)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = main(argv)
    except BaseException as error:
        return f"a foreign {type(error).__name__}: {error}; {argv}"
    text = errors.getvalue()
    if not wrong:
        return "right" if status == 0 else f"a right one is refused: {text}; {argv}"
    if status != 2 or not text.startswith("entropix: "):
        return f"status {status} for a wrong one ({wrong}): {text}; {argv}"
    if len(text.strip().splitlines()) > lines or len(text) > 2_000:
        return f"{text.count(chr(10))} lines: {text}; {argv}"
    return "refused" if wrong in text else f"no word of {wrong}: {text}; {argv}"


def outcomes(seed: int, count: int, folder: pathlib.Path) -> tuple[int, int, list[str]]:
    """How many command lines were right, and refused; and descriptions of faults."""
    rng = np.random.default_rng(seed)
    found = collections.Counter(outcome(rng, folder) for _ in range(count))
    right, refused = found.pop("right"), found.pop("refused")
    assert right > count / 10
    assert refused > count / 3
    return right, refused, list(found.elements())


def test_command_lines_right_and_wrong(folder):
    assert outcomes(0, 150, folder)[2] == []


@pytest.mark.slow
def test_one_thousand_five_hundred_command_lines(folder, counted):
    counted("command lines", drawn(*outcomes(1, cases(1_500, 50), folder)))
