"""MNIST, convolutional: the paper's `LeNet` row of Table 1, on five algorithms.

    entropix compare --config=configs/mnist_lenet.py --data_dir=FOLDER --workdir=runs/mnist_lenet

One algorithm alone: `entropix train --config=configs/mnist_lenet.py:hj`. The paper's length is 80
effective epochs; `--config.num_evals=20` stops after 20, before any drop of the learning rate.
"""

from ml_collections import ConfigDict

from entropix.training import experiment

# Entropy-SGD's values are those of its authors' code, which moves x by the displacement x - <y>,
# runs Nesterov's momentum in the inner loop and lets the pull 1/gamma grow from 1e-4. HJ shares
# them. gamma shrinks by a thousandth at every outer step: it halves in 30 effective epochs at L =
# 20 and in 7 at L = 5. Its end, and the scope of Elastic-SGD's coupling, are Parle's.
RELAXED = {
    "learning_rate": 0.1,  # the authors' 1, times 1 - 0.9: with momentum, 1 diverges on LeNet
    "drop_at": (40, 60),  # effective epochs: two and three outer ones at L = 20
    "drop_factor": 10.0,
    "gamma": 1e4,
    "gamma_end": 1.0,
    "inner": "nesterov",
    "output": "displacement",
}
PLAIN = {"learning_rate": 0.1, "drop_at": (30, 60), "drop_factor": 5.0}
OPTIMIZERS = {
    "sgd": PLAIN,
    "entropy_sgd": RELAXED,
    "hj": RELAXED,
    "heat": {**PLAIN, "gamma": 1.0},
    "elastic_sgd": {**PLAIN, "gamma": 1.0, "gamma_end": 0.1, "replicas": 3},
}

# Where `entropix tune` looks: eta of a displacement is stable below 1 at most, and a gamma below
# its end would be raised to it.
DISPLACED = {"learning_rate": (1e-2, 1.0), "gamma": (1.0, 1e5)}
SEARCH = {
    "sgd": {"learning_rate": (1e-2, 1.0)},
    "entropy_sgd": DISPLACED,
    "hj": DISPLACED,
    "heat": {"learning_rate": (1e-2, 3.0), "gamma": (0.1, 10.0), "temperature": (1e-6, 1e-3)},
    "elastic_sgd": {"learning_rate": (1e-2, 1.0), "gamma": (0.1, 30.0)},
}


def get_config(algorithms: str = "") -> ConfigDict:
    return experiment(
        dataset="mnist",
        model={"name": "lenet"},
        optimizers=OPTIMIZERS,
        algorithms=algorithms,
        search=SEARCH,
        seeds=3,
        gradients_per_eval=480,  # 1.024 epochs: a whole number of every algorithm's outer steps
        num_evals=79,
    )
