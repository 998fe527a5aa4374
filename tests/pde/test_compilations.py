"""Solvers compile once for a function, whatever the numbers."""

import jax
import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

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


def drift_with(rate, x, s):
    return -rate * x


def bump(x):
    return jnp.exp(-(x**2))


def cost(x, mean):
    return (x - 1) ** 2 / 2 + mean


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
    "simulate, a number in the drift": lambda a: pde.simulate(
        Partial(drift_with, a), jnp.ones(4), KEY, sigma=0.0, horizon=1.0, num_steps=10
    ),
    "fast_slow": lambda a: pde.fast_slow(
        well, a * jnp.ones(4), KEY, gamma=a, temperature=a, epsilon=a, horizon=a, num_steps=10
    )[0],
    "control_gap": lambda a: pde.control_gap(
        LINE, well, bump, a * jnp.ones(4), KEY, beta=a, horizon=a, num_steps=10
    ).points,
    "scoped_flow": lambda a: pde.scoped_flow(
        LINE, well, a * jnp.ones(4), beta=a, horizon=a, num_levels=3, num_steps=10
    ),
    "mean_field_game": lambda a: pde.mean_field_game(
        LINE, well, cost, bump, gamma=a, beta=a, horizon=a, num_levels=5, num_rounds=2
    ).means,
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


class Unhashable:
    __hash__ = None

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)


def test_a_function_without_a_hash_is_as_good():
    flow = pde.gradient_flow(Unhashable(slope), 0.5, horizon=1.0, num_steps=10)
    assert jnp.array_equal(flow, pde.gradient_flow(slope, 0.5, horizon=1.0, num_steps=10))
    feet = pde.characteristics(Unhashable(slope), jnp.asarray([2.0]), 0.1)
    assert jnp.array_equal(feet, pde.characteristics(slope, jnp.asarray([2.0]), 0.1))
    x = pde.simulated_annealing(
        Unhashable(slope), jnp.ones(2), KEY, step_size=0.01, schedule=jnp.ones(5)
    )  # fmt: skip
    assert x.shape == (2,)


OF_THE_LOSS = {
    "heat_equation": lambda f: pde.heat_equation(LINE, f, 0.1, 1.0).value,
    "ball_maximum": lambda f: pde.ball_maximum(LINE, f, 0.1).value,
    "cole_hopf": lambda f: pde.cole_hopf(LINE, f, 0.1, 1.0).value,
    "fast_slow": lambda f: pde.fast_slow(
        f, jnp.ones(2), KEY, gamma=1.0, temperature=0.1, epsilon=0.1, horizon=0.1, num_steps=5
    )[0],
    "mean_field_game": lambda f: pde.mean_field_game(
        LINE, f, cost if f is well else Unhashable(cost), bump, gamma=1.0, beta=1.0, horizon=1.0,
        num_levels=5, num_rounds=2,
    ).means,
}  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_LOSS)
def test_a_loss_without_a_hash_is_as_good(name):
    assert jnp.array_equal(OF_THE_LOSS[name](Unhashable(well)), OF_THE_LOSS[name](well))
