"""A language model: the next byte of Python's standard library, by today's optimisers.

    entropix compare --config=language --workdir=runs/language

A decoder of 0.47 million parameters, 2,000 gradients of 16 windows of 96 bytes, a cosine for the
learning rate. One in ten packages of the library is the validation set. The text differs with the
version of Python, which is part of the run's identity.

The constants are starting points, and nothing has been measured with them yet: tune first, with
`entropix tune --config=language`.
"""

from ml_collections import ConfigDict

from entropix.experiment import make_config

COSINE = {"schedule": "cosine", "warmup": 0.05}
ADAM_INSIDE = {
    "inner": "adam",
    "output": "displacement",
    "learning_rate": 1.0,
    "momentum": None,
    "step_size": 2e-3,
    "num_steps": 20,
    "gamma": 0.1,
    "scoping_rate": 0.0,
}
OPTIMIZERS = {
    "adamw": {**COSINE, "learning_rate": 2e-3},
    "adamw_ema": {**COSINE, "algorithm": "adamw", "learning_rate": 2e-3, "ema": 0.99},
    "schedule_free": {"optimizer": "adamw", "learning_rate": 2e-3, "warmup": 0.05},
    "lookahead": {**COSINE, "optimizer": "adamw", "learning_rate": 2e-3, "num_steps": 5},
    "snoo": {**COSINE, "learning_rate": 2e-3, "num_steps": 25},
    "snoo_10": {**COSINE, "algorithm": "snoo", "learning_rate": 2e-3, "num_steps": 10},
    "sam": {**COSINE, "learning_rate": 0.1, "rho": 0.05},
    "entropy_sgd": {**COSINE, **ADAM_INSIDE},
    "entropy_sgd_cold": {**COSINE, **ADAM_INSIDE, "algorithm": "entropy_sgd", "temperature": 0.0},
    "hj": {**COSINE, **ADAM_INSIDE},
}
ALL = ",".join(OPTIMIZERS)


def get_config(algorithms: str = "") -> ConfigDict:
    return make_config(
        problem="entropix.experiment.language:language_model",
        optimizers=OPTIMIZERS,
        algorithms=algorithms or ALL,
        batch_size=16,
        seeds=3,
        gradients_per_eval=100,  # a whole number of every algorithm's outer steps
        num_evals=20,
        eval_train_examples=2000,
    )
