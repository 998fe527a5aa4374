r"""Heat: the gradient of the heat-equation relaxation, by averaging gradients at Gaussian points.

The relaxed loss is f smoothed by a Gaussian (Deep Relaxation, (23)),

.. math:: v(x, \gamma) = (G_{\gamma T} * f)(x) = E f(x + \sqrt{\gamma T}\,\varepsilon).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from optax import ScalarOrSchedule

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, check_optional_axis_name
from entropix.transforms.keys import check_key, step_key
from entropix.transforms.numerics import (
    at,
    cast_like,
    copy_tree,
    factor,
    is_zero,
    root,
    scalar,
    wide,
    wide_zeros,
)
from entropix.transforms.random import check_noise, noise_like
from entropix.transforms.relaxation import (
    Relaxation,
    RelaxationState,
    check_state,
    init_state,
    next_state,
)


class HeatInner(NamedTuple):
    """The fast variables of one outer step.

    Attributes:
      params: x, in the parameters' dtypes.
      outer: state at the beginning of the outer step.
      mean: sum of the gradients seen, over L; in float32 or wider.
      inner_count: gradients seen. shape=(), dtype=int32.
    """

    params: Any
    outer: RelaxationState
    mean: Any
    inner_count: jax.Array


def heat(
    gamma: ScalarOrSchedule,
    *,
    num_steps: int = 20,
    temperature: ScalarOrSchedule = 1e-4,
    noise: str = "normal",
    key: jax.Array | int = 0,
    axis_name: AxisName | None = None,
) -> Relaxation:
    r"""HEAT's relaxation: the mean of L mini-batch gradients at Gaussian points around x.

    .. math:: \nabla v(x, \gamma) \approx \frac1L \sum_{i\le L}
        \nabla f_{mb}(x + \sqrt{\gamma T}\,\varepsilon_i)

    Args:
      gamma: scope > 0; a float or a schedule of the outer step. Only the product gamma T matters.
      num_steps: L >= 1, gradients per outer step.
      temperature: T >= 0; a float or a schedule. The default 1e-4 makes the smoothing width
        0.01 at gamma = 1, a tenth of a typical weight of a layer with 100 inputs. (Entropy-SGD's
        1e-8 would be a width of 1e-4 and leave f as it is.) The number 0 compiles no noise code
        and averages L mini-batches at x.
      noise: law of epsilon; see `entropix.transforms.random`.
      key: typed key, legacy key or integer seed of the noise.
      axis_name: named axis (or axes) of replicas that hold the same key; each folds in its index.

    Returns:
      A `Relaxation`. With noise its first point is not x, so `entropix.relax` asks `grad_fn` for
      all L gradients; the one passed to `update` is unused, and the compiler removes that one.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix, jax
      >>> smooth = entropix.heat(gamma=1.0, num_steps=4000, temperature=1.0)
      >>> slope = entropix.relaxed_grad(smooth, lambda p, i: 3 * p**2)    # f(x) = x^3
      >>> value, _ = slope(jax.numpy.asarray(1.0), smooth.init(0.0))
      >>> bool(abs(value - (3 + 3)) < 0.5)    # E 3 (x + eps)^2 = 3 x^2 + 3
      True

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, (23), (35).
    """
    num_steps = checks.check_count("num_steps", num_steps)
    gamma = checks.check_positive("gamma", gamma)
    temperature = checks.check_non_negative("temperature", temperature)
    check_noise(noise)
    check_key(key)
    check_optional_axis_name(axis_name)
    noisy = not is_zero(temperature)

    def init(params: Any) -> RelaxationState:
        del params
        return init_state(key if noisy else None)

    def begin(params: Any, state: RelaxationState) -> HeatInner:
        return HeatInner(
            params=copy_tree(params),
            outer=check_state(state),
            mean=wide_zeros(params),
            inner_count=jnp.zeros([], jnp.int32),
        )

    def point(chain: HeatInner) -> Any:
        # The noise is a function of (key, outer step, index): it is never stored.
        if not noisy:
            return chain.params
        count = chain.outer.outer_count
        draw = step_key(chain.outer.key, count, chain.inner_count, axis_name=axis_name)
        values = at(gamma, count), at(temperature, count)

        x = jax.tree.map(wide, chain.params)

        def shifted(x: jax.Array, e: jax.Array) -> jax.Array:
            # The compiler repeats cheap operations wherever a bias meets a batch, and the random
            # numbers with them, 128 times; divisions it does not repeat. The barrier keeps a
            # division by a constant from becoming a multiplication.
            scope, T = (scalar(value, e) for value in values)
            width = root(scope) * root(T)
            narrow = width == 0  # e / infinity is 0, and no derivative divides by zero
            inverse = jnp.where(narrow, jnp.inf, 1 / jnp.where(narrow, 1, width))
            return x + e / factor(lax.optimization_barrier(inverse), e)

        return cast_like(jax.tree.map(shifted, x, noise_like(draw, x, noise)), chain.params)

    def step(grads: Any, chain: HeatInner, /, **extra_args: Any) -> HeatInner:
        del extra_args
        mean = jax.tree.map(lambda m, g: m + g.astype(m.dtype) / num_steps, chain.mean, grads)
        return chain._replace(mean=mean, inner_count=optax.safe_increment(chain.inner_count))

    def finish(chain: HeatInner, state: RelaxationState) -> tuple[Any, RelaxationState]:
        return cast_like(chain.mean, chain.params), next_state(state)

    return Relaxation(init, begin, point, step, finish, num_steps, starts_at_params=not noisy)
