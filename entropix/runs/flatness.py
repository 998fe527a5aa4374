"""How flat the loss of a problem is around x, in a run and after it."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
from jax.tree_util import Partial

from entropix.experiment.problem import Problem
from entropix.experiment.run import Run
from entropix.experiment.settings import Settings
from entropix.landscape.networks import Spectrum, batched, hessian, hvp, measures, spectrum
from entropix.landscape.networks.parameters import size
from entropix.rows import FLATNESS, Measurement
from entropix.training.state import Point
from entropix.transforms.checks import check_count

_log = logging.getLogger(__name__)

EXAMPLES, BATCH_SIZE = Settings.flatness_examples, 128


class Sample(NamedTuple):
    """A fixed sample of the training set, to measure flatness on.

    Attributes:
      problem: whose loss is measured (see `Problem.at_state`).
      batches: the examples, in equal batches.
    """

    problem: Problem
    batches: Any

    def loss(self, model_state: Any) -> Partial:
        """`loss(params, batch)` with the model state bound."""
        return Partial(self.problem.at_state[0], model_state)

    def measures(self, point: Point, key: int = 0, **options: Any) -> dict[str, float]:
        """Numbers by name; see `entropix.landscape.measures`, whose `options` these are."""
        params, state = point
        figures = Partial(self.problem.at_state[1], state)
        return measures(self.loss(state), params, self.batches, key, figures=figures, **options)

    def spectrum(self, point: Point, key: int = 0) -> Spectrum:
        """The density of the Hessian's eigenvalues."""
        params, state = point
        return spectrum(hessian(self.loss(state), params, self.batches), params, key)

    def named(self, values: Mapping[str, float]) -> dict[str, Measurement]:
        """The measures with units, and without those that are not finite."""
        return {
            name: Measurement(value, *self._unit(name))
            for name, value in values.items()
            if math.isfinite(value)
        }

    def _unit(self, name: str) -> tuple[str, str]:
        """Unit and direction: a local energy has those of its figure, all else the loss's unit."""
        known = self.problem.measures
        figure = name.partition("/")[2]
        figure = figure if figure in known else figure.removesuffix("_se")
        if figure in known:
            return known[figure].unit, known[figure].better
        return known["loss"].unit if "loss" in known else "", "lower"


def sample(problem: Problem, examples: int = EXAMPLES, batch_size: int = BATCH_SIZE) -> Sample:
    """Examples of the training set: the first ones, or spread over a set that is in an order.

    Args:
      problem: with its data in arrays.
      examples: at most so many; what they have beyond a multiple of `batch_size` is left out.
      batch_size: examples in memory at once.

    Returns:
      A `Sample`.

    Raises:
      ValueError: for a loader on the host, whose first examples may be others at every reading.
    """
    if problem.num_examples is None:
        raise ValueError(
            f"{problem.name}: flatness is measured on arrays, and the data are a loader on the "
            "host. Give the problem arrays."
        )
    count = min(check_count("examples", examples), problem.num_examples)
    batch_size = min(check_count("batch_size", batch_size), count)
    return Sample(
        problem, batched(problem.some_of_data(count // batch_size * batch_size), batch_size)
    )


class Flatness:
    """Measures flatness in a run, at those of its evaluations that `Settings.flatness_at` names.

    Args:
      run: whose problem it is.

    Raises:
      ValueError: if the loss has no second derivatives.
    """

    def __init__(self, run: Run):
        fractions = cast(Sequence[float], run.settings.flatness_at)  # made so by `Settings`
        self._run, self._due = run, run.budget.due_at(fractions)
        self._first = True
        if self._due:
            self._sample = sample(run.problem, run.settings.flatness_examples)
            _check_curvature(run.name, self._sample)

    def is_due(self, before: int, gradients: int) -> bool:
        """Whether flatness is measured after so many gradients, `before` of them evaluated."""
        return any(before < due <= gradients for due in self._due)

    def measure(
        self, points: Point, places: Sequence[int], seconds_per_gradient: float
    ) -> dict[int, dict[str, Measurement]]:
        """The measures of some seeds; says what they cost.

        Args:
          points: x and its model state, of every seed along a leading axis.
          places: of the seeds on that axis.
          seconds_per_gradient: of training, for comparison.

        Returns:
          Place -> name -> measurement. A measure that is not finite is missing, and that is said:
          noise of 30 % may well be too much for a network that is sound.
        """
        start, found, run = time.perf_counter(), {}, self._run
        num = min(3, size(jax.tree.map(lambda leaf: leaf[0], points.params)))
        for place in places:
            point = jax.tree.map(lambda leaf, k=place: leaf[k], points)
            announce = self._announce if place == places[0] and self._first else None
            values = self._sample.measures(point, num_eigenvalues=num, announce=announce)
            named = self._sample.named(values)
            found[place] = {FLATNESS + name: entry for name, entry in named.items()}
            if lost := sorted(name for name, value in values.items() if not math.isfinite(value)):
                _log.warning(
                    "%s: seed %d: not finite, and left out: %s",
                    run.name, run.seeds[place], ", ".join(lost),
                )  # fmt: skip
        seconds = time.perf_counter() - start
        _log.info(
            "%s: flatness of %d seeds took %.1f s%s, the time of %s gradients of each",
            run.name, len(places), seconds, ", with what had to be compiled" if self._first else "",
            f"{seconds / max(seconds_per_gradient * len(places), 1e-12):,.0f}",
        )  # fmt: skip
        self._first = False
        return found

    def _announce(self, text: str) -> None:
        _log.info("%s: %s, for each seed", self._run.name, text)


def _check_curvature(name: str, measured: Sample) -> None:
    """Raises `ValueError` before training for a loss that would fail at its end."""

    def product(point: Point, batches: Any) -> Any:
        return hvp(measured.loss(point.model_state), point.params, point.params, batches)

    point = Point(*jax.eval_shape(measured.problem.init, jax.random.key(0)))
    try:
        jax.eval_shape(product, point, measured.batches)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{name}: flatness_at needs a Hessian-vector product of the loss, which fails: {error}"
        ) from error
