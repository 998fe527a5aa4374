"""Problems with known answers, shared by the tests of the transformations."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest


class Quadratic(NamedTuple):
    """f(x) = p.x + x.Qx/2, the loss of Lemma 4, whose local entropy is known in closed form."""

    Q: np.ndarray
    p: np.ndarray

    def grad(self, x, i=None):
        return self.p + self.Q @ x

    def pulled(self, gamma):
        """Q + I/gamma, the curvature that the inner chain feels."""
        return self.Q + np.eye(len(self.p)) / gamma

    def mean(self, x, gamma):
        """mu of Lemma 4, which is also the proximal point: x - (Q + I/gamma)^-1 (p + Qx)."""
        return x - np.linalg.solve(self.pulled(gamma), self.p + self.Q @ x)


@pytest.fixture
def quadratic():
    """Makes a random quadratic with eigenvalues in [low, high], both ends attained."""

    def make(seed, dim, low, high):
        rng = np.random.default_rng(seed)
        basis, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
        eigenvalues = np.concatenate([[low, high], rng.uniform(low, high, size=dim - 2)])
        return Quadratic(Q=basis * eigenvalues @ basis.T, p=rng.normal(size=dim))

    return make


@jax.jit
def _regression_grad(params, batches, i):
    def loss(params, inputs, targets):
        hidden = jnp.tanh(inputs @ params["hidden"]["w"] + params["hidden"]["b"])
        return jnp.mean((hidden @ params["out"] - targets) ** 2)

    inputs, targets = jax.tree.map(lambda batch: batch[i % batch.shape[0]], batches)
    return jax.grad(loss)(params, inputs, targets)


class Regression(NamedTuple):
    """Mini-batches of a one-hidden-layer regression on a nested tree: nonconvex, no symmetry."""

    params: dict
    batches: tuple

    def grad(self, params, i):
        """The gradient on mini-batch i, counted round and round."""
        return _regression_grad(params, self.batches, i)

    def full_grad(self, params):
        """The gradient on all mini-batches at once."""
        return _regression_grad(params, jax.tree.map(_as_one_batch, self.batches), 0)


def _as_one_batch(batches):
    return batches.reshape(1, -1, *batches.shape[2:])


@pytest.fixture
def regression():
    """Makes a random regression of the given dtype, with eleven mini-batches of four examples."""

    def make(seed=0, dtype=jnp.float32):
        rng = np.random.default_rng(seed)
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
        params = {"hidden": {"w": draw(3, 4), "b": draw(4)}, "out": draw(4)}
        return Regression(params, (draw(11, 4, 3), draw(11, 4)))

    return make


@pytest.fixture
def points():
    """Makes a function (x) -> (relaxed gradient, all points where gradients were asked for)."""
    import entropix

    def make(relaxation, grad_fn):
        def record(point, i, seen):
            return grad_fn(point, i), jax.tree.map(lambda s, p: s.at[i].set(p), seen, point)

        def run(x, state=None):
            state = relaxation.init(x) if state is None else state
            empty = jax.tree.map(lambda p: jnp.zeros((relaxation.num_steps, *p.shape), p.dtype), x)
            relaxed, _, seen = entropix.relaxed_grad(relaxation, record, has_carry=True)(
                x, state, empty
            )
            return relaxed, seen

        return jax.jit(run)

    return make


@pytest.fixture
def assert_close():
    """Compares two trees of the same structure; `tolerance` is relative to the largest number."""

    def check(actual, expected, tolerance):
        assert jax.tree.structure(actual) == jax.tree.structure(expected)
        for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            scale = max(1.0, float(np.max(np.abs(np.asarray(e, np.float64)))))
            np.testing.assert_allclose(
                np.asarray(a, np.float64), np.asarray(e, np.float64), rtol=0, atol=tolerance * scale
            )

    return check
