"""Compiled programs are used again for functions that compute the same, and for no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entropix
from entropix import landscape, pde
from entropix.traced import traced

X = jax.ShapeDtypeStruct((3,), jnp.float32)


class Outside:
    """What a function reads from outside."""

    def __init__(self, value):
        self.value = value

    def loss(self, x, batch=None):
        return jnp.sum(self.value * x**2) + (0.0 if batch is None else jnp.mean(batch))


VALUES = {
    "number": (1.0, 2.0),
    "whole number": (1, 2),
    "NumPy's array": (np.ones(3), np.asarray([1.0, 1.0, 2.0])),
    "JAX's array": (jnp.ones(3), jnp.asarray([1.0, 1.0, 2.0])),
    "other shape": (jnp.ones(3), jnp.ones(1)),
    "not a number": (jnp.full(3, jnp.nan), jnp.ones(3)),
    "bfloat16": (jnp.ones(3, jnp.bfloat16), jnp.zeros(3, jnp.bfloat16)),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_function_that_has_come_to_compute_something_else_is_another_one(name):
    value, other = VALUES[name]
    outside = Outside(value)
    first, again = traced(outside.loss, X), traced(outside.loss, X)
    assert first == again
    assert hash(first) == hash(again)
    outside.value = other
    assert traced(outside.loss, X) != first
    outside.value = np.array(value) if name == "NumPy's array" else value
    assert traced(outside.loss, X) == first


def test_arrays_that_the_caller_writes_into_are_seen():
    values = np.ones(3, np.float32)
    function = lambda x: jnp.sum(values * x)  # noqa: E731
    first = traced(function, X)
    values[0] = 5.0
    assert traced(function, X) != first


def test_random_keys_are_compared():
    outside = Outside(jax.random.key(0))
    function = lambda x: x + jax.random.normal(outside.value, (3,))  # noqa: E731
    first = traced(function, X)
    outside.value = jax.random.key(0)
    assert traced(function, X) == first
    outside.value = jax.random.key(1)
    assert traced(function, X) != first


def test_rules_of_derivatives_do_not_make_a_function_another_one():
    """The text of a program has the addresses of such rules."""

    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
    function = lambda x: jnp.sum(jax.nn.relu(doubled(x)))  # noqa: E731
    assert traced(function, X) == traced(function, X)


def test_what_cannot_be_traced_or_belongs_to_a_callers_program_is_left_alone():
    wrong = lambda x: x @ jnp.ones(7)  # noqa: E731
    assert traced(wrong, X) is wrong

    @jax.jit
    def program(y):
        inside = lambda x: x * y  # noqa: E731
        assert traced(inside, X) is inside
        return y

    program(1.0)


BATCH = jnp.ones((1, 4))
POINT = jnp.asarray([1.0, 2.0, 3.0])
INSTRUMENTS = {
    "hvp": lambda f: landscape.hvp(f, POINT, POINT, BATCH),
    "hessian": lambda f: landscape.hessian(f, POINT, BATCH)(POINT),
    "ggn_vp": lambda f: landscape.ggn_vp(
        lambda x, b: x * b[:3], lambda z, b: f(z), POINT, POINT, BATCH
    ),
    "eigenvalues": lambda f: landscape.eigenvalues(landscape.hessian(f, POINT, BATCH), POINT, 1, 0)[
        0
    ],
    "trace": lambda f: landscape.trace(landscape.hessian(f, POINT, BATCH), POINT, 0, 4)[0],
    "local_energy": lambda f: landscape.local_energy(f, POINT, 0.1, BATCH, 0, num_samples=4)[0],
    "sharpness": lambda f: landscape.sharpness(f, POINT, 0.1, BATCH),
    "segment": lambda f: landscape.segment(f, POINT, 2 * POINT, BATCH, num_points=3).value,
    "slice2d": lambda f: landscape.slice2d(f, POINT, BATCH, key=0, num_points=3).value,
    "local_entropy": lambda f: (
        landscape.local_entropy(f, POINT, 0.1, 0.1, BATCH, 0, num_samples=4).value
    ),
    "measures": lambda f: landscape.measures(f, POINT, BATCH, num_samples=4)["trace"],
    "hj_prox": lambda f: entropix.hj_prox(f, POINT, 0.1, temperature=1.0).value,
}


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_instruments_see_what_a_method_reads(name):
    """Of an object that changes, as a trainer does: the same bound method, another loss."""
    outside = Outside(1.0)
    first = np.asarray(INSTRUMENTS[name](outside.loss))
    outside.value = 3.0
    changed = np.asarray(INSTRUMENTS[name](outside.loss))
    expected = np.asarray(INSTRUMENTS[name](Outside(3.0).loss))
    np.testing.assert_allclose(changed, expected, rtol=1e-6)
    assert not np.allclose(changed, first)


SOLVERS = {
    "cole_hopf": lambda grid, f: pde.cole_hopf(grid, f, t=0.5, beta=10.0),
    "heat_equation": lambda grid, f: pde.heat_equation(grid, f, t=0.5, beta=10.0),
    "hopf_lax": lambda grid, f: pde.hopf_lax(grid, f, t=0.5),
    "ball_maximum": lambda grid, f: pde.ball_maximum(grid, f, rho=0.5),
    "phi": lambda grid, f: pde.phi(grid, f, t=0.5, beta=2.0, points=[0.5, 1.0]),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_see_what_a_method_reads(name, x64):
    outside, grid = Outside(1.0), pde.Grid(-4.0, 4.0, 81)
    first = SOLVERS[name](grid, outside.loss).value
    outside.value = 3.0
    changed = SOLVERS[name](grid, outside.loss)
    expected = SOLVERS[name](grid, Outside(3.0).loss)
    np.testing.assert_allclose(changed.value, expected.value, rtol=1e-12)
    np.testing.assert_allclose(changed.gradient, expected.gradient, rtol=1e-12)
    assert not np.allclose(changed.value, first)
