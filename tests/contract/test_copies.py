"""An optimiser is a pair of functions: copies of it work, and know their parts."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import CASES, drive, every_case, rosenbrock

import entropix
from entropix.transforms.parts import RelaxedOptimizer

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "tree": lambda tx: jax.tree.map(lambda leaf: leaf, tx),
    "replaced": lambda tx: tx._replace(init=tx.init),
}


@every_case
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_has_the_functions_of_the_optimiser(case, how):
    tx = case.factory(**case.arguments)
    copied = COPIES[how](tx)
    assert type(copied) is type(tx)
    assert copied == tx  # a pair of functions is equal where the functions are the same
    if isinstance(tx, RelaxedOptimizer):
        assert copied.relaxation is tx.relaxation
        assert copied.optimizer is tx.optimizer


@pytest.mark.parametrize("name", ["snoo-adam-stepwise", "entropy_sgd-stepwise", "sam"])
def test_a_pickle_does_what_the_optimiser_does(name):
    cloudpickle = pytest.importorskip("cloudpickle")
    case = CASES[name]
    target, tx = rosenbrock(), case.factory(**case.arguments)
    read = cloudpickle.loads(cloudpickle.dumps(tx))
    assert read.relaxation.num_steps == tx.relaxation.num_steps
    params, walks = case.spread(target.start), []
    for made in (case.place(tx), case.place(read)):
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
