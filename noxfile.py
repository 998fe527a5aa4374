"""The matrix: the whole suite on every Python, the core with the oldest JAX and Optax, the site.

    nox                       # everything that finds its interpreter
    nox -s tests-3.13         # one Python, with the newest JAX that runs on it
    nox -s minimum            # the lower bounds of the core
    nox -s docs               # the site, with warnings as errors, in build/site
    nox -s wheel-3.13         # the wheel and the unpacked sdist, each from an empty folder

Interpreters that are not on the machine are skipped.
"""

import pathlib
import shutil
import tomllib

import nox

ROOT = pathlib.Path(__file__).parent
CORE = ("conftest.py", "contract_cases.py", "processes.py", "test_contract.py")

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


@nox.session
def docs(session: nox.Session) -> None:
    """The site, with warnings as errors; links to JAX, Optax and Flax if the environment asks."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "build/site")


@nox.session(python=["3.11", "3.12", "3.13"])
def wheel(session: nox.Session) -> None:
    """What is released: the wheel from an empty folder, then the tests of the unpacked sdist."""
    folder = pathlib.Path(session.create_tmp()).resolve() / "release"  # from any folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    session.install("build")
    session.run("python", "-m", "build", "-o", str(folder), str(ROOT))
    (archive,) = folder.glob("*.whl")
    session.install(f"{archive}[test]")
    session.install("--force-reinstall", "--no-deps", str(archive))  # where a session is reused
    empty = folder / "empty"
    empty.mkdir()
    (source,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(source, folder)
    session.chdir(empty)
    session.run("python", "-c", "import entropix; print(entropix.__version__, entropix.__file__)")
    session.run("entropix", "--help", silent=True)
    session.run("entropix", "compare", "--config=digits", "--config.length=0.1", silent=True)
    (unpacked,) = (path for path in folder.glob("entropix_jax-*") if path.is_dir())
    session.chdir(unpacked)  # the package is not on the path there: the installed one is tested
    session.run("pytest", "-n", "auto", "tests", *session.posargs)
