"""The matrix: the whole suite on every Python, and the core with the oldest JAX and Optax.

    nox                       # everything that finds its interpreter
    nox -s tests-3.13         # one Python, with the newest JAX that runs on it
    nox -s minimum            # the lower bounds of the core

Interpreters that are not on the machine are skipped.
"""

import pathlib
import shutil
import tomllib

import nox

ROOT = pathlib.Path(__file__).parent
CORE = ("conftest.py", "contract_cases.py", "communication.py", "processes.py", "test_contract.py")

nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The README's test command; arguments after `--` are handed to pytest."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python="3.11")
def minimum(session: nox.Session) -> None:
    """The core's contract with its oldest dependencies, from a wheel, where no source lies."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        bounds = tomllib.load(file)["project"]["dependencies"]
    folder = pathlib.Path(session.create_tmp()) / "core"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tests").mkdir(parents=True)
    session.run("python", "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT))
    oldest = [bound.replace(">=", "==") for bound in bounds]
    session.install(*oldest, *map(str, folder.glob("*.whl")), "pytest", "pytest-xdist")
    shutil.copy(ROOT / "pyproject.toml", folder)  # for pytest's settings
    for name in CORE:
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    shutil.copytree(ROOT / "tests" / "contract", folder / "tests" / "contract")
    session.chdir(folder)
    session.run("pytest", "-n", "auto", "tests", *session.posargs)
