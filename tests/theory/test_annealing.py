"""Simulated annealing against scoping: one double well, equal gradients, binomial errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.pde.stochastic.annealing import scoped_descent, simulated_annealing

PATHS, GRADIENTS, L = 4000, 2000, 20


@jax.vmap
@jax.grad
def slope(x):
    return (x**2 - 1) ** 2 / 4 - 0.1 * x  # the lower well is at +1; paths start in the other


@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.3])
def test_success_of_equal_budgets(temperature, measured):
    start, key = jnp.full(PATHS, -1.0), jax.random.key(0)
    cooling = temperature * np.linspace(1, 0, GRADIENTS)
    annealed = simulated_annealing(slope, start, key, step_size=0.05, schedule=cooling)
    scopes = np.geomspace(10.0, 0.1, GRADIENTS // L)
    scoped = scoped_descent(
        slope, start, key, step_size=0.05, schedule=scopes, temperature=temperature, num_steps=L
    )
    rates = []
    for name, x in (("annealing", annealed), ("scoping", scoped)):
        rate = float(jnp.mean(x > 0))
        rates.append(rate)
        error = np.sqrt(rate * (1 - rate) / PATHS)
        measured(
            "§7.5",
            f"T = {temperature}: {name} {rate:.4f} ({error:.4f}) of {PATHS} paths",
            "below 0.01 at T = 0.01; annealing above 0.5 at T = 0.3",
        )
    if temperature == 0.01:  # a barrier of 15 T or more: neither gets across
        assert max(rates) < 0.01
    if temperature == 0.3:
        assert rates[0] > 0.5  # enough time for the annealed Gibbs measure to prefer the lower


def test_without_noise_both_descend_into_the_nearest_well():
    start = jnp.asarray([-1.5, 1.5])
    key, zero = jax.random.key(0), np.zeros(2000)
    x = simulated_annealing(slope, start, key, step_size=0.1, schedule=zero)
    ones = np.full(500, 1.0)
    y = scoped_descent(slope, start, key, step_size=0.05, schedule=ones, temperature=0.0)
    np.testing.assert_allclose(slope(x), 0, atol=1e-8)
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        (simulated_annealing, {"step_size": -0.1}, "step_size must be one number > 0"),
        (
            simulated_annealing,
            {"schedule": [1.0, -1.0]},
            "must be finite temperatures >= 0; got schedule with -1",
        ),
        (simulated_annealing, {"schedule": 1.0}, r"must be a list of numbers.*got shape \(\)"),
        (scoped_descent, {"schedule": 1.0}, r"must be a list of numbers.*got shape \(\)"),
        (scoped_descent, {"step_size": 0.0}, "step_size must be one number > 0"),
        (scoped_descent, {"schedule": [1.0, 0.0]}, "schedule must be scopes above step_size/2"),
        (scoped_descent, {"schedule": [1.0, 0.02]}, r"diverge; got schedule with 0\.02"),
        (scoped_descent, {"temperature": -1.0}, "temperature must be finite and >= 0"),
        (scoped_descent, {"num_steps": 0}, "num_steps must be an integer >= 1"),
    ],
)
def test_rejections(method, changes, message):
    given = {"step_size": 0.05, "schedule": [1.0, 1.0]}
    if method is scoped_descent:
        given["temperature"] = 0.1
    with pytest.raises(ValueError, match=message):
        method(slope, jnp.zeros(3), jax.random.key(0), **given | changes)
