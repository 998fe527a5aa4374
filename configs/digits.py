"""Digits: the paper's five algorithms on scikit-learn's handwritten digits, without a download."""

from ml_collections import ConfigDict

from entropix.training import experiment

OPTIMIZERS = {
    "sgd": {"learning_rate": 0.0373},
    "entropy_sgd": {"learning_rate": 2.06, "gamma": 0.355},
    "hj": {"learning_rate": 0.297, "gamma": 0.31},
    "heat": {"learning_rate": 1.33, "gamma": 0.0378},
    "elastic_sgd": {"learning_rate": 0.16, "gamma": 14.0, "replicas": 3},
}


def get_config(algorithms: str = "") -> ConfigDict:
    return experiment(
        dataset="digits",
        model={"name": "mlp", "widths": (128, 128), "input_dropout": 0.1, "dropout": 0.25},
        optimizers=OPTIMIZERS,
        algorithms=algorithms,
        seeds=5,
        gradients_per_eval=60,
        num_evals=40,
    )
