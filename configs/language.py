"""A language model: the next byte of Python's standard library, by today's optimisers.

    entropix tune    --config=language --workdir=runs/language_tune --trials=9 --config.seeds=1
    entropix compare --config=language --config.seeds=5 --workdir=runs/language
    entropix compare --config=language:batch_32 --workdir=runs/language_32

A decoder of 0.47 million parameters, 2,400 gradients of 8 windows of 96 bytes, or, with `batch_32`
in front of the runs, 600 gradients of 32: equally many bytes. Every run has a cosine for the
learning rate, after a warm-up, but `schedule_free`, which needs none. One in ten packages of the
library is the validation set. The text differs with the version of Python, which is part of the
run's identity.

The constants of all runs are the best of nine trials each. With them, `results/language` has 5
seeds of all (8 to 11 minutes a run and 5 to 7 a search on one core of an AMD EPYC, other work
beside; with Muon 13 and 8), and `results/language_32` has 3 seeds of all (3 to 4 minutes a run, 3
to 5 a search).
"""

from ml_collections import ConfigDict

from entropix.experiment import make_config

COSINE = {"schedule": "cosine", "warmup": 0.05}
# AdamW alone has this decay by Optax's default; Lookahead, SAM, Muon and schedule-free AdamW none.
INSIDE = {**COSINE, "weight_decay": 1e-4}
# One outer step in 20 gradients. The pull is a share step_size / gamma of y - x at every gradient.
PULLED = {**INSIDE, "algorithm": "outer", "num_steps": 20, "step_size": 1.0}
AVERAGED = {**PULLED, "averaging": 0.75}
# Where to look for learning rates: of AdamW, alone or inside; of Muon, whose are larger.
RATE, MUON_RATE = (5e-4, 2e-2), (1e-3, 1e-1)
OPTIMIZERS = {
    "adamw": COSINE,
    "snoo": {**INSIDE, "label": "SNOO, K = 30", "num_steps": 30},
    "muon": COSINE,
    "hj": {**PULLED, "label": "HJ's chain"},
    "entropy_sgd": {**AVERAGED, "label": "Entropy-SGD's chain"},
    "entropy_sgd_cold": {**AVERAGED, "label": "Entropy-SGD's chain, T = 0"},
    "schedule_free": {"optimizer": "adamw", "warmup": 0.05},
    "sam": {**COSINE, "optimizer": "adamw"},
    "adamw_ema": {
        **COSINE, "algorithm": "adamw", "label": "average of AdamW's weights", "ema": 0.99,
    },
    "lookahead": {**COSINE, "optimizer": "adamw"},
    "snoo_10": {**INSIDE, "algorithm": "snoo", "label": "SNOO, K = 10", "num_steps": 10},
    "muloco": {**INSIDE, "algorithm": "snoo", "label": "MuLoCo", "optimizer": "muon"},
}  # fmt: skip
# Windows in a batch -> run -> the best of nine trials.
BEST = {
    8: {
        "adamw": {"learning_rate": 2.216e-3},
        "snoo": {"learning_rate": 5.135e-3, "outer_learning_rate": 0.3791},
        "muon": {"learning_rate": 1.832e-2},
        "hj": {"learning_rate": 2.216e-3, "gamma": 897.1},
        "entropy_sgd": {"learning_rate": 5.135e-3, "gamma": 86.07, "temperature": 2.861e-8},
        "entropy_sgd_cold": {"learning_rate": 5.135e-3, "gamma": 86.07},
        "schedule_free": {"learning_rate": 7.265e-3},
        "sam": {"learning_rate": 2.216e-3, "rho": 0.03092},
        "adamw_ema": {"learning_rate": 2.216e-3},
        "lookahead": {"learning_rate": 7.265e-3},
        "snoo_10": {"learning_rate": 5.135e-3, "outer_learning_rate": 0.3791},
        "muloco": {"learning_rate": 1.832e-2, "outer_learning_rate": 0.3791},
    },
    32: {
        "adamw": {"learning_rate": 5.135e-3},
        "snoo": {"learning_rate": 5.135e-3, "outer_learning_rate": 0.3791},
        "muon": {"learning_rate": 2.825e-2},
        "hj": {"learning_rate": 5.135e-3, "gamma": 86.07},
        "entropy_sgd": {"learning_rate": 7.265e-3, "gamma": 983.2, "temperature": 3.079e-10},
        "entropy_sgd_cold": {"learning_rate": 7.265e-3, "gamma": 983.2},
        "schedule_free": {"learning_rate": 1.714e-2},
        "sam": {"learning_rate": 7.265e-3, "rho": 0.05864},
        "adamw_ema": {"learning_rate": 7.265e-3},
        "lookahead": {"learning_rate": 7.265e-3},
        "snoo_10": {"learning_rate": 7.265e-3, "outer_learning_rate": 0.3011},
        "muloco": {"learning_rate": 2.825e-2, "outer_learning_rate": 0.3011},
    },
}
SEARCH = {
    **{key: {"learning_rate": RATE} for key in OPTIMIZERS},
    "muon": {"learning_rate": MUON_RATE},
    "muloco": {"learning_rate": MUON_RATE},
    "sam": {"learning_rate": RATE, "rho": (1e-2, 0.5)},
    "entropy_sgd": {"learning_rate": RATE, "temperature": (1e-10, 1e-7)},
}
# Windows in a batch -> gradients between two of ten evaluations, whole outer steps of every run.
GRADIENTS = {8: 240, 32: 60}


def get_config(argument: str = "") -> ConfigDict:
    first, _, rest = argument.partition(",")
    batch_size, runs = (32, rest) if first == "batch_32" else (8, argument)
    return make_config(
        name="language",
        problem="entropix.experiment.language:language_model",
        arguments={"validation_windows": 500},
        optimizers={name: {**o, **BEST[batch_size][name]} for name, o in OPTIMIZERS.items()},
        algorithms=runs or ",".join(OPTIMIZERS),
        search=SEARCH,
        batch_size=batch_size,
        seeds=3,
        gradients_per_eval=GRADIENTS[batch_size],
        num_evals=10,
        eval_train_examples=100,
    )
