"""Scoping: the schedule that shrinks gamma along the outer steps."""

import functools

import jax
import jax.numpy as jnp
import optax

from entropix.transforms.checks import (
    MAX_COUNT,
    check_count,
    check_fraction,
    check_function,
    check_non_negative,
    check_positive,
)


def per_outer_step(schedule: optax.Schedule, num_steps: int) -> optax.Schedule:
    r"""Turns a schedule of gradients into one of outer steps, which are L gradients each.

    .. math:: k \mapsto s(L k)

    Args:
      schedule: s, an Optax schedule of the number of gradients.
      num_steps: L >= 1, gradients per outer step.

    Returns:
      An Optax schedule of the outer step.

    Raises:
      ValueError: if `schedule` is not callable or `num_steps` no integer >= 1.

    Example:
      >>> import entropix, optax
      >>> rate = optax.linear_schedule(1.0, 0.0, transition_steps=1000)    # in gradients
      >>> outer_rate = entropix.per_outer_step(rate, num_steps=20)
      >>> round(float(outer_rate(25)), 3)    # after 500 gradients
      0.5
    """
    num_steps = check_count("num_steps", num_steps)
    check_function("schedule", schedule, "an Optax schedule, a function of a count")
    most = (MAX_COUNT - 1) // num_steps
    return lambda count: schedule(jnp.minimum(count, most) * num_steps)


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
    init_value = check_positive("init_value", init_value, schedule=False)
    rate = check_fraction("rate", rate)
    end_value = check_non_negative("end_value", end_value, schedule=False)

    # Outside of `jit`, JAX compiles a program for every concrete integer that is an exponent.
    @functools.partial(jax.jit, inline=True)
    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        # A power, not a product carried in the state: the value depends on the count alone.
        steps = jnp.asarray(count, jnp.result_type(float))
        start, loss, end = (jnp.asarray(v, steps.dtype) for v in (init_value, rate, end_value))
        # A rate below float32's precision would be lost in 1 - rate.
        return jnp.maximum(start * jnp.exp(steps * jnp.log1p(-loss)), end)

    return schedule
