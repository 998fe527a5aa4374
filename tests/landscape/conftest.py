"""Losses whose curvature is known, or small enough to be written out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree


class Quadratic(NamedTuple):
    """f(x) = p.x + x.Qx/2, of Lemma 4; batches are the factors of Q, whose mean is 1."""

    Q: np.ndarray
    p: np.ndarray

    batches = np.asarray([0.5, 1.5, 1.0], np.float32)

    def loss(self, x, batch):
        Q, p = jnp.asarray(self.Q, x.dtype), jnp.asarray(self.p, x.dtype)
        return p @ x + batch.astype(x.dtype) * x @ Q @ x / 2

    def matvec(self, v):
        return jnp.asarray(self.Q, v.dtype) @ v


@pytest.fixture
def quadratic():
    """Makes a quadratic with these eigenvalues in random directions."""

    def make(eigenvalues, seed=0):
        rng = np.random.default_rng(seed)
        eigenvalues = np.asarray(eigenvalues, np.float64)
        basis, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
        return Quadratic(basis * eigenvalues @ basis.T, rng.normal(size=len(eigenvalues)))

    return make


class Classifier(NamedTuple):
    """A network of one hidden layer on random data in batches: nonconvex, no symmetry."""

    params: dict
    batches: tuple

    @staticmethod
    def outputs(params, batch):
        inputs, _ = batch
        hidden = jnp.tanh(inputs @ params["hidden"]["w"] + params["hidden"]["b"])
        return hidden @ params["out"]

    @staticmethod
    def cross_entropy(outputs, batch):
        _, labels = batch
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(outputs) * jax.nn.one_hot(labels, 3), axis=-1))

    @staticmethod
    def loss(params, batch):
        return Classifier.cross_entropy(Classifier.outputs(params, batch), batch)

    def mean_loss(self, params):
        return jnp.mean(jax.vmap(lambda batch: self.loss(params, batch))(self.batches))

    def dense_hessian(self):
        """The Hessian of the mean loss as a matrix, by `jax.hessian` of the flat parameters."""
        flat, unravel = ravel_pytree(self.params)
        return jax.jit(jax.hessian(lambda x: self.mean_loss(unravel(x))))(flat)

    def dense_ggn(self):
        """The Gauss-Newton matrix, from the network's whole Jacobian."""
        flat, unravel = ravel_pytree(self.params)

        @jax.vmap
        def of_batch(batch):
            J = jax.jacobian(lambda x: self.outputs(unravel(x), batch).ravel())(flat)
            z = self.outputs(self.params, batch)
            H = jax.hessian(lambda z: self.cross_entropy(z.reshape(-1, 3), batch))(z.ravel())
            return J.T @ H @ J

        return jnp.mean(jax.jit(of_batch)(self.batches), axis=0)


@pytest.fixture
def classifier():
    """Makes a classifier with 40 parameters, five batches of eight examples, of the given dtype."""

    def make(dtype=jnp.float32, seed=0):
        rng = np.random.default_rng(seed)
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)  # noqa: E731
        params = {"hidden": {"w": draw(4, 5), "b": draw(5)}, "out": draw(5, 3) * 0.7}
        return Classifier(params, (draw(5, 8, 4), jnp.asarray(rng.integers(3, size=(5, 8)))))

    return make


@pytest.fixture
def row():
    """Picks one of several trees that are stacked along the leaves' first axes."""
    return lambda trees, index: jax.tree.map(lambda leaf: leaf[index], trees)


@pytest.fixture
def coverage():
    """Of many estimates, the share whose 95 % interval covers the truth."""

    def share(estimates, truth, degrees=np.inf):
        from scipy import stats

        width = stats.t.ppf(0.975, degrees) if np.isfinite(degrees) else 1.96
        value, error = (np.asarray(part, np.float64) for part in estimates)
        return np.mean(np.abs(value - truth) <= width * error, axis=0)

    return share
