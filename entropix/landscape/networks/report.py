"""All measures of one network in one flat dictionary, with the time that they will take."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from entropix.landscape.networks.batches import mean_figures
from entropix.landscape.networks.eigenvalues import eigenvalues
from entropix.landscape.networks.energy import local_energy
from entropix.landscape.networks.parameters import Tree, as_vector, movable, size
from entropix.landscape.networks.products import (
    LossFn,
    gauss_newton,
    hessian,
    hvp,
    relative,
)
from entropix.landscape.networks.sharpness import sharpness
from entropix.landscape.networks.trace import frobenius_norm, trace
from entropix.transforms import checks
from entropix.transforms.eager import as_partial
from entropix.transforms.keys import one_key


def measures(
    loss: LossFn,
    params: Tree,
    batches: Tree,
    key: jax.Array | int = 0,
    *,
    figures: LossFn | None = None,
    outputs_fn: Callable[[Tree, Tree], Tree] | None = None,
    loss_fn: Callable[[Tree, Tree], Any] | None = None,
    num_eigenvalues: int = 3,
    num_samples: int = 20,
    sigmas: Sequence[float] = (0.1, 0.3),
    rho: float = 0.05,
    adaptive_rho: float = 0.5,
    announce: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """The measures of flatness at one point, as numbers.

    Args:
      loss: `loss(params, batch) -> number`, the mean over the batch's examples.
      params: x, any tree.
      batches: a tree of arrays with a leading axis of batches, all of the same size; some thousand
        examples show what the whole set would.
      key: for all random vectors.
      figures: `figures(params, batch)`, a dictionary of numbers whose local energies are wanted,
        such as the loss and the error; by default the loss alone.
      outputs_fn: `outputs_fn(params, batch) -> outputs`. With `loss_fn`, the Gauss-Newton matrix is
        measured too.
      loss_fn: `loss_fn(outputs, batch) -> number`.
      num_eigenvalues: the largest ones of the Hessian, >= 1.
      num_samples: random vectors for traces and norms, and perturbations for energies; an even
        number >= 4.
      sigmas: relative sizes of noise, for local energies.
      rho: radius of the ball, for sharpness.
      adaptive_rho: radius in units of the weights, for adaptive sharpness.
      announce: called once, before the work starts, with a line that says what will be done and
        how long that takes, for instance `print`. To know, one product and one pass are run twice.

    Returns:
      Numbers by name: `eigenvalue_1`, ..., `trace`, `frobenius_norm`, `relative_trace`,
      `sharpness`, `adaptive_sharpness`, and `local_energy_0.1`, ...; with several figures
      `local_energy_0.1/error`, and with `outputs_fn` also `ggn_eigenvalue_1`, ... and `ggn_trace`.
      Every measure that is an estimate has its standard error under the same name with `_se`
      (of eigenvalues, the bound). Lower bounds (sharpness) have none.

    Raises:
      ValueError: for an argument outside its range.

    Example:
      >>> import jax.numpy as jnp
      >>> curvature = jnp.arange(1.0, 6.0)
      >>> loss = lambda x, batch: jnp.sum(curvature * x**2) / 2
      >>> found = measures(loss, jnp.ones(5), jnp.zeros(1), sigmas=(0.1,))
      >>> round(found["eigenvalue_1"], 4), round(found["trace"], 4)
      (5.0, 15.0)
    """
    if (outputs_fn is None) != (loss_fn is None):
        raise ValueError(
            "outputs_fn and loss_fn must be given both, for the Gauss-Newton matrix, or neither; "
            f"got outputs_fn={checks.shown(outputs_fn)}, loss_fn={checks.shown(loss_fn)}."
        )
    num_eigenvalues, num_samples, sigmas = effort(num_eigenvalues, num_samples, sigmas)
    if num_eigenvalues > (n := size(params)):
        raise checks.refusal("num_eigenvalues", f"at most {n}, the parameters", num_eigenvalues)
    loss, keys = as_partial(loss), jax.random.split(one_key(key), 5)
    figures = loss if figures is None else as_partial(figures)
    if announce is not None:
        counts = passes(
            size(params),
            num_eigenvalues,
            num_samples,
            len(sigmas),
            ggn=outputs_fn is not None,
        )
        announce(estimated_time(loss, params, batches, counts))

    operator = hessian(loss, params, batches)
    found = {
        **_eigenvalues("eigenvalue", operator, params, num_eigenvalues, keys[0]),
        **_named("trace", trace(operator, params, keys[1], num_samples)),
        **_named("frobenius_norm", frobenius_norm(operator, params, keys[1], num_samples)),
        **_named("relative_trace", trace(relative(operator, params), params, keys[1], num_samples)),
    }
    if outputs_fn is not None and loss_fn is not None:
        ggn = gauss_newton(outputs_fn, loss_fn, params, batches)
        found |= _eigenvalues("ggn_eigenvalue", ggn, params, num_eigenvalues, keys[0])
        found |= _named("ggn_trace", trace(ggn, params, keys[1], num_samples))
    for sigma in sigmas:
        energy = local_energy(figures, params, sigma, batches, keys[2], num_samples=num_samples)
        found |= _named(f"local_energy_{sigma:g}", energy)
    found["sharpness"] = sharpness(loss, params, rho, batches, key=keys[3])
    found["adaptive_sharpness"] = sharpness(
        loss, params, adaptive_rho, batches, adaptive=True, key=keys[3]
    )
    return {name: float(value) for name, value in found.items()}


def effort(
    num_eigenvalues: int, num_samples: int, sigmas: Sequence[float]
) -> tuple[int, int, list[float]]:
    """Returns what `measures` is told to do, as numbers of Python, or refuses it."""
    num_eigenvalues = checks.check_count("num_eigenvalues", num_eigenvalues)
    num_samples = checks.check_count("num_samples", num_samples)
    if num_samples < 4 or num_samples % 2:
        raise checks.refusal("num_samples", "an even number >= 4", num_samples)
    try:
        widths = [checks.check_positive("sigma", sigma, schedule=False) for sigma in sigmas]
    except (TypeError, ValueError) as error:
        accepted = "a list of numbers > 0, such as (0.1, 0.3)"
        raise checks.refusal("sigmas", accepted, sigmas) from error
    names = [f"{sigma:g}" for sigma in widths]
    if len(set(names)) < len(names):
        accepted = "numbers whose first six digits differ, which measures are called by"
        raise checks.refusal("sigmas", accepted, sigmas)
    return num_eigenvalues, num_samples, widths


def passes(
    num_parameters: int, num_eigenvalues: int, num_samples: int, num_sigmas: int, *, ggn: bool
) -> dict[str, int]:
    """What `measures` will do: how many products, gradients and evaluations of all batches."""
    steps = min(4 * num_eigenvalues + 40, num_parameters)
    return {
        "products": (steps + num_samples) * (1 + ggn) + 2 * num_samples,
        "gradients": 2 * 2 * (20 + 1),
        "evaluations": num_sigmas * (num_samples + 1),
    }


def estimated_time(loss: LossFn, params: Tree, batches: Tree, counts: Mapping[str, int]) -> str:
    """One line about the time to come, from one product and one evaluation, run and timed."""
    loss, ones = as_partial(loss), as_vector(jax.tree.map(jnp.ones_like, movable(params)), params)
    evaluate = jax.jit(mean_figures)
    product = _seconds(lambda: hvp(loss, params, ones, batches))
    evaluation = _seconds(lambda: evaluate(loss, params, batches))
    # A product costs two to three gradients.
    seconds = product * (counts["products"] + counts["gradients"] / 2)
    seconds += evaluation * counts["evaluations"]
    work = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"landscape: {work} of the data; about {seconds:.1f} s, and compilation"


def _seconds(call: Callable[[], Any]) -> float:
    """The time of a call, without the compilation that the first one does."""
    jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _eigenvalues(
    name: str, operator: Any, params: Tree, num: int, key: jax.Array
) -> dict[str, jax.Array]:
    values, bounds = eigenvalues(operator, params, num, key)
    ranks = range(1, num + 1)
    found = {f"{name}_{rank}": value for rank, value in zip(ranks, values, strict=True)}
    return found | {f"{name}_{rank}_se": b for rank, b in zip(ranks, bounds, strict=True)}


def _named(name: str, estimate: Any) -> dict[str, jax.Array]:
    """An estimate as two numbers, or two for every figure in its tree."""
    names = [
        name + "".join(f"/{getattr(k, 'key', getattr(k, 'name', k))}" for k in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(estimate.value)
    ]
    values, errors = map(jax.tree.leaves, estimate)
    found = dict(zip(names, values, strict=True))
    return found | {f"{n}_se": error for n, error in zip(names, errors, strict=True)}
