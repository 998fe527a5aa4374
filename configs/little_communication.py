"""Four replicas that communicate little: loss against bytes sent, on two kinds of work.

    entropix tune    --config=little_communication --trials=9 --config.seeds=1
    entropix compare --config=little_communication
    entropix compare --config=little_communication:lenet --data_dir=FOLDER
    entropix compare --config=little_communication:diloco_10 --config.replicas=8

`language` (the default) is the model of `configs/language.py` around AdamW, 2,400 gradients of 8
windows; `lenet` is LeNet on MNIST around SGD, 4,800 gradients of 128 images. All gradients are
counted, so that each of the four replicas has a quarter of them. `data_parallel` averages every
gradient; all other runs communicate once in the K = 10 or 50 gradients of their name, but
`elastic_sgd`, and `elastic` around AdamW, which do so at every one. `averaging` is the plain mean
of the replicas' weights. `benchmarks/communication.py` counts the bytes in the compiled programs.

All constants are the best of nine trials each. With them, n = 3: `results/communication_language`
(3 to 5 minutes a run and 3 to 6 a search, on one core of an AMD EPYC, other work beside) and
`results/communication_lenet` (5 to 8 and 4 to 9).
"""

from ml_collections import ConfigDict

from entropix.experiment import make_config

REPLICAS = 4
COSINE = {"schedule": "cosine", "warmup": 0.05}
MEAN = {"algorithm": "diloco", "outer_learning_rate": 1.0, "momentum": None}
DILOCO = {"algorithm": "diloco", "outer_learning_rate": 0.7, "momentum": 0.6}


def twice(name: str, label: str, steps: str, options: dict) -> dict[str, dict]:
    """Two runs, which communicate once in 10 and once in 50 gradients."""
    return {
        f"{name}_{k}": {**options, "label": f"{label}, K = {k}", steps: k} for k in (10, 50)
    }  # fmt: skip


def with_best(runs: dict[str, dict], best: dict[str, dict]) -> dict[str, dict]:
    """The runs with what searches found for some of them."""
    return {name: {**options, **best.get(name, {})} for name, options in runs.items()}


ADAMW = {**COSINE, "weight_decay": 1e-4}
LANGUAGE = with_best(
    {
        "data_parallel": {**ADAMW, "optimizer": "adamw"},
        **twice("diloco", "DiLoCo", "num_steps", {**ADAMW, **DILOCO}),
        **twice("averaging", "mean of the weights", "num_steps", {**ADAMW, **MEAN}),
        **twice("easgd", "EASGD", "period", {**ADAMW, "algorithm": "easgd", "optimizer": "adamw"}),
        "elastic": ADAMW,
        **twice("parle", "Parle", "num_steps", {**ADAMW, "algorithm": "parle_outer"}),
    },
    {
        "data_parallel": {"learning_rate": 5.135e-3},
        "diloco_10": {"learning_rate": 7.265e-3, "outer_learning_rate": 0.3011},
        "diloco_50": {"learning_rate": 2.216e-3, "outer_learning_rate": 0.7848},
        "averaging_10": {"learning_rate": 5.135e-3},
        "averaging_50": {"learning_rate": 2.216e-3},
        "easgd_10": {"learning_rate": 7.265e-3},
        "easgd_50": {"learning_rate": 5.135e-3},
        "elastic": {"learning_rate": 1.714e-2, "gamma": 10.59},
        "parle_10": {"learning_rate": 7.265e-3, "gamma": 983.2},
        "parle_50": {"learning_rate": 5.135e-3, "gamma": 86.07},
    },
)
SGD = {**COSINE, "learning_rate": 0.1832}
# x moves by the displacement, with the authors' constants; gamma shrinks at every outer step.
PARLE = {
    **SGD, "algorithm": "parle", "inner": "nesterov", "output": "displacement", "momentum": None,
    "learning_rate": 1.0, "step_size": 0.4264, "gamma": 541.3, "gamma_end": 1.0, "rho": 1.0,
    "rho_end": 0.1,
}  # fmt: skip
LENET = with_best(
    {
        "data_parallel": SGD,
        "elastic_sgd": {**SGD, "gamma": 5.413, "scoping_rate": 0.0},
        **twice("easgd", "EASGD", "period", {**SGD, "algorithm": "easgd"}),
        **twice("diloco", "DiLoCo", "num_steps", {**SGD, **DILOCO, "optimizer": "sgd"}),
        **twice(
            "averaging", "mean of the weights", "num_steps", {**SGD, **MEAN, "optimizer": "sgd"}
        ),
        **twice("parle", "Parle", "num_steps", PARLE),
    },
    {
        "data_parallel": {"learning_rate": 0.2825},
        "diloco_10": {"learning_rate": 0.4114, "outer_learning_rate": 0.3431},
        "diloco_50": {"learning_rate": 0.08219, "outer_learning_rate": 0.6442},
        "averaging_10": {"learning_rate": 0.1751},
        "averaging_50": {"learning_rate": 0.2451},
        "parle_50": {"step_size": 0.07894, "gamma": 9950.0},
    },
)
# Where to look for learning rates.
ADAMW_RATE, SGD_RATE, SHARE = (5e-4, 2e-2), (1e-2, 1.0), (0.3, 1.0)
PULLED_RANGES = {"learning_rate": ADAMW_RATE, "gamma": (3.0, 1e3)}
PARLE_RANGES = {
    "step_size": SGD_RATE, "gamma": (10.0, 1e4), "learning_rate": (1.0, 1.0),
    "temperature": (1e-8, 1e-8),
}  # fmt: skip


def ranges(runs: dict[str, dict], rate: tuple[float, float]) -> dict[str, dict]:
    """Of the learning rate, and of what else decides how far replicas go together."""
    found: dict[str, dict] = {name: {"learning_rate": rate} for name in runs}
    for k in (10, 50):
        found[f"diloco_{k}"]["outer_learning_rate"] = SHARE
    return found


WORK = {
    "language": {
        "problem": "entropix.experiment.language:language_model",
        "arguments": {"validation_windows": 500},
        "optimizers": LANGUAGE,
        "search": {
            **ranges(LANGUAGE, ADAMW_RATE),
            "elastic": {"learning_rate": ADAMW_RATE, "gamma": (0.1, 100.0)},
            "parle_10": PULLED_RANGES,
            "parle_50": PULLED_RANGES,
        },
        "batch_size": 8,
        "gradients_per_eval": 400,
        "eval_train_examples": 100,
    },
    "lenet": {
        "dataset": "mnist",
        "model": {"name": "lenet"},
        "optimizers": LENET,
        "search": {
            **ranges(LENET, SGD_RATE),
            "elastic_sgd": {"learning_rate": SGD_RATE, "gamma": (0.1, 100.0)},
            "parle_10": PARLE_RANGES,
            "parle_50": PARLE_RANGES,
        },
        "gradients_per_eval": 800,
    },
}


def get_config(argument: str = "") -> ConfigDict:
    first, _, rest = argument.partition(",")
    work, runs = (first, rest) if first in WORK else ("language", argument)
    chosen = WORK[work]
    return make_config(
        name=f"little_communication_{work}",
        algorithms=runs or ",".join(chosen["optimizers"]),
        replicas=REPLICAS,
        seeds=3,
        num_evals=6,
        **chosen,
    )
