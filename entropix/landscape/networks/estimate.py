"""Monte-Carlo figures, each with its standard error."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Estimate(NamedTuple):
    """A figure and the error of that figure.

    Attributes:
      value: a number, an array, or a tree of numbers.
      standard_error: of the same structure and shapes, >= 0.
    """

    value: Any
    standard_error: Any


def mean_of_samples(samples: Any) -> Estimate:
    r"""The mean over the first axis, with its standard error.

    .. math:: s/\sqrt{m}, \qquad s^2 = \tfrac{1}{m-1}\sum_i (a_i - \bar a)^2

    and never less than the rounding error of the samples: probes of signs see the trace of a
    diagonal matrix without any spread, though not without rounding.

    Args:
      samples: a tree of arrays of shape (m, ...), independent along the first axis, m >= 2.

    Returns:
      An `Estimate` of trees of arrays without that axis.

    Example:
      >>> import jax.numpy as jnp
      >>> mean, error = mean_of_samples(jnp.asarray([1.0, 3.0, 1.0, 3.0]))
      >>> float(mean), round(float(error), 3)    # sqrt(4/3) / sqrt(4)
      (2.0, 0.577)
    """
    return Estimate(
        jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), samples),
        jax.tree.map(_standard_error, samples),
    )


def _standard_error(samples: jax.Array) -> jax.Array:
    # In units of the largest sample: the squares of tiny and of huge ones leave float32.
    largest = jnp.max(jnp.abs(samples), axis=0)
    unit = jnp.where(largest > 0, largest, 1)
    relative = samples / unit[None]
    spread = jnp.std(relative, axis=0, ddof=1) / len(samples) ** 0.5
    rounding = jnp.finfo(samples.dtype).eps * jnp.mean(jnp.abs(relative), axis=0)
    return unit * jnp.hypot(spread, rounding)
