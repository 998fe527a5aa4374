"""Hyper-parameters by random search, with equal effort for every algorithm."""

import functools
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
from entropix.files import write_atomic
from entropix.training.algorithm import make_algorithm
from entropix.training.config import check_config, cycle, num_evals, runs
from entropix.training.devices import layout_of
from entropix.training.epoch import make_interval, make_step
from entropix.training.evaluation import make_evaluate
from entropix.training.folder import IRRELEVANT, claimed
from entropix.training.network import build_network
from entropix.training.record import make_page
from entropix.training.search import Ranges, draw, ranges_of
from entropix.training.state import Point, centre, init_state
from entropix.training.trials import Trial, TrialLog


def tune(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    trials: int = 16,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, list[Trial]]:
    """Searches the options in `config.search` on a held-out validation split.

    Every algorithm gets the same number of trials, each with the same number of gradient
    evaluations and `config.seeds` seeds. The test set plays no part: the validation split is held
    out of the training set. All trials of an algorithm are one compiled program, since the values
    searched are numbers it is called with. Called again, it runs only the trials that are missing.

    Args:
      config: with `optimizers` or one `optimizer`, and `search`.
      workdir: gets `tuning.md`, and `tune_ALGORITHM.jsonl` trial by trial.
      trials: per algorithm, >= 1.
      seed: of the search.
      progress: whether to show progress bars.

    Returns:
      Algorithm -> its trials, best first: the values searched, `val_error` (per cent) and
      `val_loss`, means over seeds; both infinite for a trial that diverged.

    Raises:
      ValueError: for a config that cannot run, `trials` < 1, or a `workdir` that holds another
        search.

    Example:
      >>> import tempfile
      >>> from entropix.training import experiment
      >>> config = experiment(dataset="digits", model={"name": "mlp", "widths": (8,)},
      ...                     optimizers={"sgd": {}}, seeds=1, gradients_per_eval=5, num_evals=1)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   tried = tune(config, folder, trials=2, progress=False)
      >>> sorted(tried["sgd"][0])
      ['learning_rate', 'val_error', 'val_loss']
    """
    check_config(config)
    if trials < 1:
        raise ValueError(f"trials must be >= 1; got trials={trials}.")
    if len(runs(config)) > len(config.search):
        raise ValueError(
            f"tune searches for one number of replicas; got config.replicas={config.replicas}. "
            "Choose one, and search for another in another --workdir."
        )
    with claimed(pathlib.Path(workdir)):
        return _search(config, workdir, trials, seed, progress)


def _search(
    config: ConfigDict, workdir: str | pathlib.Path, trials: int, seed: int, progress: bool
) -> dict[str, list[Trial]]:
    """Runs what is missing of every algorithm's trials, and writes the page."""
    single = runs(config)
    ranges = {algorithm: ranges_of(config, algorithm) for algorithm in single}
    logs = {
        algorithm: TrialLog(workdir, algorithm, _identity(run, ranges[algorithm], seed))
        for algorithm, run in single.items()
    }  # all of them before the first trial: another search's folder is refused at once
    data = hold_out(load(config.dataset, config.data_dir))
    for algorithm, run in single.items():
        drawn = draw(ranges[algorithm], trials, seed)
        _run_missing(logs[algorithm], run, data, drawn, progress)
    # Errors on a few hundred images tie; the loss decides.
    rank = lambda trial: (trial["val_error"], trial["val_loss"])  # noqa: E731
    tried = {algorithm: sorted(log.trials[:trials], key=rank) for algorithm, log in logs.items()}
    page = make_page(tried, describe_effort(config, trials))
    write_atomic(pathlib.Path(workdir) / "tuning.md", page.encode())
    return tried


def describe_effort(config: ConfigDict, trials: int) -> str:
    """Returns the sentence about a search's budget that its records hold."""
    gradients = num_evals(config) * config.gradients_per_eval
    plural = ("" if trials == 1 else "s"), ("" if config.seeds == 1 else "s")
    return (
        f"{trials} trial{plural[0]} per algorithm, each with {gradients:,} gradient evaluations "
        f"and {config.seeds} seed{plural[1]}, measured on a validation split held out of the "
        "training set; the test set played no part. Errors and losses are means over seeds."
    )


def _identity(config: ConfigDict, ranges: Ranges, seed: int) -> dict[str, Any]:
    """All that decides the trials of one algorithm.

    Neither where the data lie does, nor the values that the search replaces: its choice may be
    copied into the config without making it another search.
    """
    fields = json.loads(config.to_json())
    for name in (*IRRELEVANT, "seed_layout"):
        fields.pop(name, None)
    for name in ranges:
        del fields["optimizer"][name]
    return fields | {"search": ranges, "search_seed": seed}


def _run_missing(
    log: TrialLog, config: ConfigDict, data: Dataset, drawn: list[Trial], progress: bool
) -> None:
    """Runs the trials that are drawn and not in the log."""
    done = min(len(log.trials), len(drawn))
    if done == len(drawn):
        return
    score = _make_score(config, data)
    bar = {"desc": config.optimizer.algorithm, "initial": done, "total": len(drawn)}
    for values in tqdm(drawn[done:], **bar, disable=not progress):
        log.append(values | _result(*score(values)))


def _make_score(config: ConfigDict, data: Dataset) -> Any:
    """Makes `score(values) -> (errors, losses)` of one trial, an entry for every seed."""
    networks = [build_network(config.model, data.image_shape, seed) for seed in range(config.seeds)]
    steps = num_evals(config) * config.gradients_per_eval // cycle(config.optimizer)
    layout = layout_of(config)
    everywhere = layout.share(data)

    @functools.partial(jax.jit, out_shardings=layout.common)
    def walk(values: dict[str, Array], data: Dataset) -> Point:
        algorithm = make_algorithm(
            config.optimizer,
            data.num_train / config.batch_size,
            values,
            length=config.length,
            axis_name=layout.axis_name,
        )
        states = [
            init_state(algorithm, [(network.params, network.batch_stats)], seed)
            for seed, network in enumerate(networks)
        ]
        step = make_step(networks[0].apply, algorithm, config.batch_size, layout)
        interval = make_interval(step, steps)
        run = lambda state: centre(interval(state, data)[0], algorithm)  # noqa: E731
        return lax.map(run, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))

    evaluate = make_evaluate(
        networks[0].apply, networks[0].estimate, train_examples=config.eval_train_examples
    )
    measure = jax.jit(lambda points, data: lax.map(lambda point: evaluate(point, data), points))

    def score(values: Trial) -> tuple[Array, Array]:
        result = measure(layout.local(walk(values, everywhere)), data)
        return result.val_error, result.val_loss

    return score


def _result(errors: Array, losses: Array) -> Trial:
    """Means over seeds; a diverged trial is infinitely bad, not NaN, so that sorting works."""
    error, loss = float(jnp.mean(errors)), float(jnp.mean(losses))
    if not np.isfinite(error + loss):  # argmax over NaN is a class, whose error rate is finite
        error = loss = float("inf")
    return {"val_error": error, "val_loss": loss}
