"""The head of every notebook: its badge and its install cell. `python tests/heads.py` writes them.

Both lead to the release of this version at the project's address, which stands in `pyproject.toml`
alone (`project.urls.Repository`). After a change of address or version, run the script.
"""

import pathlib
import re
import tomllib
from typing import Any

import jupytext
from pairing import NOTEBOOKS

ROOT = pathlib.Path(__file__).parent.parent
ALSO = {"bring_your_own": " equinox"}  # packages that a notebook installs beside this one
BADGE = "[![Open in Colab]("
_VERSIONS = re.compile(r"^# +(?:format|jupytext)_version: .*\n", re.MULTILINE)  # in a text's header
_COLAB = "https://colab.research.google.com"
_INSTALL = """\
import importlib.util

if getattr(importlib.util.find_spec("entropix"), "origin", None) is None:  # or a mere folder
    %pip install --quiet {requirements}
    pass"""


def project() -> tuple[str, str, str]:
    """The distribution's name, the version and the address of the repository."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        about = tomllib.load(file)["project"]
    (version,) = re.findall(
        r'__version__ = "(.*)"', (ROOT / "entropix" / "__init__.py").read_text()
    )
    return about["name"], version, about["urls"]["Repository"]


def badge(stem: str) -> str:
    """The line that opens a notebook of the release in Colab."""
    _, version, address = project()
    path = address.removeprefix("https://github.com/")
    target = f"{_COLAB}/github/{path}/blob/v{version}/notebooks/{stem}.ipynb"
    return f"{BADGE}{_COLAB}/assets/colab-badge.svg)]({target})"


def install(stem: str) -> str:
    """The cell that installs the release's wheel where the package is missing."""
    name, version, address = project()
    wheel = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    requirement = f'"{name}[train] @ {address}/releases/download/v{version}/{wheel}"'
    return _INSTALL.format(requirements=requirement + ALSO.get(stem, ""))


def headed(notebook: Any, stem: str) -> bool:
    """Gives a notebook its head; whether that changed it."""
    title = notebook.cells[0]
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    lines = [line for line in title.source.splitlines() if not line.startswith(BADGE)]
    rest = "\n".join(lines[1:]).strip()
    wanted = f"{lines[0]}\n\n{badge(stem)}\n\n{rest}", install(stem)
    changed = wanted != (title.source.strip(), first.source.strip())
    title.source, first.source = wanted
    return changed


def headless(*, write: bool = False) -> list[str]:
    """Names of the files, notebooks and their text twins, whose head differs."""
    found = []
    for path in sorted(NOTEBOOKS.glob("*.py")) + sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = jupytext.read(path)
        if headed(notebook, path.stem):
            found.append(path.name)
            if write:
                text = jupytext.writes(
                    notebook, fmt=path.suffix[1:] + ":percent" * (path.suffix == ".py")
                )
                path.write_text(_VERSIONS.sub("", text))
    return found


if __name__ == "__main__":
    print("written:", *headless(write=True))
