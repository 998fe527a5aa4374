"""Solvers that step through time compile once for a function, whatever the numbers."""

import jax
import jax.numpy as jnp
import pytest

from entropix import pde

LINE = pde.Grid(-3.0, 3.0, 31)
KEY = jax.random.key(0)


def well(x):
    return (x**2 - 1) ** 2 / 4


def slope(x):
    return x**3 - x


def drift(x, s):
    return -x


def drift_at_0(x):
    return 0.3 * x


def bump(x):
    return jnp.exp(-(x**2))


SOLVERS = {
    "simulate": lambda a: pde.simulate(
        drift, a * jnp.ones(4), KEY, sigma=0.1 * a, horizon=a, num_steps=10
    ),
    "fokker_planck": lambda a: pde.fokker_planck(
        LINE, well, bump, beta=a, horizon=a, num_steps=10
    ),
    "backward_kolmogorov": lambda a: pde.backward_kolmogorov(
        LINE, well, bump, beta=a, horizon=a, num_levels=10
    ),
    "value_function": lambda a: pde.value_function(
        LINE, well, bump, beta=a, horizon=a, num_levels=10
    ),
    "mean_field": lambda a: pde.mean_field(
        LINE, well, bump, gamma=a, temperature=a, horizon=a, num_steps=10
    ),
    "first_passage": lambda a: pde.first_passage(
        slope, -a * jnp.ones(4), 1.0, KEY, temperature=a, dt=0.1 * a, max_steps=100
    ),
    "simulated_annealing": lambda a: pde.simulated_annealing(
        slope, a * jnp.ones(4), KEY, step_size=0.01 * a, schedule=a * jnp.ones(10)
    ),
    "scoped_descent": lambda a: pde.scoped_descent(
        slope, a * jnp.ones(4), KEY, step_size=0.01 * a, schedule=a * jnp.ones(3), temperature=a
    ),
    "characteristics": lambda a: pde.characteristics(drift_at_0, a * jnp.ones(3), a),
    "gradient_flow": lambda a: pde.gradient_flow(slope, a, horizon=a, num_steps=10),
}  # fmt: skip


@pytest.mark.parametrize("name", SOLVERS)
def test_other_numbers_compile_nothing(name, compilations):
    first = SOLVERS[name](0.5)
    SOLVERS[name](0.7)  # operations outside of the loop, on arrays of other kinds
    compilations.clear()
    again = SOLVERS[name](0.9)
    assert not compilations
    assert again.shape == first.shape
    assert not jnp.array_equal(again, first)


def test_a_function_without_a_hash_is_as_good():
    class Slope:
        __hash__ = None

        def __call__(self, x):
            return slope(x)

    flow = pde.gradient_flow(Slope(), 0.5, horizon=1.0, num_steps=10)
    assert jnp.array_equal(flow, pde.gradient_flow(slope, 0.5, horizon=1.0, num_steps=10))
    feet = pde.characteristics(Slope(), jnp.asarray([2.0]), 0.1)
    assert jnp.array_equal(feet, pde.characteristics(slope, jnp.asarray([2.0]), 0.1))
    x = pde.simulated_annealing(
        Slope(), jnp.ones(2), KEY, step_size=0.01, schedule=jnp.ones(5)
    )  # fmt: skip
    assert x.shape == (2,)
