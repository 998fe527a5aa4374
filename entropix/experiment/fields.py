"""The fields of a config, and what each may be: checked before anything is loaded."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from entropix.data import CATALOGUE, check_dataset
from entropix.experiment.algorithms import ALGORITHMS
from entropix.experiment.classification import check_model
from entropix.experiment.names import check_name
from entropix.experiment.options import plain_number
from entropix.experiment.search import check_search
from entropix.experiment.settings import CHOICES, Settings, check_fractions
from entropix.replicas.layout import check_kind
from entropix.transforms.checks import MAX_COUNT, shown

FIELDS: dict[str, Any] = {
    "name": "",  # of the experiment: its folder in runs/; empty for that of the config's file
    "data_dir": "",  # of prepared data sets; empty for the usual places
    "batch_size": 128,
    "zca_regulariser": 1e-5,  # of cifar10's whitening, added to the standard deviations
    "seeds": 3,  # runs seeds 0 ... seeds-1, all in one compiled program
    "replicas": (3,),  # p of the algorithms that have replicas; several for one run with each
    "gradients_per_eval": 480,  # gradient evaluations between two evaluations
    "num_evals": 10,
    # Shrinks the number of evaluations; what is given in fractions of the run shrinks with it.
    "length": 1.0,
    **{field.name: field.default for field in dataclasses.fields(Settings)},  # explained there
}
# What a config says of a run beside the options of its algorithm.
ABOUT_A_RUN = "algorithm", "label"
# (low, high): low <= n < high. Searches have seeds of their own, from 10,000 on.
_COUNTS = {
    "batch_size": (1, MAX_COUNT),
    "seeds": (1, 10_000),
    "gradients_per_eval": (1, MAX_COUNT),
    "num_evals": (1, MAX_COUNT),
    "checkpoints_kept": (1, MAX_COUNT),
    "eval_train_examples": (0, MAX_COUNT),
    "flatness_examples": (1, MAX_COUNT),
    "devices": (0, 2**16),
}


def check_fields(config: ConfigDict) -> None:
    """Raises `ValueError` for a field outside its range, in one line that names it."""
    _check_complete(config)
    for field, (low, high) in _COUNTS.items():
        value = config[field]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < high:
            raise refused(field, f"a whole number >= {low} and < {high}", value)
    gradients = config.gradients_per_eval * config.num_evals
    if gradients >= MAX_COUNT:
        raise ValueError(
            "num_evals x gradients_per_eval, the gradients of a run, must be below 2**31; got "
            f"config.num_evals={config.num_evals} and config.gradients_per_eval="
            f"{config.gradients_per_eval}."
        )
    if not _is_number(config.checkpoint_seconds) or not 0 <= config.checkpoint_seconds < math.inf:
        raise refused("checkpoint_seconds", "a number >= 0, finite", config.checkpoint_seconds)
    if not _is_number(config.length) or not 0 < config.length <= 1:
        raise ValueError(
            "length must be in (0, 1], a share of num_evals; got config.length="
            f"{shown(config.length)}. For a longer run raise config.num_evals."
        )
    regulariser = config.zca_regulariser
    if not _is_number(regulariser) or not 1e-30 < regulariser < 1e30:
        raise refused("zca_regulariser", "a number > 0, finite", regulariser)
    check_kind("layout", config.layout)
    for field, known in CHOICES.items():
        if not isinstance(config[field], str) or config[field] not in known:
            raise refused(field, f"one of {', '.join(known)}", config[field])
    if not isinstance(config.data_dir, str) or "\0" in config.data_dir:
        raise refused("data_dir", "the path of a folder, or empty", config.data_dir)
    if not isinstance(config.name, str) or not re.fullmatch(r"(\w[\w.-]*)?", config.name):
        raise refused("name", "letters, digits, _, - and ., as in a folder's name", config.name)
    check_replicas(config.replicas, "config.replicas")
    check_fractions("flatness_at", config.flatness_at)
    check_search(_plain(config.search, "search"), "config.search")
    _check_problem(config)
    _check_options(config)


def _check_complete(config: ConfigDict) -> None:
    """All fields are there, as `make_config` leaves them."""
    what = ("problem", "arguments") if "problem" in config else ("dataset", "model")
    runs = "optimizer" if "optimizer" in config else "optimizers"
    missing = [field for field in (*FIELDS, *what, runs, "search") if field not in config]
    if missing:
        raise ValueError(
            f"the config has no field {missing[0]!r}. Make it with "
            "entropix.experiment.make_config, which knows all fields."
        )


def _check_problem(config: ConfigDict) -> None:
    """What is trained: a data set and a network that fit, or a function and its arguments."""
    if "problem" in config:
        if not isinstance(config.problem, str) or not re.fullmatch(r"[\w.]+:\w+", config.problem):
            raise refused("problem", "'package.module:function'", config.problem)
        check_arguments(config.arguments)
        return
    check_dataset(config.dataset, "dataset")
    model = check_model(_plain(config.model, "model"))
    if config.dataset not in CATALOGUE:
        return
    entry, classes = CATALOGUE[config.dataset], model["num_classes"]
    if classes is not None and classes < entry.num_classes:
        raise refused("model.num_classes", f"None, or at least {entry.num_classes}", classes)


def check_arguments(arguments: Any) -> None:
    """Raises `ValueError` unless a problem's arguments are what JSON can say."""
    plain = _plain(arguments, "arguments")
    try:
        json.dumps(plain)
    except (TypeError, ValueError, RecursionError) as error:
        accepted = "numbers, strings, lists and dictionaries, which results are stored with"
        raise refused("arguments", accepted, plain) from error


def _check_options(config: ConfigDict) -> None:
    """Every run has the options of its algorithm, no more and no less."""
    single = "optimizer" in config
    given = {"": config.optimizer} if single else _plain(config.optimizers, "optimizers")
    for run, options in given.items():
        field = "optimizer" if single else f"optimizers.{run}"
        options = _plain(options, field)
        algorithm = options.pop("algorithm", None)
        name = options.pop("run", algorithm) if single else run
        check_name(f"algorithm of config.{field}", algorithm, ALGORITHMS)
        if "label" in options:
            _check_label(f"{field}.label", options.pop("label"))
        known = set(ALGORITHMS[algorithm].all_options)
        if known != set(options) or name not in config.search:
            raise ValueError(
                f"config.{field}.algorithm={algorithm!r} does not fit the other options there, "
                "which are those of another algorithm. An algorithm cannot be overridden: choose "
                "another run behind the colon of --config, or change the config's file."
            )


def _check_label(field: str, label: Any) -> None:
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        raise refused(field, "some words in one line", label)


def check_replicas(replicas: Any, name: str = "replicas") -> tuple[int, ...]:
    """Returns the numbers of replicas; `name` is what messages call them."""
    given = replicas if isinstance(replicas, list | tuple) else (replicas,)
    several = tuple(map(plain_number, given))
    good = [isinstance(p, int) and not isinstance(p, bool) and 1 <= p < 2**16 for p in several]
    if not several or not all(good) or len(set(several)) < len(several):
        raise ValueError(
            f"replicas must be numbers >= 1 and < {2**16}, each once; got {name}="
            f"{shown(replicas)}. Write 3, or (3, 6) for a run with each."
        )
    return several


def refused(field: str, accepted: str, value: Any) -> ValueError:
    """The error for a field, in one line."""
    return ValueError(f"{field} must be {accepted}; got config.{field}={shown(value)}.")


def _plain(value: Any, field: str) -> dict[str, Any]:
    """A group of fields as a dictionary."""
    if isinstance(value, ConfigDict):
        return dict(value.to_dict())
    if isinstance(value, Mapping):
        return dict(value)
    raise refused(field, "a dictionary", value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
