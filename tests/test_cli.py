"""The command line as a user meets it: `main` returns the status and prints the message."""

import json
import pathlib
import re
import shlex

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from entropix.cli import main

CONFIG = str(pathlib.Path(__file__).parent.parent / "configs" / "digits.py")
SHORT = ["--config.seeds=1", "--config.num_evals=1", "--config.gradients_per_eval=60"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["comapre"],
            "unknown command 'comapre'; known: train, .*, accuracy. Did you mean 'compare'",
        ),
        (["train"], "--config=FILE is missing"),
        (["report"], "report needs folders of runs"),
        (["report", "nowhere"], "nowhere/metrics.jsonl does not exist"),
        (["report", "nowhere", "--trials=3"], "trials"),
        (["train", "--config=nowhere.py"], "nowhere.py"),
        (["train", f"--config={CONFIG}:hjj"], "unknown algorithm 'hjj'.*Did you mean 'hj'"),
        (["train", f"--config={CONFIG}"], "train runs one algorithm; choose one of sgd, entropy"),
        (
            ["train", f"--config={CONFIG}:hj", "--config.optimizer.gama=1"],
            "'gama'. Did you mean .gamma",
        ),
        (["train", f"--config={CONFIG}:hj", "--config.optimizer.gamma=x"], "gamma=x"),
        (["train", f"--config={CONFIG}:hj", "--wokdir=x"], "wokdir.*Did you mean: workdir"),
        (["train", f"--config={CONFIG}:hj", "stray"], "unexpected 'stray'"),
        (["compare", f"--config={CONFIG}", "--config.gradients_per_eval=7"], "multiple of the 20"),
        (["train", f"--config={CONFIG}:hj", "--config.optimizer.gamma=-1"], ": gamma must be"),
        (["compare", f"--config={CONFIG}", "--config.optimizers.heat.noise=x"], "noise must be"),
        (["train", f"--config={CONFIG}:hj", "--config.optimizer.inner=x"], "unknown inner 'x'"),
        (["train", f"--config={CONFIG}:hj", "--config.optimizer.drop_factor=0"], "drop_factor mus"),
        (["train", f"--config={CONFIG}:hj", "--config.length=2"], r"length must be in \(0, 1\]"),
        (["train", f"--config={CONFIG}:hj", "--config.dataset=digit"], "Did you mean 'digits'"),
        (["figure1", "--function=sni(x)"], "unknown function 'sni' at column 1.*mean 'sin'"),
        (["figure1", "--function=__import__('os').getcwd()"], "column 1.*cannot be taken|unknown"),
        (["figure1", "--function=log(x)"], "not finite at x=-4; choose another interval"),
        (["figure1", "--function=9**9**9"], "not finite"),
        (["figure1", "--interval=1,a"], "--interval must be numbers.*'a'"),
        (["figure1", "--interval=2,1"], "interval must have finite ends, low < high"),
        (["figure1", "--interval=1,2,3,4"], "interval must be low,high; got"),
        (["figure1", "--times=0.1,-1"], "must be one number > 0 and finite; got time=-1"),
        (["figure1", "--beta=0"], "beta must be one number > 0"),
        (["figure1", "--start=9"], "start must be 1 numbers? within the interval"),
        (["figure1", "--nodes=3"], "nodes"),
        (["figure1", "--function=x*y", "--nodes=500"], "nodes must be at most 121 in 2-D"),
        (["figure1", "--fuction=x"], "fuction.*Did you mean: function"),
        (["figure1", "x**2"], r"unexpected 'x\*\*2'"),
        (["accuracy", "--steps=5,2.5"], "--steps must be whole numbers with commas .*'2.5'"),
        (["accuracy", "--steps=1"], r"steps must be whole numbers >= 2; got \[1\]"),
        (["accuracy", "--gammas=0.01"], "step_size must be below .*; got 0.1. Take a larger gamma"),
        (["accuracy", "--temperatures=0"], "temperature must be one number > 0"),
        (["accuracy", "--averaging=1"], "averaging must be"),
        (["accuracy", "--function=log(x)"], "not finite at x=-2.5; choose another interval"),
        (["accuracy", "--function=sni(x)"], "unknown function 'sni' at column 1.*mean 'sin'"),
        (["tune", f"--config={CONFIG}", "--config.search.hj.gamma=(2.0,1.0)"], "0 < low <= high"),
    ],
)
def test_mistakes_get_one_clear_message(argv, message, capsys, tmp_path):
    if len(argv) > 1:
        argv = [*argv, f"--workdir={tmp_path}/new"]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    if argv[0] in ("figure1", "accuracy"):
        assert error.count("\n") <= 2  # absl's own suggestion stands on a second line
    assert re.search(message, error), error
    assert not (tmp_path / "new").exists()  # nothing was begun


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "entropix compare --config=configs/digits.py" in capsys.readouterr().out


def test_train_prints_the_table(tmp_path, capsys):
    argv = ["train", f"--config={CONFIG}:hj", f"--workdir={tmp_path}", "--noprogress", *SHORT]
    assert main([*argv, "--config.optimizer.gamma=2.5"]) == 0
    assert "| HJ | 5 | 1 |" in capsys.readouterr().out
    assert '"gamma": 2.5' in (tmp_path / "config.json").read_text()


def test_compare_leaves_table_and_figure(tmp_path, capsys):
    argv = ["compare", f"--config={CONFIG}:hj,sgd", f"--workdir={tmp_path}", "--noprogress"]
    assert main([*argv, *SHORT]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() in printed
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_report_rebuilds_table_and_figure(tmp_path, capsys):
    argv = ["train", f"--config={CONFIG}:sgd", f"--workdir={tmp_path}/sgd", "--noprogress", *SHORT]
    assert main(argv) == 0
    table = capsys.readouterr().out.strip()
    assert main(["report", f"{tmp_path}/sgd", f"--workdir={tmp_path}/report"]) == 0
    assert capsys.readouterr().out.startswith(table)
    assert (tmp_path / "report" / "figure.png").stat().st_size > 10_000


def test_tune_prints_the_best_values_and_writes_the_record(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(pathlib.Path(CONFIG).read_text())
    code = path.read_text().split('"""')[2]
    argv = ["tune", f"--config={path}:sgd", f"--workdir={tmp_path}/tune", "--noprogress", *SHORT]
    argv += ["--trials=2", "--write", "--config.search.sgd.learning_rate=(0.1,1.0)"]
    assert main(argv) == 0
    assert "sgd: learning_rate=" in capsys.readouterr().out
    _, header, after = path.read_text().split('"""')
    assert after == code
    (command,) = re.findall(r"    (entropix\s+tune\s.*?)\n\n", header, flags=re.S)
    first = path.read_bytes()
    again = shlex.split(command)[1:]  # the recorded command runs the same search
    assert main([*again, f"--workdir={tmp_path}/tune", "--noprogress", "--write"]) == 0
    assert path.read_bytes() == first


def test_tune_complains_of_a_file_without_header_before_work(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(pathlib.Path(CONFIG).read_text().split('"""')[2])
    argv = ["tune", f"--config={path}", f"--workdir={tmp_path}/tune", "--write"]
    assert main(argv) == 2
    assert "begins with a docstring" in capsys.readouterr().err
    assert not (tmp_path / "tune").exists()


@pytest.mark.parametrize(
    ("function", "nodes", "ndim"), [("x**2/10 + sin(3*x)", 81, 1), ("x**2 + cos(3*x)*y**2", 13, 2)]
)
def test_figure1_leaves_data_and_figures(function, nodes, ndim, tmp_path, capsys):
    argv = ["figure1", f"--function={function}", f"--nodes={nodes}", "--frames=3", "--beta=2"]
    assert main([*argv, "--interval=-2,2", "--times=0.1,0.5", f"--workdir={tmp_path}/f"]) == 0
    assert "relaxations.npz, figure1.png, scoping.npz, scoping.gif" in capsys.readouterr().out
    with np.load(tmp_path / "f" / "relaxations.npz") as data:
        assert data["values"].shape == (3, 2, *[nodes] * ndim)
        assert data["values"].dtype == np.float64
        assert str(data["function"]) == function
    assert (tmp_path / "f" / "figure1.png").stat().st_size > 10_000
    with Image.open(tmp_path / "f" / "scoping.gif") as film:
        assert film.n_frames == 3


def test_figure1_without_animation_leaves_precision_alone(tmp_path):
    before = jnp.zeros(1).dtype
    argv = ["figure1", "--function=x**2", "--nodes=21", "--frames=0", f"--workdir={tmp_path}"]
    assert main(argv) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure1.png", "relaxations.npz"]
    assert jnp.zeros(1).dtype == before


@pytest.mark.parametrize(
    ("function", "threshold"), [("x**2/4 + cos(3*x)/9", 2.0), ("x**2 + cos(3*y)/9", 1.0)]
)
def test_accuracy_leaves_data_table_and_figure(function, threshold, tmp_path, capsys):
    few = ["--gammas=0.5", "--temperatures=0.1", "--steps=4,8", "--chains=16"]
    assert main(["accuracy", f"--function={function}", *few, f"--workdir={tmp_path}/a"]) == 0
    assert "accuracy.json, table.md, accuracy.png" in capsys.readouterr().out
    data = json.loads((tmp_path / "a" / "accuracy.json").read_text())
    assert data["function"] == function
    assert data["threshold"] == pytest.approx(threshold, rel=0.02)  # -1/min f''
    assert len(data["rows"]) == 5 * 2
    assert function in (tmp_path / "a" / "table.md").read_text()
    assert (tmp_path / "a" / "accuracy.png").stat().st_size > 10_000
