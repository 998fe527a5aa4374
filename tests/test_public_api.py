"""The package uses what JAX promises: no private modules, nothing of its programs' insides."""

import ast
import importlib
import pathlib

import jax.extend.core.primitives
import pytest

import entropix
import entropix.models

PACKAGE = pathlib.Path(entropix.__file__).parent
# Modules of JAX for taking its programs apart, which change with its releases.
INSIDES = ("jax.core", "jax.extend", "jax.interpreters", "jax.lib")
ALLOWED = {"jax.core.Tracer"}  # in JAX's reference, to ask whether a value is known yet
# What code that reads JAX's programs would name: attributes, parameters of control flow, and
# primitives (but for words such as `add`, and functions of ours that are called like one).
ATTRIBUTES = {"primitive", "eqns", "invars", "outvars", "constvars", "jaxpr", "effects"}
PARAMETERS = {"num_consts", "num_carry", "cond_nconsts", "body_nconsts", "branches", "call_jaxpr"}
PRIMITIVES = {
    value.name
    for value in vars(jax.extend.core.primitives).values()
    if isinstance(value, jax.extend.core.Primitive) and "_" in value.name
} - set(entropix.models.__all__)


def forbidden(module: str) -> bool:
    """Whether a dotted name is of a private module, or of JAX's insides."""
    if module in ALLOWED or module.startswith("entropix"):
        return False
    private = any(part.startswith("_") and part != "__future__" for part in module.split("."))
    return private or any(module == m or module.startswith(m + ".") for m in INSIDES)


def names(node: ast.AST) -> list[str]:
    """The dotted names that an import, or an attribute of `jax`, asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Attribute) and (name := ast.unparse(node)).startswith("jax."):
        return [] if any(a.startswith(name + ".") for a in ALLOWED) else [name]
    return []


def faults(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        wrong = [name for name in names(node) if forbidden(name)]
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            wrong.append(f".{node.attr}")
        if isinstance(node, ast.Constant) and node.value in PARAMETERS | PRIMITIVES:
            wrong.append(repr(node.value))
        found += [f"line {node.lineno}: {what}" for what in wrong]
    return found


def test_the_package_uses_the_public_api_alone():
    found = {str(path): faults(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert len(found) > 50
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from jax._src import core",
        "from jax._src.core import Tracer",
        "import jax._src.lax as lax",
        "import jax.extend.core as jex",
        "from jax.extend import core",
        "from jax import core",
        "import jax\njax.interpreters.batching",
        "import jax\njax.core.ShapedArray",
        "def f(eqn): return eqn.primitive.name",
        "def f(params): return params['num_consts']",
        "names = {'dot_general'}",
        "from optax._src import base",
    ],
)
def test_any_other_use_is_found(source):
    assert faults(source) != []


def test_what_is_allowed_is_there():
    for name in ALLOWED:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute)


def test_rooms_are_listed_before_they_are_imported(monkeypatch):
    monkeypatch.delitem(vars(entropix), "pde", raising=False)
    assert "pde" in dir(entropix)
    assert "sgd" in dir(entropix)
