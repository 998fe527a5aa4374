r"""Thermodynamic integration of local entropy over the scope, by Hamiltonian Monte Carlo.

With :math:`y = x + s\sqrt T\, \xi` and :math:`s = \sqrt t`, the measure of Lemma 1 at scope t is

.. math:: \pi_s(\xi) \propto \exp(-U_s(\xi) - |\xi|^2/2),\qquad
  U_s(\xi) = [f(x + s\sqrt T\,\xi) - f(x)]/T

a standard normal one at s = 0, and the derivative of local entropy with respect to s is
:math:`T\, E[\xi \cdot \nabla U_s(\xi)]/s`. The integrator rotates (position, momentum) exactly
under the Gaussian part and kicks with the gradient of U: where U does not matter, a trajectory of a
quarter turn is an independent draw.
"""

import functools
import math
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from entropix.landscape.networks.batches import check_loss, value_and_gradient
from entropix.landscape.networks.eigenvalues import eigenvalues
from entropix.landscape.networks.estimate import Estimate, mean_of_samples
from entropix.landscape.networks.parameters import (
    Tree,
    at_point,
    check_automatic,
    movable,
    raveled,
    size,
)
from entropix.landscape.networks.products import LossFn, hessian
from entropix.transforms import checks
from entropix.transforms.numerics import scalar


class Sampling(NamedTuple):
    """How chains sample. Cost in gradients: the product of the four counts, and a quarter more.

    Attributes:
      num_nodes: of the quadrature in the root of the scope, >= 1.
      num_chains: independent chains, >= 4, all at once in memory.
      num_samples: trajectories of each chain at each node, >= 2, after a quarter as many that are
        left out. A node begins where the last one ended.
      num_leapfrogs: gradients of a trajectory, >= 1.
      min_effective: effective sample size at every node below which there is no figure, >= 0.
    """

    num_nodes: int = 8
    num_chains: int = 16
    num_samples: int = 100
    num_leapfrogs: int = 8
    min_effective: float = 100.0

    def checked(self) -> Self:
        """The same, or `ValueError` for a number outside its range."""
        for name in ("num_nodes", "num_chains", "num_samples", "num_leapfrogs"):
            least = {"num_chains": 4, "num_samples": 2}.get(name, 1)
            if checks.check_count(f"sampling.{name}", getattr(self, name)) < least:
                raise checks.refusal(f"sampling.{name}", f">= {least}", getattr(self, name))
        checks.check_non_negative("sampling.min_effective", self.min_effective, schedule=False)
        return self


@functools.partial(jax.jit, static_argnames="sampling")
def integrate(
    loss: LossFn,
    params: Tree,
    gamma: Any,
    temperature: Any,
    batches: Tree,
    key: jax.Array,
    sampling: Sampling,
) -> tuple[Estimate, jax.Array]:
    """The integral over s from 0 to the root of gamma, and the least effective sample size.

    Returns:
      An `Estimate`, NaN below `sampling.min_effective`, and the size.
    """
    check_automatic(params)
    x, unravel = raveled(movable(params))
    root, heat = jnp.sqrt(scalar(gamma, x)), scalar(temperature, x)

    def energy(xi: jax.Array, s: jax.Array, batch: Tree) -> jax.Array:
        point = at_point(unravel(x + s * jnp.sqrt(heat) * xi), params)
        check_loss(loss, point, batch)
        return loss(point, batch) / heat

    def potential(xi: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        return value_and_gradient(lambda xi, batch: energy(xi, s, batch), xi, batches)

    for_start, for_steps, for_stiffness = jax.random.split(key, 3)
    matvec, steps = hessian(loss, params, batches), min(10, size(params))
    stiffest, _ = eigenvalues(matvec, params, 1, for_stiffness, num_steps=steps, which="magnitude")
    abscissae, weights = np.polynomial.legendre.leggauss(sampling.num_nodes)
    nodes = root * jnp.asarray((1 + abscissae) / 2, x.dtype)

    def at_node(xi: jax.Array, node: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
        s, key = node
        # The rotation is exact; kicks are stable up to 2/(largest frequency), which U alone has.
        fastest = jnp.sqrt(1 + s**2 * jnp.abs(stiffest[0]))
        length = jnp.minimum(math.pi / 2 / sampling.num_leapfrogs, 1 / fastest)
        chain = functools.partial(_chain, lambda xi: potential(xi, s), length, sampling)
        xi, forces = jax.vmap(chain)(xi, jax.random.split(key, sampling.num_chains))
        return xi, heat * forces / s  # (chains, samples)

    start = jax.random.normal(for_start, (sampling.num_chains, x.size), x.dtype)
    keys = jax.random.split(for_steps, sampling.num_nodes)
    _, forces = lax.scan(at_node, start, (nodes, keys))
    of_chains = jnp.mean(forces, axis=-1)  # (nodes, chains)
    integrals = root / 2 * jnp.asarray(weights, x.dtype) @ of_chains
    value, error = mean_of_samples(integrals)
    fewest = jnp.min(_effective(forces))
    return Estimate(jnp.where(fewest >= sampling.min_effective, value, jnp.nan), error), fewest


def _chain(
    potential: Any, length: jax.Array, sampling: Sampling, xi: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One chain at one node: where it ends, and xi . grad U after every trajectory kept."""

    def trajectory(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        xi, value, slope = carry
        for_momentum, for_length, for_choice = jax.random.split(key, 3)
        momentum = jax.random.normal(for_momentum, xi.shape, xi.dtype)
        # Another length every time: a fixed one can return a fast direction to where it was.
        step = length * jax.random.uniform(for_length, (), xi.dtype, 0.7, 1.0)
        proposal = _leapfrog(potential, step, sampling.num_leapfrogs, (xi, momentum, value, slope))
        before = value + (xi @ xi + momentum @ momentum) / 2
        after = proposal[2] + (proposal[0] @ proposal[0] + proposal[1] @ proposal[1]) / 2
        # A NaN, where the loss overflows, is refused.
        accepted = jnp.log(jax.random.uniform(for_choice, (), xi.dtype)) < before - after
        new = (proposal[0], proposal[2], proposal[3])
        carry = jax.tree.map(lambda n, o: jnp.where(accepted, n, o), new, carry)
        return carry, carry[0] @ carry[2]

    left_out = max(1, sampling.num_samples // 4)
    keys = jax.random.split(key, left_out + sampling.num_samples)
    (xi, _, _), forces = lax.scan(trajectory, (xi, *potential(xi)), keys)
    return xi, forces[left_out:]


def _leapfrog(potential: Any, step: jax.Array, count: int, state: Any) -> Any:
    """Kick, rotate, kick, `count` times; state is position, momentum, U and its gradient there."""
    cos, sin = jnp.cos(step), jnp.sin(step)

    def once(state: Any, _: None) -> tuple[Any, None]:
        xi, momentum, _, slope = state
        momentum = momentum - step / 2 * slope
        xi, momentum = cos * xi + sin * momentum, cos * momentum - sin * xi
        value, slope = potential(xi)
        return (xi, momentum - step / 2 * slope, value, slope), None

    return lax.scan(once, state, length=count)[0]


def _effective(forces: jax.Array) -> jax.Array:
    """Effective sample size at every node: of the draws' variance, over that of the chains' means.

    Independent draws of m chains have as many as there are draws, chains that never leave their
    valley have m.
    """
    _, chains, samples = forces.shape
    of_means = jnp.var(jnp.mean(forces, axis=-1), axis=-1, ddof=1) / chains
    of_draws = jnp.var(forces, axis=(1, 2), ddof=1)
    ratio = of_draws / jnp.where(of_means > 0, of_means, 1)
    return jnp.where(of_means > 0, jnp.minimum(ratio, chains * samples), chains * samples)
