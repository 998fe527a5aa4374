"""What was measured of one seed at one evaluation, as a row."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from entropix.experiment.method import Method
from entropix.experiment.run import Run
from entropix.rows import Measurement, Row
from entropix.runs.record import Record
from entropix.training.evaluation import measured


class SeedRows:
    """Makes the rows of a run.

    Args:
      run: whose rows.
      method: of `run`.
    """

    def __init__(self, run: Run, method: Method):
        self._run, self._method, self._measures = run, method, measured(run.problem)
        gamma = method.gamma
        self._gamma = None if gamma is None else jax.jit(gamma)  # one program for all steps

    def seconds_per_gradient(self, record: Record) -> float:
        """Since the last evaluation, of one seed and one replica."""
        return record.seconds / (max(record.seed_steps, 1) * self._method.cycle)

    def row(
        self,
        place: int,
        at: tuple[int, int],
        record: Record,
        *,
        loss: float | None = None,
        values: Mapping[str, float] | None = None,
        flatness: Mapping[str, Measurement] | None = None,
    ) -> Row:
        """The row of a seed; of one that has diverged without loss and values.

        Args:
          place: of the seed among those of the run.
          at: outer steps and gradients so far.
          record: clocks since the last evaluation.
          loss: mean over mini-batches since then.
          values: of the problem's measures, by name.
          flatness: more measures.
        """
        (step, gradients), run, method = at, self._run, self._method
        replicas, size = method.replicas or 1, run.problem.num_examples
        known = values or {}
        return Row(
            run=run.name,
            algorithm=run.algorithm.name,
            label=run.label,
            seed=run.seeds[place],
            replicas=replicas,
            num_steps=method.relaxation.num_steps,
            gradients=gradients,
            gradients_per_replica=record.per_replica + (gradients - record.gradients) // replicas,
            effective_epochs=gradients * run.problem.batch_size / size if size else None,
            outer_steps=step,
            gamma=None if self._gamma is None else float(self._gamma(jnp.asarray(step))),
            seconds_per_gradient=self.seconds_per_gradient(record),
            minibatch_loss=loss,
            measures={
                name: Measurement(known.get(name), measure.unit, measure.better)
                for name, measure in self._measures.items()
            }
            | dict(flatness or {}),
        )
