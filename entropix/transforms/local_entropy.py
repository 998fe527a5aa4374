r"""Local entropy: the gradient of the viscous Hamilton-Jacobi relaxation by Langevin dynamics.

The relaxed loss is the local entropy of f (Deep Relaxation, (11)),

.. math:: f_\gamma(x) = -T \log\,(G_{\gamma T} * e^{-f/T})(x),

whose gradient is an average over the Gibbs measure of the neighbourhood of x (Lemma 1),

.. math:: \nabla f_\gamma(x) = (x - \langle y\rangle)/\gamma,\qquad
  \rho(y; x) \propto \exp\{-[f(y) + |x-y|^2/(2\gamma)]/T\}.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import ScalarOrSchedule

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, check_axis_name
from entropix.transforms.keys import check_key, step_key
from entropix.transforms.numerics import (
    at,
    cast_like,
    copy_tree,
    is_zero,
    scalar,
    where_changed,
    wide,
    wide_copy,
)
from entropix.transforms.random import check_noise, noise_like
from entropix.transforms.relaxation import Relaxation, RelaxationState, init_state, next_state


class LangevinInner(NamedTuple):
    """The fast variables of one outer step; trees have the parameters' shapes.

    Attributes:
      params: x, in the parameters' dtypes.
      outer: state at the beginning of the outer step.
      y: the inner iterate, in float32 or wider.
      average: the running mean <y>, in float32 or wider; None where it would be y itself
        (averaging = 0).
      inner_state: state of the inner Optax transformation.
      inner_count: inner steps done. shape=(), dtype=int32.
    """

    params: Any
    outer: RelaxationState
    y: Any
    average: Any
    inner_state: Any
    inner_count: jax.Array


def langevin_step(
    y: jax.Array,
    x: jax.Array,
    direction: jax.Array,
    gamma: Any,
    step_size: Any,
    temperature: Any = 0.0,
    noise: jax.Array | None = None,
) -> jax.Array:
    r"""One Euler-Maruyama step of the inner dynamics, for one array.

    .. math:: y - \eta_y [d + (y - x)/\gamma] + \sqrt{2\eta_y T}\,\varepsilon

    Args:
      y: inner iterate.
      x: centre of the neighbourhood.
      direction: d, the mini-batch gradient at y or what an inner optimiser made of it.
      gamma: scope > 0.
      step_size: eta_y > 0.
      temperature: T >= 0; not used without noise.
      noise: epsilon with unit variance, or None for the deterministic (proximal) step.

    Returns:
      The next y, in float32 or wider.
    """
    y, x, direction = wide(y), wide(x), wide(direction)
    step_size, gamma = scalar(step_size, y), scalar(gamma, y)
    y = y - step_size * (direction + (y - x) * (1 / gamma))
    if noise is None:
        return y
    return y + jnp.sqrt(2 * step_size * scalar(temperature, y)) * noise


def local_entropy(
    gamma: ScalarOrSchedule,
    *,
    num_steps: int = 20,
    step_size: ScalarOrSchedule = 0.1,
    inner: optax.GradientTransformation | None = None,
    averaging: float = 0.75,
    temperature: ScalarOrSchedule = 1e-8,
    noise: str = "normal",
    key: jax.Array | int = 0,
    output: str = "gradient",
    axis_name: AxisName | None = None,
    reset_inner: bool = True,
) -> Relaxation:
    r"""Entropy-SGD's relaxation: L Langevin steps around x and their running mean.

    .. math::
      y \leftarrow y - \eta_y [\nabla f_{mb}(y) + (y-x)/\gamma] + \sqrt{2\eta_y T}\,\varepsilon,
      \qquad \langle y\rangle \leftarrow \alpha\langle y\rangle + (1-\alpha) y

    started at y = <y> = x; the result is (x - <y>)/gamma.

    Temperature convention: T = 1/beta of the measure exp{-(1/T)[f(y) + |x-y|^2/(2 gamma)]} that
    the chain samples, so the noise is sqrt(2 eta_y T) eps. The paper's extrinsic noise
    sqrt(eta_y) beta_ex^{-1/2} eps is T = 1/(2 beta_ex); the authors' code, which adds
    eps0 sqrt(2 eta_y) with eps0 = 1e-4, has T = eps0^2 = 1e-8, the default here.

    Args:
      gamma: scope, in (0, inf]; a float or a schedule of the outer step, such as
        `entropix.scoping`. The explicit step is stable for step_size (f'' + 1/gamma) < 2. With
        infinity there is no pull and only `output="displacement"` makes sense (Lookahead).
      num_steps: L >= 1, gradients per outer step.
      step_size: eta_y > 0; a float or a schedule of the outer step.
      inner: any Optax transformation *without its learning rate* (and hence without its minus
        sign) applied to the inner gradients, for instance `optax.trace(0.9, nesterov=True)` as in
        the authors' code, or `optax.scale_by_adam()`. The pull and the noise are decoupled from
        it, as in decoupled weight decay. With another `inner` than the identity (None) the
        chain's stationary measure is not Lemma 1's.
      averaging: alpha in [0, 1), the weight of the OLD average. 0 keeps only the last y.
      temperature: T >= 0; a float or a schedule. The number 0 compiles no noise code.
      noise: law of epsilon, see `entropix.transforms.random`: "normal" is exact and bit-identical
        to `jax.random.normal`; cheaper laws have the same mean and variance. At the default T the
        noise is tiny and any law serves; sampling rho at larger T calls for "normal".
      key: typed key, legacy key or integer seed of the noise.
      output: "gradient" for (x - <y>)/gamma, or "displacement" for x - <y>, which the authors'
        code feeds to its outer optimiser. Under a scoped gamma these are different algorithms.
      axis_name: named axis (or axes) of replicas that hold the same key; each folds in its index.
      reset_inner: whether the state of `inner` starts anew at every outer step, as in the
        authors' code. False keeps it, as DiLoCo keeps every worker's moments: schedules inside
        `inner` then count gradients, all outer steps together.

    Returns:
      A `Relaxation` for `entropix.relax`, `entropix.stepwise` or `entropix.relaxed_grad`.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix, jax, jax.numpy as jnp, optax
      >>> tx = optax.chain(
      ...     entropix.relax(entropix.local_entropy(gamma=1.0, num_steps=100, temperature=0.0)),
      ...     optax.sgd(1.0))
      >>> f = lambda x: x**2 / 2
      >>> x = jnp.asarray(2.0)
      >>> grad_fn = lambda x, i: jax.grad(f)(x)
      >>> updates, state = tx.update(grad_fn(x, 0), tx.init(x), x, grad_fn=grad_fn)
      >>> round(float(-updates), 3)    # f_gamma(x) = x^2/(2 (1 + gamma)), so its gradient is x/2
      1.0

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, (31)-(33);
      Chaudhari et al, `Entropy-SGD <https://arxiv.org/abs/1611.01838>`_, 2016.
    """
    num_steps = checks.check_count("num_steps", num_steps)
    checks.check_positive("step_size", step_size)
    checks.check_fraction("averaging", averaging)
    checks.check_non_negative("temperature", temperature)
    checks.check_scope(gamma, output)
    check_noise(noise)
    check_key(key)
    if axis_name is not None:
        check_axis_name(axis_name)
    noisy, averaged = not is_zero(temperature), not is_zero(averaging)
    inner_tx = optax.with_extra_args_support(optax.identity() if inner is None else inner)

    def init(params: Any) -> RelaxationState:
        memory = None if reset_inner else inner_tx.init(params)
        return init_state(key if noisy else None)._replace(inner_memory=memory)

    def begin(params: Any, state: RelaxationState) -> LangevinInner:
        return LangevinInner(
            params=copy_tree(params),
            outer=state._replace(inner_memory=None),  # moved to the chain, and back by `finish`
            y=wide_copy(params),
            average=wide_copy(params) if averaged else None,
            inner_state=inner_tx.init(params) if reset_inner else state.inner_memory,
            inner_count=jnp.zeros([], jnp.int32),
        )

    def point(chain: LangevinInner) -> Any:
        return cast_like(chain.y, chain.params)

    def step(grads: Any, chain: LangevinInner, **extra_args: Any) -> LangevinInner:
        count = chain.outer.outer_count
        if inner is not None:  # gradients of another dtype would change that of its state
            grads = cast_like(grads, chain.params)
        direction, inner_state = inner_tx.update(
            grads, chain.inner_state, point(chain), **extra_args
        )
        values = at(gamma, count), at(step_size, count), at(temperature, count)
        if noisy:
            draw = step_key(chain.outer.key, count, chain.inner_count, axis_name=axis_name)
            y = jax.tree.map(
                lambda y, x, d, e: langevin_step(y, x, d, *values, e),
                chain.y, chain.params, direction, noise_like(draw, chain.y, noise),
            )  # fmt: skip
        else:
            y = jax.tree.map(
                lambda y, x, d: langevin_step(y, x, d, *values), chain.y, chain.params, direction
            )
        return chain._replace(
            y=y,
            average=jax.tree.map(_mean, chain.average, y) if averaged else None,
            inner_state=inner_state,
            inner_count=optax.safe_increment(chain.inner_count),
        )

    def _mean(average: jax.Array, y: jax.Array) -> jax.Array:
        weight = scalar(averaging, y)
        return weight * average + (1 - weight) * y

    def finish(chain: LangevinInner, state: RelaxationState) -> tuple[Any, RelaxationState]:
        mean = chain.average if averaged else chain.y
        scope = at(gamma, state.outer_count) if output == "gradient" else 1.0
        relaxed = jax.tree.map(
            lambda x, m: ((wide(x) - m) / scalar(scope, m)).astype(x.dtype), chain.params, mean
        )
        memory = None if reset_inner else chain.inner_state
        return relaxed, next_state(state)._replace(inner_memory=memory)

    def restart(chain: LangevinInner, params: Any, moved: Any) -> LangevinInner:
        start = jax.tree.map(wide, params)
        return chain._replace(
            params=where_changed(moved, params, chain.params),
            y=where_changed(moved, start, chain.y),
            average=where_changed(moved, start, chain.average) if averaged else None,
        )

    return Relaxation(init, begin, point, step, finish, num_steps, restart=restart, point_is_y=True)
