"""An optimiser is a pair of functions: copies of it work, and know their parts."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import drive, every_case, rosenbrock

import entropix
from entropix.transforms.stability import RelaxedOptimizer

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "tree": lambda tx: jax.tree.map(lambda leaf: leaf, tx),
    "replaced": lambda tx: tx._replace(init=tx.init),
}


@every_case
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_does_what_the_optimiser_does(case, how):
    target, tx = rosenbrock(), case.factory(**case.arguments)
    copied = COPIES[how](tx)
    assert type(copied) is type(tx)
    if isinstance(tx, RelaxedOptimizer):
        assert copied.relaxation.num_steps == tx.relaxation.num_steps
    params = case.spread(target.start)
    walks = []
    for made in (case.place(tx), case.place(copied)):
        step = jax.jit(case.step(made, target.objective))
        walks.append(drive(step, params, made.init(params), length=3)[0])
    np.testing.assert_array_equal(*walks)


@pytest.mark.parametrize(
    "make",
    [
        lambda: entropix.snoo(optax.adam(0.1), num_steps=2),
        lambda: entropix.entropy_sgd(0.1, gamma=1.0, stepwise=True),
    ],
    ids=["snoo", "entropy_sgd"],
)
def test_equinox_takes_an_optimiser_as_an_argument(make):
    eqx = pytest.importorskip("equinox")

    @eqx.filter_jit
    def step(tx, w, state):
        return tx.update(w, state, w)

    tx, w = make(), jnp.ones(2)
    np.testing.assert_allclose(
        step(tx, w, tx.init(w))[0], tx.update(w, tx.init(w), w)[0], rtol=1e-6
    )


def test_a_copy_can_be_checked():
    tx = copy.deepcopy(entropix.entropy_sgd(0.1, gamma=1.0))
    assert entropix.check(tx, 10) == pytest.approx(0.1)


def test_deep_copies_of_a_training_state_fit_together():
    """Flax keeps the optimiser in the tree's structure, and compares it."""
    tx = entropix.hj_sgd(0.1, 1.0, stepwise=True)
    assert copy.deepcopy(tx) == tx
