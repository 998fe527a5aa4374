"""Outer optimisers, which follow the walk of a complete optimiser: SNOO, Lookahead, DiLoCo.

An inner optimiser takes K steps from x to y; an outer one takes the displacement x - y for a
gradient. That is local entropy's chain without a pull (gamma = inf); a finite gamma adds the pull.
"""

# Annotations are real objects here, not strings: Optax inspects them.
import math

import jax
import optax
from optax import ScalarOrSchedule

from entropix.optimizers import on_face, sgd
from entropix.transforms import average_updates, local_entropy
from entropix.transforms.axes import AxisName
from entropix.transforms.checks import check_non_negative
from entropix.transforms.probe import refuse_incomplete
from entropix.transforms.relaxation import Relaxation
from entropix.transforms.walk import walk


def outer(
    optimizer: optax.GradientTransformation,
    outer_optimizer: optax.GradientTransformation | None = None,
    *,
    num_steps: int = 30,
    gamma: ScalarOrSchedule = math.inf,
    step_size: ScalarOrSchedule | None = None,
    temperature: ScalarOrSchedule = 0,
    averaging: float | str = 0,
    key: jax.Array | int = 0,
    axis_name: AxisName | None = None,
    stepwise: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Puts an outer optimiser around a complete one, and follows its displacement.

    .. math:: y_K = A(\dots A(x)),\qquad x \leftarrow B(x,\ x - \langle y\rangle)

    A is `optimizer`, B is `outer_optimizer`. A's state is kept across outer steps. With a finite
    `gamma` every inner step also pulls y towards x by (step_size/gamma)(y - x), and with a
    temperature it adds sqrt(2 step_size T) of noise: Entropy-SGD with any optimiser inside.

    Args:
      optimizer: A, any finished Optax optimiser with its learning rate. Its schedules count
        gradients. Masks, learning rates by layer and optimisers for matrices (`optax.contrib.muon`)
        work.
      outer_optimizer: B, any Optax optimiser; its schedules count outer steps. None is Nesterov's
        SGD with learning rate 0.7 and momentum 0.6.
      num_steps: K >= 1, gradients per outer step. Make the length of a run a multiple of K: in the
        middle of an outer step `entropix.eval_params` returns the last x.
      gamma: scope, in (0, inf]; a float or a schedule of the outer step.
      step_size: eta_y > 0 of pull and noise alone; required where there is either.
      temperature: T >= 0; a float or a schedule of the outer step.
      averaging: alpha in [0, 1) or "linear"; see `entropix.local_entropy`. 0 takes the last y.
      key: key or seed of the noise.
      axis_name: the replicas' axis, over which displacements are averaged once per outer step
        (DiLoCo); None is one worker.
      stepwise: True: `update(grads, state, params)` takes one gradient, every K-th moves x; outside
        `jax.vmap`, or with `axis_name`, nothing is computed for x on the others. False: a whole
        outer step per update, which needs `grad_fn` (see `entropix.relax`).

    Returns:
      An Optax optimiser. Its y are float32 or wider, the states of A and B as those optimisers make
      them for the parameters.

    Raises:
      ValueError: for an argument outside its range, a missing `step_size`, or an optimiser whose
        updates point along the gradient (a part of a chain, without its learning rate).

    Example:
      >>> import entropix, jax, jax.numpy as jnp, optax
      >>> tx = entropix.outer(optax.adamw(1e-2), optax.sgd(0.7, 0.6, nesterov=True), num_steps=10)
      >>> w = jnp.asarray([3.0, -3.0])
      >>> state, update = tx.init(w), jax.jit(tx.update)
      >>> for _ in range(1000):
      ...   updates, state = update(2 * w, state, w)
      ...   w = optax.apply_updates(w, updates)
      >>> bool(jnp.max(jnp.abs(entropix.eval_params(state, w))) < 0.05)
      True

    References:
      Kallusky et al, `SNOO <https://arxiv.org/abs/2510.15830>`_, 2025;
      Chaudhari et al, `Deep Relaxation <https://arxiv.org/abs/1704.04932>`_, 2017.
    """
    relaxation = walk(
        optimizer,
        num_steps=num_steps,
        gamma=gamma,
        step_size=step_size,
        temperature=temperature,
        averaging=averaging,
        key=key,
        axis_name=axis_name,
    )
    if outer_optimizer is None:
        outer_optimizer = sgd(0.7, 0.6)
    else:
        refuse_incomplete("outer_optimizer", outer_optimizer)
    return _following(relaxation, outer_optimizer, stepwise, axis_name)


def snoo(
    optimizer: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule = 0.7,
    momentum: float | None = 0.6,
    *,
    num_steps: int = 30,
    gamma: ScalarOrSchedule = math.inf,
    step_size: ScalarOrSchedule | None = None,
    temperature: ScalarOrSchedule = 0,
    averaging: float | str = 0,
    key: jax.Array | int = 0,
    axis_name: AxisName | None = None,
    stepwise: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""SNOO: Nesterov's momentum on the displacement of K steps of any optimiser.

    .. math:: s = x - y_K,\qquad b \leftarrow \mu b + s,\qquad x \leftarrow x - \eta\,(\mu b + s)

    With Muon inside it is MuLoCo-1; with `axis_name`, DiLoCo.

    Args:
      optimizer: complete, with its learning rate; see `entropix.outer`, also for all arguments not
        listed here.
      learning_rate: eta, of the displacement; a float or a schedule of the outer step.
      momentum: mu in [0, 1), or None for none. In use: 0.9 (AdamW inside), 0.5 or 0.6 (Muon).
      num_steps: K, gradients per outer step.
      gamma: scope.
      step_size: size of pull and noise.
      temperature: T.
      averaging: weight of the old average of y.
      key: key or seed of the noise.
      axis_name: the replicas' axis, or None.
      stepwise: one gradient per update (True), or a whole outer step.

    Returns:
      An Optax optimiser.

    Raises:
      ValueError: as `entropix.outer` does.

    Example:
      >>> import entropix, optax
      >>> rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 3000)    # counts gradients
      >>> tx = entropix.snoo(optax.adamw(rate), num_steps=30)

    References:
      Kallusky et al, `SNOO <https://arxiv.org/abs/2510.15830>`_, 2025;
      Therien et al, `MuLoCo <https://arxiv.org/abs/2505.23725>`_, 2025.
    """
    return outer(
        optimizer,
        sgd(learning_rate, momentum),
        num_steps=num_steps,
        gamma=gamma,
        step_size=step_size,
        temperature=temperature,
        averaging=averaging,
        key=key,
        axis_name=axis_name,
        stepwise=stepwise,
    )


def lookahead(
    optimizer: optax.GradientTransformation,
    slow_step_size: ScalarOrSchedule = 0.5,
    *,
    num_steps: int = 6,
    gamma: ScalarOrSchedule = math.inf,
    step_size: ScalarOrSchedule | None = None,
    temperature: ScalarOrSchedule = 0,
    averaging: float | str = 0,
    key: jax.Array | int = 0,
    axis_name: AxisName | None = None,
    stepwise: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""Lookahead: K steps of any optimiser forward, a share of the way kept.

    .. math:: x \leftarrow x + a\,(y_K - x)

    Unlike `optax.lookahead` it takes and returns plain parameters, not pairs.

    Args:
      optimizer: complete, with its learning rate; see `entropix.outer`, also for all arguments not
        listed here.
      slow_step_size: a >= 0, in (0, 1] as a rule; a float or a schedule of the outer step.
      num_steps: K, gradients per outer step.
      gamma: scope.
      step_size: size of pull and noise.
      temperature: T.
      averaging: weight of the old average of y.
      key: key or seed of the noise.
      axis_name: the replicas' axis, or None.
      stepwise: one gradient per update (True), or a whole outer step.

    Returns:
      An Optax optimiser.

    Raises:
      ValueError: as `entropix.outer` does.

    Example:
      >>> import entropix, jax, jax.numpy as jnp, optax
      >>> tx = entropix.lookahead(optax.sgd(0.1), slow_step_size=0.5, num_steps=2)
      >>> w = jnp.asarray(1.0)
      >>> state = tx.init(w)
      >>> for _ in range(2):
      ...   updates, state = tx.update(w, state, w)    # w: 1, 0.9, 0.81, and half of the way back
      ...   w = optax.apply_updates(w, updates)
      >>> round(float(w), 3)
      0.905

    References:
      Zhang et al, `Lookahead optimizer <https://arxiv.org/abs/1907.08610>`_, 2019.
    """
    slow_step_size = check_non_negative("slow_step_size", slow_step_size)
    return outer(
        optimizer,
        sgd(slow_step_size, momentum=None),
        num_steps=num_steps,
        gamma=gamma,
        step_size=step_size,
        temperature=temperature,
        averaging=averaging,
        key=key,
        axis_name=axis_name,
        stepwise=stepwise,
    )


def diloco(
    learning_rate: ScalarOrSchedule,
    axis_name: AxisName | None = None,
    *,
    momentum: float | None = 0.9,
    num_steps: int = 500,
    step_size: ScalarOrSchedule = 4e-4,
    inner: optax.GradientTransformation | None = None,
    stepwise: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""DiLoCo: H steps of AdamW on every replica alone, then Nesterov on the mean displacement.

    .. math:: x \leftarrow \mathrm{Nesterov}\Big(x,\ \frac1p\sum_a (x - y^a_H)\Big)

    where y^a starts at x and walks on the mini-batches of replica a. It is the local entropy
    without pull, noise and average (gamma = inf), whose inner state is kept between outer steps
    and never communicated. Start all replicas at one point: they then hold the same x, to the bit.

    The default constants are the paper's as we recall them, as are the outer learning rate 0.7
    and the inner decay 0.1. The paper's inner learning rate has a warm-up and a cosine: put such
    a schedule of gradients into `inner` (`optax.scale_by_schedule`) and set step_size=1.

    Args:
      learning_rate: outer learning rate; a float or a schedule of the outer step.
      axis_name: the replicas' axis; None is one worker, which communicates with nobody.
      momentum: outer Nesterov momentum, or None for none.
      num_steps: H, gradients per outer step; once per outer step replicas communicate.
      step_size: inner learning rate; a float or a schedule of the outer step.
      inner: inner Optax transformation without its learning rate; None is AdamW's,
        `optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1))`. For a complete
        optimiser inside write `entropix.snoo(optimizer, axis_name=...)`.
      stepwise: see `entropix.entropy_sgd`.

    Returns:
      An Optax optimiser; with an axis, to run under `jax.vmap(..., axis_name=axis_name)` or another
      map.

    Raises:
      ValueError: for an argument outside its range; from `update`, outside the named axis.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> tx = entropix.diloco(1.0, "replica", momentum=None, num_steps=10, step_size=0.01)
      >>> x, target = jnp.ones(2), jnp.asarray([5.0, 9.0])    # one x, two losses
      >>> def update(x, state, target):
      ...   grad_fn = lambda x, i: x - target
      ...   return tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
      >>> updates, _ = jax.vmap(update, axis_name="replica")(x, jax.vmap(tx.init)(x), target)
      >>> [round(float(u), 2) for u in updates]    # ten steps of AdamW
      [0.09, 0.09]

    References:
      Douillard et al, `DiLoCo <https://arxiv.org/abs/2311.08105>`_, 2023.
    """
    if inner is None:
        inner = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1))
    relaxation = local_entropy(
        math.inf,
        num_steps=num_steps,
        step_size=step_size,
        inner=inner,
        averaging=0,
        temperature=0,
        output="displacement",
        reset_inner=False,
    )
    return _following(relaxation, sgd(learning_rate, momentum), stepwise, axis_name)


def _following(
    relaxation: Relaxation,
    outer_optimizer: optax.GradientTransformation,
    stepwise: bool,
    axis_name: AxisName | None,
) -> optax.GradientTransformationExtraArgs:
    """The outer optimiser on the displacement, averaged over replicas where there are any."""
    if axis_name is not None:
        outer_optimizer = optax.chain(average_updates(axis_name), outer_optimizer)
    return on_face(relaxation, outer_optimizer, stepwise, axis_name)
