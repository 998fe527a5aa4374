"""The loop of a run: compiled calls, evaluations, checkpoints, and what may go wrong in between."""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from entropix.data import Dataset
from entropix.replicas import agree
from entropix.training.checkpoint import Checkpoint, Checkpoints, from_host, to_host
from entropix.training.config import cycle, num_evals
from entropix.training.epoch import NEVER
from entropix.training.evaluation import Evaluation
from entropix.training.metrics import MetricWriter, Row
from entropix.training.preemption import Interrupted
from entropix.training.programs import Programs
from entropix.training.restoring import is_lead, restore

_log = logging.getLogger(__name__)

# The longest that a request to stop waits for: a scheduler grants some thirty seconds.
_CALL_SECONDS = 5.0


class Loop:
    """Takes a run from where it is to its end.

    All that a later process needs to go on is in the arrays `now` and the dictionary `record`;
    together they are a checkpoint. Nothing in them depends on how the outer steps were divided into
    calls, so a run with breaks ends bit for bit like one without. (The clock aside, and the frozen
    state of a seed that diverged, which is the one last saved.)

    Args:
      config: of one algorithm.
      data: on the device.
      programs: of `config` and `data`.
      checkpoints: of the run; the newest whole one is continued.
      workdir: where metrics go.
    """

    def __init__(
        self,
        config: ConfigDict,
        data: Dataset,
        programs: Programs,
        checkpoints: Checkpoints,
        workdir: Any,
    ):
        self._config, self._programs = config, programs
        self._checkpoints, self._workdir = checkpoints, workdir
        self._data, self._num_train = programs.layout.share(data), data.num_train
        self._cycle, self._step = cycle(config.optimizer), 0
        gamma = programs.algorithm.gamma
        self._gamma = None if gamma is None else jax.jit(gamma)  # one program for all steps
        self.record: dict[str, Any] = {
            "rows": [], "failures": [], "seconds": 0.0, "seed_steps": 0, "since_eval": 0,
            "gradients": 0, "replicas": programs.layout.replicas,
        }  # fmt: skip
        start = restore(checkpoints, programs)
        if start is None:
            self._now = programs.place(programs.init())
        else:
            self._now, self._step = programs.place(start.state), start.step
            self.record |= {"gradients": start.step * self._cycle} | start.record
            self._tell(start.record.get("replicas", programs.layout.replicas))
        self._good, self._saved_at = to_host(programs.layout.gather(self._now)), time.monotonic()
        self._seconds_per_step = self._seconds_per_eval = float("inf")

    def _tell(self, replicas: int) -> None:
        """Says where the run continues, or that it cannot; notes how many replicas go on."""
        last, now = self._last_gradients, self.record["gradients"]
        if now > last:
            raise ValueError(
                f"the checkpoint in {self._workdir} has {now} gradients, more than this config's "
                f"{last}. Raise num_evals, or choose another --workdir."
            )
        _log.info(
            "%s: continuing at outer step %d, with %d of %d gradients done",
            self._name, self._step, now, last,
        )  # fmt: skip
        if (here := self._programs.layout.replicas) != replicas:
            self.record["replicas"] = here
            what = "new ones start at the centre" if here > replicas else "the last ones leave"
            _log.info("%s: %d replicas where there were %d: %s", self._name, here, replicas, what)

    @property
    def _name(self) -> str:
        return self._config.optimizer.algorithm

    def run(self, requested: Callable[[], int | None], progress: bool) -> None:
        """Runs to the end, or until asked to stop.

        Args:
          requested: answers with the number of a signal that asked to stop, or None.
          progress: whether to show a progress bar.

        Raises:
          Interrupted: when asked to stop, after saving.
          OSError: if metrics or a checkpoint cannot be written.
        """
        self._bar = tqdm(
            total=num_evals(self._config),
            initial=self.record["gradients"] // self._config.gradients_per_eval,
            desc=f"{self._name:>12}", unit="eval", disable=not (progress and is_lead()),
        )  # fmt: skip
        rows = self.record["rows"]
        writer = MetricWriter(self._workdir, rows) if is_lead() else contextlib.nullcontext()
        with self._bar, writer as self._writer:
            while self._running():
                if self._is_due():
                    if self._seconds_per_eval > _CALL_SECONDS:
                        self._save()  # a kill that does not wait for the evaluation costs no more
                    self._evaluate()
                elif self.record["gradients"] < self._last_gradients:
                    self._advance()
                else:
                    break
                seconds, signum = self._agree(requested())
                if seconds >= self._config.checkpoint_seconds:
                    self._save()
                if signum:
                    self._save()
                    raise Interrupted(
                        f"{self._name}: asked to stop by signal {signum}, and did, after "
                        f"{self.record['gradients']} of {self._last_gradients} gradients. The same "
                        "command continues there.",
                        signum,
                    )
            self._save()

    def _agree(self, signum: int | None) -> tuple[float, int]:
        """Seconds since the last checkpoint, and a signal; with clocks, the same everywhere."""
        since = time.monotonic() - self._saved_at
        agreed = agree([self._seconds_per_step, self._seconds_per_eval, since, signum or 0])
        self._seconds_per_step, self._seconds_per_eval = float(agreed[0]), float(agreed[1])
        return float(agreed[2]), int(agreed[3])

    @property
    def _last_gradients(self) -> int:
        return num_evals(self._config) * self._config.gradients_per_eval

    def _next_evaluation(self) -> tuple[int, int]:
        """Outer steps to it, and gradients when it comes: no fewer than are due, if p changed."""
        every = self._config.gradients_per_eval
        now = self.record["gradients"]
        last = now - self.record["since_eval"] * self._cycle
        steps = -((now - (last // every + 1) * every) // self._cycle)
        return steps, now + steps * self._cycle

    def _is_due(self) -> bool:
        """Whether an evaluation comes next."""
        return self.record["since_eval"] > 0 and self._next_evaluation()[0] <= 0

    def _running(self) -> list[int]:
        failed = {failure["seed"] for failure in self.record["failures"]}
        return [seed for seed in range(self._config.seeds) if seed not in failed]

    def _advance(self) -> None:
        """One compiled call of a few seconds, at most to the next evaluation."""
        affordable = max(1, int(_CALL_SECONDS / self._seconds_per_step))
        missing, gradients = self._next_evaluation()
        count, missed = min(affordable, missing), self._progress(self._step + missing, gradients)
        shared = self._programs.layout.share(jnp.asarray(count, jnp.int32)), self._data
        start = time.perf_counter()
        with jax.transfer_guard("disallow"):  # all that a call needs is on the device
            self._now = jax.block_until_ready(self._programs.advance(self._now, shared))
        seconds = time.perf_counter() - start
        self._seconds_per_step = seconds / count
        done, bad = np.array(self._now.done), np.array(self._now.bad)
        self._put(done=jnp.zeros_like(self._now.done))  # of the call, not us
        self.record["seconds"] += seconds
        self.record["seed_steps"] += int(done.sum())
        self.record["since_eval"] += count
        self.record["gradients"] += count * self._cycle
        for seed in self._running():
            if bad[seed] != NEVER:
                self._fail(seed, self._step + int(done[seed]) - 1, int(bad[seed]), missed)
        self._step += count

    def _evaluate(self) -> None:
        """Measures at x, and writes a row for every seed that is running."""
        start = time.perf_counter()
        evaluation = jax.device_get(self._programs.evaluate(self._now.state, self._data))
        self._seconds_per_eval = time.perf_counter() - start
        losses = np.asarray(self._now.loss_sum) / self.record["since_eval"]
        done = self._progress(self._step, self.record["gradients"])
        for seed in self._running():
            if not all(np.isfinite(values[seed]) for values in evaluation):
                self._fail(seed, self._step - 1, None, done)
        self.record |= {"seconds": 0.0, "seed_steps": 0, "since_eval": 0}
        self._put(loss_sum=jnp.zeros_like(self._now.loss_sum))
        for seed in self._running():
            row = {"algorithm": self._name, "seed": seed, **done}
            row |= {"minibatch_loss": float(losses[seed])}
            row |= {name: float(values[seed]) for name, values in evaluation._asdict().items()}
            self._write(row)
        self._bar.set_postfix(_postfix(losses, evaluation, done))
        self._bar.update()

    def _put(self, **changes: Any) -> None:
        """Changes the state, which stays where the program wants it."""
        self._now = self._programs.place(self._now._replace(**changes))

    def _write(self, row: Row) -> None:
        if self._writer is not None:
            self._writer.write(row)
        self.record["rows"].append(row)

    def _progress(self, step: int, gradients: int) -> Row:
        """How far the run is at an outer step: gradients in all the units people use."""
        config, algorithm = self._config, self._programs.algorithm
        spent = max(self.record["seed_steps"], 1) * self._cycle
        return {
            "gradient_evaluations": gradients,  # over all replicas
            "effective_epochs": gradients * config.batch_size / self._num_train,
            "outer_steps": step,
            "replicas": algorithm.replicas or 1,
            "num_steps": algorithm.relaxation.num_steps,
            "gamma": None if self._gamma is None else float(self._gamma(step)),
            "seconds_per_gradient": self.record["seconds"] / spent,
        }

    def _fail(self, seed: int, outer_step: int, inner_step: int | None, missed: Row) -> None:
        """Notes that a seed has diverged, and puts its last saved state in its place.

        Its row, at the evaluation that it did not reach, has no measurements: whoever reads the
        metric file alone can tell a seed that diverged from one that never was.
        """
        failure = {
            "algorithm": self._name, "seed": seed, "outer_step": outer_step,
            "inner_step": inner_step, "num_steps": self._programs.algorithm.relaxation.num_steps,
        }  # fmt: skip
        self.record["failures"].append(failure)
        _log.error("%s", describe(failure))
        measured = dict.fromkeys(("minibatch_loss", *Evaluation._fields))
        self._write({"algorithm": self._name, "seed": seed, **missed, **measured})
        own = jnp.arange(self._config.seeds) == seed
        good = self._programs.place(from_host(self._now, self._good))
        kept = jax.tree.map(
            lambda good, now: jnp.where(own.reshape(-1, *[1] * (now.ndim - 1)), good, now),
            good, self._now,
        )  # fmt: skip
        self._now = kept
        self._put(bad=self._now.bad.at[seed].set(inner_step or 0))

    def _save(self) -> None:
        """Saves a checkpoint; with every seed failed, the last good one stays the newest."""
        if self._running():
            state = self._programs.layout.gather(self._now)
            checkpoint = Checkpoint(self._step, state, self.record)
            self._good = self._checkpoints.save(checkpoint) if is_lead() else to_host(state)
        self._saved_at = time.monotonic()


def describe(failure: Row) -> str:
    """Says what became of a seed that diverged, and what to do."""
    inner, num_steps = failure["inner_step"], failure["num_steps"]
    if inner is None:
        what, where = "the loss at x is", "its evaluation"
    elif inner == num_steps:
        what, where = "its parameters are", "the move of x"
    else:
        what, where = "its loss is", f"inner step {inner} of {num_steps}"
    return (
        f"{failure['algorithm']}: seed {failure['seed']} stopped, because {what} not finite: outer "
        f"step {failure['outer_step']}, {where} (counted from 0). Its last saved state stays in "
        "the checkpoints, and other seeds go on. Lower the learning rate or, where there is an "
        "inner step_size, raise gamma (step_size/gamma must stay below 2), in a new --workdir."
    )


def _postfix(losses: np.ndarray, evaluation: Evaluation, done: Row) -> dict[str, str]:
    gamma = {} if done["gamma"] is None else {"gamma": f"{done['gamma']:.3g}"}
    return {
        "loss": f"{np.nanmean(losses):.4f}",
        "error": f"{np.nanmean(evaluation.val_error):.2f}%",
        **gamma,
        "steps/s": f"{1 / done['seconds_per_gradient']:.0f}",
    }
