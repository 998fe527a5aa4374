"""Which measures change when the weights before batch normalisation are rescaled.

The rescaled network computes the same function, up to the epsilon of the normalisation: what
changes then is the measure, not the network. The table in docs/landscape.md is this test's.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import landscape

FACTOR = 3.0
OTHER = np.random.default_rng(1).normal(size=(4, 5))
SURVIVE = {"local energy", "adaptive sharpness", "relative trace", "relative eigenvalue",
           "filter-normalised slice"}  # fmt: skip
CHANGE = {"eigenvalue", "trace", "Frobenius norm", "harmonic mean", "Gauss-Newton trace",
          "sharpness", "local entropy", "slice", "segment"}  # fmt: skip


def outputs(params, batch):
    inputs, _ = batch
    hidden = inputs @ params["w"]
    hidden = (hidden - hidden.mean(axis=0)) / jnp.sqrt(hidden.var(axis=0) + 1e-12)
    return jnp.tanh(hidden * params["scale"] + params["shift"]) @ params["out"]


def cross_entropy(logits, batch):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch[1][:, None], axis=1)
    return -jnp.mean(chosen)


def loss(params, batch):
    return cross_entropy(outputs(params, batch), batch)


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    params = {
        "w": jnp.asarray(rng.normal(size=(4, 5))),
        "scale": jnp.asarray(rng.uniform(0.5, 1.5, size=5)),
        "shift": jnp.asarray(rng.normal(size=5)),
        "out": jnp.asarray(rng.normal(size=(5, 3))),
    }
    batches = jnp.asarray(rng.normal(size=(2, 20, 4))), jnp.asarray(rng.integers(3, size=(2, 20)))
    return params, batches


def measure(params, batches):
    """Every measure, with the same random numbers for every network."""
    hessian = landscape.hessian(loss, params, batches)
    relative = landscape.relative(hessian, params)
    ggn = landscape.gauss_newton(outputs, cross_entropy, params, batches)
    density = landscape.spectrum(hessian, params, 0)
    directions = [jax.tree.map(lambda x, n=n: jnp.sin(n + jnp.arange(x.size)).reshape(x.shape),
                               params) for n in range(2)]  # fmt: skip

    def plane(normalise):
        return landscape.slice2d(loss, params, batches, directions=directions,
                                 normalise=normalise, num_points=3).value[0, 0]  # fmt: skip

    other = jax.tree.map(lambda x: x[::-1], {**params, "w": OTHER})
    found = {
        "eigenvalue": landscape.eigenvalues(hessian, params, 1, 0).value[0],
        "trace": landscape.trace(hessian, params, 0, 50).value,
        "Frobenius norm": landscape.frobenius_norm(hessian, params, 0, 50).value,
        "harmonic mean": landscape.harmonic_mean(density, 1e-3).value,
        "Gauss-Newton trace": landscape.trace(ggn, params, 0, 50).value,
        "sharpness": landscape.sharpness(loss, params, 0.3, batches),
        "local entropy": landscape.local_entropy(
            loss, params, 0.1, 0.1, batches, 0, num_samples=50
        ).value,
        "slice": plane("none"),
        "segment": landscape.segment(loss, params, other, batches, num_points=3).value[1],
        "local energy": landscape.local_energy(loss, params, 0.2, batches, 0).value,
        "adaptive sharpness": landscape.sharpness(loss, params, 0.3, batches, adaptive=True),
        "relative trace": landscape.trace(relative, params, 0, 50).value,
        "relative eigenvalue": landscape.eigenvalues(relative, params, 1, 0).value[0],
        "filter-normalised slice": plane("filter"),
    }
    return {name: float(value) for name, value in found.items()}


@pytest.mark.slow
def test_which_measures_survive(x64, network):
    params, batches = network
    rescaled = {**params, "w": FACTOR * params["w"]}
    before, after = measure(params, batches), measure(rescaled, batches)
    assert float(landscape.segment(loss, params, rescaled, batches).value[-1]) == pytest.approx(
        float(landscape.segment(loss, params, rescaled, batches).value[0]), rel=1e-9
    )
    ratio = {name: after[name] / before[name] for name in before}
    assert set(ratio) == SURVIVE | CHANGE
    assert {name for name, r in ratio.items() if abs(r - 1) < 1e-6} == SURVIVE
    assert {name for name, r in ratio.items() if abs(r - 1) > 1e-3} == CHANGE


def test_the_curvature_of_the_rescaled_weights_falls_with_the_square(x64, network):
    params, batches = network
    block = {"w": params["w"]}
    rest = {name: leaf for name, leaf in params.items() if name != "w"}

    def trace(w):
        of_w = lambda p, batch: loss({**rest, **p}, batch)  # noqa: E731
        return landscape.trace(landscape.hessian(of_w, {"w": w}, batches), block, 0, 50).value

    assert float(trace(FACTOR * params["w"]) * FACTOR**2 / trace(params["w"])) == pytest.approx(
        1, rel=1e-6
    )
