"""Counts that shape a program, checked before it is built."""

import operator
from typing import Any


def check_count(**values: Any) -> None:
    """Raises a ValueError unless every value, given by its name, is an integer >= 1."""
    for name, value in values.items():
        try:
            good = operator.index(value) >= 1
        except TypeError:
            good = False
        if not good:
            raise ValueError(f"{name} must be an integer >= 1; got {name}={value!r}")
