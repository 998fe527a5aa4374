"""Pages from outside of `docs/`: notebooks, results and the project's own pages, copied beside it.

Sphinx reads one folder only. What else belongs to the site is copied to `docs/gathered/`, and links
to the originals lead to the copies there.
"""

import pathlib
import re
import shutil
from typing import Any

DOCS = pathlib.Path(__file__).parent.parent
ROOT = DOCS.parent
TARGET = DOCS / "gathered"
PAGES = ("SECURITY.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "benchmarks/report.md")
OUTSIDE = re.compile(
    r"(\]\()((?:\.\./)+)((?:results|notebooks|benchmarks/report|SECURITY|CONTRIBUTING|CODE_OF)[^)#]*)"
)
BACK = re.compile(r"(\]\()((?:\.\./)*)docs/")


def gather() -> None:
    """Copies what is outside; a notebook with its outputs where an .ipynb holds them."""
    shutil.rmtree(TARGET, ignore_errors=True)
    (TARGET / "notebooks").mkdir(parents=True)
    for text in sorted((ROOT / "notebooks").glob("*.py")):
        stored = text.with_suffix(".ipynb")
        chosen = stored if stored.exists() else text
        shutil.copy(chosen, TARGET / "notebooks")
    for name in PAGES:
        (TARGET / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, TARGET / name)
    for pattern in ("*.md", "*.png"):
        for file in (ROOT / "results").rglob(pattern):
            copy = TARGET / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)


def redirect(app: Any, docname: str, source: list[str]) -> None:
    """Leads links that leave `docs/` to the copies, and links of the copies back."""
    del app
    up = "../" * docname.count("/")
    if docname.startswith("gathered/"):
        source[0] = BACK.sub(rf"\g<1>{up}", source[0])
        tables = docname.startswith("gathered/results/") and not docname.endswith("/README")
        if tables:  # which pages lead to, and no list
            source[0] = f"---\norphan: true\n---\n\n{source[0]}"
        return
    source[0] = OUTSIDE.sub(lambda m: f"{m[1]}{up}gathered/{_stored(m[3])}", source[0])


def _stored(path: str) -> str:
    """The path of the copy: of a notebook without outputs, its text."""
    copy = TARGET / path
    return path if copy.exists() else str(pathlib.PurePosixPath(path).with_suffix(".py"))


def setup(app: Any) -> dict[str, Any]:
    """Gathers the pages and registers the handler with Sphinx."""
    gather()
    app.connect("source-read", redirect)
    return {"parallel_read_safe": True}
