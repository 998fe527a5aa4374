"""The config of an experiment: one nested, overridable record, checked before work starts."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from entropix.data import check_dataset
from entropix.experiment.algorithms import ALGORITHMS
from entropix.experiment.classification import check_model
from entropix.experiment.names import check_name, check_options
from entropix.experiment.search import check_search, make_search
from entropix.replicas.layout import check_kind
from entropix.transforms.checks import MAX_COUNT, refusal

FIELDS: dict[str, Any] = {
    "data_dir": "",  # of prepared data sets; empty for the usual places
    "batch_size": 128,
    "zca_regulariser": 1e-5,  # of cifar10's whitening, added to the standard deviations
    "seeds": 3,  # runs seeds 0 ... seeds-1, all in one compiled program
    "seed_layout": "auto",  # auto | vmap | map: how seeds share the device
    "replicas": (3,),  # p of the algorithms that have replicas; several for one run with each
    "layout": "auto",  # auto | vmap | pmap | shard_map: where replicas live
    "devices": 0,  # that replicas are spread over; 0 for as many as divide p
    "replica_start": "same",  # same | different: initial parameters of a seed's replicas
    "gradients_per_eval": 480,  # gradient evaluations between two evaluations
    "num_evals": 10,
    # Shrinks the number of evaluations; what is given in fractions of the run shrinks with it.
    "length": 1.0,
    "eval_train_examples": 10_000,  # training examples in an evaluation; 0 for all
    "checkpoint_seconds": 60.0,  # between checkpoints
    "checkpoints_kept": 2,
}
_CHOICES = {
    "seed_layout": ("auto", "vmap", "map"),
    "replica_start": ("same", "different"),
}
_COUNTS = ("batch_size", "seeds", "gradients_per_eval", "num_evals", "checkpoints_kept")


def make_config(
    *,
    optimizers: Mapping[str, Mapping[str, Any]],
    dataset: str | None = None,
    model: Mapping[str, Any] | None = None,
    problem: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    algorithms: str = "",
    search: Mapping[str, Mapping[str, Any]] | None = None,
    **fields: Any,
) -> ConfigDict:
    """Makes the config of an experiment from what differs from the defaults.

    Args:
      optimizers: run -> options that differ from the defaults of its algorithm. The run's name is
        that of its algorithm in the registry, or any other one with `"algorithm": NAME` among the
        options: several settings of one algorithm then stand side by side.
      dataset: name for `entropix.data.load`.
      model: `{"name": "mlp" | "lenet" | "all_cnn", ...}` with arguments of that model.
      problem: instead of `dataset` and `model`: `"package.module:function"`, which is called with
        `arguments` and `batch_size` and returns an `entropix.experiment.Problem`.
      arguments: of that function.
      algorithms: what stands behind the colon of `--config=FILE:RUNS`: one run, which becomes
        `config.optimizer`; several, comma-separated, or none for those of `optimizers` whose
        algorithm is not beyond the paper, which become `config.optimizers`.
      search: run -> option -> (low, high), the log-uniform ranges of `entropix tune` that differ
        from the algorithm's; 0 < low <= high.
      **fields: of `entropix.experiment.config.FIELDS`.

    Returns:
      A `ConfigDict`, locked: overriding an unknown field is an error.

    Raises:
      ValueError: for an unknown algorithm, model or option, with the nearest known one.

    Example:
      >>> from entropix.experiment import make_config
      >>> config = make_config(dataset="digits", model={"name": "mlp"},
      ...                      optimizers={"hj": {"gamma": 10.0}}, algorithms="hj")
      >>> config.optimizer.gamma, config.optimizer.num_steps
      (10.0, 5)
    """
    made = {**FIELDS, **check_options("config", fields, FIELDS)}
    if problem is None:
        check_dataset(dataset or "", "dataset")
        if not isinstance(model, Mapping):
            raise refusal("model", "a dictionary, such as {'name': 'mlp'}", model)
        made |= {"dataset": dataset, "model": check_model(model)}
    else:
        made |= {"problem": problem, "arguments": dict(arguments or {})}
    optimizers = _with_algorithms(optimizers)
    named = [a.strip() for a in algorithms.split(",")]
    by_default = [n for n, o in optimizers.items() if not _beyond(o["algorithm"])]
    chosen = named if algorithms else by_default
    for name in chosen:
        check_name("algorithm", name, optimizers)
    if not chosen:
        raise refusal("optimizers", "at least one run of an algorithm", dict(optimizers))
    every = {name: _all_options(name, given) for name, given in optimizers.items()}
    ranges = make_search(every, search or {})
    made["search"] = {name: ranges[name] for name in chosen}
    if algorithms and len(chosen) == 1:
        (name,) = chosen
        made["optimizer"] = every[name] if name == every[name]["algorithm"] else (
            every[name] | {"run": name}
        )  # fmt: skip
    else:
        made["optimizers"] = {name: every[name] for name in chosen}
    return ConfigDict(made).lock()


def _with_algorithms(optimizers: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(optimizers, Mapping) or not optimizers:
        raise refusal("optimizers", "run -> options, such as {'hj': {'gamma': 1.0}}", optimizers)
    made = {}
    for name, given in optimizers.items():
        if not isinstance(given, Mapping):
            raise refusal(f"optimizers[{name!r}]", "a dictionary of options", given)
        algorithm = given.get("algorithm", name)
        check_name("algorithm", algorithm, ALGORITHMS)
        if not isinstance(name, str) or not name.isidentifier():
            raise refusal("a run", "called by a Python name, since it names a folder", name)
        made[name] = {"algorithm": algorithm, **given}
    return made


def _beyond(algorithm: str) -> bool:
    return ALGORITHMS[algorithm].beyond_the_paper


def _all_options(run: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = ALGORITHMS[given["algorithm"]].all_options
    chosen = {k: v for k, v in given.items() if k != "algorithm"}
    return {"algorithm": given["algorithm"], **known, **check_options(
        f"optimizer {run}", chosen, known
    )}  # fmt: skip


def check_fields(config: ConfigDict) -> None:
    """Raises `ValueError` for a field outside its range, before anything is loaded."""
    for field in _COUNTS:
        value = config[field]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < MAX_COUNT:
            raise _refused(field, "a whole number >= 1", value)
    for field in ("eval_train_examples", "checkpoint_seconds", "devices"):
        value = config[field]
        if not _is_number(value) or not 0 <= value < math.inf:
            raise _refused(field, "a number >= 0, finite", value)
        if field != "checkpoint_seconds" and not isinstance(value, int):
            raise _refused(field, "a whole number >= 0", value)
    if not _is_number(config.length) or not 0 < config.length <= 1:
        raise ValueError(
            f"length must be in (0, 1], a share of num_evals; got config.length={config.length}. "
            "For a longer run raise config.num_evals."
        )
    regulariser = config.zca_regulariser
    if not _is_number(regulariser) or not 0 < regulariser < math.inf:
        raise _refused("zca_regulariser", "a number > 0", regulariser)
    check_kind("layout", config.layout)
    for field, known in _CHOICES.items():
        if config[field] not in known:
            raise _refused(field, f"one of {', '.join(known)}", config[field])
    if not isinstance(config.data_dir, str):
        raise _refused("data_dir", "the path of a folder, or empty", config.data_dir)
    check_replicas(config.get("replicas", (1,)))
    check_search(config.get("search", {}))


def check_replicas(replicas: Any) -> tuple[int, ...]:
    """Returns the numbers of replicas."""
    several = replicas if isinstance(replicas, list | tuple) else (replicas,)
    good = [isinstance(p, int) and not isinstance(p, bool) and 1 <= p < 2**16 for p in several]
    if not several or not all(good) or len(set(several)) < len(several):
        raise ValueError(
            f"replicas must be numbers >= 1; got config.replicas={replicas!r}. Write 3, or "
            "'(3, 6)' for a run with each."
        )
    return tuple(several)


def num_evals(config: ConfigDict) -> int:
    """Evaluations of a run, `length` taken into account."""
    return max(1, round(config.length * config.num_evals))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(field: str, accepted: str, value: Any) -> ValueError:
    return ValueError(f"{field} must be {accepted}; got config.{field}={value!r}.")
