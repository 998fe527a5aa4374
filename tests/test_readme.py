"""The README and the pages: their code runs, and CI runs the README's own test command."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
MADE = ("gathered", "generated", "_build")  # what Sphinx copies or makes
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if not set(p.parts) & set(MADE)),
]


def name(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def blocks(page: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


# Its program waits for another process; `tests/replicas/test_processes.py` runs both.
ALONE = [page for page in PAGES if blocks(page, "python") and page.stem != "processes"]


@pytest.mark.parametrize("page", ALONE, ids=name)
def test_python_blocks_run(page: pathlib.Path):
    if page.stem == "recipes":
        pytest.importorskip("equinox")
        pytest.importorskip("haiku")
    code = "\n".join(blocks(page, "python"))
    before = jax.config.jax_enable_x64  # a page may change it for all that it runs
    try:
        exec(compile(code, str(page), "exec"), {})
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_readme_runs_on_several_devices(devices: int):
    """With two devices its four replicas have a pair of axes."""
    code = "\n".join(blocks(ROOT / "README.md", "python")) + "\nprint(layout.per_device)"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(4 // devices)


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = (
        block.strip() for block in blocks(ROOT / "README.md", "bash") if "pytest" in block
    )
    assert f'test_command="{command}"' in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_local_links_exist(page: pathlib.Path):
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []
