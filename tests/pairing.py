"""Checks that every notebook and its text twin hold the same cells: `python tests/pairing.py`."""

import pathlib
import sys

import jupytext

NOTEBOOKS = pathlib.Path(__file__).parent.parent / "notebooks"


def cells(path: pathlib.Path) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source.strip()) for cell in jupytext.read(path).cells]


def unpaired() -> list[str]:
    """Names of notebooks whose twin is missing or differs."""
    texts = sorted(NOTEBOOKS.glob("*.py"))
    names = {path.stem for path in texts} | {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    differ = []
    for name in sorted(names):
        twins = [NOTEBOOKS / f"{name}.py", NOTEBOOKS / f"{name}.ipynb"]
        if not all(path.exists() for path in twins) or cells(twins[0]) != cells(twins[1]):
            differ.append(name)
    return differ


if __name__ == "__main__":
    if differ := unpaired():
        print(f"Run: jupytext --sync notebooks/*.py   (these differ: {', '.join(differ)})")
        sys.exit(1)
