"""Any dtype that Optax's own optimisers take: narrow, integer, Python's, under strict promotion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import AXIS, CASES, REPLICAS, assert_close, every_case, kinds, over_replicas

import entropix

RELAXATIONS = {
    "local_entropy": entropix.local_entropy(1.0, temperature=0),
    "authors": entropix.local_entropy(
        10.0, inner=optax.trace(0.9, nesterov=True), temperature=0, output="displacement"
    ),
    "hamilton_jacobi": entropix.hamilton_jacobi(1.0, num_steps=20),
    "gradient_form": entropix.hamilton_jacobi(1.0, num_steps=20, form="gradient"),
    "heat": entropix.heat(1.0, temperature=0),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", RELAXATIONS)
def test_a_relaxed_gradient_in_half_precision_is_that_of_float32(name, dtype):
    # Single inner steps are far below an ulp of the parameters, all of them together are not.
    relaxation = RELAXATIONS[name]
    slope = jnp.asarray([0.01, 0.02, 0.05, -0.3])

    def relaxed(dtype):
        x = jnp.ones(4, dtype)
        grad_fn = lambda x, i: (slope + 0.1 * (x - 1)).astype(dtype)  # noqa: E731
        return entropix.relaxed_grad(relaxation, grad_fn)(x, relaxation.init(x))[0]

    narrow = relaxed(dtype)
    assert narrow.dtype == dtype
    np.testing.assert_allclose(narrow.astype(jnp.float32), relaxed("float32"), rtol=0.02)


@pytest.mark.parametrize("name", RELAXATIONS)
def test_points_and_emitted_parameters_are_narrow_and_y_is_not(name):
    relaxation = RELAXATIONS[name]
    x = jnp.ones(3, jnp.bfloat16)
    inner = relaxation.begin(x, relaxation.init(x))
    assert relaxation.point(inner).dtype == jnp.bfloat16
    assert inner.params.dtype == jnp.bfloat16
    held = getattr(inner, "y", None) if hasattr(inner, "y") else inner.mean
    assert held.dtype == jnp.float32
    assert relaxation.step(x, inner)._replace(outer=None) is not None


@pytest.mark.parametrize("stepwise", [False, True])
def test_bfloat16_trains_as_far_as_its_parameters_resolve(stepwise):
    # Gradients of 0.03 (w - 1): SGD itself stops at 1.06, where its steps fall below half an ulp.
    def train(tx, updates):
        grad = lambda w, i=0: ((w.astype(jnp.float32) - 1) * 0.03).astype(w.dtype)  # noqa: E731
        w = jnp.full(3, 2, jnp.bfloat16)

        def body(carry, _):
            w, state = carry
            moves, state = tx.update(grad(w), state, w, grad_fn=grad)
            return (optax.apply_updates(w, moves), state), None

        (w, state), _ = jax.jit(lambda c: jax.lax.scan(body, c, length=updates))((w, tx.init(w)))
        return entropix.eval_params(state, w)

    tx = entropix.entropy_sgd(0.1, gamma=1.0, stepwise=stepwise)
    x = train(tx, 200 * (20 if stepwise else 1))
    assert x.dtype == jnp.bfloat16
    assert jnp.max(jnp.abs(x - 1)) < 0.12


def test_the_centre_of_easgd_moves_in_bfloat16():
    tx = over_replicas(entropix.easgd(0.0, AXIS, period=1, moving_rate=0.01))
    w = jnp.asarray([1.0, 1.0], jnp.bfloat16)
    _, state = tx.update(jnp.zeros_like(w), tx.init(w), w)
    w = w + 0.25
    for _ in range(30):  # every exchange moves the centre by less than half an ulp
        _, state = tx.update(jnp.zeros_like(w), state, w)
    centre = optax.tree.get(state, "centre")
    np.testing.assert_allclose(centre, 1.25 - 0.25 * 0.99**30, rtol=1e-3)


def objective(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


# The further leaves pass through an optimiser of Optax, which makes floats of their zeros.
OPTAX_LAST = ("elastic_coupling-adam", "relax-adam", "relax-clip-sgd", "average_updates-adam")
STILL = {"n": jnp.full(2, 5, jnp.int32), "on": jnp.ones(2, bool)}
NO_GRADIENT = {"n": np.zeros(2, jax.dtypes.float0), "on": jnp.zeros(2, bool)}


# Optax's clipping by the global norm takes no boolean leaves.
@pytest.mark.parametrize("name", [name for name in CASES if name != "relax-clip-sgd"])
def test_leaves_that_no_gradient_can_move_rest(name):
    case = CASES[name]
    tx = case.make()
    # `jax.vmap` takes no float0.
    zeros = jax.tree.map(jnp.zeros_like, STILL) if case.replicated else NO_GRADIENT
    one = lambda p, i=0: jax.grad(objective)({"w": p["w"]}) | {k: zeros[k] for k in p if k != "w"}  # noqa: E731
    extra = {"grad_fn": one} if case.face == "scan" else {}
    gradient = jax.vmap(one) if case.replicated else one
    update = jax.jit(lambda params, state: tx.update(gradient(params), state, params, **extra))

    def walk(params):
        state = tx.init(params)
        for _ in range(5):
            updates, state = update(params, state)
            if name not in OPTAX_LAST:
                assert kinds(updates) == kinds(params)
            params = optax.apply_updates(params, updates)
        return params, case.solution(state, params)

    w = {"w": jnp.asarray([1.0, -2.0])}
    trees = walk(case.spread(w) | jax.tree.map(lambda s: _spread(case, s), STILL))
    for tree, expected in zip(trees, walk(case.spread(w)), strict=True):
        assert_close({k: tree[k] for k in STILL}, jax.tree.map(lambda s: _spread(case, s), STILL))
        assert_close(tree["w"], expected["w"], rtol=1e-6)


DECAY = optax.chain(optax.add_decayed_weights(0.1), optax.adam(1.0))
OPTIMIZERS_BEHIND = {
    "outer": lambda: entropix.outer(optax.sgd(0.1), DECAY, num_steps=2, stepwise=False),
    "outer-stepwise": lambda: entropix.outer(optax.sgd(0.1), DECAY, num_steps=2),
    "if_finite": lambda: entropix.relax(entropix.hamilton_jacobi(1.0), if_finite=DECAY),
}


@pytest.mark.parametrize("make", OPTIMIZERS_BEHIND.values(), ids=OPTIMIZERS_BEHIND)
def test_an_outer_optimizer_leaves_whole_numbers_alone(make):
    tx, params = make(), {"w": jnp.asarray([1.0, -2.0])} | STILL

    def step(loop, _):
        params, state = loop
        grad_fn = lambda p, i=0: {"w": 2 * p["w"]} | NO_GRADIENT  # noqa: E731
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), state), None

    (moved, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=4)
    assert_close({k: moved[k] for k in STILL}, STILL)
    assert jnp.all(moved["w"] != params["w"])


def _spread(case, leaf):
    return jnp.stack([leaf] * REPLICAS) if case.replicated else leaf


@every_case
def test_python_and_numpy_numbers_are_parameters(case):
    if case.replicated:
        pytest.skip("replicas have an axis, numbers have none")
    tx = case.make()
    numbers = {"a": 1.0, "b": np.float64(-2.0), "c": np.float32(0.5)}
    arrays = jax.tree.map(jnp.float32, numbers)

    def first_update(params):
        grads = jax.grad(objective)(params)
        return tx.update(grads, tx.init(params), params, **case.extra(objective))[0]

    assert_close(first_update(numbers), first_update(arrays), rtol=1e-6)


def takes(tx, params, grads):
    """Whether an optimiser of Optax takes these parameters at all."""
    try:
        tx.update(grads, tx.init(params), params)
    except Exception:
        return False
    return True


@every_case
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_parameters(case, dtype):
    tx = case.make()
    w = case.spread(jnp.asarray([1.0, -2.0])).astype(dtype)
    uses_adam = "adam" in repr(case) or case.factory is entropix.diloco
    if uses_adam and not takes(optax.adam(0.1), w, w):
        pytest.skip("optax.adam does not take them either")
    extra = {"grad_fn": lambda p, i: p} if case.face == "scan" else {}
    before = tx.init(w)
    updates, state = jax.jit(lambda w, s: tx.update(w, s, w, **extra))(w, before)
    assert updates.dtype == dtype
    if not uses_adam:  # whose second moment of small gradients is 0 in so few bits
        assert jnp.all(jnp.isfinite(updates.astype(jnp.float32)))
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [
        leaf.dtype for leaf in jax.tree.leaves(before)
    ]


@every_case
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "complex64"])
def test_strict_promotion_of_dtypes(case, dtype):
    w = case.spread(jnp.asarray([1.0, -2.0], dtype))
    with jax.numpy_dtype_promotion("strict"):
        adam_is_strict = takes(optax.adam(0.1), w, w)
        uses_adam = "adam" in repr(case) or case.factory is entropix.diloco
        if uses_adam and not adam_is_strict:
            pytest.skip("optax.adam does not promote strictly either")
        tx = case.make()
        extra = {"grad_fn": lambda p, i: p} if case.face == "scan" else {}
        # Promotion is refused when a program is traced: nothing has to be compiled for it.
        update = lambda w: tx.update(w, tx.init(w), w, **extra)[0]  # noqa: E731
        assert jax.eval_shape(update, w).dtype == dtype


def test_the_momentum_of_sgd_keeps_its_digits_without_the_parameters():
    """Of 60 unit gradients of bfloat16, whose sum a buffer of bfloat16 would round."""
    tx, g = entropix.sgd(0.1), jnp.ones(2, jnp.bfloat16)
    state = tx.init(jnp.ones(2))
    for _ in range(60):
        _, state = tx.update(g, state)
    np.testing.assert_allclose(state[0].trace, (1 - 0.9**60) / 0.1, rtol=1e-5)


@every_case
def test_gradients_wider_than_the_parameters_under_strict_promotion(case):
    w = case.spread(jnp.asarray([1.0, -2.0], jnp.bfloat16))
    wide = lambda p: p.astype(jnp.float32)  # noqa: E731
    with jax.numpy_dtype_promotion("strict"):
        tx = case.make()
        if ("adam" in repr(case) or case.factory is entropix.diloco) and not takes(
            optax.adam(0.1), wide(w), w
        ):
            pytest.skip("optax.adam does not promote strictly either")
        extra = {"grad_fn": lambda p, i: wide(p)} if case.face == "scan" else {}
        update = lambda w: tx.update(wide(w), tx.init(w), w, **extra)[0]  # noqa: E731
        assert jnp.issubdtype(jax.eval_shape(update, w).dtype, jnp.floating)
