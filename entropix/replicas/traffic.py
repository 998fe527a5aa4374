"""What a compiled program communicates, counted from the collectives in its HLO text."""

import re
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(
    r" = (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"\b(?:pred|bf16|[a-z]+(\d+))\[([\d,]*)\]")
_CALLED = re.compile(r"(calls|to_apply|body|condition|(?:true|false)_computation)=%([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Traffic(NamedTuple):
    """Bytes that one device hands to collectives in one execution.

    Attributes:
      always: outside of conditionals, at every execution.
      sometimes: inside branches of conditionals, only where the branch is taken.
    """

    always: int
    sometimes: int


def traffic(hlo: str) -> Traffic:
    """Counts the bytes of all collectives, those of loops and branches included.

    Raises:
      ValueError: for a collective in a loop of unknown length.
    """
    bodies, entry = _computations(hlo)
    counted = {False: 0, True: 0}

    def visit(name: str, times: int | None, conditional: bool) -> None:
        for line in bodies[name]:
            if found := _COLLECTIVE.search(line):
                if times is None:
                    raise ValueError(f"A collective in a loop of unknown length: {line}")
                counted[conditional] += times * _bytes(found[1])
            trips = _TRIPS.search(line)
            length = int(trips[1]) if trips else None
            for role, called in _CALLED.findall(line):
                repeat = length if role in ("body", "condition") else 1
                inside = None if times is None or repeat is None else times * repeat
                visit(called, inside, conditional or role.endswith("_computation"))
            for branches in _BRANCHES.findall(line):
                for called in re.findall(r"%([\w.-]+)", branches):
                    visit(called, times, True)

    visit(entry, 1, False)
    return Traffic(counted[False], counted[True])


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            name = header[2]
            bodies[name] = []
            entry = name if header[1] else entry
        elif line.startswith("  ") and name:
            bodies[name].append(line)
    return bodies, entry


def _bytes(shape: str) -> int:
    """Bytes of an array's or a tuple's type, such as `(f32[2,3]{1,0}, bf16[7]{0})`."""
    total = 0
    for found in _SHAPE.finditer(shape):
        bits = 16 if found[0].startswith("bf16") else int(found[1] or 8)
        size = bits // 8
        for length in filter(None, found[2].split(",")):
            size *= int(length)
        total += size
    return total
