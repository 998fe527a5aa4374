"""CIFAR-10, whitened, without augmentation: the paper's `All-CNN` row of Table 1.

    entropix compare --config=configs/cifar10_allcnn.py --data_dir=FOLDER --workdir=runs/cifar10

One algorithm alone: `entropix train --config=configs/cifar10_allcnn.py:hj`. The paper's length is
200 effective epochs, for an accelerator; we have not run it, nor searched the hyper-parameters. To
see that it trains, 160 gradients (0.41 effective epochs) on one core of an AMD EPYC with other work
beside it, 44 minutes for two algorithms, n = 1 seed:

    entropix compare --config=configs/cifar10_allcnn.py:sgd,hj --config.seeds=1
        --config.num_evals=2 --config.gradients_per_eval=80 --config.eval_train_examples=2000

    |     | validation error, % | training loss |
    |-----|---------------------|---------------|
    | SGD | 44.98               | 1.2476        |
    | HJ  | 58.22               | 1.6542        |
"""

from ml_collections import ConfigDict

from entropix.training import experiment

# Entropy-SGD's values are those of its authors' code, which moves x by the displacement x - <y>,
# runs Nesterov's momentum in the inner loop and lets the pull 1/gamma grow from 0.03. HJ shares
# them. gamma shrinks by a thousandth at every outer step: it halves in 35 effective epochs at L =
# 20 and in 9 at L = 5. Its end, and the scope of Elastic-SGD's coupling, are Parle's.
DROPS = {"drop_at": (60, 120, 180), "drop_factor": 5.0}  # effective epochs, for every algorithm
RELAXED = {
    **DROPS,
    "learning_rate": 0.1,  # the authors' 1, times 1 - 0.9: with momentum, 1 diverges on LeNet
    "gamma": 1 / 0.03,
    "gamma_end": 1.0,
    "inner": "nesterov",
    "output": "displacement",
}
PLAIN = {**DROPS, "learning_rate": 0.1}
OPTIMIZERS = {
    "sgd": PLAIN,
    "entropy_sgd": RELAXED,
    "hj": RELAXED,
    "heat": {**PLAIN, "gamma": 1.0},
    "elastic_sgd": {**PLAIN, "gamma": 1.0, "gamma_end": 0.1},
    "parle": {**RELAXED, "rho": 1.0, "rho_end": 0.1},
}

# Where `entropix tune` looks: eta of a displacement is stable below 1 at most, and a gamma below
# its end would be raised to it.
DISPLACED = {"learning_rate": (1e-2, 1.0), "gamma": (1.0, 1e3)}
SEARCH = {
    "entropy_sgd": DISPLACED,
    "hj": DISPLACED,
    "elastic_sgd": {"gamma": (0.1, 30.0)},
    "parle": DISPLACED,
}


def get_config(algorithms: str = "") -> ConfigDict:
    return experiment(
        dataset="cifar10",
        model={"name": "all_cnn"},
        optimizers=OPTIMIZERS,
        algorithms=algorithms,
        search=SEARCH,
        seeds=3,
        gradients_per_eval=480,  # 1.229 epochs: a whole number of every algorithm's outer steps
        num_evals=163,
    )
