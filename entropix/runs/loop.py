"""The loop of a run: compiled calls, evaluations, checkpoints, and what may go wrong in between."""

import contextlib
import logging
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entropix.experiment.run import Run
from entropix.replicas import agree
from entropix.rows import Measurement, Row
from entropix.runs.arrays import from_host, to_host
from entropix.runs.checkpoint import Checkpoint, Checkpoints
from entropix.runs.feed import Feed
from entropix.runs.flatness import Flatness
from entropix.runs.metrics import MetricWriter
from entropix.runs.preemption import Interrupted
from entropix.runs.progress import Progress
from entropix.runs.record import Failure, Record
from entropix.runs.restoring import is_lead, restore
from entropix.runs.seed_rows import SeedRows
from entropix.training.programs import Programs
from entropix.training.step import NEVER

_log = logging.getLogger(__name__)

# The longest that a request to stop waits for: a scheduler grants some thirty seconds.
_CALL_SECONDS = 5.0


class Loop:
    """Takes a run from where it is to its end.

    All that a later process needs to go on is in the arrays, an `Advance`, and in the `Record`:
    together they are a checkpoint. Nothing in them depends on how the outer steps were divided
    into calls, so a run with breaks ends bit for bit like one without. (The clock aside, and the
    frozen state of a seed that diverged, which is the one last saved.)

    Args:
      run: what to train.
      programs: of `run`.
      checkpoints: of the run; the newest whole one is continued.
      workdir: where metrics go.
      callbacks: called with every `Row`.
    """

    def __init__(
        self,
        run: Run,
        programs: Programs,
        checkpoints: Checkpoints,
        workdir: pathlib.Path,
        callbacks: Sequence[Callable[[Row], Any]] = (),
    ):
        self._run, self._programs, self._checkpoints = run, programs, checkpoints
        self._workdir, self._callbacks = workdir, callbacks
        self._due, self._flatness = run.budget.due(), Flatness(run)
        self._starter = starter = programs.starter
        num_steps = starter.method.relaxation.num_steps
        self._rows = SeedRows(run, starter.method)
        start, owner = restore(checkpoints, starter), run.owner
        if start is None:
            self._arrays, self._step = starter.place(starter.init()), 0
            self.record = Record(replicas=starter.layout.replicas, owner=owner)
        else:
            self._arrays, self._step = starter.place(start.state), start.step
            per_replica = start.step * num_steps
            self.record = Record.from_dict(start.record, per_replica)
            # The start of a fork, also of one that was killed before its first checkpoint.
            if self.record.owner not in ("", owner):
                self.record = self.record.handed_to(owner)
                self._put(loss_sum=jnp.zeros_like(self._arrays.loss_sum))
            self._tell()
        self._feed = None
        if run.problem.on_host:
            self._feed = Feed(run.problem, num_steps, self.record.per_replica)
        self._good, self._saved_at = to_host(starter.layout.gather(self._arrays)), time.monotonic()
        self._seconds_per_step = self._seconds_per_eval = math.inf

    def _tell(self) -> None:
        """Says where the run continues, or that it cannot; notes how many replicas go on."""
        done, last, replicas = self.record.gradients, self._due[-1], self.record.replicas
        if done >= last + self._starter.method.cycle:
            raise ValueError(
                f"the checkpoint in {self._workdir} has {done} gradients, more than this config's "
                f"{last}. Raise the budget (config.num_evals), or choose another workdir."
            )
        _log.info(
            "%s: continuing at outer step %d, with %d of %d gradients done",
            self._run.name, self._step, done, last,
        )  # fmt: skip
        if (p := self._starter.layout.replicas) != replicas:
            self.record.replicas = p
            what = "new ones start at the centre" if p > replicas else "the last ones leave"
            _log.info("%s: %d replicas where there were %d: %s", self._run.name, p, replicas, what)

    @property
    def finished(self) -> bool:
        """Whether no gradient is left to evaluate."""
        return self.record.gradients >= self._due[-1]

    def run(self, requested: Callable[[], int | None], progress: bool | None) -> None:
        """Runs to the end, or until asked to stop.

        Args:
          requested: answers with the number of a signal that asked to stop, or None.
          progress: True for a progress bar, False for a line per evaluation, None for neither.

        Raises:
          Interrupted: when asked to stop, after saving.
          OSError: if metrics or a checkpoint cannot be written.
        """
        lead = is_lead()
        self._progress = Progress(
            self._run.name, self._due[-1], self.record.gradients, progress if lead else None
        )
        writer = MetricWriter(self._workdir, self.record.rows) if lead else None
        with contextlib.closing(self._progress), writer or contextlib.nullcontext():
            self._writer = writer
            while self._running():
                if self._is_due():
                    if self._seconds_per_eval > _CALL_SECONDS or self._measures_flatness():
                        self._save()  # a kill that does not wait for the evaluation costs no more
                    self._evaluate()
                elif not self.finished:
                    self._advance()
                else:
                    break
                seconds, signum = self._agree(requested())
                if seconds >= self._run.settings.checkpoint_seconds:
                    self._save()
                if signum:
                    self._save()
                    raise Interrupted(
                        f"{self._run.name}: asked to stop by signal {signum}, and did, after "
                        f"{self.record.gradients} of {self._due[-1]} gradients. The same "
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
    def _cycle(self) -> int:
        return self._starter.method.cycle

    def _next_evaluation(self) -> int:
        """Outer steps to it: no fewer gradients than are due, in whole outer steps."""
        done, last = self.record.gradients, self._evaluated
        due = next((due for due in self._due if due > last), self._due[-1])
        return math.ceil((due - done) / self._cycle)

    @property
    def _evaluated(self) -> int:
        """Gradients at the last evaluation."""
        return self.record.gradients - self.record.since_eval * self._cycle

    def _measures_flatness(self) -> bool:
        """Whether flatness is measured at the evaluation that is due."""
        return self._flatness.is_due(self._evaluated, self.record.gradients)

    def _is_due(self) -> bool:
        """Whether an evaluation comes next."""
        return self.record.since_eval > 0 and self._next_evaluation() <= 0

    def _running(self) -> list[int]:
        """The places of the seeds that have not diverged."""
        failed = self.record.failed()
        return [place for place, seed in enumerate(self._run.seeds) if seed not in failed]

    def _advance(self) -> None:
        """One compiled call of a few seconds, at most to the next evaluation."""
        missing = self._next_evaluation()
        count = min(missing, max(1, int(_CALL_SECONDS / self._seconds_per_step)))
        layout = self._starter.layout
        if self._feed is None:
            data = self._programs.data
        else:
            count, data = 1, layout.share(jax.device_put(self._feed.take()))
        shared = layout.share(jnp.asarray(count, jnp.int32)), data
        missed_at = self._step + missing, self.record.gradients + missing * self._cycle
        start = time.perf_counter()
        with jax.transfer_guard("disallow"):  # all that a call needs is on the device
            self._arrays = jax.block_until_ready(self._programs.advance(self._arrays, shared))
        seconds = time.perf_counter() - start
        self._seconds_per_step = seconds / count
        done, bad = np.array(self._arrays.done), np.array(self._arrays.bad)
        self._put(done=jnp.zeros_like(self._arrays.done))  # of the call, and no part of the state
        record = self.record
        record.seconds += seconds
        record.seed_steps += int(done.sum())
        record.since_eval += count
        record.gradients += count * self._cycle
        record.per_replica += count * self._starter.method.relaxation.num_steps
        for place in self._running():
            if bad[place] != NEVER:
                self._fail(place, self._step + int(done[place]) - 1, int(bad[place]), missed_at)
        self._step += count
        self._progress.advance(record.gradients)

    def _evaluate(self) -> None:
        """Measures at x, and writes a row for every seed that is running."""
        start = time.perf_counter()
        values = jax.device_get(self._programs.evaluate(self._arrays.state))
        self._seconds_per_eval = time.perf_counter() - start
        losses = np.asarray(self._arrays.loss_sum) / self.record.since_eval
        at = self._step, self.record.gradients
        for place in self._running():
            bad = [name for name, of_seeds in values.items() if not np.isfinite(of_seeds[place])]
            if bad:
                self._fail(place, self._step - 1, None, at, measure=bad[0])
        flatness: dict[int, dict[str, Measurement]] = {}
        if self._measures_flatness() and (places := self._running()):
            points = self._starter.points(self._arrays.state)
            seconds = self._rows.seconds_per_gradient(self.record)
            flatness = self._flatness.measure(points, places, seconds)
        rows = [
            self._rows.row(
                place,
                at,
                self.record,
                loss=float(losses[place]),
                values={name: float(of_seeds[place]) for name, of_seeds in values.items()},
                flatness=flatness.get(place),
            )
            for place in self._running()
        ]
        self.record.seconds, self.record.seed_steps, self.record.since_eval = 0.0, 0, 0
        self._put(loss_sum=jnp.zeros_like(self._arrays.loss_sum))
        for row in rows:
            self._write(row)
        self._progress.evaluated(rows)

    def _put(self, **changes: Any) -> None:
        """Changes the state, which stays where the program wants it."""
        self._arrays = self._starter.place(self._arrays._replace(**changes))

    def _write(self, row: Row) -> None:
        self.record.rows.append(row)
        if self._writer is not None:
            self._writer.write(row)
            for callback in self._callbacks:
                callback(row)

    def _fail(
        self,
        place: int,
        outer_step: int,
        inner: int | None,
        at: tuple[int, int],
        measure: str = "",
    ) -> None:
        """Notes that a seed has diverged, and puts its last saved state in its place.

        Its row, at the evaluation that it did not reach, has no measurements: whoever reads the
        metric file alone can tell a seed that diverged from one that never was.
        """
        num_steps = self._starter.method.relaxation.num_steps
        seed = self._run.seeds[place]
        failure = Failure(self._run.name, seed, outer_step, inner, num_steps, measure)
        _log.error("%s", failure)
        self.record.failures.append(failure)
        self._write(self._rows.row(place, at, self.record))
        chosen = jnp.arange(len(self._run.seeds)) == place
        good = self._starter.place(from_host(self._arrays, self._good))
        self._arrays = jax.tree.map(
            lambda good, last: jnp.where(chosen.reshape(-1, *[1] * (last.ndim - 1)), good, last),
            good, self._arrays,
        )  # fmt: skip
        self._put(bad=self._arrays.bad.at[place].set(inner or 0))

    def _save(self) -> None:
        """Saves a checkpoint; with every seed failed, the last good one stays the newest."""
        if self._running():
            state = self._starter.layout.gather(self._arrays)
            checkpoint = Checkpoint(self._step, state, self.record.to_dict())
            self._good = self._checkpoints.save(checkpoint) if is_lead() else to_host(state)
        self._saved_at = time.monotonic()
