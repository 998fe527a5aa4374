"""The optimisers' estimates of relaxed gradients against the gradients that the PDEs give."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from entropix.landscape.functions.methods import METHODS, Setting, estimator_of
from entropix.pde.checks import check_count, check_float64, check_positive, hashable, key_of
from entropix.pde.grid import Function, Grid
from entropix.pde.regularity import hessian
from entropix.pde.viscous import MassSpreadError
from entropix.transforms.checks import refusal

Row = dict[str, float | int | str]

_REPLICAS, _FEWEST = 4096, 16  # of all chains together, if that leaves so many chains


class Accuracy(NamedTuple):
    """How far a method's estimates are from the truth; root mean squares over points.

    Attributes:
      truth: the relaxed gradient itself.
      bias: the mean estimate less the truth.
      error: the standard error of the mean estimate; a bias below 2 errors may be none.
      spread: the standard deviation of one estimate, which is what an optimiser sees.
    """

    truth: float
    bias: float
    error: float
    spread: float


def true_gradient(
    method: str, grid: Grid, f: Function, points: ArrayLike, *, gamma: float, temperature: float
) -> jax.Array:
    """The gradient that a method estimates, from the PDE's reference solver.

    Args:
      method: one of `METHODS`, or "sharpness".
      grid: as for `cole_hopf`.
      f: the loss, a JAX function of a point.
      points: where, shape (points, *grid.point_shape).
      gamma: the scope, > 0; for "sharpness" the radius rho of the ball.
      temperature: T > 0; "hamilton_jacobi" and "sharpness" ignore T.

    Returns:
      Array like the points.

    Raises:
      ValueError: for an unknown method, a gamma or T that is not positive, a gamma for which the
        truth cannot be computed, and without float64.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from entropix import landscape, pde
      >>> grid = pde.Grid(-9.0, 9.0, 201)
      >>> with jax.enable_x64(True):  # Lemma 4: x/(1 + gamma)
      ...     slope = landscape.true_gradient("local_entropy", grid, lambda x: x**2 / 2,
      ...                                     jnp.ones(1), gamma=1.0, temperature=0.1)
      >>> slope.round(9).tolist()
      [0.5]
    """
    estimator = estimator_of(method)
    check_positive(gamma=gamma)
    if estimator.noisy:
        check_positive(temperature=temperature)
    try:
        return estimator.truth(grid, f, points, gamma, temperature)
    except MassSpreadError as error:
        raise ValueError(
            f"the truth of {method} with gamma={gamma:g} cannot be computed: f(y) + |x - y|^2/"
            "(2 gamma) is too flat around its minimum. Take another gamma or a smaller interval."
        ) from error


def estimates(
    method: str,
    f: Function,
    points: ArrayLike,
    key: jax.Array | int,
    *,
    gamma: float,
    temperature: float,
    num_steps: int,
    step_size: float = 0.1,
    averaging: float = 0.75,
    num_chains: int = 1024,
) -> jax.Array:
    r"""What a method says the relaxed gradient is, many times over, from L gradients each time.

    In single precision, in which optimisers run.

    * "local_entropy", "hamilton_jacobi", "heat": one outer step of the relaxation of that name.
    * "elastic_coupling": p = L replicas in equilibrium around a centre at x, after 300 steps, or
      10 gamma/eta_y where that is more; the estimate is (x - mean y)/gamma (22). Their centre
      stays, as between the meetings of a long period. (Where f is not convex, replicas may need
      longer to cross from one valley to another.)
    * "live_centre": the same with the replicas' own mean as the centre at every step, held at x
      by moving all replicas alike. The mean gradient, which is how fast the centre would move, is
      the estimate.
    * "sharpness": SAM's gradient after L - 1 steps of ascent of length gamma/(L - 1); with L = 2 it
      is SAM, and gamma its rho.

    Args:
      method: one of `METHODS`, or "sharpness".
      f: the loss, a JAX function of a point.
      points: where, shape (points, *point).
      key: a JAX key, or a seed.
      gamma: the scope, > 0; for "sharpness" the radius rho of the ball.
      temperature: T >= 0; Hamilton-Jacobi and "sharpness" take none.
      num_steps: L, the gradients for one estimate; at least 2 for "live_centre" and "sharpness".
      step_size: eta_y; eta_y (f'' + 1/gamma) must stay below 2.
      averaging: alpha of "local_entropy".
      num_chains: estimates per point; for replicas at most 4096/p or 16, for methods without noise
        always 2.

    Returns:
      Array of shape (chains, *points.shape).

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import entropix, jax, jax.numpy as jnp
      >>> from entropix.landscape.functions.estimators import estimates
      >>> with jax.enable_x64(True):  # Lemma 4: x/(1 + gamma)
      ...     slopes = estimates("hamilton_jacobi", lambda x: x**2 / 2, jnp.ones(1),
      ...                        jax.random.key(0), gamma=1.0, temperature=0.0, num_steps=100)
      >>> round(float(slopes.mean()), 6)
      0.5
    """
    estimator = estimator_of(method)
    check_float64()
    check_positive(gamma=gamma, step_size=step_size)
    if not temperature >= 0:
        raise ValueError(f"temperature must be a number >= 0; got temperature={temperature!r}")
    check_count(num_steps=num_steps, num_chains=num_chains)
    if num_steps < estimator.fewest:
        raise refusal("num_steps", f"at least {estimator.fewest} for {method}", num_steps)
    if not estimator.noisy:
        num_chains = 2
    if estimator.replicated:
        num_chains = min(num_chains, max(_FEWEST, _REPLICAS // num_steps))
    single = [jnp.asarray(v, jnp.float32) for v in (points, gamma, temperature, step_size)]
    return _estimates(method, hashable(f), num_steps, num_chains, averaging, key_of(key), *single)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _estimates(
    method: str,
    f: Function,
    L: int,
    chains: int,
    averaging: float,
    key: jax.Array,
    points: jax.Array,
    gamma: jax.Array,
    temperature: jax.Array,
    step_size: jax.Array,
) -> jax.Array:
    x = jnp.broadcast_to(points, (chains, *points.shape))
    setting = Setting(L, gamma, temperature, step_size, averaging, key)
    return estimator_of(method).estimate(f, x, setting)


def accuracy(samples: ArrayLike, truth: ArrayLike) -> Accuracy:
    r"""Bias, standard error and spread of estimates; see `Accuracy`.

    .. math:: \mathrm{bias} = |\bar a - g|, \qquad \mathrm{spread} = |s|, \qquad
        \mathrm{error} = |s| / \sqrt n

    At every point, n estimates have the mean :math:`\bar a` and the standard deviation s (the
    unbiased one), and the truth is g; :math:`|\cdot|` is the root mean square over points.

    Args:
      samples: shape (chains, *points.shape), independent along the first axis, 2 at least.
      truth: shape (*points.shape,).

    Returns:
      An `Accuracy`, of Python floats.

    Example:
      >>> import numpy as np
      >>> from entropix.landscape.functions.estimators import accuracy
      >>> a = accuracy(np.asarray([[1.0], [2.0], [3.0], [2.0]]), np.asarray([1.0]))
      >>> a.bias, round(a.spread, 3), round(a.error, 3)
      (1.0, 0.816, 0.408)
    """
    samples, truth = np.asarray(samples, np.float64), np.asarray(truth, np.float64)
    if len(samples) < 2:
        raise refusal("samples", "of two chains or more", samples)
    spread = samples.std(axis=0, ddof=1)
    parts = truth, samples.mean(axis=0) - truth, spread / len(samples) ** 0.5, spread
    return Accuracy(*(float(np.sqrt(np.mean(part**2))) for part in parts))


def sweep(
    grid: Grid,
    f: Function,
    points: ArrayLike,
    *,
    gammas: Sequence[float],
    temperatures: Sequence[float],
    steps: Sequence[int],
    methods: Sequence[str] = METHODS,
    step_size: float = 0.1,
    averaging: float = 0.75,
    num_chains: int = 1024,
    seed: int = 0,
) -> list[Row]:
    """The accuracy of every method for every (gamma, T, L), one row each.

    Args:
      grid: as for `cole_hopf`.
      f: the loss, a JAX function of a point.
      points: where, shape (points, *grid.point_shape).
      gammas: scopes, all > 0; radii for "sharpness".
      temperatures: all > 0.
      steps: numbers of gradients for one estimate, all >= 2.
      methods: some of `METHODS` and "sharpness".
      step_size: eta_y.
      averaging: alpha of "local_entropy".
      num_chains: estimates per point, see `estimates`.
      seed: of all noise.

    Returns:
      Rows with method, gamma, temperature, steps and the fields of `Accuracy`.

    Raises:
      ValueError: for an argument outside its range; where a method takes inner steps, for one that
        is not stable, eta_y (max f'' + 1/gamma) >= 2; and for estimates that are not finite.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from entropix import landscape, pde
      >>> with jax.enable_x64(True):
      ...     rows = landscape.sweep(
      ...         pde.Grid(-9.0, 9.0, 201), lambda x: x**2 / 2, jnp.ones(1), gammas=[1.0],
      ...         temperatures=[0.1], steps=[5, 50], methods=["hamilton_jacobi"])
      >>> [(row["steps"], round(row["truth"], 3), round(row["bias"], 3)) for row in rows]
      [(5, 0.5, 0.164), (50, 0.5, 0.0)]
    """
    estimators = [estimator_of(method) for method in methods]
    for name, values in (("gamma", gammas), ("temperature", temperatures)):
        for value in values:
            check_positive(**{name: value})
    for L in steps:
        check_count(least=2, steps=L)
    gammas, temperatures = [*map(float, gammas)], [*map(float, temperatures)]
    steps = [*map(int, steps)]
    lists: dict[str, Sequence[object]] = {"gammas": gammas, "steps": steps, "methods": methods}
    if any(estimator.noisy for estimator in estimators):
        lists["temperatures"] = temperatures
    for name, given in lists.items():
        if not len(given) or len({*given}) < len(given):
            raise ValueError(f"{name} must be one or more, each once; got {name}={[*given]}")
    largest = float(jnp.linalg.eigvalsh(hessian(grid, f)).max()) + 1 / min(gammas)
    if any(estimator.descends for estimator in estimators) and step_size * largest >= 2:
        raise ValueError(
            f"step_size must be below 2/(max f'' + 1/gamma) = {2 / largest:.3g}, or inner steps "
            f"diverge; got {step_size}. Take a larger gamma or a smaller step_size."
        )
    rows: list[Row] = []
    key = jax.random.key(seed)
    for method, estimator in zip(methods, estimators, strict=True):
        for gamma in gammas:
            for T in temperatures if estimator.noisy else (0.0,):
                truth = true_gradient(method, grid, f, points, gamma=gamma, temperature=T)
                for L in steps:
                    samples = estimates(
                        method, f, points, jax.random.fold_in(key, len(rows)), gamma=gamma,
                        temperature=T, num_steps=L, step_size=step_size, averaging=averaging,
                        num_chains=num_chains,
                    )  # fmt: skip
                    if not bool(jnp.isfinite(samples).all()):
                        raise ValueError(
                            f"the estimates of {method} with gamma={gamma}, temperature={T} are "
                            "not finite: f must be finite wherever noise and steps may lead"
                        )
                    row: Row = {"method": method, "gamma": gamma, "temperature": T, "steps": L}
                    rows.append(row | accuracy(samples, truth)._asdict())
    return rows
