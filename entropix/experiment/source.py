"""The problem that a config names."""

import importlib
import inspect
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from entropix.experiment.classification import classification
from entropix.experiment.fields import FIELDS
from entropix.experiment.problem import Problem
from entropix.transforms.checks import refusal

_log = logging.getLogger(__name__)


def load_problem(config: ConfigDict) -> Problem:
    """Loads what a config says to train.

    Args:
      config: of the experiment.

    Raises:
      ValueError: for a function that cannot be imported, or does not return a `Problem`.
    """
    if "problem" not in config:
        _log.info("loading %s", config.dataset)
        given = config.zca_regulariser
        extra = {"zca_regulariser": given} if config.dataset == "cifar10" else {}
        if not extra and given != FIELDS["zca_regulariser"]:
            _log.warning(
                "zca_regulariser=%g acts on cifar10 alone, not on %s", given, config.dataset
            )
        return classification(
            config.dataset, config.model.to_dict(), batch_size=config.batch_size,
            name=config.dataset, data_dir=config.data_dir or None, **extra,
        )  # fmt: skip
    make = import_function(config.problem)
    # As `load` reads them again from a file: with lists for tuples.
    arguments = json.loads(json.dumps(config.arguments.to_dict()))
    _log.info("making the problem of %s", config.problem)
    given = {"batch_size": config.batch_size, **arguments}
    if config.data_dir and "data_dir" in inspect.signature(make).parameters:
        given["data_dir"] = config.data_dir  # where data lie is no part of what is trained
    try:
        inspect.signature(make).bind(**given)
    except TypeError as error:
        accepted = f"what {config.problem} takes besides batch_size"
        raise refusal("arguments", accepted, arguments, f" ({error}).") from error
    problem = make(**given)
    if not isinstance(problem, Problem):
        raise ValueError(
            f"{config.problem} must return an entropix.experiment.Problem; got {problem!r}."
        )
    return problem


def import_function(path: str) -> Callable[..., Any]:
    """Imports `package.module:function`.

    Raises:
      ValueError: if there is no such function.
    """
    module, colon, name = str(path).partition(":")
    accepted = (
        "'package.module:function', found on Python's path, to which the command adds the current "
        "folder and that of its config"
    )
    if not colon or not module or not name:
        raise refusal("problem", accepted, path)
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises
        why = f" ({type(error).__name__}: {' '.join(str(error).split())})."
        if isinstance(error, ModuleNotFoundError):
            why += (
                " Put the folder of what is missing on PYTHONPATH, or install the package. "
                "(entropix landscape: --register=FILE adds that of the config.)"
            )
        elif file := getattr(sys.modules.get(module), "__file__", None):
            why += f" The module is {file}: where you mean another one, give it another name."
        raise refusal("problem", accepted, path, why) from error
    if not callable(function):
        raise refusal("problem", accepted, path)
    return function
