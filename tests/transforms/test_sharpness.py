"""Sharpness-aware minimisation: closed forms, NumPy, and Optax's own where that is right."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix

PARAMS = {"w": jnp.asarray([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.asarray([0.25, -0.75])}


def loss(params, i=0):
    return jnp.sum(jnp.sin(params["w"] + 0.1 * i) ** 2) + jnp.sum(params["b"] ** 4)


def gradient(params, i=0):
    return jax.grad(loss)(params, i)


def numpy_sharpness(rho, num_ascents, adaptive):
    x = jax.tree.map(np.asarray, PARAMS)
    y = x
    for _ in range(num_ascents):
        g = jax.tree.map(np.asarray, gradient(y))
        weight = jax.tree.map(np.abs if adaptive else np.ones_like, x)
        norm = np.sqrt(sum(np.sum((g[k] * weight[k]) ** 2) for k in g))
        y = {k: y[k] + rho * weight[k] ** 2 * g[k] / norm for k in y}
    return gradient(y)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("num_ascents", [1, 3])
def test_it_is_the_gradient_at_the_top_of_the_climb(x64, assert_close, num_ascents, adaptive):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), PARAMS)
    relaxation = entropix.sharpness(0.3, num_ascents=num_ascents, adaptive=adaptive)
    slope = entropix.relaxed_grad(relaxation, gradient)
    found, _ = jax.jit(slope)(params, relaxation.init(params))
    assert_close(found, numpy_sharpness(0.3, num_ascents, adaptive), 1e-6)


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("num_ascents", [1, 2])
def test_it_is_optaxs_sam(assert_close, num_ascents, stepwise):
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(
        optax.sgd(0.1, 0.9, nesterov=True), ascent, sync_period=num_ascents + 1, opaque_mode=True
    )
    ours = entropix.sam(0.1, 0.05, num_ascents=num_ascents, stepwise=stepwise)

    x, state = PARAMS, theirs.init(PARAMS)
    for _ in range(4):
        updates, state = theirs.update(gradient(x), state, x, grad_fn=lambda p, _: gradient(p))
        x = optax.apply_updates(x, updates)

    w, state = PARAMS, ours.init(PARAMS)
    extra = {} if stepwise else {"grad_fn": gradient}
    for _ in range(4 * (num_ascents + 1 if stepwise else 1)):
        updates, state = ours.update(gradient(w), state, w, **extra)
        w = optax.apply_updates(w, updates)
    assert_close(entropix.eval_params(state, w), x, 1e-6)


def test_all_gradients_are_of_one_mini_batch():
    tx = entropix.sam(0.1, 0.05, num_ascents=3)
    seen = []

    def grad_fn(params, i):
        jax.debug.callback(lambda i: seen.append(int(i)), i)
        return gradient(params, i)

    jax.jit(lambda w, s: tx.update(gradient(w), s, w, grad_fn=grad_fn))(PARAMS, tx.init(PARAMS))
    jax.effects_barrier()
    assert seen == [0, 0, 0]


def test_the_largest_loss_of_a_ball_around_a_quadratic():
    # f = |x|^2/2: the supremum over the ball is (|x| + rho)^2/2, its gradient x (1 + rho/|x|).
    x = jnp.asarray([3.0, 4.0])
    relaxation = entropix.sharpness(0.5)
    found, _ = entropix.relaxed_grad(relaxation, lambda x, i: x)(x, relaxation.init(x))
    np.testing.assert_allclose(found, x * (1 + 0.5 / 5), rtol=1e-6)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_zero_gradient_moves_nothing(adaptive):
    relaxation = entropix.sharpness(0.5, num_ascents=2, adaptive=adaptive)
    x = jnp.zeros(3)
    found, _ = entropix.relaxed_grad(relaxation, lambda x, i: x)(x, relaxation.init(x))
    np.testing.assert_array_equal(found, x)


def test_a_ball_of_radius_zero_is_the_gradient(assert_close):
    relaxation = entropix.sharpness(0.0)
    found, _ = entropix.relaxed_grad(relaxation, gradient)(PARAMS, relaxation.init(PARAMS))
    assert_close(found, gradient(PARAMS), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rho": -0.1}, "rho must be a number >= 0"),
        ({"rho": 0.1, "num_ascents": 0}, "num_ascents must be a static integer >= 1"),
        ({"rho": 0.1, "adaptive": 1}, "adaptive must be True or False"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        entropix.sharpness(**arguments)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("start", [3.0, 0.0], ids=["at the minimum", "at zero"])
def test_derivatives_are_finite_where_the_ascent_has_no_direction(start, adaptive):
    def after(rho, w):
        tx = entropix.sam(0.1, rho, adaptive=adaptive, momentum=None)
        grad_fn = lambda p, i: p - 3.0  # noqa: E731
        updates, _ = tx.update(grad_fn(w, 0), tx.init(w), w, grad_fn=grad_fn)
        return jnp.sum((w + updates - 3) ** 2)

    slopes = jax.jit(jax.grad(after, argnums=(0, 1)))(0.1, jnp.full(3, start))
    assert all(jnp.all(jnp.isfinite(slope)) for slope in slopes)
    if start == 3.0:
        assert slopes[0] == 0


def test_accumulated_gradients_repeat_their_group_of_micro_batches(assert_close):
    """As the recipe says: a, b, a, b makes the step of their mean, and a, a, b, b another."""
    grad = jax.grad(lambda x, c: jnp.sum((x - c) ** 4))
    a, b = jnp.asarray([2.0, -1.0]), jnp.asarray([-0.5, 0.3])
    start = jnp.asarray([0.3, 0.7])

    def accumulated(batches):
        optimizer = optax.MultiSteps(entropix.sam(0.01, rho=0.2, stepwise=True), 2)
        x, state = start, optimizer.init(start)
        for batch in batches:
            updates, state = optimizer.update(grad(x, batch), state, x)
            x = optax.apply_updates(x, updates)
        return x

    sam = entropix.sam(0.01, rho=0.2)
    both = lambda x, i=0: (grad(x, a) + grad(x, b)) / 2  # noqa: E731
    updates, _ = sam.update(both(start), sam.init(start), start, grad_fn=both)
    assert_close(accumulated([a, b, a, b]), start + updates, 1e-6)
    assert jnp.abs(accumulated([a, a, b, b]) - start - updates).max() > 1e-3
