"""What the text of an option may be."""

import argparse
import math
import os
from collections.abc import Callable
from typing import Any

_LARGEST = 2**31 - 1  # counters are int32


def short(text: str, most: int = 80) -> str:
    """The text, or its beginning if it is longer than `most` characters, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def path(text: str) -> str:
    """A path; `~` is the user's folder."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path; got {text!r}")
    return os.path.expanduser(text)


def names(text: str) -> list[str]:
    """Names with commas between."""
    return [part.strip() for part in text.split(",")]


def count(low: int, high: int = _LARGEST) -> Callable[[str], int]:
    """A whole number from `low` to `high`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number >= {low}, at most {high}; got {short(text)!r}"
            )
        return value

    return convert


def _one(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A finite number."""
    what = "a whole number" if kind is int else "a number"

    def convert(text: str) -> Any:
        try:
            value = kind(text)
            if math.isfinite(value):
                return value
        except (ValueError, OverflowError):
            pass
        raise argparse.ArgumentTypeError(f"must be {what}; got {short(text)!r}")

    return convert


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Numbers with commas between."""
    one, what = _one(kind), "whole numbers" if kind is int else "numbers"

    def convert(text: str) -> list[Any]:
        found = []
        for part in text.split(","):
            try:
                found.append(one(part))
            except argparse.ArgumentTypeError:
                raise argparse.ArgumentTypeError(
                    f"must be {what} with commas between; got {short(part)!r}"
                ) from None
        return found

    return convert


number = _one(float)
numbers, whole_numbers = _several(float), _several(int)
