"""One algorithm, all its seeds, from config to metrics."""

import json
import pathlib
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

import entropix
from entropix.data import Dataset, load
from entropix.training.algorithm import Algorithm, make_algorithm
from entropix.training.config import check_config, cycle
from entropix.training.epoch import make_interval, make_step, over_seeds
from entropix.training.evaluation import Evaluation, make_evaluate
from entropix.training.metrics import MetricWriter, read_metrics
from entropix.training.network import build_network
from entropix.training.state import TrainState, init_state

Row = dict[str, Any]
_COMPLETE = "complete.json"


class Programs(NamedTuple):
    """The compiled parts of a run; all take states with a leading axis of seeds.

    Attributes:
      init: `init() -> states`.
      interval: `(states, data) -> (states, losses)`; donates `states`.
      evaluate: `(states, data) -> Evaluation`.
      algorithm: what they run.
    """

    init: Callable[[], TrainState]
    interval: Callable[[TrainState, Dataset], tuple[TrainState, jax.Array]]
    evaluate: Callable[[TrainState, Dataset], Evaluation]
    algorithm: Algorithm


def make_programs(config: ConfigDict, data: Dataset) -> Programs:
    """Builds and compiles a run.

    Args:
      config: of one algorithm (`config.optimizer`).
      data: on the device.

    Returns:
      The `Programs`, compiled for `config.seeds` seeds: what follows can be timed.
    """
    algorithm = make_algorithm(config.optimizer, data.num_train / config.batch_size)
    steps = config.gradients_per_eval // cycle(config.optimizer)
    networks = [build_network(config.model, data.image_shape, seed) for seed in range(config.seeds)]

    def init() -> TrainState:
        states = [
            init_state(algorithm, network.params, network.batch_stats, seed)
            for seed, network in enumerate(networks)
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    step = make_step(networks[0].apply, algorithm, config.batch_size)
    interval = over_seeds(make_interval(step, steps), config.seed_layout)
    evaluate = over_seeds(
        make_evaluate(networks[0].apply, networks[0].estimate, algorithm), config.seed_layout
    )
    shapes = jax.eval_shape(init)
    return Programs(
        init=init,
        interval=jax.jit(interval, donate_argnums=0).lower(shapes, data).compile(),
        evaluate=jax.jit(evaluate).lower(shapes, data).compile(),
        algorithm=algorithm,
    )


def train(config: ConfigDict, workdir: str | pathlib.Path, *, progress: bool = True) -> list[Row]:
    """Runs one algorithm with all seeds, or reads what an equal run left in `workdir`.

    Args:
      config: of one algorithm; see `entropix.training.config.experiment`.
      workdir: of this run. Holds `config.json`, `versions.json`, `metrics.jsonl` and TensorBoard
        events.
      progress: whether to show a progress bar.

    Returns:
      The rows of `metrics.jsonl`: one per evaluation and seed.

    Raises:
      ValueError: for a config that cannot run, or a `workdir` that holds the finished run of
        another config.
      FloatingPointError: as soon as a seed's loss is not finite.
    """
    check_config(config)
    workdir = pathlib.Path(workdir)
    if _finished(config, workdir):
        return read_metrics([workdir])
    data = load(config.dataset, config.data_dir)
    programs = make_programs(config, data)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(config.to_json(indent=2) + "\n")
    (workdir / "versions.json").write_text(json.dumps(_versions(), indent=2) + "\n")
    rows = []
    with MetricWriter(workdir) as writer:
        for row in _rows(config, data, programs, progress):
            writer.write(row)
            rows.append(row)
    (workdir / _COMPLETE).write_text(json.dumps({"rows": len(rows)}) + "\n")
    return read_metrics([workdir])


def _rows(config: ConfigDict, data: Dataset, programs: Programs, progress: bool) -> Iterator[Row]:
    """Alternates compiled intervals and evaluations, and yields what they measured."""
    name, states = config.optimizer.algorithm, programs.init()
    bar = tqdm(total=config.num_evals, desc=f"{name:>12}", disable=not progress, unit="eval")
    with bar:
        for number in range(1, config.num_evals + 1):
            start = time.perf_counter()
            states, losses = jax.block_until_ready(programs.interval(states, data))
            seconds = time.perf_counter() - start
            evaluation = jax.device_get(programs.evaluate(states, data))
            done = _progress(config, data, programs.algorithm, number)
            done["seconds_per_gradient"] = seconds / (config.gradients_per_eval * config.seeds)
            losses = jax.device_get(losses)
            bar.set_postfix(_postfix(losses, evaluation, done))
            bar.update()
            for seed in range(config.seeds):
                values = {k: float(v[seed]) for k, v in evaluation._asdict().items()}
                row = {"algorithm": name, "seed": seed, **done}
                yield row | {"minibatch_loss": float(losses[seed])} | values
            _check_finite(name, losses, evaluation, done)


def _progress(config: ConfigDict, data: Dataset, algorithm: Algorithm, number: int) -> Row:
    """How far a run is, after `number` evaluations: gradients in all the units people use."""
    gradients = number * config.gradients_per_eval
    steps = gradients // cycle(config.optimizer)
    gamma = None if algorithm.gamma is None else float(algorithm.gamma(steps))
    return {
        "gradient_evaluations": gradients,  # over all replicas
        "effective_epochs": gradients * config.batch_size / data.num_train,
        "outer_steps": steps,
        "replicas": algorithm.replicas,
        "num_steps": algorithm.relaxation.num_steps,
        "gamma": gamma,
    }


def _postfix(losses: np.ndarray, evaluation: Evaluation, done: Row) -> dict[str, str]:
    gamma = {} if done["gamma"] is None else {"gamma": f"{done['gamma']:.3g}"}
    return {
        "loss": f"{np.mean(losses):.4f}",
        "error": f"{np.mean(evaluation.val_error):.2f}%",
        **gamma,
        "steps/s": f"{1 / done['seconds_per_gradient']:.0f}",
    }


def _check_finite(name: str, losses: np.ndarray, evaluation: Evaluation, done: Row) -> None:
    bad = ~(np.isfinite(losses) & np.isfinite(evaluation.train_loss))
    if bad.any():
        raise FloatingPointError(
            f"{name}: the loss of seed {int(np.argmax(bad))} is not finite after "
            f"{done['outer_steps']} outer steps ({done['gradient_evaluations']} gradients). "
            "Lower --config.optimizer.learning_rate, or raise gamma: step_size/gamma must stay "
            "below 2."
        )


def _finished(config: ConfigDict, workdir: pathlib.Path) -> bool:
    """Whether `workdir` holds this very run, finished; an unfinished one is run again."""
    if not (workdir / _COMPLETE).exists():
        return False
    old, new = json.loads((workdir / "config.json").read_text()), json.loads(config.to_json())
    exempt = {"data_dir", "search"}  # no part of a result: where data lay, what could be searched
    fields = sorted(k for k in (old | new).keys() - exempt if old.get(k) != new.get(k))
    if fields:
        raise ValueError(
            f"{workdir} holds the finished results of another config (it differs in "
            f"{', '.join(fields)}). Choose another --workdir, or move that folder away."
        )
    return True


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "optax", "flax", "numpy")
    return (
        {"entropix": entropix.__version__}
        | {p: metadata.version(p) for p in packages}
        | {"backend": jax.default_backend()}
    )
