"""MNIST: the paper's `mnistfc` and `LeNet` rows of Table 1.

    entropix compare --config=mnist --data_dir=FOLDER            # mnistfc, 120 effective epochs
    entropix compare --config=mnist:lenet --data_dir=FOLDER      # LeNet, 80 effective epochs
    entropix train --config=mnist:lenet,hj --data_dir=FOLDER     # one run

The network, `mlp` (the default) or `lenet`, stands first behind the colon, and the runs after it.
Without runs, all of the paper's algorithms are compared, and the two of its authors' code: the runs
`sgd_authors` and `entropy_sgd_authors` have every constant that was read from that code. What is
beyond the paper is run when it is named: `parle`, `sam`, `snoo`, `sgd_ema`, an average of SGD's
weights, and `adamw`; so is `entropy_sgd_paper`, Entropy-SGD as the paper writes it.

Run so far, 120 and 80 effective epochs, 5 seeds (`--config.seeds=5`); error at the end, %. Three
seeds of a run take 30 to 103 minutes on one core, other work beside, and a further one 15 to 50;
`results/mnist_mlp_full` and `results/mnist_lenet_full`. Most seeds were run on an AMD EPYC, some on
an Intel Xeon; `results/README.md` says which.

    run                    mlp     lenet
    sgd_authors            1.18   0.58
    entropy_sgd_authors    1.18   0.60
    sgd                    1.17   0.68
    entropy_sgd            1.21   0.65
    entropy_sgd_paper      1.22   0.59
    hj                     1.21   0.60
    heat                   1.20   0.85
    elastic_sgd            1.17   0.64
    parle                  1.22   0.64
    sam                    1.28   0.67
    snoo                   1.21   0.58
    sgd_ema                1.18   0.58
    adamw                  1.07   0.54

The first two of `mlp` were run with `--config.num_evals=20` too (1.66 and 1.67 %, 13 minutes a run;
`results/mnist_mlp_authors`).

All runs but the authors' and `sgd_ema` have the best of nine trials each over a quarter of the
length, with compressed schedules. These were too short for SGD on LeNet: the authors' rate is
better, and `elastic_sgd`, `sam` and `snoo` have that rate. `sgd_ema` has it too, and is not
searched. Every other number was chosen by the reasons given beside it.
"""

from ml_collections import ConfigDict

from entropix.experiment import make_config

# The authors' code, its numbers in this package's words. SGD with Nesterov's momentum 0.9 for 100
# epochs: 0.1, divided by 5 after 30 and after 60. Entropy-SGD with L = 20, T = 1e-8: x moves by the
# displacement x - <y> times 1, divided by 10 after 40 of 100 epochs, without outer momentum; inner
# steps have Nesterov's. 1/gamma is 1e-4 and grows by a thousandth at every outer step.
AUTHORS = {
    "sgd_authors": {
        "algorithm": "sgd",
        "label": "SGD, authors' constants",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "drop_at": (0.3, 0.6),
        "drop_factor": 5.0,
    },
    "entropy_sgd_authors": {
        "algorithm": "entropy_sgd",
        "label": "Entropy-SGD, authors' constants",
        "learning_rate": 1.0,
        "momentum": None,
        "output": "displacement",
        "inner": "nesterov",
        "num_steps": 20,
        "step_size": 0.1,
        "averaging": 0.75,
        "temperature": 1e-8,
        "gamma": 1e4,
        "scoping_rate": 1 - 1 / 1.001,
        "drop_at": (0.4,),
        "drop_factor": 10.0,
    },
}
# One schedule for all other runs, the authors' of SGD: learning rates end at 1/25.
DROPS = {"drop_at": (0.3, 0.6), "drop_factor": 5.0}
# gamma shrinks by a thousandth at every outer step and ends at 1, Parle's value, far above half the
# inner step size, below which inner steps diverge. It starts far above 1 in every run.
RELAXED = {**DROPS, "inner": "nesterov", "output": "displacement", "gamma_end": 1.0}
# rho, the scope of Parle's coupling, is Parle's own.
RHO = {"rho": 1.0, "rho_end": 0.1}

# The best trials on both networks. HJ's gamma is nearly the largest of its range: Nesterov steps
# inside, with almost no pull.
HJ = {**RELAXED, "learning_rate": 0.2825, "gamma": 97340.0}
ENTROPY = {**RELAXED, "learning_rate": 0.1751, "gamma": 36.63, "temperature": 1.394e-09}
NETWORKS = {
    "mlp": {
        "sgd": {**DROPS, "learning_rate": 0.0569},
        "entropy_sgd": ENTROPY,
        "hj": HJ,
        # Next to no noise: a width of 0.0008, where the network's weights have 0.03.
        "heat": {**DROPS, "learning_rate": 0.3946, "gamma": 0.5853, "temperature": 1.207e-6},
        # Nearly the smallest gamma of its range: replicas stay close together.
        "elastic_sgd": {**DROPS, "learning_rate": 0.1, "gamma": 0.1335},
        # The temperature is not that of the best trial, 1.4e-9: either is next to no noise.
        "parle": {
            **RELAXED, **RHO, "learning_rate": 0.1751, "gamma": 36.63, "temperature": 6.285e-09,
        },
    },
    "lenet": {
        "sgd": {**DROPS, "learning_rate": 0.03377},
        "entropy_sgd": ENTROPY,
        "hj": HJ,
        "heat": {**DROPS, "learning_rate": 0.1336, "gamma": 1.0, "temperature": 0.0001156},
        # Nearly the smallest gamma of its range: replicas stay close together.
        "elastic_sgd": {**DROPS, "learning_rate": 0.1, "gamma": 0.1112},
        "parle": {
            **RELAXED, **RHO, "learning_rate": 0.4114, "gamma": 14.69, "temperature": 5.959e-08,
        },
    },
}  # fmt: skip
# Beside the paper's: the rates of SGD are its authors', since short trials favour small ones.
RELATIVES = {
    "sam": {**DROPS, "learning_rate": 0.1, "rho": 0.02077},
    "snoo": {
        **DROPS, "optimizer": "sgd", "learning_rate": 0.1, "outer_learning_rate": 0.4445,
    },
    "sgd_ema": {
        **DROPS, "algorithm": "sgd", "label": "average of SGD's weights", "learning_rate": 0.1,
        "ema": 0.999,
    },
    "adamw": {**DROPS, "learning_rate": 0.002654},
    # The paper's (33) to the letter: the gradient, plain inner steps, Nesterov's momentum outside.
    # gamma is that of `mnist_scope` whose runs were best on held-out images of both networks.
    "entropy_sgd_paper": {
        **DROPS, "algorithm": "entropy_sgd", "label": "Entropy-SGD, form (33)",
        "learning_rate": 2.718, "gamma": 3.765, "gamma_end": 0.1,
    },
}  # fmt: skip
# Four of them have the best of nine trials on `mlp` too.
RELATED = {
    "mlp": {
        **RELATIVES,
        "adamw": {**RELATIVES["adamw"], "learning_rate": 0.001127},
        "sam": {**RELATIVES["sam"], "rho": 0.03134},
        "snoo": {**RELATIVES["snoo"], "outer_learning_rate": 0.4599},
        "entropy_sgd_paper": {**RELATIVES["entropy_sgd_paper"], "learning_rate": 0.9909},
    },
    "lenet": RELATIVES,
}
# Of 1.024 effective epochs each: 120 and 80 of them, the paper's lengths for Entropy-SGD.
EVALUATIONS = {"mlp": 117, "lenet": 78}

# Where `entropix tune` looks: eta of a displacement is stable below 1 at most, and a gamma below
# its end would be raised to it.
DISPLACED = {"learning_rate": (1e-2, 1.0), "gamma": (10.0, 1e5)}
SEARCH = {
    "sgd": {"learning_rate": (1e-2, 1.0)},
    "entropy_sgd": DISPLACED,
    "hj": DISPLACED,
    # x moves once in 20 gradients by their mean, which allows rates that SGD's noise does not. Of
    # gamma and T only the product matters.
    "heat": {"learning_rate": (0.1, 3.0), "gamma": (1.0, 1.0), "temperature": (1e-7, 1e-2)},
    # Short trials favour small rates: the rate is that of the authors' SGD.
    "elastic_sgd": {"learning_rate": (0.1, 0.1), "gamma": (0.1, 100.0)},
    "parle": DISPLACED,
    "sam": {"learning_rate": (0.1, 0.1), "rho": (1e-2, 1.0)},
    "snoo": {"learning_rate": (0.1, 0.1), "outer_learning_rate": (0.3, 1.0)},
    "adamw": {"learning_rate": (3e-4, 1e-2)},
    # The rate is 0.1 to 2.4 times gamma: x moves by learning rate / gamma (x - <y>).
    "entropy_sgd_paper": {
        "learning_rate": (0.38, 9.0), "gamma": (3.765, 3.765), "temperature": (1e-8, 1e-8),
    },
}  # fmt: skip

DEFAULT = ("sgd", "entropy_sgd", "hj", "heat", "elastic_sgd", *AUTHORS)


def get_config(argument: str = "") -> ConfigDict:
    first, _, rest = argument.partition(",")
    network, runs = (first, rest) if first in NETWORKS else ("mlp", argument)
    return make_config(
        name=f"mnist_{network}",
        dataset="mnist",
        model={"name": network},
        optimizers={**NETWORKS[network], **AUTHORS, **RELATED[network]},
        algorithms=runs or ",".join(DEFAULT),
        search=SEARCH,
        seeds=3,
        gradients_per_eval=480,  # a whole number of every algorithm's outer steps
        num_evals=EVALUATIONS[network],
    )
