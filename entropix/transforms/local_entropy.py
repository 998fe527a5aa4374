r"""Local entropy: the gradient of the viscous Hamilton-Jacobi relaxation by Langevin dynamics.

The relaxed loss is the local entropy of f (Deep Relaxation, (11)),

.. math:: f_\gamma(x) = -T \log\,(G_{\gamma T} * e^{-f/T})(x),

whose gradient is an average over the Gibbs measure of the neighbourhood of x (Lemma 1),

.. math:: \nabla f_\gamma(x) = (x - \langle y\rangle)/\gamma,\qquad
  \rho(y; x) \propto \exp\{-[f(y) + |x-y|^2/(2\gamma)]/T\}.
"""

import jax
import optax
from optax import ScalarOrSchedule

from entropix.transforms import checks
from entropix.transforms.axes import AxisName, check_optional_axis_name
from entropix.transforms.keys import check_key
from entropix.transforms.langevin import LangevinInner, Move, Noise, langevin, langevin_step
from entropix.transforms.numerics import at, is_zero
from entropix.transforms.probe import refuse_complete
from entropix.transforms.random import check_noise
from entropix.transforms.relaxation import Pull, Relaxation
from entropix.transforms.stability import refuse_unstable

__all__ = ["LangevinInner", "langevin_step", "local_entropy"]


def local_entropy(
    gamma: ScalarOrSchedule,
    *,
    num_steps: int = 20,
    step_size: ScalarOrSchedule = 0.1,
    inner: optax.GradientTransformation | None = None,
    averaging: float | str = 0.75,
    temperature: ScalarOrSchedule = 1e-8,
    noise: str = "popcount",
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
        `entropix.scoping`. The explicit step is stable for step_size (f'' + 1/gamma) < 2. The
        result has the rounding of the weights over gamma, in float32 about 1.2e-7 |x|/gamma. With
        infinity there is no pull and only `output="displacement"` makes sense (Lookahead).
      num_steps: L >= 1, gradients per outer step.
      step_size: eta_y > 0; a float or a schedule of the outer step.
      inner: any Optax transformation *without its learning rate* (and hence without its minus
        sign) applied to the inner gradients, for instance `optax.trace(0.9, nesterov=True)` as in
        the authors' code, or `optax.scale_by_adam()`. The pull and the noise are decoupled from
        it, as in decoupled weight decay. With another `inner` than the identity (None) the
        chain's stationary measure is not Lemma 1's.
      averaging: alpha in [0, 1), the weight of the OLD average; 0 keeps only the last y. "linear"
        is the equal-weight mean of y_1 ... y_L, without y_0 = x, as in (19).
      temperature: T >= 0; a float or a schedule. The number 0 compiles no noise code.
      noise: law of epsilon, see `entropix.transforms.random`: "popcount" has the mean and variance
        of the normal law and costs next to nothing; "normal" is exact and bit-identical to
        `jax.random.normal`, for sampling rho at large T.
      key: typed key, legacy key or integer seed of the noise.
      output: "gradient" for (x - <y>)/gamma, or "displacement" for x - <y>, which the authors'
        code feeds to its outer optimiser. Under a scoped gamma these are different algorithms.
      axis_name: named axis (or axes) of replicas that hold the same key; each folds in its index.
      reset_inner: whether the state of `inner` starts anew at every outer step, as in the
        authors' code, but for random keys in it, into which the number of the outer step is
        folded. Seeds and replicas then draw the same inner noise, which `entropix.reseed` does not
        reach. False keeps the state, as DiLoCo keeps every worker's moments: schedules inside
        `inner` then count gradients, all outer steps together, and `entropix.reseed` sets its keys
        for good.

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
    step_size = checks.check_positive("step_size", step_size)
    averaging = checks.check_averaging(averaging)
    temperature = checks.check_non_negative("temperature", temperature)
    gamma = checks.check_scope(gamma, output)
    refuse_unstable(gamma, step_size, num_steps)
    check_noise(noise)
    check_key(key)
    check_optional_axis_name(axis_name)
    reset_inner = checks.check_flag("reset_inner", reset_inner)
    if inner is not None:
        refuse_complete(inner)

    def move(count: jax.Array) -> Move:
        values = at(gamma, count), at(step_size, count), at(temperature, count)
        return lambda y, x, d, e: langevin_step(y, x, d, *values, e)

    return langevin(
        move,
        inner,
        num_steps=num_steps,
        averaging=averaging,
        noise=None if is_zero(temperature) else Noise(noise, key, axis_name),
        divisor=gamma if output == "gradient" else 1.0,
        reset_inner=reset_inner,
        pull=Pull(gamma, step_size),
    )
