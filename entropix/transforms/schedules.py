"""Scoping: the schedule that shrinks gamma along the outer steps."""

import functools

import jax
import jax.numpy as jnp
import optax

from entropix.transforms.checks import check_fraction, check_non_negative, check_positive


def scoping(init_value: float, rate: float = 1e-3, *, end_value: float = 0.0) -> optax.Schedule:
    r"""A geometric decay of the scope with the outer step (Deep Relaxation, section 7.5).

    .. math:: \gamma_k = \max\{\gamma_0 (1 - \gamma_1)^k, \gamma_{end}\}

    A large gamma explores a smooth, wide landscape; as gamma shrinks, the relaxed loss and its
    gradient approach f and its gradient. The Langevin step needs step_size/gamma < 2 to stay
    stable: choose `end_value` above half the step size for long runs.

    Args:
      init_value: gamma_0 > 0, the scope at the first outer step.
      rate: gamma_1 in [0, 1), the relative decrease per outer step.
      end_value: smallest scope, >= 0. The default never clips.

    Returns:
      An Optax schedule of the outer step count.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix
      >>> gamma = entropix.scoping(10.0, rate=0.1, end_value=1.0)
      >>> [round(float(gamma(k)), 3) for k in (0, 1, 2, 100)]
      [10.0, 9.0, 8.1, 1.0]
      >>> tx = entropix.entropy_sgd(0.1, gamma=gamma)

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, section 7.5.
    """
    check_positive("init_value", init_value)
    check_fraction("rate", rate)
    check_non_negative("end_value", end_value)

    # Outside of `jit`, JAX compiles a program for every concrete integer that is an exponent.
    @functools.partial(jax.jit, inline=True)
    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        # A power, not a product carried in the state: the value depends on the count alone.
        return jnp.maximum(init_value * (1.0 - jnp.asarray(rate)) ** count, end_value)

    return schedule
