"""The paths of modules that have moved, which still answer."""

import importlib
import sys
import types
from typing import Any

MOVED = {
    **{
        name: f"entropix.landscape.functions.{name}"
        for name in ("estimators", "expression", "relaxations", "saved", "table")
    },
    **{
        name: f"entropix.pde.stochastic.{name}"
        for name in (
            "annealing", "control", "escape", "exchange", "fokker_planck", "homogenisation", "sde",
            "stepping",
        )
    },
}  # fmt: skip
"""Former module of `entropix.pde`: where it stands today."""


def answer_former_paths() -> None:
    """Makes `entropix.pde.NAME` importable for every moved module.

    Each former path holds an empty module, which imports the moved one when a name is asked for.
    So `entropix.pde` imports nothing of the rooms above.
    """
    for name, target in MOVED.items():
        former = f"{__package__}.{name}"
        sys.modules.setdefault(former, _Moved(former, target))


class _Moved(types.ModuleType):
    """A module that hands every name on to another module."""

    def __init__(self, former: str, target: str) -> None:
        super().__init__(former, f"Moved to `{target}`.")
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what tools ask every loaded module for
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(self._target), name)
