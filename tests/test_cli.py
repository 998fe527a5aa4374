"""The command line as a user meets it: `main` returns the status and prints the message."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import entropix
from entropix.cli import commands, main
from entropix.cli.configs import read_config
from entropix.experiment.plan import check_plan

ROOT = pathlib.Path(__file__).parent.parent
SHORT = ["--config.seeds=1", "--config.num_evals=1", "--config.gradients_per_eval=60"]
SHORT += ["--config.model.widths=8", "--noprogress"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            "comapre",
            "unknown command 'comapre'; known: train, .*, accuracy. Did you mean 'compare'",
        ),
        ("train", "--config=FILE is missing, for instance --config=digits"),
        ("report", "report needs folders of runs"),
        ("report nowhere", "nowhere does not exist"),
        ("report /dev/null", "/dev/null is no folder"),
        ("report nowhere --trials=3", "--trials is an option of tune, and not of report"),
        ("report nowhere --config.seeds=3", "report takes no --config.seeds"),
        ("train --config=digits:hjj", "unknown algorithm 'hjj'.*Did you mean 'hj'"),
        ("train --config=digits", "choose one of sgd, entropy_sgd.* --config=digits:sgd, or"),
        ("train --config=digits:", "choose one of sgd, entropy_sgd.* --config=digits:sgd, or"),
        (
            "train --config=digits:hj,sgd",
            "choose one of .*hj.* behind a colon.* --config=digits:sgd, or",
        ),
        (
            "train --config=digits:parle,hj --config.replicas=(3,6)",
            "choose one of .*parle.* behind a colon.* --config=digits:(parle|hj), or",
        ),
        ("train --config=digits:sgd,hj,", "unknown algorithm ''"),
        ("train --config=mnist:lenet", "instance --config=mnist:lenet,sgd, or"),
        ("train --config=digits:parle --config.replicas=3,6", r"got config.replicas=\(3, 6\)"),
        ("train --config=digits:hj --config.optimizer.gama=1", "'gama'; .*Did you mean 'gamma'"),
        (
            "train --config=digits:hj --config.optimizer.gamma=x",
            "hj: gamma must be a number; .*'x'",
        ),
        ("train --config=digits:hj --config.optimizer=x", "is a group of fields: algorithm, "),
        ("train --config=digits:hj --config.seeds", "--config.seeds needs a value"),
        ("train --config=digits:hj --wokdir=x", "unknown option --wokdir.*Did you mean --workdir"),
        ("train --config=digits:hj stray", "unexpected 'stray'"),
        ("train --config=digits:hj --processes=2", "--processes=2 needs --coordinator=HOST:PORT"),
        ("train --config=digits:hj --processes=x", "--processes must be a whole number .*'x'"),
        ("compare --config=digits --processes=2", "--processes is an option of train, and not of"),
        ("compare --config=digits --config.gradients_per_eval=7", "multiple of the 20"),
        ("compare --config=digits --config.num_evals=500", "entropy_sgd: .* at outer step 19.. of"),
        ("train --config=digits:hj --config.optimizer.gamma=-1", "hj: gamma must be .*-1"),
        ("compare --config=digits --config.optimizers.heat.noise=x", "heat: noise must be"),
        ("train --config=digits:hj --config.optimizer.inner=x", "hj: unknown inner 'x'"),
        ("train --config=digits:hj --config.optimizer.drop_factor=0", "drop_factor must be .* > 0"),
        ("train --config=digits:hj --config.optimizer.drop_at=30,60", r"numbers in \(0, 1\).*0.5,"),
        (
            "train --config=digits:sgd --config.optimizer.algorithm=hj",
            "algorithm cannot be overrid",
        ),
        ("train --config=digits:hj --config.model.name=lenet", "unknown option of model lenet"),
        (
            "train --config=digits:hj --config.model.widths=0",
            "widths must be .* >= 1.*got widths=0",
        ),
        ("train --config=digits:hj --config.length=2", r"length must be in \(0, 1\].*length=2"),
        ("train --config=digits:hj --config.dataset=digit", "Did you mean 'digits'"),
        ("tune --config=digits --config.search.hj.gamma=2.0,1.0", "0 < low <= high"),
        ("tune --config=digits --write", "--write is gone: .* all trials in tuning.md"),
        ("figure1 --function=sni(x)", "unknown function 'sni' at column 1.*mean 'sin'"),
        ("figure1 --function=__import__('os').getcwd()", "column 1.*cannot be taken|unknown"),
        ("figure1 --function=log(x)", "not finite at x=-4; choose another interval"),
        ("figure1 --function=9**9**9", "not finite"),
        ("figure1 --interval=1,a", "--interval must be numbers with commas between; got 'a'"),
        ("figure1 --interval=2,1", "interval must have finite ends, low < high"),
        ("figure1 --interval=1,2,3,4", "interval must be low,high; got"),
        ("figure1 --times=0.1,-1", "must be one number > 0 and finite; got time=-1"),
        ("figure1 --beta=0", "beta must be one number > 0"),
        ("figure1 --start=9", "start must be 1 numbers? within the interval"),
        ("figure1 --nodes=3", "--nodes must be a whole number >= 11, at most 4001; got '3'"),
        ("figure1 --function=x*y --nodes=500", "nodes must be at most 121 in 2-D"),
        ("figure1 --fuction=x", "--fuction.*Did you mean --function"),
        ("figure1 x**2", r"unexpected 'x\*\*2'"),
        ("accuracy --steps=5,2.5", "--steps must be whole numbers with commas .*'2.5'"),
        ("accuracy --steps=1", "steps must be an integer >= 2; got steps=1"),
        ("accuracy --gammas=0.01", "step_size must be below .*; got 0.1. Take a larger gamma"),
        ("accuracy --temperatures=0", "temperature must be one number > 0"),
        (
            "accuracy --function=x*y --gammas=1",
            "truth of hamilton_jacobi with gamma=1 .*Take another gamma or a smaller interval",
        ),
        ("accuracy --averaging=1", "averaging must be"),
        ("accuracy --function=log(x)", "not finite at x=-2.5; choose another interval"),
        ("accuracy --function=sni(x)", "unknown function 'sni' at column 1.*mean 'sin'"),
    ],
)
def test_mistakes_get_one_clear_line(argv, message, capsys, tmp_path):
    argv = argv.split(" ")
    if len(argv) > 1:
        argv = [*argv, f"--workdir={tmp_path}/new"]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not (tmp_path / "new").exists()  # nothing was begun


@pytest.mark.parametrize("name", ["nowhere.py", "digit", "~/mine.py"])
def test_a_missing_config_is_said_to_be_missing_with_one_to_start_from(name, capsys, tmp_path):
    assert main(["compare", f"--config={name}"]) == 2
    error = capsys.readouterr().err
    assert f"--config={name}: the file does not exist." in error
    names = "cifar10, digits, language, little_communication, mnist, mnist_hard, mnist_scope."
    assert f"Known by name: {names}" in error
    path = tmp_path / "mine.py"
    path.write_text(error.split("\n\n", 1)[1])  # what is shown works
    check_plan(read_config(str(path)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "line 1 of the file fails: SyntaxError"),
        ("import os\nimport no_such_package\n", "line 2 of the file fails: ModuleNotFoundError"),
        ("x = 1\n", "has no function get_config"),
        ("def get_config(runs):\n    return 3\n", "must return what make_config makes; got int"),
        ("def get_config():\n    return 3\n", "cannot be called with 'hj', which is what stands"),
        ("def get_config(runs):\n    return 1 / 0\n", "line 2 of the file fails: ZeroDivisionErr"),
    ],
)
def test_a_broken_config_says_where(text, message, capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert main(["train", f"--config={path}:hj"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error


def test_a_config_may_have_dataclasses_with_later_annotations(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "from entropix.experiment import make_config\n"
        "@dataclasses.dataclass\nclass Rate:\n    value: float = 0.3\n"
        "def get_config(runs=''):\n    return make_config(dataset='digits', algorithms=runs,\n"
        "        model={'name': 'mlp'}, optimizers={'sgd': {'learning_rate': Rate().value}})\n"
    )
    assert read_config(f"{path}:sgd").optimizer.learning_rate == 0.3


def test_a_config_may_lie_in_a_folder_with_a_colon(tmp_path, capsys):
    path = tmp_path / "some:where" / "mine.py"
    path.parent.mkdir()
    path.write_text(
        "from entropix.experiment import make_config\n"
        "def get_config(runs=''):\n    return make_config(dataset='digits', algorithms=runs,\n"
        "        model={'name': 'mlp'}, optimizers={'sgd': {}, 'hj': {}})\n"
    )
    assert read_config(f"{path}:hj").optimizer.algorithm == "hj"
    assert main(["train", f"--config={path}"]) == 2
    assert f"for instance --config={path}:sgd, or use" in capsys.readouterr().err


def test_landscape_executes_the_file_that_registers_algorithms(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import pathlib\npathlib.Path(__file__).with_suffix('.seen').touch()\n")
    folders = ["landscape", str(tmp_path / "none"), f"--workdir={tmp_path / 'measured'}"]
    assert main([*folders, f"--register={path}"]) == 2
    assert "none does not exist" in capsys.readouterr().err
    assert (tmp_path / "mine.seen").exists()
    path.write_text("import no_such_package\n")
    assert main([*folders, f"--register={path}"]) == 2
    assert re.search("--register=.*line 1 of the file fails", capsys.readouterr().err)
    assert main([*folders, "--register=nowhere.py"]) == 2
    assert "--register=nowhere.py: there is no such file." in capsys.readouterr().err


def test_help_and_version(capsys):
    for argv in ([], ["--help"], ["help"]):
        assert main(argv) == 0
        assert "entropix compare --config=digits" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"entropix {entropix.__version__}\n"


@pytest.mark.parametrize("command", ["train", "compare", "tune", "report", "figure1", "accuracy"])
def test_every_command_has_a_help_of_its_own(command, capsys):
    assert main([command, "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"usage: entropix {command}" in printed
    assert "--workdir FOLDER" in printed
    configured = command in ("train", "compare", "tune")
    assert (
        "which the command executes: give it only files that you trust" in printed
    ) == configured


def test_without_the_extra_the_command_says_which_one_is_missing():
    """Help works with JAX and Optax alone."""
    program = (
        "import sys\n"
        "for name in ('flax', 'ml_collections', 'orbax', 'matplotlib', 'pandas', 'tqdm'):\n"
        "    sys.modules[name] = None\n"
        "from entropix.cli import main\n"
        "for argv in (['--help'], ['train', '--help'], ['--version']):\n"
        "    assert main(argv) == 0\n"
        "for argv in (['compare', '--config=digits'], ['report', 'x'], ['figure1']):\n"
        "    assert main(argv) == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 3
    assert "pip install 'entropix-jax[train]'" in lines[0]
    assert all(re.match("entropix: this command needs the package [a-z_]+,", x) for x in lines)


INSTALLED = "import sys, entropix_command\nsys.exit(entropix_command.main())"


@pytest.mark.parametrize("command", [("-c", INSTALLED), ("-m", "entropix")])
def test_ctrl_c_while_jax_is_imported(command, tmp_path):
    (tmp_path / "jax.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        [sys.executable, *command, "train"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "entropix: stopped by Ctrl-C.\n")


NAMING = """
from entropix.experiment import make_config

def get_config():
    return make_config(problem="my_module:line", optimizers={"sgd": {}}, algorithms="sgd")
"""


@pytest.mark.parametrize("place", ["config", "."])
def test_a_problem_beside_the_config_or_in_the_current_folder_is_found(place, tmp_path):
    """The installed command has neither folder on Python's path by itself."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.py").write_text(NAMING)
    module = tmp_path / place / "my_module.py"
    module.write_text("def line(batch_size):\n    raise ValueError('line was called')\n")
    command = [sys.executable, "-P", "-c", INSTALLED, "train", "--config=config/mine.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "entropix: line was called")


def test_a_problem_that_is_nowhere_is_said_to_be_missing(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(NAMING.replace("my_module", "no_module"))
    assert main(["train", f"--config={tmp_path}/mine.py"]) == 2
    error = capsys.readouterr().err
    assert "found on Python's path, to which the command adds the current folder and" in error
    assert "(ModuleNotFoundError: No module named 'no_module'). Put the folder of what" in error


def test_ctrl_c_of_another_program_stays_its_own(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text(
        # What Python does at its start, unless its parent ignores the signal, as `nohup` does.
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nimport entropix\n"
    )
    (tmp_path / "theirs" / "__main__.py").write_text(
        "import os, signal, time\ntry:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(50)\n"
        "except KeyboardInterrupt:\n    print('saved')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "theirs", "entropix"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "saved\n", "")


def test_a_command_that_failed_waits_for_no_thread(tmp_path):
    """After an error the storage library may wait for minutes for what it could not write."""
    (tmp_path / "entropix").mkdir()
    (tmp_path / "entropix" / "__init__.py").touch()
    (tmp_path / "entropix" / "cli.py").write_text(
        "import threading, time\n"
        "def main():\n"
        "    threading.Thread(target=time.sleep, args=(100,)).start()\n"
        "    print('said')\n"
        "    return 2\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED], env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (2, "said\n", "")


PROBLEM = """
import os, signal
import jax, jax.numpy as jnp
from entropix.experiment import Problem, make_config

def press(where):
    if where == os.environ["PRESS"]:
        os.kill(os.getpid(), signal.SIGINT)

def line(batch_size):
    press("problem")
    def loss(w, state, batch, key):
        press("loss")
        return jnp.mean((w - batch) ** 2), state
    return Problem(
        name="line", init=lambda key: (jnp.zeros(()), ()), loss=loss, data=jnp.ones(64),
        batch_size=batch_size, measures={"loss": lambda w, s, b: jnp.mean((w - b) ** 2)},
    )

def get_config(runs="sgd"):
    press("config")
    return make_config(
        problem="pressed:line", optimizers={"sgd": {}}, algorithms=runs, batch_size=8, seeds=1,
        gradients_per_eval=10, num_evals=2,
    )
"""


@pytest.mark.parametrize("command", ["train", "compare", "tune"])
@pytest.mark.parametrize("where", ["config", "problem", "loss"])
def test_ctrl_c_anywhere_is_one_line_and_status_130(command, where, tmp_path, monkeypatch, capsys):
    (tmp_path / "pressed.py").write_text(PROBLEM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PRESS", where)
    argv = [command, f"--config={tmp_path}/pressed.py", f"--workdir={tmp_path}/out", "--noprogress"]
    try:
        assert main(argv) == 130
    finally:
        sys.modules.pop("pressed", None)
    error = capsys.readouterr().err
    assert error.startswith("entropix: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["figure1", "accuracy", "report x"])
def test_ctrl_c_in_other_commands(command, monkeypatch, capsys):
    def pressed(options):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(commands, command.split()[0], pressed)
    assert main(command.split()) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_train_prints_the_table_and_says_where_results_are(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    argv = ["train", "--config=digits:hj", *SHORT, "--config.optimizer.gamma=2.5"]
    assert main([*argv, "--config.optimizer.momentum=None"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\| HJ +\| 1 +\| 5 ", printed)
    assert "runs/digits/hj/ now holds run.json, metrics.jsonl" in printed
    options = json.loads(pathlib.Path("runs/digits/hj/run.json").read_text())["config"]["optimizer"]
    assert (options["gamma"], options["momentum"]) == (2.5, None)
    said = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert said[:2] == ["loading digits", "hj: compiling for 1 seeds"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A folder with runs/digits, which compare has made, and what it printed."""
    folder = tmp_path_factory.mktemp("compared")
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        assert main(["compare", "--config=digits:hj,sgd", *SHORT]) == 0
    return folder, printed.buffer.getvalue().decode()


def test_compare_leaves_table_and_figure(compared):
    folder, printed = compared[0] / "runs" / "digits", compared[1]
    assert (folder / "table.md").read_text() in printed
    assert "runs/digits/ now holds metrics.jsonl, table.md, figure.png" in printed
    assert (folder / "figure.png").stat().st_size > 10_000
    assert (folder / "metrics.jsonl").read_text().count("\n") == 2


def test_report_rebuilds_table_and_figure(compared, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(compared[0]))
    assert main(["report", "~/runs/digits", f"--workdir={tmp_path}/new/report"]) == 0
    assert capsys.readouterr().out.split("\n\n")[0] == compared[1].split("\n\n")[0]
    assert (tmp_path / "new" / "report" / "figure.png").stat().st_size > 10_000


def test_report_shows_the_measures_named(compared, tmp_path, capsys):
    argv = ["report", f"{compared[0]}/runs/digits", f"--workdir={tmp_path}"]
    assert main([*argv, "--measures=train_error,val_loss", "--baseline=sgd"]) == 0
    title = capsys.readouterr().out.splitlines()[0]
    assert title.index("training error") < title.index("validation loss")
    assert "validation error" not in title
    assert main([*argv, "--measures=train_eror"]) == 2
    assert "no measure is called 'train_eror'" in capsys.readouterr().err


def test_report_of_runs_that_differ_needs_mixed(compared, tmp_path, capsys):
    shutil.copytree(compared[0] / "runs" / "digits", tmp_path / "runs")
    path = tmp_path / "runs" / "sgd" / "run.json"
    content = json.loads(path.read_text().replace('"batch_size": 128', '"batch_size": 64'))
    path.write_text(json.dumps(content))
    assert main(["report", f"{tmp_path}/runs", f"--workdir={tmp_path}/report"]) == 2
    assert "it was changed after it was written" in capsys.readouterr().err
    del content["digest"]
    path.write_text(json.dumps(content))
    argv = ["report", f"{tmp_path}/runs", f"--workdir={tmp_path}/report"]
    assert main(argv) == 2
    assert "not comparable" in capsys.readouterr().err
    assert main([*argv, "--mixed"]) == 0
    assert "problem.batch_size (" in capsys.readouterr().out


def test_a_terminal_without_the_signs_gets_a_table(compared, tmp_path, monkeypatch):
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert main(["report", f"{compared[0]}/runs/digits", f"--workdir={tmp_path}/report"]) == 0
    ascii_only.flush()
    assert b"Mean +- standard deviation" in ascii_only.buffer.getvalue()


def test_tune_prints_the_best_values_and_says_where_the_trials_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = ["tune", "--config=digits:sgd", *SHORT, "--trials=2"]
    assert main([*argv, "--config.search.sgd.learning_rate=(0.1,1.0)"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^sgd: learning_rate=[\d.]+$", printed, flags=re.M)
    assert "runs/digits/tune/ now holds tuning.md" in printed
    assert (tmp_path / "runs" / "digits" / "tune" / "tuning.md").exists()


def test_a_comparison_whose_seeds_all_diverged_is_no_success(tmp_path, capsys):
    argv = ["compare", "--config=digits:sgd,hj", *SHORT, "--config.seeds=2"]
    wild = "--config.optimizers.{}.learning_rate=1e30".format
    assert main([*argv, f"--workdir={tmp_path}/one", wild("sgd")]) == 0
    assert main([*argv, f"--workdir={tmp_path}/all", wild("sgd"), wild("hj")]) == 2
    said = capsys.readouterr()
    assert said.err.endswith(
        f"entropix: every seed of every run diverged: {tmp_path}/all/ holds no result. Lower the "
        "learning rate, in another workdir.\n"
    )
    assert said.out.count("seed 1 stopped, because") == 3
    assert (tmp_path / "all" / "table.md").read_text() in said.out
    assert (tmp_path / "all" / "figure.png").exists()


def test_a_search_without_a_finite_trial_is_no_success(tmp_path, capsys):
    argv = ["tune", "--config=digits:sgd", *SHORT, "--trials=1", f"--workdir={tmp_path}"]
    assert main([*argv, "--config.search.sgd.learning_rate=(1e20,1e21)"]) == 2
    printed, error = capsys.readouterr()
    assert printed.startswith("sgd: no trial was finite, so that there is no best one. Search low")
    assert "learning_rate=" not in printed
    assert error.endswith(
        "entropix: the search found no value: no trial of any run was finite. "
        f"{tmp_path}/tuning.md has all of them.\n"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--config=digits:hj --objective=eror", "unknown objective 'eror'.*Did you mean 'error'"),
        ("--config=digits:hj --config.search.hj.gamma=2,1", "0 < low <= high"),
        ("--config=digits:hj --config.search.hj.gama=1,2", "Did you mean 'gamma'"),
        ("--config=digits:hj --config.search.hj.gamma=0.01,1", "at gamma=0.01, hj: .*be below"),
        ("--config=digits:parle --config.replicas=3,6", "searches for one number of replicas"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_data_are_loaded(
    argv, message, tmp_path, capsys, caplog
):
    assert main(["tune", *argv.split(), f"--workdir={tmp_path}/new"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert "loading" not in caplog.text
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["figure1", "accuracy"])
def test_a_folder_that_cannot_be_written_is_found_before_work(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([command, f"--workdir={tmp_path}/file/out"]) == 2
    assert "cannot write to workdir=" in capsys.readouterr().err


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
    assert main([*argv, "--equations=hjj"]) == 2  # before anything is computed
    assert not list(tmp_path.iterdir())
    assert main([*argv, "--equations=hj,sharpness"]) == 0
    with np.load(tmp_path / "relaxations.npz") as data:
        assert data["values"].shape[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure1.png", "relaxations.npz"]
    assert jnp.zeros(1).dtype == before


def test_figure1_leaves_no_animation_of_an_earlier_call(tmp_path):
    for name in ("mine.txt", "scoping.npz", "scoping.gif"):
        (tmp_path / name).write_text("of another function")
    argv = ["figure1", "--function=x**2", "--nodes=21", "--frames=0", f"--workdir={tmp_path}"]
    assert main([*argv, "--equations=hj"]) == 0
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["figure1.png", "mine.txt", "relaxations.npz"]


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


def test_an_output_that_nobody_reads_ends_no_command(compared, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    argv = ["report", f"{compared[0]}/runs/digits"]
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main([*argv, f"--workdir={tmp_path}/pipe"]) == 0
        monkeypatch.setattr(sys, "stdout", None)  # as after >&-
        assert main([*argv, f"--workdir={tmp_path}/none"]) == 0
    assert (tmp_path / "pipe" / "figure.png").exists()
    assert (tmp_path / "none" / "figure.png").exists()
