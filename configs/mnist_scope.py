"""Does one gamma_0/N serve both networks of MNIST? Entropy-SGD as the paper writes it, (33).

    entropix tune    --config=mnist_scope --data_dir=FOLDER --trials=5 --config.seeds=1
    entropix compare --config=mnist_scope --data_dir=FOLDER            # mnistfc
    entropix compare --config=mnist_scope:lenet --data_dir=FOLDER

Six runs whose gamma_0 is held, each a factor of the square root of 14.2 above the one before, where
14.2 is the ratio of the networks' sizes, 1,867,786 and 131,220 parameters. If gamma_0/N decides
(section 7.5), the best run on `mnistfc` (`mlp`, the default) stands two places above the best one
on `lenet`. The learning rate of every run is searched; it is a share of gamma_0, since x moves by
learning rate / gamma (x - <y>). Runs have 4,800 gradients, and their scoping and drops are those of
`configs/mnist.py`, compressed.

The learning rates below are the best of two searches of five trials each: many best shares of the
first stood at its upper edge, so that the second looked beyond; nearly all of its trials were worse
or diverged. With them, n = 3 (`results/mnist_scope_lenet`, `results/mnist_scope_mlp`; 5 to 6
minutes a run and 4 to 5 a search, on one core of an AMD EPYC with other work beside):

    gamma_0          0.265        1.00         3.77         14.2         53.7         203
    error, LeNet, %  1.37 ± 0.12  1.06 ± 0.03  1.01 ± 0.03  0.96 ± 0.06  0.97 ± 0.06  0.96 ± 0.08
    error, mlp, %    not run      2.20 ± 0.09  1.87 ± 0.05  1.98 ± 0.05  1.83 ± 0.05  1.75 ± 0.01
"""

from ml_collections import ConfigDict

from entropix.experiment import make_config

SIZES = {"mlp": 1_867_786, "lenet": 131_220}
STEP = (SIZES["mlp"] / SIZES["lenet"]) ** 0.5
GAMMAS = {f"place_{k}": round(STEP ** (k - 1), 4) for k in range(6)}
# A thousandth at every outer step of a whole run: 117 and 78 evaluations, of which 10 are left.
NUM_EVALS = 10
SCOPING = {"mlp": 1e-3 * 117 / NUM_EVALS, "lenet": 1e-3 * 78 / NUM_EVALS}
# The paper's (33) to the letter: the gradient, plain inner steps, Nesterov's momentum outside.
PAPER = {
    "algorithm": "entropy_sgd", "output": "gradient", "inner": "identity", "momentum": 0.9,
    "num_steps": 20, "step_size": 0.1, "averaging": 0.75, "temperature": 1e-8, "gamma_end": 0.1,
    "drop_at": (0.3, 0.6), "drop_factor": 5.0,
}  # fmt: skip
# Where `entropix tune` looks, in shares of gamma_0: momentum steps are stable below 4/3. The second
# search is `--config.search.place_1.learning_rate='(1.2, 12.0)'`, and so on.
SHARES = 0.1, 1.2
# What both found.
RATES = {
    "mlp": {
        "place_1": 0.4491, "place_2": 1.695, "place_3": 16.96, "place_4": 12.66, "place_5": 47.76,
    },
    "lenet": {
        "place_0": 0.3159, "place_1": 1.355, "place_2": 4.495, "place_3": 16.96, "place_4": 72.78,
        "place_5": 274.6,
    },
}  # fmt: skip


def get_config(argument: str = "") -> ConfigDict:
    first, _, rest = argument.partition(",")
    network, runs = (first, rest) if first in SIZES else ("mlp", argument)
    options, rates = {**PAPER, "scoping_rate": SCOPING[network]}, RATES[network]
    return make_config(
        name=f"mnist_scope_{network}",
        dataset="mnist",
        model={"name": network},
        optimizers={
            name: {
                **options,
                "label": f"gamma_0 = {gamma:.3g}",
                "gamma": gamma,
                "learning_rate": rates.get(name, 0.3 * gamma),
            }
            for name, gamma in GAMMAS.items()
        },
        algorithms=runs or ",".join(rates),
        search={
            name: {
                "learning_rate": tuple(share * gamma for share in SHARES),
                "gamma": (gamma, gamma),
                "temperature": (1e-8, 1e-8),
            }
            for name, gamma in GAMMAS.items()
        },
        seeds=3,
        gradients_per_eval=480,
        num_evals=NUM_EVALS,
    )
