r"""Stability of the pull: what makes an inner step overshoot is found before work starts.

The pull alone moves y by :math:`y - x \leftarrow (1 - \eta_y/\gamma)(y - x)`, which grows in size
where :math:`\eta_y/\gamma \ge 2`, whatever the loss.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from entropix.transforms import checks
from entropix.transforms.parts import is_without_relaxation
from entropix.transforms.relaxation import Relaxation


def refuse_unstable(gamma: Any, step_size: Any, num_steps: int) -> None:
    """Raises `ValueError` if two known numbers make the pull diverge; `check` sees schedules."""
    gamma, step_size = checks.known_number(gamma), checks.known_number(step_size)
    if num_steps == 1 or gamma is None or step_size is None:
        return
    if step_size >= 2 * gamma:
        raise ValueError(
            f"step_size/gamma must be below 2, or inner steps diverge; got step_size={step_size!r} "
            f"and gamma={gamma!r}, a ratio of {step_size / gamma:.3g}. Raise gamma "
            "or lower step_size. (The flag gamma of the authors' code is 1/gamma: their 0.03 is "
            "gamma=33.)"
        )


def check(tx: Any, num_outer_steps: int) -> float:
    r"""Finds out before work starts whether schedules will make the inner steps diverge.

    .. math:: \max_k \eta_y(k)/\gamma(k) < 2,\qquad k = 0 \dots n - 1

    Args:
      tx: a relaxation, one of the optimisers by name, `entropix.relax(...)` or
        `entropix.stepwise(...)`. Other chains do not show what is inside: check their relaxation.
      num_outer_steps: n >= 1, the outer steps of the run; one is L gradients.

    Returns:
      The largest ratio of step size and scope; 0 where nothing pulls y (gamma = inf, `heat`,
      `sharpness`, `sgd`, `elastic_sgd`, `easgd`) or L = 1.

    Raises:
      ValueError: if the ratio reaches 2, naming the first outer step where it does; if the
        relaxation cannot be seen, or its numbers are traced.

    Example:
      >>> import entropix
      >>> tx = entropix.entropy_sgd(0.1, gamma=entropix.scoping(1.0, rate=0.01))
      >>> round(entropix.check(tx, num_outer_steps=100), 2)
      0.27
      >>> try:
      ...   entropix.check(tx, num_outer_steps=1000)
      ... except ValueError as error:
      ...   print(str(error)[:60])
      step_size/gamma reaches 2.02 at outer step 299 of 1000 (gamm
    """
    count = checks.check_count("num_outer_steps", num_outer_steps)
    relaxation = tx if isinstance(tx, Relaxation) else getattr(tx, "relaxation", None)
    if is_without_relaxation(tx):
        return 0.0
    if relaxation is None:
        raise ValueError(
            "tx must be a relaxation or one of the optimisers by name: check cannot see a "
            f"relaxation inside tx={checks.shown(tx)}. Give it the relaxation, as in "
            "entropix.check(entropix.local_entropy(...), num_outer_steps)."
        )
    if relaxation.pull is None or relaxation.num_steps == 1:
        return 0.0
    scope = _values(relaxation.pull.gamma, count)
    step_size = _values(relaxation.pull.step_size, count)
    with np.errstate(divide="ignore", invalid="ignore"):  # a scope of 0 is reported below
        ratio = step_size / scope
    for name, values in (("gamma", scope), ("step_size", step_size)):
        negative = np.flatnonzero(values < 0)
        if negative.size:
            first = int(negative[0])
            raise ValueError(
                f"{name} must be positive; the schedule gives {values[first]:.3g} at outer step "
                f"{first} of {count}. Give the schedule a floor above 0."
            )
    bad = np.flatnonzero(~(ratio < 2))
    if bad.size:
        first = int(bad[0])
        raise ValueError(
            f"step_size/gamma reaches {ratio[first]:.2f} at outer step {first} of {count} "
            f"(gamma={scope[first]:.3g}), and inner steps diverge from 2 on. Give the schedule of "
            "gamma a floor above half the step size, such as entropix.scoping(..., "
            "end_value=step_size), or lower step_size along with it."
        )
    return float(ratio.max())


def _values(value: Any, count: int) -> np.ndarray:
    """A number, or a schedule at every outer step, in double precision."""
    if isinstance(value, jax.core.Tracer):
        raise ValueError("check needs numbers or schedules of numbers; got a traced value.")
    if not callable(value):
        return np.full(count, float(value))
    first = value(jnp.zeros([], jnp.int32))
    checks.check_value(first)
    steps = jnp.arange(count, dtype=jnp.int32)
    try:
        values = jax.vmap(value)(steps)
    except Exception:  # a schedule with Python's conditions
        values = [value(step) for step in range(count)]
    return np.broadcast_to(np.asarray(values, float), (count,))
