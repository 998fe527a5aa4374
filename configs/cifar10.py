"""CIFAR-10, whitened, without augmentation: the paper's `All-CNN` row of Table 1.

    entropix compare --config=cifar10 --data_dir=FOLDER         # 200 effective epochs
    entropix train --config=cifar10:hj --data_dir=FOLDER        # one run

All of the paper's algorithms, and the two of its authors' code: the runs `sgd_authors` and
`entropy_sgd_authors` have every constant that was read from that code. `parle`, which is beyond the
paper, is run when it is named. The length is for an accelerator.

**Not run yet** with the constants below, and no hyper-parameter was searched. An earlier config,
with other schedules, was run for 0.4 effective epochs to see that the network trains:
`results/README.md`.
"""

from ml_collections import ConfigDict

from entropix.experiment import make_config

# The authors' code, its numbers in this package's words. SGD with Nesterov's momentum 0.9 for 200
# epochs: 0.1, divided by 5 after 60, 120 and 180. Entropy-SGD with L = 20, T = 1e-8: x moves by the
# displacement x - <y> times 1, divided by 5 after 60 and 120 of 200 epochs, without outer momentum;
# inner steps have Nesterov's. 1/gamma is 0.03 and grows by a thousandth at every outer step. Both
# add 1e-3 times the parameters to every gradient.
AUTHORS = {
    "sgd_authors": {
        "algorithm": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "l2": 1e-3,
        "drop_at": (0.3, 0.6, 0.9),
        "drop_factor": 5.0,
    },
    "entropy_sgd_authors": {
        "algorithm": "entropy_sgd",
        "learning_rate": 1.0,
        "momentum": None,
        "output": "displacement",
        "inner": "nesterov",
        "num_steps": 20,
        "step_size": 0.1,
        "averaging": 0.75,
        "temperature": 1e-8,
        "gamma": 1 / 0.03,
        "scoping_rate": 1 - 1 / 1.001,
        "l2": 1e-3,
        "drop_at": (0.3, 0.6),
        "drop_factor": 5.0,
    },
}
# One schedule for all other runs, the authors' of Entropy-SGD: learning rates end at 1/25. So does
# their L2.
COMMON = {"drop_at": (0.3, 0.6), "drop_factor": 5.0, "l2": 1e-3}
# The authors' 1, times 1 - 0.9: with outer momentum 0.9, a rate of 1 diverges on LeNet. gamma ends
# at 1, Parle's value, far above half the inner step size, below which inner steps diverge.
RELAXED = {
    **COMMON,
    "learning_rate": 0.1,
    "gamma": 1 / 0.03,
    "gamma_end": 1.0,
    "inner": "nesterov",
    "output": "displacement",
}
PLAIN = {**COMMON, "learning_rate": 0.1}
OPTIMIZERS = {
    "sgd": PLAIN,
    "entropy_sgd": RELAXED,
    "hj": RELAXED,
    "heat": {**PLAIN, "gamma": 1.0},
    "elastic_sgd": {**PLAIN, "gamma": 1.0, "scoping_rate": 0.0},  # fixed
    "parle": {**RELAXED, "rho": 1.0, "rho_end": 0.1},
    **AUTHORS,
}

# Where `entropix tune` looks: eta of a displacement is stable below 1 at most, and a gamma below
# its end would be raised to it.
DISPLACED = {"learning_rate": (1e-2, 1.0), "gamma": (3.0, 1e3)}
SEARCH = {
    "entropy_sgd": DISPLACED,
    "hj": DISPLACED,
    "elastic_sgd": {"gamma": (0.1, 30.0)},
    "parle": DISPLACED,
}


def get_config(runs: str = "") -> ConfigDict:
    return make_config(
        dataset="cifar10",
        model={"name": "all_cnn"},
        optimizers=OPTIMIZERS,
        algorithms=runs,
        search=SEARCH,
        seeds=3,
        gradients_per_eval=480,  # 1.229 epochs: a whole number of every algorithm's outer steps
        num_evals=163,
    )
