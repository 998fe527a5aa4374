"""How many cases a rehearsal of faults has, and the words for what becomes of each of them.

The variable FAULTS_SHARE is the share of the full count that is run: `FAULTS_SHARE=0.02 pytest -m
slow tests/faults` is a quick rehearsal by the same code.
"""

import os
import pathlib
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import entropix

SHARE = float(os.environ.get("FAULTS_SHARE", "1"))
PACKAGE = pathlib.Path(entropix.__file__).parent

WELL, REFUSED, FOREIGN, WRONG = "well", "refused", "foreign", "wrong"


class Case(NamedTuple):
    """What became of one case.

    Attributes:
      end: `WELL`, the result is that of a run without a fault; `REFUSED`, one line of the package
        says what is wrong; `FOREIGN`, somebody else's error; `WRONG`, anything else.
      told: the case and what was seen, for whoever has to mend it.
    """

    end: str
    told: str = ""


def cases(full: int, least: int = 1) -> int:
    """How many of `full` cases to run, at least `least`."""
    return max(least, round(full * SHARE))


def spread(pool: list, count: int) -> Iterator:
    """`count` entries of a list, evenly spread; all of them if it has no more."""
    if count >= len(pool):
        yield from pool
        return
    yield from (pool[int((k + 0.5) * len(pool) / count)] for k in range(count))


def judge(told: str, act: Callable[[], object], check: Callable[[], None]) -> Case:
    """Runs one case: `act` is what a user does, `check` asserts that the result is right.

    Warnings must be the package's, about a checkpoint; a result that is not the expected one is
    named if there was one.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        case = _judged(told, act, check)
    texts = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    if not all(text.startswith("the checkpoint of outer step") for text in texts):
        return Case(FOREIGN, f"{told}: {texts}")
    return Case(REFUSED, texts[0]) if case.end == WRONG and texts else case


def _judged(told: str, act: Callable[[], object], check: Callable[[], None]) -> Case:
    try:
        act()
    except (ValueError, OSError, FloatingPointError) as error:
        if is_named(error):
            return Case(REFUSED, f"{told}: {error}")
        return Case(FOREIGN, f"{told}: {error!r}")
    except Exception as error:
        return Case(FOREIGN, f"{told}: {error!r}")
    try:
        check()
    except AssertionError as error:
        return Case(WRONG, f"{told}: {error}")
    return Case(WELL)


def is_named(error: BaseException) -> bool:
    """Whether an error is the package's: raised there, in one line that is a sentence."""
    where = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    text = str(error)
    return where.is_relative_to(PACKAGE) and "\n" not in text and text.endswith((".", ")"))


def drawn(well: int, refused: int, faults: list[str]) -> list[Case]:
    """The cases of a generator that counts what is no fault and describes what is one."""
    ends = [Case(WELL)] * well + [Case(REFUSED)] * refused
    return ends + [Case(FOREIGN if "foreign" in text[:10] else WRONG, text) for text in faults]
