"""The config of an experiment: one nested, overridable record."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from entropix.data import check_dataset
from entropix.experiment.algorithms import ALGORITHMS
from entropix.experiment.classification import check_model
from entropix.experiment.fields import ABOUT_A_RUN, FIELDS, check_arguments
from entropix.experiment.names import (
    MOST_OF_A_NAME,
    check_name,
    check_options,
    check_run_name,
    is_short,
)
from entropix.experiment.options import plain_numbers
from entropix.experiment.search import make_search
from entropix.transforms.checks import refusal

_LONGEST = "_p65535"  # what a number of replicas adds to the name of a run, at most


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
        options: several settings of one algorithm then stand side by side. `"label": WORDS` is
        what tables and figures call the run, by default its algorithm and what differs.
      dataset: name for `entropix.data.load`.
      model: `{"name": "mlp" | "lenet" | "all_cnn", ...}` with arguments of that model.
      problem: instead of `dataset` and `model`: `"package.module:function"`, which is called with
        `arguments` and `batch_size` and returns an `entropix.experiment.Problem`.
      arguments: of that function.
      algorithms: what stands behind the colon of `--config=FILE:RUNS`: one run, which becomes
        `config.optimizer`; several, comma-separated, or none for those of `optimizers` whose
        algorithm is not beyond the paper, or all if there is none of those, which become
        `config.optimizers`.
      search: run -> option -> (low, high), the log-uniform ranges of `entropix tune` that differ
        from the algorithm's; 0 < low <= high.
      **fields: of `entropix.experiment.fields.FIELDS`.

    Returns:
      A `ConfigDict`, locked: overriding an unknown field is an error.

    Raises:
      ValueError: for an unknown algorithm, model or option, with the known ones.

    Example:
      >>> from entropix.experiment import make_config
      >>> config = make_config(dataset="digits", model={"name": "mlp"},
      ...                      optimizers={"hj": {"gamma": 10.0}}, algorithms="hj")
      >>> config.optimizer.gamma, config.optimizer.num_steps
      (10.0, 5)
    """
    optimizers, model, arguments, search, fields = (
        plain_numbers(part) for part in (optimizers, model, arguments, search, fields)
    )
    made = {**FIELDS, **check_options("config", fields, FIELDS)}
    if problem is None:
        check_dataset("" if dataset is None else dataset, "dataset")
        if not isinstance(model, Mapping):
            raise refusal("model", "a dictionary, such as {'name': 'mlp'}", model)
        made |= {"dataset": dataset, "model": check_model(model)}
    else:
        if dataset is not None or model is not None:
            accepted = "given alone: without dataset and model"
            raise refusal("problem", accepted, problem)
        arguments = {} if arguments is None else arguments
        check_arguments(arguments)
        made |= {"problem": problem, "arguments": dict(arguments)}
    optimizers = _with_algorithms(optimizers)
    if not isinstance(algorithms, str):
        raise refusal("algorithms", "names of runs with commas between, or empty", algorithms)
    named = [a.strip() for a in algorithms.split(",")]
    by_default = [n for n, o in optimizers.items() if not _beyond(o["algorithm"])]
    chosen = named if algorithms else by_default or list(optimizers)
    for name in chosen:
        check_name("algorithm", name, optimizers)
    if not chosen:
        raise refusal("optimizers", "at least one run of an algorithm", dict(optimizers))
    every = {name: _all_options(name, given) for name, given in optimizers.items()}
    ranges = make_search(every, {} if search is None else search)
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
        if not isinstance(name, str) or not name.isidentifier() or not is_short(name + _LONGEST):
            most = MOST_OF_A_NAME - len(_LONGEST)
            accepted = f"called by a Python name of at most {most} bytes, since it names a folder"
            raise refusal("a run", accepted, name)
        check_run_name(name)
        made[name] = {"algorithm": algorithm, **given}
    return made


def _beyond(algorithm: str) -> bool:
    return ALGORITHMS[algorithm].beyond_the_paper


def _all_options(run: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = ALGORITHMS[given["algorithm"]].all_options
    about = {key: given[key] for key in ABOUT_A_RUN if key in given}
    chosen = {key: value for key, value in given.items() if key not in about}
    return about | known | check_options(f"optimizer {run}", chosen, known)
