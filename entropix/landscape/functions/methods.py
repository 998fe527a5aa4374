"""The methods whose relaxed gradients are compared: what each estimates, and how."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from entropix.optimizers import elastic_sgd
from entropix.pde.grid import Function, Grid
from entropix.pde.heat_equation import heat_equation
from entropix.pde.sup_convolution import ball_maximum
from entropix.pde.viscous import cole_hopf
from entropix.transforms.hamilton_jacobi import hamilton_jacobi
from entropix.transforms.heat import heat
from entropix.transforms.local_entropy import local_entropy
from entropix.transforms.random import normal
from entropix.transforms.relax import relaxed_grad
from entropix.transforms.relaxation import Relaxation
from entropix.transforms.sharpness import sharpness

_COLD = 1e-6  # the temperature of Hamilton-Jacobi's truth: gradients are then right to O(T)
# Replicas are looked at after 300 steps or, where that is more, 10 gamma/eta: the pull alone takes
# gamma/eta steps to bring them e times nearer to the centre.
_BURN_IN, _RELAXATION_TIMES = 300, 10


class Setting(NamedTuple):
    """What an estimate is made with; see `estimates`."""

    L: int
    gamma: jax.Array
    temperature: jax.Array
    step_size: jax.Array
    averaging: float
    key: jax.Array


def _viscous(grid: Grid, f: Function, points: ArrayLike, gamma: float, T: float) -> jax.Array:
    return cole_hopf(grid, f, gamma, 1 / T, points).gradient


def _inviscid(grid: Grid, f: Function, points: ArrayLike, gamma: float, T: float) -> jax.Array:
    return _viscous(grid, f, points, gamma, _COLD)


def _smoothed(grid: Grid, f: Function, points: ArrayLike, gamma: float, T: float) -> jax.Array:
    return heat_equation(grid, f, gamma, 1 / T, points).gradient


def _highest(grid: Grid, f: Function, points: ArrayLike, gamma: float, T: float) -> jax.Array:
    num_radii = 1024 if grid.ndim == 1 else 64
    return ball_maximum(grid, f, gamma, points, num_radii=num_radii).gradient


def _local_entropy(s: Setting) -> Relaxation:
    return local_entropy(
        s.gamma, num_steps=s.L, step_size=s.step_size, averaging=s.averaging,
        temperature=s.temperature, key=s.key,
    )  # fmt: skip


def _hamilton_jacobi(s: Setting) -> Relaxation:
    return hamilton_jacobi(s.gamma, num_steps=s.L, step_size=s.step_size)


def _heat(s: Setting) -> Relaxation:
    return heat(s.gamma, num_steps=s.L, temperature=s.temperature, key=s.key)


def _relaxed(
    make: Callable[[Setting], Relaxation], f: Function, x: jax.Array, s: Setting
) -> jax.Array:
    """One outer step of a relaxation that treats every element alike."""
    relaxation, slope = make(s), jax.vmap(jax.vmap(jax.grad(f)))
    return relaxed_grad(relaxation, lambda y, i: slope(y))(x, relaxation.init(x))[0]


def _ascended(f: Function, x: jax.Array, s: Setting) -> jax.Array:
    """SAM's gradients, one point at a time: its norm is that of all that it is given."""
    relaxation = sharpness(s.gamma / (s.L - 1), num_ascents=s.L - 1)
    relaxed = relaxed_grad(relaxation, lambda y, i: jax.grad(f)(y))
    return jax.vmap(jax.vmap(lambda x: relaxed(x, relaxation.init(x))[0]))(x)


def _replicas(live: bool, f: Function, x: jax.Array, s: Setting) -> jax.Array:
    """`elastic_sgd` with L replicas a chain; gradient noise of size sqrt(2T/eta) makes T."""
    period = 1 if live else 2**30
    tx = elastic_sgd(s.step_size, s.gamma, "replica", momentum=None, period=period)
    update = jax.vmap(tx.update, axis_name="replica")
    slope = jax.vmap(jax.vmap(jax.vmap(jax.grad(f))))
    y = jnp.broadcast_to(x, (s.L, *x.shape))
    size = jnp.sqrt(2 * s.temperature / s.step_size)

    def step(k: jax.Array, carry: tuple) -> tuple:
        y, state = carry
        noise = normal(jax.random.fold_in(s.key, k), y.shape)
        move, state = update(slope(y) + size * noise, state, y)
        return y + (move - move.mean(axis=0) if live else move), state

    steps = jnp.ceil(_RELAXATION_TIMES * s.gamma / s.step_size)
    steps = jnp.maximum(_BURN_IN, steps).astype(jnp.int32)
    y, _ = lax.fori_loop(0, steps, step, (y, jax.vmap(tx.init)(y)))
    return slope(y).mean(axis=0) if live else (x - y.mean(axis=0)) / s.gamma


class Estimator(NamedTuple):
    """What is known of a method.

    Attributes:
      truth: a function of (grid, f, points, gamma, T): the gradient that is estimated.
      estimate: a function of (f, x, setting): an estimate for every point of every chain, like x.
      noisy: whether T matters. Without noise all chains are alike.
      descends: whether the step size matters, and has to be stable.
      replicated: whether L is the number of replicas.
      fewest: the least L.
    """

    truth: Callable[[Grid, Function, ArrayLike, float, float], jax.Array]
    estimate: Callable[[Function, jax.Array, Setting], jax.Array]
    noisy: bool = True
    descends: bool = True
    replicated: bool = False
    fewest: int = 1


ESTIMATORS = {
    "local_entropy": Estimator(_viscous, functools.partial(_relaxed, _local_entropy)),
    "hamilton_jacobi": Estimator(
        _inviscid, functools.partial(_relaxed, _hamilton_jacobi), noisy=False
    ),
    "heat": Estimator(_smoothed, functools.partial(_relaxed, _heat), descends=False),
    "elastic_coupling": Estimator(_viscous, functools.partial(_replicas, False), replicated=True),
    "live_centre": Estimator(
        _viscous, functools.partial(_replicas, True), replicated=True, fewest=2
    ),
    "sharpness": Estimator(_highest, _ascended, noisy=False, descends=False, fewest=2),
}
METHODS = tuple(name for name in ESTIMATORS if name != "sharpness")
"""What `sweep` compares unless told otherwise; "sharpness" is known as well."""


def estimator_of(method: str) -> Estimator:
    """What is known of the method of this name.

    Raises:
      ValueError: for another name.
    """
    if method not in ESTIMATORS:
        raise ValueError(f"method must be one of {(*ESTIMATORS,)}; got method={method!r}")
    return ESTIMATORS[method]
