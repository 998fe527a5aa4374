"""Hyper-parameters by random search, with equal effort for every algorithm."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from ml_collections import ConfigDict
from tqdm import tqdm

from entropix.data import Dataset, hold_out, load
from entropix.training.algorithm import make_algorithm
from entropix.training.config import check_config, cycle, runs
from entropix.training.epoch import make_interval, make_step
from entropix.training.evaluation import make_evaluate
from entropix.training.network import build_network
from entropix.training.state import init_state

# Log-uniform ranges, wide on purpose. `learning_rate` is eta for the gradient output; the useful
# eta of a relaxation grows with gamma up to about 1/curvature, as Example 13 shows.
RANGES = {"learning_rate": (1e-2, 3.0), "gamma": (3e-2, 30.0)}


def tune(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    trials: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Searches learning rate and, where there is one, gamma, on a held-out validation split.

    Every algorithm gets the same number of trials, each with the same number of gradient
    evaluations and `config.seeds` seeds. The test set plays no part: the validation split is held
    out of the training set. All trials of an algorithm are one compiled program, since the values
    searched are numbers it is called with.

    Args:
      config: with `optimizers` or one `optimizer`.
      workdir: gets `tune_ALGORITHM.json` with all trials.
      trials: per algorithm, >= 1.
      seed: of the search.
      progress: whether to show progress bars.

    Returns:
      algorithm -> best values found, with their mean validation error and loss.

    Raises:
      ValueError: for a config that cannot run or `trials` < 1.
    """
    check_config(config)
    if trials < 1:
        raise ValueError(f"trials must be >= 1; got trials={trials}.")
    data = hold_out(load(config.dataset, config.data_dir))
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    best = {}
    for algorithm, run in runs(config).items():
        tried = []
        score = jax.jit(_make_score(run, data))
        for values in tqdm(_draw(run, trials, seed), desc=algorithm, disable=not progress):
            errors, losses = score(values, data)
            tried.append(values | {"val_error": _mean(errors), "val_loss": _mean(losses)})
        # Errors on a few hundred images tie; the loss decides.
        tried.sort(key=lambda trial: (trial["val_error"], trial["val_loss"]))
        (workdir / f"tune_{algorithm}.json").write_text(json.dumps(tried, indent=1) + "\n")
        best[algorithm] = tried[0]
    return best


def _draw(config: ConfigDict, trials: int, seed: int) -> list[dict[str, float]]:
    """The trials: the same learning rates for all algorithms, and the same gammas."""
    uniform = np.random.default_rng(seed).uniform(size=(trials, len(RANGES)))
    searched = [name for name in RANGES if name in config.optimizer]
    drawn = []
    for row in uniform:
        pairs = zip(RANGES.items(), row, strict=True)
        values = {name: float(low * (high / low) ** u) for (name, (low, high)), u in pairs}
        drawn.append({name: values[name] for name in searched})
    return drawn


def _make_score(config: ConfigDict, data: Dataset) -> Any:
    """Makes `score(values, data) -> (errors, losses)` of one trial, an entry for every seed."""
    networks = [build_network(config.model, data.image_shape, seed) for seed in range(config.seeds)]
    steps = config.num_evals * config.gradients_per_eval // cycle(config.optimizer)

    def score(values: dict[str, Array], data: Dataset) -> tuple[Array, Array]:
        algorithm = make_algorithm(config.optimizer, data.num_train / config.batch_size, values)
        states = [
            init_state(algorithm, network.params, network.batch_stats, seed)
            for seed, network in enumerate(networks)
        ]
        interval = make_interval(make_step(networks[0].apply, algorithm, config.batch_size), steps)
        evaluate = make_evaluate(networks[0].apply, networks[0].estimate, algorithm)

        def run(state: Any) -> tuple[Array, Array]:
            result = evaluate(interval(state, data)[0], data)
            return result.val_error, result.val_loss

        return lax.map(run, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))

    return score


def _mean(values: Array) -> float:
    """The mean over seeds; a diverged trial is infinitely bad, not NaN, so that sorting works."""
    mean = float(jnp.mean(values))
    return mean if np.isfinite(mean) else float("inf")
