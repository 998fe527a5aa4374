"""Messages for bad input: each names the argument, its value and what is accepted."""

import operator
from typing import Any

import numpy as np


def check_positive(**values: Any) -> None:
    """Raises a ValueError unless every value, given by its name, is a finite number > 0."""
    for name, value in values.items():
        try:
            good = np.ndim(value) == 0 and 0 < float(value) < float("inf")
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(f"{name} must be a finite number > 0; got {name}={value!r}")


def check_count(**values: Any) -> None:
    """Raises a ValueError unless every value, given by its name, is an integer >= 1."""
    for name, value in values.items():
        try:
            good = operator.index(value) >= 1
        except TypeError:
            good = False
        if not good:
            raise ValueError(f"{name} must be an integer >= 1; got {name}={value!r}")
