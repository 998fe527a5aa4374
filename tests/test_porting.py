"""The optimisers of the porting table beside the loops they stand for, written in NumPy."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import entropix

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "porting.md"
DIM, OUTER_STEPS = 6, 7
CENTRES = np.random.default_rng(0).normal(size=(200, DIM))
START = np.linspace(-2.0, 2.0, DIM)


@pytest.fixture
def page():
    """What the page's code defines, in double precision."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))
    with jax.enable_x64(True):
        names = {}
        exec(compile(code, str(PAGE), "exec"), names)
        yield names


def gradient(w, n, xp=np):
    """Of mini-batch n: a rugged loss around a centre of the batch's own."""
    return 0.3 * (w - xp.asarray(CENTRES)[n]) + 0.5 * xp.sin(3 * w)


def run_relax(tx, num_steps, one_batch=False):
    @jax.jit
    def outer_step(x, state, first):
        grad_fn = lambda w, i: gradient(w, first + i, jnp)  # noqa: E731
        updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
        return x + updates, state

    x = jnp.asarray(START)
    state = tx.init(x)
    for k in range(OUTER_STEPS):
        x, state = outer_step(x, state, k * (1 if one_batch else num_steps))
    return x


def run_stepwise(tx, num_steps):
    @jax.jit
    def step(w, state, n):
        updates, state = tx.update(gradient(w, n, jnp), state, w)
        return w + updates, state

    w = jnp.asarray(START)
    state = tx.init(w)
    for n in range(OUTER_STEPS * num_steps):
        w, state = step(w, state, n)
    return entropix.eval_params(state, w)


def authors_loop(g, s, eta, outer_momentum, weight_decay=0.0):
    """The authors' Entropy-SGD without noise; g and s are their flags gamma and scoping."""
    L, lr, alpha, momentum = 20, 0.1, 0.75, 0.9
    x, outer_buffer = START.copy(), np.zeros(DIM)
    for t in range(OUTER_STEPS):
        w, mean, buffer = x.copy(), x.copy(), np.zeros(DIM)
        for i in range(L):
            dw = gradient(w, t * L + i) + weight_decay * w
            buffer = momentum * buffer + dw
            dw = dw + momentum * buffer
            dw = dw - g * (1 + s) ** t * (x - w)
            w = w - lr * dw
            mean = alpha * mean + (1 - alpha) * w
        dx = x - mean
        outer_buffer = outer_momentum * outer_buffer + dx
        x = x - eta * (dx + outer_momentum * outer_buffer)
    return x


def test_the_authors_lua_loop(page):
    twin = authors_loop(1e-4, 1e-3, eta=1.0, outer_momentum=0.0)
    np.testing.assert_allclose(run_relax(page["authors_lua"](eps=0), 20), twin, rtol=1e-12)
    # The pull is seen: a program that took their flag for gamma itself would be refused.
    assert np.abs(twin - authors_loop(0.0, 1e-3, eta=1.0, outer_momentum=0.0)).max() > 1e-6
    with pytest.raises(ValueError, match="their 0.03 is gamma=33"):
        entropix.entropy_sgd(0.1, gamma=0.03)


def test_the_authors_pytorch_loop(page):
    twin = authors_loop(0.03, 1e-3, eta=0.1, outer_momentum=0.9, weight_decay=1e-3)
    np.testing.assert_allclose(run_relax(page["authors_pytorch"](eps=0), 20), twin, rtol=1e-12)


def test_the_authors_noise_has_the_variance_of_temperature_eps_squared(page):
    # One inner step at a flat loss: the displacement of 40,000 elements is the noise itself.
    eps, n = 1e-4, 40_000
    tx = entropix.entropy_sgd(
        1.0, gamma=1e4, momentum=None, num_steps=1, averaging=0, temperature=eps**2,
        output="displacement",
    )  # fmt: skip
    x = jnp.zeros(n)
    updates, _ = jax.jit(lambda x: tx.update(0 * x, tx.init(x), x, grad_fn=lambda w, i: 0 * w))(x)
    variance = eps**2 * 2 * 0.1
    assert abs(np.var(updates) - variance) < 4 * variance * np.sqrt(2 / n)


def test_lookahead_of_pytorch(page):
    k, alpha, lr, momentum = 5, 0.5, 0.1, 0.9
    slow, fast, buffer = START.copy(), START.copy(), np.zeros(DIM)
    for n in range(OUTER_STEPS * k):
        buffer = momentum * buffer + gradient(fast, n)
        fast = fast - lr * buffer
        if n % k == k - 1:
            slow = slow + alpha * (fast - slow)
            fast = slow.copy()
    np.testing.assert_allclose(run_stepwise(page["torch_lookahead"], k), slow, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sam_of_pytorch(page, nesterov):
    rho, lr, momentum = 0.05, 0.1, 0.9
    w, buffer = START.copy(), np.zeros(DIM)
    for n in range(OUTER_STEPS):
        g = gradient(w, n)
        g = gradient(w + rho * g / np.linalg.norm(g), n)
        buffer = momentum * buffer + g
        w = w - lr * (g + momentum * buffer if nesterov else buffer)
    tx = entropix.sam(0.1, rho=0.05) if nesterov else page["torch_sam"]
    np.testing.assert_allclose(run_relax(tx, 2, one_batch=True), w, rtol=1e-12)


def test_swa_of_pytorch(page):
    k, lr, x = 5, 0.1, START.copy()
    for outer in range(OUTER_STEPS):
        w, walked = x, []
        for n in range(outer * k, (outer + 1) * k):
            w = w - lr * gradient(w, n)
            walked.append(w)
        x = np.mean(walked, axis=0)
    np.testing.assert_allclose(run_stepwise(page["torch_swa"], k), x, rtol=1e-12)
