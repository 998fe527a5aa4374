"""What an experiment is: one nested config, its defaults, and the checks before work starts."""

from typing import Any

from ml_collections import ConfigDict

from entropix.data import check_dataset
from entropix.replicas.layout import check_kind
from entropix.training.names import check_name, check_options
from entropix.training.search import check_search, make_search

# What every algorithm's optimiser takes: eta and its drops, momentum, and how gradients are spent.
_COMMON = {
    "learning_rate": 0.1,
    "momentum": 0.9,
    "drop_at": (),  # effective epochs at which the learning rate is divided ...
    "drop_factor": 5.0,  # ... by this
}
_RELAXED = {"gamma": 1.0, "scoping_rate": 1e-3, "gamma_end": 0.0}
_INNER = {"step_size": 0.1, "inner": "identity", "output": "gradient"}

DEFAULTS = {
    "sgd": _COMMON,
    "entropy_sgd": {
        **_COMMON,
        **_RELAXED,
        **_INNER,
        "num_steps": 20,
        "averaging": 0.75,
        "temperature": 1e-8,
        "noise": "normal",
    },
    "hj": {**_COMMON, **_RELAXED, **_INNER, "num_steps": 5, "form": "proximal"},
    "heat": {**_COMMON, **_RELAXED, "num_steps": 20, "temperature": 1e-4, "noise": "normal"},
    "elastic_sgd": {**_COMMON, **_RELAXED, "period": 1},
    "parle": {
        **_COMMON,
        **_RELAXED,
        **_INNER,
        "num_steps": 20,
        "averaging": 0.75,
        "temperature": 1e-8,
        "noise": "normal",
        "rho": 1.0,  # of the coupling; scoped like gamma
        "rho_end": 0.0,
        "period": 1,
    },
}
# Algorithms that are run with each p of `config.replicas`.
REPLICATED = ("elastic_sgd", "parle")
BEYOND_THE_PAPER = ("parle",)  # in a comparison only if named

_CHOICES = {
    "seed_layout": ("auto", "vmap", "map"),
    "replica_start": ("same", "different"),
}

MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (1024, 1024), "input_dropout": 0.2, "dropout": 0.5},
    "lenet": {"dropout": 0.5},
    "all_cnn": {"input_dropout": 0.2, "dropout": 0.5},
}


def experiment(
    *,
    dataset: str,
    model: dict,
    optimizers: dict[str, dict],
    algorithms: str = "",
    search: dict[str, dict] | None = None,
    **options: object,
) -> ConfigDict:
    """Makes the config of an experiment from what differs from the defaults.

    Args:
      dataset: name for `entropix.data.load`.
      model: `{"name": "mlp" | "lenet" | "all_cnn", ...}` with arguments of that model.
      optimizers: algorithm -> options that differ from the defaults (`DEFAULTS`).
      algorithms: what stands behind the colon of `--config=FILE:ALGORITHMS`: one algorithm, which
        becomes `config.optimizer`; several, comma-separated, or none for those of `optimizers`
        that are the paper's, which become `config.optimizers`.
      search: algorithm -> option -> (low, high), the log-uniform ranges of `entropix tune` that
        differ from the defaults (`entropix.training.search.RANGES`); 0 < low <= high.
      **options: other fields: `batch_size`, `seeds`, `num_evals`, `gradients_per_eval`, `length`,
        `replicas`, `layout`, `devices`, `replica_start`,
        `eval_train_examples`, `seed_layout`, `checkpoint_seconds`, `checkpoints_kept`, `data_dir`.

    Returns:
      A `ConfigDict`, locked: overriding an unknown field is an error.

    Raises:
      ValueError: for an unknown algorithm, model or option, with the nearest known one.

    Example:
      >>> from entropix.training.config import experiment
      >>> config = experiment(dataset="digits", model={"name": "mlp"},
      ...                     optimizers={"hj": {"gamma": 10.0}}, algorithms="hj")
      >>> config.optimizer.gamma, config.optimizer.num_steps
      (10.0, 5)
    """
    fields = {
        "dataset": dataset,
        "data_dir": "",  # of prepared data sets; empty for the usual places
        "batch_size": 128,
        "seeds": 3,  # runs seeds 0 ... seeds-1, all in one compiled program
        "seed_layout": "auto",  # auto | vmap | map: how seeds share the device
        "replicas": (3,),  # p of the algorithms that have replicas; several for one run with each
        "layout": "auto",  # auto | vmap | pmap | shard_map: where replicas live
        "devices": 0,  # that replicas are spread over; 0 for as many as divide p
        "replica_start": "same",  # same | different: initial parameters of a seed's replicas
        "gradients_per_eval": 480,  # gradient evaluations between two evaluations
        "num_evals": 10,
        # Shrinks evaluations (to a whole number), drops and scoping alike: the run in less time.
        "length": 1.0,
        "eval_train_examples": 10_000,  # training examples in an evaluation; 0 for all
        "checkpoint_seconds": 60.0,  # between checkpoints
        "checkpoints_kept": 2,
    }
    check_dataset(dataset)
    fields.update(check_options("config", options, fields))
    name = str(model.get("name"))
    check_name("model", name, MODEL_DEFAULTS)
    allowed = {"name": name, **MODEL_DEFAULTS[name]}
    fields["model"] = allowed | check_options(f"model {name}", model, allowed)
    named = [a.strip() for a in algorithms.split(",")]
    chosen = named if algorithms else [a for a in optimizers if a not in BEYOND_THE_PAPER]
    for algorithm in chosen:
        check_name("algorithm", algorithm, optimizers)
    built = {a: {"algorithm": a} | DEFAULTS[a] | optimizers[a] for a in chosen}
    for algorithm, given in optimizers.items():
        check_name("algorithm", algorithm, DEFAULTS)
        check_options(f"optimizer {algorithm}", given, DEFAULTS[algorithm])
    ranges = make_search({a: DEFAULTS[a] | optimizers[a] for a in optimizers}, search or {})
    fields["search"] = {a: ranges[a] for a in chosen}
    if algorithms and len(chosen) == 1:
        fields["optimizer"] = built[chosen[0]]
    else:
        fields["optimizers"] = built
    return ConfigDict(fields).lock()


def runs(config: ConfigDict) -> dict[str, ConfigDict]:
    """Splits a config into one config with an `optimizer` for each run, without `search`.

    An algorithm with replicas has one run for each p of `config.replicas`, and its `optimizer` the
    field `replicas`. A run is named after its algorithm, and its p if there are several. The
    config of a single run comes back as it is.
    """
    if "replicas" not in config:
        return {config.optimizer.algorithm: config}
    left_out = ("optimizer", "optimizers", "search", "replicas")
    shared = {k: v for k, v in config.items() if k not in left_out}
    if "optimizer" in config:
        optimizers = {config.optimizer.algorithm: config.optimizer}
    else:  # in the paper's order; a ConfigDict sorts its keys
        optimizers = {a: config.optimizers[a] for a in DEFAULTS if a in config.optimizers}
    single = {}
    for name, optimizer in optimizers.items():
        several = name in REPLICATED and len(config.replicas) > 1
        for p in config.replicas if name in REPLICATED else (None,):
            own = optimizer.to_dict() | ({} if p is None else {"replicas": p})
            single[f"{name}_p{p}" if several else name] = ConfigDict(
                {**shared, "optimizer": own}
            ).lock()
    return single


def cycle(optimizer: ConfigDict) -> int:
    """Gradient evaluations per outer step, over all replicas: L p."""
    return optimizer.get("num_steps", 1) * optimizer.get("replicas", 1)


def num_evals(config: ConfigDict) -> int:
    """Evaluations of a run, `length` taken into account."""
    return max(1, round(config.length * config.num_evals))


def check_config(config: ConfigDict) -> None:
    """Raises `ValueError` for what would only fail, or be unfair, after work has started."""
    check_dataset(config.dataset)
    for field in ("batch_size", "seeds", "gradients_per_eval", "num_evals", "checkpoints_kept"):
        if config[field] < 1:
            raise ValueError(f"{field} must be >= 1; got config.{field}={config[field]}.")
    for field in ("eval_train_examples", "checkpoint_seconds"):
        if not 0 <= config[field] < float("inf"):
            raise ValueError(
                f"{field} must be >= 0 and finite; got config.{field}={config[field]}."
            )
    if not 0 < config.length <= 1:
        raise ValueError(
            f"length must be in (0, 1], a share of num_evals; got config.length={config.length}. "
            "For a longer run raise config.num_evals."
        )
    replicas = config.get("replicas", (1,))
    if not replicas or not all(isinstance(p, int) and p >= 1 for p in replicas):
        raise ValueError(
            f"replicas must be numbers >= 1; got config.replicas={replicas!r}. Write 3, or "
            "'(3, 6)' for a run with each."
        )
    if config.devices < 0:
        raise ValueError(f"devices must be >= 0; got config.devices={config.devices}.")
    check_kind("layout", config.layout)
    for field, known in _CHOICES.items():
        if config[field] not in known:
            raise ValueError(
                f"{field} must be one of {', '.join(known)}; got config.{field}={config[field]!r}."
            )
    check_search(config.get("search", {}))
    from entropix.training.algorithm import make_algorithm  # it reads configs itself

    for algorithm, run in runs(config).items():
        make_algorithm(run.optimizer, 1.0, length=config.length)
        steps = cycle(run.optimizer)
        if steps < 1 or config.gradients_per_eval % steps:
            raise ValueError(
                f"gradients_per_eval must be a multiple of the {steps} gradients of one outer step "
                f"of {algorithm} (num_steps x replicas), so that all algorithms are evaluated "
                f"after equally many; got config.gradients_per_eval={config.gradients_per_eval}."
            )
