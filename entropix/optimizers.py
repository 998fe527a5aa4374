"""The paper's algorithms, and their relatives over replicas, by name: chains of parts.

All run Nesterov's momentum (0.9) on x (Deep Relaxation, section 7.4). The default constants are
the paper's; the learning rate and gamma have none, because they belong to the problem.
"""

# Annotations are real objects here, not strings: Optax inspects them.
from typing import Any

import jax
import optax
from optax import ScalarOrSchedule

from entropix.transforms import (
    elastic_averaging,
    elastic_coupling,
    hamilton_jacobi,
    heat,
    local_entropy,
    relax,
    sharpness,
)
from entropix.transforms import stepwise as spread
from entropix.transforms.axes import AxisName
from entropix.transforms.checks import (
    check_flag,
    check_momentum,
    check_non_negative,
    check_positive,
)
from entropix.transforms.numerics import (
    cast_like,
    dtype_of_update,
    on_inexact_leaves,
)
from entropix.transforms.parts import RelaxedOptimizer
from entropix.transforms.relaxation import Relaxation


def sgd(
    learning_rate: ScalarOrSchedule, momentum: float | None = 0.9
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with Nesterov momentum, the baseline of every comparison ((7), section 7.4).

    .. math:: z \leftarrow x - \eta \nabla f_{mb}(x),\qquad x \leftarrow z + \delta (z - z_{old})

    Args:
      learning_rate: eta >= 0; a float or a schedule.
      momentum: delta in [0, 1), or None for no momentum and no buffer.

    Returns:
      `optax.sgd` with `nesterov=True`. Integer and boolean leaves get a zero update.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix, jax.numpy as jnp
      >>> tx = entropix.sgd(0.1)
      >>> w = jnp.asarray(1.0)
      >>> updates, _ = tx.update(jnp.asarray(1.0), tx.init(w), w)
      >>> round(float(updates), 3)    # -eta (1 + delta) g at the first step
      -0.19

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017, section 7.4.
    """
    learning_rate = check_non_negative("learning_rate", learning_rate)
    momentum = check_momentum(momentum)
    tx = optax.sgd(learning_rate, momentum, nesterov=True)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is not None:
            as_update = lambda g, p: g.astype(dtype_of_update(g, p))  # noqa: E731
            grads = jax.tree.map(as_update, grads, params)
        moves, new = tx.update(*_in_one_dtype(grads, state))
        # Traced numbers have a dtype, which Optax would hand on to updates and momentum.
        return cast_like(moves, grads), cast_like(new, state)

    of_reals = on_inexact_leaves(optax.GradientTransformation(tx.init, update))
    return RelaxedOptimizer.of(of_reals, relaxation=None)


def _in_one_dtype(grads: Any, state: Any) -> tuple[Any, Any]:
    """Gradients and momentum, both in the wider dtype of the two: nothing is left to promotion."""
    first, *rest = state
    if not isinstance(first, optax.TraceState):
        return grads, state
    dtypes = jax.tree.map(dtype_of_update, grads, first.trace)
    grads, trace = (
        jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), tree, dtypes)
        for tree in (grads, first.trace)
    )
    return grads, (first._replace(trace=trace), *rest)


def entropy_sgd(
    learning_rate: ScalarOrSchedule,
    gamma: ScalarOrSchedule,
    *,
    momentum: float | None = 0.9,
    num_steps: int = 20,
    step_size: ScalarOrSchedule = 0.1,
    inner: optax.GradientTransformation | None = None,
    averaging: float | str = 0.75,
    temperature: ScalarOrSchedule = 1e-8,
    noise: str = "popcount",
    output: str = "gradient",
    key: jax.Array | int = 0,
    stepwise: bool = False,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Entropy-SGD ((31)-(33)): gradient descent on the local entropy.

    .. math:: x \leftarrow x - \eta\, (x - \langle y\rangle)/\gamma

    Args:
      learning_rate: eta of the outer step; a float or a schedule of the outer step.
      gamma: scope; see `entropix.local_entropy`, also for all arguments not listed here.
      momentum: Nesterov momentum of x, or None for none.
      num_steps: L, gradients per outer step.
      step_size: eta_y, inner step size.
      inner: inner Optax transformation.
      averaging: alpha, weight of the old average, or "linear".
      temperature: T.
      noise: law of the noise.
      output: what the outer optimiser gets: "gradient" or "displacement".
      key: key or seed of the noise.
      stepwise: False: `update(grads, state, params, grad_fn=...)` makes a whole outer step
        (`entropix.relax`). True: `update(grads, state, params)` takes one gradient, every L-th
        moves x (`entropix.stepwise`; read x with `entropix.eval_params`).
      axis_name: named axis of replicas that must not share noise and, with `stepwise`, count alike.

    Returns:
      An Optax optimiser.

    Raises:
      ValueError: for an argument outside its range; from `update`, as `entropix.relax` and
        `entropix.stepwise` do.

    Example:
      The authors' own variant: Nesterov inside too, the displacement as the outer gradient.

      >>> import entropix, optax
      >>> tx = entropix.entropy_sgd(
      ...     1.0, gamma=entropix.scoping(1e4), output="displacement",
      ...     inner=optax.trace(0.9, nesterov=True))

    References:
      Chaudhari et al, `Entropy-SGD <https://arxiv.org/abs/1611.01838>`_, 2016.
    """
    relaxation = local_entropy(
        gamma,
        num_steps=num_steps,
        step_size=step_size,
        inner=inner,
        averaging=averaging,
        temperature=temperature,
        noise=noise,
        key=key,
        output=output,
        axis_name=axis_name,
    )
    return on_face(relaxation, sgd(learning_rate, momentum), stepwise, axis_name)


def hj_sgd(
    learning_rate: ScalarOrSchedule,
    gamma: ScalarOrSchedule,
    *,
    momentum: float | None = 0.9,
    num_steps: int = 5,
    step_size: ScalarOrSchedule = 0.1,
    inner: optax.GradientTransformation | None = None,
    form: str = "proximal",
    output: str = "gradient",
    stepwise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""HJ ((33)-(34) without noise): gradient descent on the Hamilton-Jacobi relaxation.

    .. math:: x \leftarrow x - \eta\,\frac{x - y_L}\gamma,\qquad
        y \leftarrow y - \eta_y \Big[\nabla f_{mb}(y) + \frac{y - x}\gamma\Big]

    Args:
      learning_rate: eta of the outer step; a float or a schedule of the outer step.
      gamma: scope; see `entropix.hamilton_jacobi`, also for all arguments not listed here.
      momentum: Nesterov momentum of x, or None for none.
      num_steps: L, gradients per outer step.
      step_size: eta_y, inner step size.
      inner: inner Optax transformation.
      form: "proximal" (33) or "gradient" (34).
      output: "gradient" or "displacement".
      stepwise: see `entropix.entropy_sgd`.

    Returns:
      An Optax optimiser.

    Raises:
      ValueError: for an argument outside its range; from `update`, as `entropix.relax` and
        `entropix.stepwise` do.

    Example:
      >>> import entropix, jax.numpy as jnp
      >>> tx = entropix.hj_sgd(0.1, gamma=1.0, stepwise=True)
      >>> w = jnp.asarray(1.0)
      >>> updates, state = tx.update(jnp.asarray(1.0), tx.init(w), w)
      >>> round(float(updates), 3)    # the first inner step: -step_size * gradient
      -0.1

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017,
      equations (33) and (34).
    """
    relaxation = hamilton_jacobi(
        gamma, num_steps=num_steps, step_size=step_size, inner=inner, form=form, output=output
    )
    return on_face(relaxation, sgd(learning_rate, momentum), stepwise)


def heat_sgd(
    learning_rate: ScalarOrSchedule,
    gamma: ScalarOrSchedule,
    *,
    momentum: float | None = 0.9,
    num_steps: int = 20,
    temperature: ScalarOrSchedule = 1e-4,
    noise: str = "normal",
    key: jax.Array | int = 0,
    stepwise: bool = False,
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""HEAT (35): gradient descent on the heat-equation relaxation.

    .. math:: x \leftarrow x - \eta\,\frac1L \sum_{i=1}^{L} \nabla f_{mb}\big(x + \sqrt{\gamma T}\,
        \varepsilon_i\big)

    Args:
      learning_rate: eta of the outer step; a float or a schedule of the outer step.
      gamma: scope; see `entropix.heat`, also for all arguments not listed here.
      momentum: Nesterov momentum of x, or None for none.
      num_steps: L, gradients per outer step.
      temperature: T; the smoothing width is sqrt(gamma T).
      noise: law of the noise.
      key: key or seed of the noise.
      stepwise: see `entropix.entropy_sgd`.
      axis_name: named axis of replicas that must not share noise and, with `stepwise`, count alike.

    Returns:
      An Optax optimiser.

    Raises:
      ValueError: for an argument outside its range; from `update`, as `entropix.relax` and
        `entropix.stepwise` do.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> tx = entropix.heat_sgd(0.1, gamma=1.0, momentum=None)
      >>> w = jnp.asarray(1.0)
      >>> updates, _ = tx.update(w, tx.init(w), w, grad_fn=lambda w, i: 2 * w)
      >>> bool(abs(updates + 0.2) < 0.01)
      True

    References:
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017,
      equation (35).
    """
    relaxation = heat(
        gamma,
        num_steps=num_steps,
        temperature=temperature,
        noise=noise,
        key=key,
        axis_name=axis_name,
    )
    return on_face(relaxation, sgd(learning_rate, momentum), stepwise, axis_name)


def elastic_sgd(
    learning_rate: ScalarOrSchedule,
    gamma: ScalarOrSchedule,
    axis_name: AxisName,
    *,
    momentum: float | None = 0.9,
    period: int = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Elastic-SGD (21): SGD on p replicas on a named axis, each pulled towards their mean.

    .. math:: x^a \leftarrow x^a - \eta\,[\nabla f_{mb}(x^a) + (x^a - \bar x)/\gamma]

    Args:
      learning_rate: eta; a float or a schedule.
      gamma: scope; see `entropix.elastic_coupling`, also for all arguments not listed here.
      axis_name: the replicas' axis.
      momentum: Nesterov momentum, or None for none.
      period: updates between two computations of the mean.

    Returns:
      An Optax optimiser to run under `jax.vmap(..., axis_name=axis_name)` or another map.

    Raises:
      ValueError: for an argument outside its range; from `update`, outside the named axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> tx = entropix.elastic_sgd(0.1, gamma=1.0, axis_name="replica", momentum=None)
      >>> x = jnp.asarray([1.0, 3.0])
      >>> update = jax.vmap(tx.update, axis_name="replica")
      >>> updates, _ = update(jnp.zeros(2), jax.vmap(tx.init)(x), x)
      >>> [round(float(u), 3) for u in updates]
      [0.1, -0.1]

    References:
      Zhang et al, `Elastic averaging SGD <https://arxiv.org/abs/1412.6651>`_, 2015;
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017,
      equation (21).
    """
    coupling = elastic_coupling(gamma, axis_name, period=period)
    return RelaxedOptimizer.of(optax.chain(coupling, sgd(learning_rate, momentum)), relaxation=None)


def easgd(
    learning_rate: ScalarOrSchedule,
    axis_name: AxisName,
    *,
    momentum: float | None = 0.9,
    period: int = 10,
    moving_rate: float = 0.9,
) -> optax.GradientTransformationExtraArgs:
    r"""EASGD and EAMSGD, synchronous: SGD on p replicas around a slow centre of its own.

    .. math::
      x^a \leftarrow x^a - \eta\nabla f_{mb}(x^a) - \tfrac{\beta}{p} (x^a - \tilde x), \qquad
      \tilde x \leftarrow \tilde x + \beta (\bar x - \tilde x)

    with the terms in beta at every `period`-th update only. Unlike `elastic_sgd(period=...)` no
    force acts between two exchanges, none goes through the momentum, and the centre is a moving
    average. Evaluate at the centre, `optax.tree.get(state, "centre")`.

    Args:
      learning_rate: eta; a float or a schedule.
      axis_name: the replicas' axis; see `entropix.elastic_averaging`, also for `period`.
      momentum: Nesterov momentum (EAMSGD), or None for none (EASGD).
      period: tau, updates between two exchanges.
      moving_rate: beta in (0, 1], p times the replicas' own rate alpha.

    Returns:
      An Optax optimiser to run under `jax.vmap(..., axis_name=axis_name)` or another map.

    Raises:
      ValueError: for an argument outside its range; from `update`, outside the named axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp, optax
      >>> tx = entropix.easgd(0.1, axis_name="replica", period=4)
      >>> x = jnp.asarray([1.0, 3.0])
      >>> state, update = jax.vmap(tx.init)(x), jax.vmap(tx.update, axis_name="replica")
      >>> for _ in range(60):
      ...   updates, state = update(2 * x, state, x)
      ...   x = optax.apply_updates(x, updates)
      >>> bool(jnp.max(jnp.abs(optax.tree.get(state, "centre"))) < 0.01)
      True

    References:
      Zhang et al, `Elastic averaging SGD <https://arxiv.org/abs/1412.6651>`_, 2015.
    """
    averaging = elastic_averaging(moving_rate, axis_name, period=period)
    return RelaxedOptimizer.of(optax.chain(sgd(learning_rate, momentum), averaging), None)


def parle(
    learning_rate: ScalarOrSchedule,
    gamma: ScalarOrSchedule,
    rho: ScalarOrSchedule,
    axis_name: AxisName,
    *,
    momentum: float | None = 0.9,
    num_steps: int = 20,
    step_size: ScalarOrSchedule = 0.1,
    inner: optax.GradientTransformation | None = None,
    averaging: float | str = 0.75,
    temperature: ScalarOrSchedule = 1e-8,
    noise: str = "popcount",
    output: str = "gradient",
    key: jax.Array | int = 0,
    period: int = 1,
    stepwise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Parle: Entropy-SGD on every replica, and the elastic pull once per outer step.

    .. math::
      x^a \leftarrow x^a - \eta\,[(x^a - \langle y^a\rangle)/\gamma + (x^a - \bar x)/\rho]

    With `output="displacement"` it is the authors' form, (x - <y>) + (x - x-bar)/rho.

    Args:
      learning_rate: eta of the outer step; a float or a schedule of the outer step.
      gamma: scope of the local entropy; see `entropix.local_entropy`, also for all arguments not
        listed here.
      rho: scope of the coupling, in (0, inf]; see `entropix.elastic_coupling`.
      axis_name: the replicas' axis.
      momentum: Nesterov momentum of x, or None for none.
      num_steps: L, gradients per outer step.
      step_size: eta_y, inner step size.
      inner: inner Optax transformation.
      averaging: alpha, weight of the old average, or "linear".
      temperature: T.
      noise: law of the noise.
      output: "gradient" or "displacement".
      key: key or seed of the noise; each replica folds in its index.
      period: outer steps between two computations of the mean.
      stepwise: see `entropix.entropy_sgd`.

    Returns:
      An Optax optimiser to run under `jax.vmap(..., axis_name=axis_name)` or another map.

    Raises:
      ValueError: for an argument outside its range; from `update`, outside the named axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> tx = entropix.parle(0.1, gamma=1.0, rho=0.5, axis_name="replica", momentum=None)
      >>> x = jnp.asarray([1.0, 3.0])
      >>> flat = lambda x, i: 0 * x              # a constant loss leaves the coupling alone
      >>> update = jax.vmap(lambda x, s: tx.update(0 * x, s, x, grad_fn=flat), axis_name="replica")
      >>> updates, _ = update(x, jax.vmap(tx.init)(x))
      >>> [round(float(u), 3) for u in updates]
      [0.2, -0.2]

    References:
      Chaudhari et al, `Parle <https://arxiv.org/abs/1707.00424>`_, 2017.
    """
    rho = check_positive("rho", rho, infinite=True)
    relaxation = local_entropy(
        gamma,
        num_steps=num_steps,
        step_size=step_size,
        inner=inner,
        averaging=averaging,
        temperature=temperature,
        noise=noise,
        key=key,
        output=output,
        axis_name=axis_name,
    )
    outer = elastic_sgd(learning_rate, rho, axis_name, momentum=momentum, period=period)
    return on_face(relaxation, outer, stepwise, axis_name)


def sam(
    learning_rate: ScalarOrSchedule,
    rho: ScalarOrSchedule,
    *,
    momentum: float | None = 0.9,
    num_ascents: int = 1,
    adaptive: bool = False,
    stepwise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM and ASAM: gradient descent on the sharpest loss of a small ball.

    .. math:: x \leftarrow x - \eta\, \nabla f_{mb}(x + \rho\, g/|g|),\qquad g = \nabla f_{mb}(x)

    Args:
      learning_rate: eta of the outer step; a float or a schedule of the outer step.
      rho: length of one step of ascent; see `entropix.sharpness`.
      momentum: Nesterov momentum of x, or None for none.
      num_ascents: steps of ascent; an outer step costs one gradient more.
      adaptive: whether steps of ascent scale with the weights (ASAM).
      stepwise: see `entropix.entropy_sgd`. The loop then repeats every mini-batch
        num_ascents + 1 times.

    Returns:
      An Optax optimiser.

    Raises:
      ValueError: for an argument outside its range; from `update`, as `entropix.relax` and
        `entropix.stepwise` do.

    Example:
      >>> import entropix, jax, jax.numpy as jnp, optax
      >>> tx = entropix.sam(0.1, rho=0.05, momentum=None)
      >>> w = jnp.asarray(1.0)
      >>> grad_fn = lambda w, i: 2 * w    # i is 0: both gradients are of one mini-batch
      >>> updates, _ = tx.update(grad_fn(w, 0), tx.init(w), w, grad_fn=grad_fn)
      >>> round(float(updates), 3)        # -0.1 * 2 (1 + 0.05)
      -0.21

    References:
      Foret et al, `Sharpness-aware minimization <https://arxiv.org/abs/2010.01412>`_, 2021.
    """
    relaxation = sharpness(rho, num_ascents=num_ascents, adaptive=adaptive)
    return on_face(relaxation, sgd(learning_rate, momentum), stepwise)


def on_face(
    relaxation: Relaxation,
    optimizer: optax.GradientTransformation,
    stepwise: bool,
    axis_name: AxisName | None = None,
) -> RelaxedOptimizer:
    """A relaxation and its outer optimiser on one of the two faces, for the optimisers by name."""
    check_flag("stepwise", stepwise)
    if stepwise:
        return spread(relaxation, optimizer, axis_name=axis_name)
    chain = optax.chain(relax(relaxation), on_inexact_leaves(optimizer))
    return RelaxedOptimizer.of(chain, relaxation, optimizer)
