"""Temperatures that end at zero: a schedule's last value, and what rounding makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix
from entropix.transforms.langevin import langevin_step
from entropix.transforms.walk import walk_step

CHAINS = {
    "entropy_sgd": lambda T, gamma=1.0: entropix.entropy_sgd(
        0.1, gamma, temperature=T, num_steps=3
    ),
    "heat_sgd": lambda T, gamma=1.0: entropix.heat_sgd(0.1, gamma, temperature=T, num_steps=3),
    "outer": lambda T, gamma=1.0: entropix.outer(
        optax.sgd(0.1), optax.sgd(1.0), num_steps=3, gamma=gamma, step_size=0.1, temperature=T,
        stepwise=False,
    ),
}  # fmt: skip
over_chains = pytest.mark.parametrize("name", CHAINS)
START = np.asarray([3.0, -2.0])


def ends_at(last):
    """Outer steps 0 and 1 are warm. Compiled, a schedule that ends at 0 may end at -3e-10."""
    return lambda count: jnp.where(count < 2, 1e-2, last)


def after(tx, num_steps=5):
    """X after outer steps on a bowl around 1."""
    grad_fn = lambda w, i: 2 * (w - 1)  # noqa: E731

    def body(carry, _):
        w, state = carry
        updates, state = tx.update(grad_fn(w, 0), state, w, grad_fn=grad_fn)
        return (optax.apply_updates(w, updates), state), None

    start = jnp.asarray(START)  # in float32, or in float64 where a test enables it
    return jax.lax.scan(body, (start, tx.init(start)), length=num_steps)[0][0]


@over_chains
@pytest.mark.parametrize("last", [-3e-10, -0.0])
def test_a_rounding_below_zero_is_zero(name, last):
    found = after(CHAINS[name](ends_at(last)))
    np.testing.assert_array_equal(found, after(CHAINS[name](ends_at(0.0))))
    assert np.all(np.isfinite(found))


@over_chains
def test_a_temperature_that_is_no_number_is_not_taken_for_zero(name):
    assert np.all(np.isnan(after(CHAINS[name](ends_at(jnp.nan)))))


@over_chains
def test_derivatives_by_the_scope_are_finite_differences(x64, name):
    def objective(gamma):
        return jnp.sum((after(CHAINS[name](ends_at(0.0), gamma)) - 1) ** 2)

    step = 1e-6
    difference = (objective(0.7 + step) - objective(0.7 - step)) / (2 * step)
    assert float(jax.grad(objective)(0.7)) == pytest.approx(float(difference), rel=1e-5)


@pytest.mark.parametrize("kernel", [langevin_step, walk_step])
def test_a_step_size_that_ends_below_zero_adds_no_noise(kernel):
    y = x = jnp.asarray(START)
    d = jnp.ones(2)
    found = kernel(y, x, d, 1.0, -1e-10, 0.5, jnp.ones(2))
    np.testing.assert_allclose(found, kernel(y, x, d, 1.0, 0.0, 0.5), rtol=1e-6)
