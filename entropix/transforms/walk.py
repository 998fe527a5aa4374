r"""The walk of a complete optimiser away from x: what an outer optimiser follows.

.. math:: y \leftarrow A(y) - \frac{\eta_y}{\gamma}(y - x) + \sqrt{2\eta_y T}\,\varepsilon

It is local entropy's chain with an optimiser A of any kind in the place of the gradient step.
"""

import math
from typing import Any

import jax
import optax
from optax import ScalarOrSchedule

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, check_optional_axis_name
from entropix.transforms.keys import check_key
from entropix.transforms.langevin import Move, Noise, langevin
from entropix.transforms.numerics import at, factor, is_zero, root, scalar, wide
from entropix.transforms.probe import refuse_incomplete
from entropix.transforms.relaxation import Pull, Relaxation
from entropix.transforms.stability import refuse_unstable


def walk_step(
    y: jax.Array,
    x: jax.Array,
    update: jax.Array,
    gamma: Any,
    step_size: Any,
    temperature: Any = 0.0,
    noise: jax.Array | None = None,
) -> jax.Array:
    r"""One step of the walk, for one array.

    .. math:: y + u - \frac{\eta_y}{\gamma}(y - x) + \sqrt{2\eta_y T}\,\varepsilon

    Args:
      y: inner iterate.
      x: centre of the neighbourhood.
      update: u, the optimiser's update, with its sign.
      gamma: scope > 0; None for no pull.
      step_size: eta_y > 0 of pull and noise; not used without them.
      temperature: T >= 0; not used without noise.
      noise: epsilon with unit variance, or None.

    Returns:
      The next y, in float32 or wider.
    """
    y, x, update = wide(y), wide(x), wide(update)
    moved = y + update
    if gamma is not None:
        moved = moved - factor(scalar(step_size, y) / scalar(gamma, y), y) * (y - x)
    if noise is None:
        return moved
    size = root(2 * scalar(step_size, y)) * root(scalar(temperature, y))
    return moved + factor(size, y) * noise


def walk(
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
    gamma: ScalarOrSchedule = math.inf,
    step_size: ScalarOrSchedule | None = None,
    temperature: ScalarOrSchedule = 0,
    averaging: float | str = 0,
    key: jax.Array | int = 0,
    axis_name: AxisName | None = None,
) -> Relaxation:
    """Makes the relaxation whose result is the displacement x - <y> of a complete optimiser.

    Args:
      optimizer: complete, with its learning rate; its state is kept, so its schedules count
        gradients.
      num_steps: K >= 1, gradients per outer step.
      gamma: scope, in (0, inf]; infinity switches the pull off.
      step_size: eta_y > 0 of pull and noise; None where there is neither.
      temperature: T >= 0.
      averaging: alpha in [0, 1), or "linear"; see `entropix.local_entropy`.
      key: key or seed of the noise.
      axis_name: named axis of replicas that must not share noise.

    Returns:
      A `Relaxation`.

    Raises:
      ValueError: for an argument outside its range, a missing `step_size`, an incomplete optimiser.
    """
    num_steps = checks.check_count("num_steps", num_steps)
    gamma = checks.check_positive("gamma", gamma, infinite=True)
    temperature = checks.check_non_negative("temperature", temperature)
    averaging = checks.check_averaging(averaging)
    check_key(key)
    check_optional_axis_name(axis_name)
    free, quiet = _is_infinite(gamma), is_zero(temperature)
    if step_size is not None:
        step_size = checks.check_positive("step_size", step_size)
        refuse_unstable(gamma, step_size, num_steps)
    elif not (free and quiet):
        raise ValueError(
            "step_size is needed where gamma is finite or temperature > 0: it is the size eta_y of "
            f"pull and noise; got step_size=None, gamma={gamma!r}, temperature={temperature!r}. "
            "The learning rate of the optimiser is a good first value. Without pull and noise, "
            "write gamma=math.inf and temperature=0 as Python numbers: an array counts as unknown. "
            "(With optax.inject_hyperparams, which makes arrays of all numbers, write "
            "static_args=('num_steps', 'gamma', 'temperature', 'averaging').)"
        )
    refuse_incomplete("optimizer", optimizer)

    def move(count: jax.Array) -> Move:
        scope = None if free else at(gamma, count)
        values = scope, at(step_size, count), at(temperature, count)
        return lambda y, x, u, e: walk_step(y, x, u, *values, e)

    return langevin(
        move,
        optimizer,
        num_steps=num_steps,
        averaging=averaging,
        noise=None if quiet else Noise("popcount", key, axis_name),
        divisor=1.0,
        reset_inner=False,
        pull=Pull(gamma, 0.0 if step_size is None else step_size),
    )


def _is_infinite(gamma: Any) -> bool:
    """Whether `gamma` is infinite already at build time, so that the pull can be left out."""
    return isinstance(gamma, float) and math.isinf(gamma)
