"""A user's function from text, such as "x**2/10 + sin(3*x)", without ever evaluating the text.

Python's own parser makes the syntax tree; what is not on the lists below is refused. All numbers
are floats from the start, so that 9**9**9 is an infinity and not an hour's work.
"""

import ast
import difflib
import math
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp

MAX_LENGTH = 1000
MAX_NESTING = 100
_MAX_POWER = 64  # up to here a whole exponent is multiplied out, which is exact for x < 0 too

VARIABLES = ("x", "y")
CONSTANTS: Mapping[str, float] = MappingProxyType({"pi": math.pi, "e": math.e})
FUNCTIONS: Mapping[str, tuple[Callable[..., jax.Array], int]] = MappingProxyType(
    {
        **{
            name: (getattr(jnp, name), 1)
            for name in ["sin", "cos", "tan", "exp", "log", "sqrt", "abs", "tanh", "cosh", "sinh"]
        },
        "min": (jnp.minimum, 2),
        "max": (jnp.maximum, 2),
    }
)
"""Known functions, and how many arguments they take."""

_OPERATORS: Mapping[type, Callable[..., jax.Array]] = MappingProxyType(
    {
        ast.Add: jnp.add,
        ast.Sub: jnp.subtract,
        ast.Mult: jnp.multiply,
        ast.Div: jnp.divide,
        ast.Pow: jnp.power,
        ast.USub: jnp.negative,
        ast.UAdd: jnp.positive,
    }
)
_Term = Callable[[jax.Array, jax.Array], jax.Array]


class Expression(NamedTuple):
    """A function read from text.

    Attributes:
      text: as it was given.
      ndim: 2 if y occurs in it, else 1.
      function: a JAX function of a point: a number in 1-D, an array of shape (2,) in 2-D.
    """

    text: str
    ndim: int
    function: Callable[[jax.Array], jax.Array]


def parse(text: str) -> Expression:
    """Reads a function of x, or of x and y.

    Args:
      text: numbers, x, y, pi, e, + - * / **, parentheses and the `FUNCTIONS`; at most
        `MAX_LENGTH` characters, nested at most `MAX_NESTING` deep (a sum of n terms is n deep).

    Returns:
      An `Expression`.

    Raises:
      ValueError: in one line, for anything else, with the column where it stands.

    Example:
      >>> from entropix.landscape.functions.expression import parse
      >>> f = parse("x**2/10 + sin(3*x)")
      >>> f.ndim, round(float(f.function(2.0)), 3)
      (1, 0.121)
      >>> parse("x + sni(x)")
      Traceback (most recent call last):
      ...
      ValueError: unknown function 'sni' at column 5 of the function; did you mean 'sin'?
    """
    _check_characters(text)
    stripped = text.strip()
    shift = text.index(stripped) + 1 if stripped else 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice about odd numbers
            tree = ast.parse(stripped, mode="eval")
    except SyntaxError as error:
        column = shift - 1 + max(1, min(error.offset or 1, len(stripped)))
        raise ValueError(
            f"the function cannot be read at column {column}: a product needs *, as in 2*x, a "
            "function parentheses, as in sin(x), and parentheses come in pairs"
        ) from None
    except (RecursionError, MemoryError, ValueError):
        raise ValueError(f"the function is nested deeper than {MAX_NESTING} levels") from None
    term = _Reader(shift).read(tree.body, 0)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if "y" in names:

        def of_two(point: Any) -> jax.Array:
            return term(jnp.asarray(point[0], float), jnp.asarray(point[1], float))

        return Expression(text, 2, of_two)
    return Expression(text, 1, lambda point: term(jnp.asarray(point, float), jnp.zeros([])))


def _check_characters(text: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f'the function must be text, such as "x**2"; got {text!r:.100}')
    if not text.strip():
        raise ValueError('the function is empty; write for instance "x**2/10 + sin(3*x)"')
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the function has {len(text)} characters; at most {MAX_LENGTH} are read")
    for column, character in enumerate(text, 1):
        # Python takes look-alikes from all of Unicode for letters; here only ASCII is read.
        if not " " <= character <= "~":
            raise ValueError(
                f"character {character!a} at column {column} of the function is not plain "
                "ASCII text"
            )


class _Reader(NamedTuple):
    """Turns a syntax tree into closures; `shift` makes columns those of the text."""

    shift: int

    def read(self, node: ast.AST, depth: int) -> _Term:
        if depth > MAX_NESTING:
            raise ValueError(f"the function is nested deeper than {MAX_NESTING} levels")
        if isinstance(node, ast.Constant):
            return self.number(node)
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.Call):
            return self.call(node, depth)
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _apply(_OPERATORS[type(node.op)], self.read(node.operand, depth + 1))
        if isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.BitXor):
                raise self.refusal(node, "^ is not a power here; write **")
            if isinstance(node.op, ast.Pow) and (power := _whole(node.right)) is not None:
                return _apply(lambda base: base**power, self.read(node.left, depth + 1))
            if type(node.op) in _OPERATORS:
                sides = self.read(node.left, depth + 1), self.read(node.right, depth + 1)
                return _apply(_OPERATORS[type(node.op)], *sides)
        raise self.refusal(
            node,
            "only numbers, x, y, pi, e, + - * / **, parentheses and functions "
            f"({', '.join(FUNCTIONS)}) are known",
        )

    def number(self, node: ast.Constant) -> _Term:
        if not _is_real(node.value):
            raise self.refusal(node, "only real numbers are known")
        try:
            value = float(node.value)  # of an integer of hundreds of digits, an error
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise self.refusal(node, "the number is too large")
        return lambda x, y: jnp.asarray(value)

    def name(self, node: ast.Name) -> _Term:
        if node.id in CONSTANTS:
            return lambda x, y: jnp.asarray(CONSTANTS[node.id])
        if node.id in VARIABLES:
            return (lambda x, y: x) if node.id == "x" else (lambda x, y: y)
        if node.id in FUNCTIONS:
            raise self.refusal(node, f"{node.id} is a function; write {node.id}(...)")
        raise self.unknown("name", node, (*VARIABLES, *CONSTANTS))

    def call(self, node: ast.Call, depth: int) -> _Term:
        if not isinstance(node.func, ast.Name):
            raise self.refusal(node, "only the known functions can be called; a product needs *")
        name = node.func.id
        if name in (*VARIABLES, *CONSTANTS):
            raise self.refusal(node, f"{name} is no function; a product needs *")
        if name not in FUNCTIONS:
            raise self.unknown("function", node.func, tuple(FUNCTIONS))
        function, arity = FUNCTIONS[name]
        plain = not node.keywords and not any(isinstance(a, ast.Starred) for a in node.args)
        if not plain or len(node.args) != arity:
            raise self.refusal(node, f"{name} takes {arity} argument{'s' * (arity > 1)}")
        return _apply(function, *(self.read(argument, depth + 1) for argument in node.args))

    def unknown(self, kind: str, node: ast.Name, known: tuple[str, ...]) -> ValueError:
        near = difflib.get_close_matches(node.id, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        shown = node.id if len(node.id) <= 40 else node.id[:40] + "..."
        return ValueError(f"unknown {kind} {shown!r} at {self.column(node)}; {hint}")

    def refusal(self, node: ast.AST, why: str) -> ValueError:
        return ValueError(f"the expression at {self.column(node)} cannot be taken: {why}")

    def column(self, node: ast.AST) -> str:
        return f"column {getattr(node, 'col_offset', 0) + self.shift} of the function"


def _apply(function: Callable[..., jax.Array], *terms: _Term) -> _Term:
    return lambda x, y: function(*(term(x, y) for term in terms))


def _whole(node: ast.AST) -> int | None:
    """A small whole number, perhaps with a minus, or None."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        power = _whole(node.operand)
        return None if power is None else -power
    if isinstance(node, ast.Constant) and _is_real(node.value):
        value = node.value
        if abs(value) <= _MAX_POWER and value == int(value):
            return int(value)
    return None


def _is_real(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
