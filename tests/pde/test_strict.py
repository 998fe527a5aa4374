"""The examples of the reference solvers where JAX neither promotes dtypes nor ranks by itself."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import pytest

from entropix import pde

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(pde.__path__, prefix="entropix.pde.")
)
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = {
    test.name: test
    for name in MODULES
    for test in FINDER.find(importlib.import_module(name))
    if test.examples
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_solvers(name):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        told = []
        runner.run(EXAMPLES[name], out=told.append)
    assert runner.failures == 0, "".join(told)


def test_in_the_plane():
    """With what no example has: two dimensions, and a factor of the noise for each."""
    grid = pde.Grid((-2.0, -2.0), (2.0, 2.0), (21, 21))
    f = lambda x: jnp.sum(x**2) / 2  # noqa: E731
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        u = pde.cole_hopf(grid, f, 1.0, 50.0, jnp.ones((3, 2)))
        assert u.gradient == pytest.approx(0.5, abs=1e-6)
        assert pde.hopf_lax(grid, f, 1.0).value.shape == (21, 21)
        assert pde.ball_maximum(grid, f, 0.5, jnp.ones((3, 2))).value.shape == (3,)
        noise = jnp.asarray([0.1, 0.2])
        paths = pde.simulate(
            lambda x, s: -x, jnp.ones((4, 2)), jax.random.key(0), sigma=noise, horizon=1.0,
            num_steps=10,
        )  # fmt: skip
        assert paths.shape == (1, 4, 2)
        flown = pde.scoped_flow(grid, f, jnp.ones((3, 2)), beta=5.0, horizon=1.0, num_levels=4)
        assert flown.shape == (3, 2)
