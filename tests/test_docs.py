"""The site: every public name has a page, every page is in the site, every snippet runs."""

import ast
import importlib
import inspect
import pathlib
import re
import subprocess
import sys
from typing import NoReturn

import jax
import jax.numpy as jnp
import optax
import pytest

import entropix

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROOMS = {
    "entropix": "entropix/__init__.py",
    **{
        f"entropix.{room}": f"entropix/{room}/__init__.py"
        for room in ("data", "experiment", "landscape", "models", "pde", "replicas", "report")
    },
}


def public(file: str) -> list[str]:
    """The names in a room's `__all__`, without importing what it needs."""
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{file} has no __all__")


def listed(room: str) -> set[str]:
    """The names that a room's page has an entry for."""
    page = (DOCS / "api" / f"{room.removeprefix('entropix.')}.md").read_text()
    blocks = re.findall(r"```\{eval-rst\}\n(.*?)```", page, flags=re.DOTALL)
    assert all(f".. currentmodule:: {room}\n" in block for block in blocks)
    entries = [name for block in blocks for name in re.findall(r"^   (\w+)$", block, re.MULTILINE)]
    return {*entries, *re.findall(r"^`(\w+)`$", page, flags=re.MULTILINE)}


@pytest.mark.parametrize(("room", "file"), ROOMS.items(), ids=ROOMS)
def test_every_public_name_has_an_entry_and_every_entry_is_public(room, file):
    names = set(public(file)) - {"replicas"}  # a room, with a page
    assert names - listed(room) == set(), "add to the room's page in docs/api"
    assert listed(room) - names == set(), "no longer public: remove from docs/api"


WITHOUT_EXAMPLE = {"leave": "ends the process"}


@pytest.mark.parametrize("room", sorted(ROOMS.keys() - {"entropix.data", "entropix.models"}))
def test_every_public_function_has_the_sections_of_a_docstring(room):
    module, lacking = importlib.import_module(room), []
    for name in module.__all__:
        function = getattr(module, name)
        if inspect.isclass(function) or not callable(function):
            continue
        signature = inspect.signature(function)
        due = {
            "Args:": bool(signature.parameters),
            "Returns:": signature.return_annotation not in (None, NoReturn),
            "Example:": name not in WITHOUT_EXAMPLE,
        }
        lines = (inspect.getdoc(function) or "").splitlines()
        lacking += [f"{name}: {part}" for part in due if due[part] and part not in lines]
    assert lacking == []


def sources() -> list[pathlib.Path]:
    """The pages, without those that Sphinx makes or copies."""
    made = (DOCS / "gathered", DOCS / "api" / "generated", DOCS / "_build")
    return [p for p in sorted(DOCS.rglob("*.md")) if not any(p.is_relative_to(m) for m in made)]


def test_every_page_is_in_a_table_of_contents():
    reached, todo = set(), [DOCS / "index.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in tree.splitlines():
                if line and not line.startswith((":", "gathered/")):
                    todo.append(page.parent / f"{line}.md")
    assert sorted(reached) == sources()


@pytest.mark.parametrize("page", ["README.md", "SECURITY.md", "docs/experiments.md"])
def test_every_installed_config_is_named(page):
    text = (ROOT / page).read_text()
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    assert [n for n in names if f"`{n}`" not in text and f"--config={n}`" not in text] == []


HELD = {
    "SGD": lambda: entropix.sgd(0.1),
    "Entropy-SGD": lambda: entropix.entropy_sgd(0.1, 1.0, stepwise=True),
    "HJ": lambda: entropix.hj_sgd(0.1, 1.0, stepwise=True),
    "HEAT": lambda: entropix.heat_sgd(0.1, 1.0, stepwise=True),
    "SAM": lambda: entropix.sam(0.1, 0.05, stepwise=True),
    "Lookahead": lambda: entropix.lookahead(optax.sgd(0.1)),
    "SNOO": lambda: entropix.snoo(optax.sgd(0.1)),
    "`outer`": lambda: entropix.outer(optax.sgd(0.1), optax.sgd(0.1), num_steps=2),
}


@pytest.mark.parametrize("name", HELD)
def test_the_state_has_as_many_arrays_as_the_table_of_algorithms_says(name):
    page = (DOCS / "algorithms" / "index.md").read_text()
    (said,) = re.findall(rf"^\| \[{re.escape(name)}\].*\| (\d): [^|]*\|$", page, re.MULTILINE)
    state = jax.eval_shape(HELD[name]().init, jnp.zeros(1000))
    assert sum(leaf.size == 1000 for leaf in jax.tree.leaves(state)) == int(said)


def test_every_python_block_of_a_page_is_run():
    from test_readme import PAGES, blocks

    with_code = [page for page in sources() if blocks(page, "python")]
    assert set(with_code) <= set(PAGES)
    for page in with_code:
        for fence in re.findall(r"^ *```+ *(\S*)", page.read_text(), flags=re.MULTILINE):
            assert fence.lower() not in ("py", "python3", "pycon"), f"write python in {page}"


@pytest.mark.slow
def test_the_contract_matrix_is_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "contract_matrix.py"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == (DOCS / "contract.md").read_text()


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx_book_theme")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", DOCS, tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "api" / "generated" / "entropix.entropy_sgd.html").exists()
