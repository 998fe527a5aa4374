"""All measures in one dictionary."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import landscape
from entropix.landscape.networks import report


@pytest.mark.slow
def test_every_measure_of_a_network(classifier):
    net = classifier()

    def figures(params, batch):
        wrong = jnp.argmax(net.outputs(params, batch), axis=-1) != batch[1]
        return {"loss": net.loss(params, batch), "error": jnp.mean(wrong)}

    lines = []
    found = landscape.measures(
        net.loss, net.params, net.batches, figures=figures, outputs_fn=net.outputs,
        loss_fn=net.cross_entropy, num_samples=40, sigmas=(0.1, 0.25), announce=lines.append,
    )  # fmt: skip
    dense, ggn = (np.asarray(m, np.float64) for m in (net.dense_hessian(), net.dense_ggn()))
    assert found["eigenvalue_1"] == pytest.approx(np.linalg.eigvalsh(dense)[-1], abs=1e-4)
    assert found["eigenvalue_3"] == pytest.approx(np.linalg.eigvalsh(dense)[-3], abs=1e-4)
    assert found["ggn_eigenvalue_2"] == pytest.approx(np.linalg.eigvalsh(ggn)[-2], abs=1e-4)
    for name, truth in (
        ("trace", np.trace(dense)), ("ggn_trace", np.trace(ggn)),
        ("frobenius_norm", np.linalg.norm(dense)),
    ):  # fmt: skip
        assert abs(found[name] - truth) < 4 * found[f"{name}_se"]
    energy = landscape.local_energy(
        net.loss, net.params, 0.25, net.batches, _key_of_energies(), num_samples=40
    )
    assert found["local_energy_0.25/loss"] == pytest.approx(float(energy.value), rel=1e-5)
    assert {"local_energy_0.1/error", "local_energy_0.1/error_se", "sharpness"} <= set(found)
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())
    (line,) = lines
    assert line.startswith("landscape: 240 products, 84 gradients, 82 evaluations of the data;")


def _key_of_energies():
    return jax.random.split(jax.random.key(0), 5)[2]


def test_what_is_announced_is_what_is_done():
    """Counts the calls of a loss whose every evaluation is seen."""
    seen = []

    def loss(x, batch):
        jax.debug.callback(lambda: seen.append(1))
        return jnp.sum(x**2)

    def evaluations(call):
        del seen[:]
        jax.block_until_ready(call())
        jax.effects_barrier()
        return len(seen)

    x, batches = jnp.ones(3), jnp.zeros(1)
    planned = report.passes(3, 1, 10, 1, ggn=False)
    energy = lambda: landscape.local_energy(loss, x, 0.1, batches, 0, num_samples=10)  # noqa: E731
    assert evaluations(energy) == planned["evaluations"] == 11
    ascents = lambda: landscape.sharpness(loss, x, 0.1, batches)  # noqa: E731
    assert 2 * evaluations(ascents) == planned["gradients"]
    assert planned["products"] == 3 + 3 * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs_fn": lambda p, b: p}, "outputs_fn and loss_fn must be given both"),
        ({"num_eigenvalues": 4}, "num_eigenvalues must be at most 3, the parameters"),
        ({"num_samples": 7}, "num_samples must be an even number >= 4; got num_samples=7"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        landscape.measures(lambda x, b: jnp.sum(x**2), jnp.ones(3), jnp.zeros(1), **options)
