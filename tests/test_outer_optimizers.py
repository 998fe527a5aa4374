"""Outer optimisers around complete ones: parity with loops written by hand, on both faces."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import AXIS, assert_close

import entropix

K, OUTER_STEPS = 5, 4
UPDATES = K * OUTER_STEPS
COSINE = optax.warmup_cosine_decay_schedule(0.0, 3e-2, 4, UPDATES)
PARAMS = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3), "b": jnp.asarray([0.5, -0.25, 0.1])}


def by_layer():
    return optax.partition(
        {"fast": optax.adam(1e-2), "slow": optax.sgd(1e-2)}, {"w": "fast", "b": "slow"}
    )


OPTIMIZERS = {
    "adamw_cosine": lambda: optax.adamw(COSINE, weight_decay=0.1),
    "muon": lambda: optax.contrib.muon(1e-2),
    "masked": lambda: optax.chain(
        optax.masked(optax.clip_by_global_norm(0.5), {"w": True, "b": False}), optax.adam(1e-2)
    ),
    "by_layer": by_layer,
    "sgd": lambda: optax.sgd(0.05, 0.9),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def gradient(params, i):
    """Of mini-batch i: a nonconvex loss whose targets differ from batch to batch."""
    shift = 0.1 * jnp.asarray(i, jnp.float32)
    loss = lambda p: jnp.sum(jnp.sin(p["w"] + shift) ** 2) + jnp.sum((p["b"] - shift) ** 4)  # noqa: E731
    return jax.grad(loss)(params)


def by_hand(make, params, rate, momentum, gradient=gradient):
    """K steps of the optimiser, then Nesterov on the displacement: SNOO as its paper writes it."""
    tx = make()
    state, x = tx.init(params), params
    b = jax.tree.map(jnp.zeros_like, params)
    update = jax.jit(lambda y, state, i: tx.update(gradient(y, i), state, y))
    for outer in range(OUTER_STEPS):
        y = x
        for i in range(outer * K, (outer + 1) * K):
            moves, state = update(y, state, i)
            y = optax.apply_updates(y, moves)
        s = optax.tree.sub(x, y)
        b = jax.tree.map(lambda b, s: momentum * b + s, b, s)
        x = jax.tree.map(lambda x, b, s: x - rate * (momentum * b + s), x, b, s)
    return x


def run_stepwise(tx, params, gradient=gradient):
    state = tx.init(params)

    @jax.jit
    def step(params, state, i):
        updates, state = tx.update(gradient(params, i), state, params)
        return optax.apply_updates(params, updates), state

    for i in range(UPDATES):
        params, state = step(params, state, i)
    return entropix.eval_params(state, params)


def run_relax(tx, params):
    @jax.jit
    def step(params, state, first):
        grad_fn = lambda p, i: gradient(p, first + i)  # noqa: E731
        updates, state = tx.update(grad_fn(params, 0), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for outer in range(OUTER_STEPS):
        params, state = step(params, state, outer * K)
    return params


@every_optimizer
@pytest.mark.parametrize("face", ["stepwise", "relax"])
def test_snoo_is_the_loop_written_by_hand(make, face):
    tx = entropix.snoo(make(), 0.7, 0.6, num_steps=K, stepwise=face == "stepwise")
    found = (run_stepwise if face == "stepwise" else run_relax)(tx, PARAMS)
    assert_close(found, by_hand(make, PARAMS, 0.7, 0.6), rtol=2e-6, atol=2e-6)


@every_optimizer
def test_lookahead_is_the_loop_written_by_hand(make):
    found = run_stepwise(entropix.lookahead(make(), 0.5, num_steps=K), PARAMS)
    assert_close(found, by_hand(make, PARAMS, 0.5, 0.0), rtol=2e-6, atol=2e-6)


def test_lookahead_is_optaxs():
    theirs = optax.lookahead(optax.adam(1e-2), sync_period=K, slow_step_size=0.5)
    pair = optax.LookaheadParams.init_synced(PARAMS)
    state = theirs.init(pair)
    for i in range(UPDATES):
        updates, state = theirs.update(gradient(pair.fast, i), state, pair)
        pair = optax.apply_updates(pair, updates)
    found = run_stepwise(entropix.lookahead(optax.adam(1e-2), 0.5, num_steps=K), PARAMS)
    assert_close(found, pair.slow, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("make", [OPTIMIZERS["adamw_cosine"], OPTIMIZERS["muon"]])
def test_workers_average_their_displacements(make):
    # Two workers on different data: the loop by hand walks both, and averages once in K steps.
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    shifts = jnp.asarray([0.0, 0.4])
    tx = entropix.snoo(make(), 0.7, 0.6, num_steps=K, axis_name=AXIS)

    def worker(params, shift):
        return run_stepwise(tx, params, lambda p, i: gradient(p, i + 10 * shift))

    found = jax.vmap(worker, axis_name=AXIS)(starts, shifts)

    inner = [make(), make()]
    states, x = [tx.init(PARAMS) for tx in inner], PARAMS
    b = jax.tree.map(jnp.zeros_like, PARAMS)
    for outer in range(OUTER_STEPS):
        ends = []
        for n, shift in enumerate((0.0, 0.4)):
            y = x
            for i in range(outer * K, (outer + 1) * K):
                moves, states[n] = inner[n].update(gradient(y, i + 10 * shift), states[n], y)
                y = optax.apply_updates(y, moves)
            ends.append(y)
        s = jax.tree.map(lambda x, a, b: x - (a + b) / 2, x, *ends)
        b = jax.tree.map(lambda b, s: 0.6 * b + s, b, s)
        x = jax.tree.map(lambda x, b, s: x - 0.7 * (0.6 * b + s), x, b, s)
    for n in range(2):
        assert_close(jax.tree.map(lambda leaf, n=n: leaf[n], found), x, rtol=1e-5, atol=1e-5)


def test_one_worker_of_diloco_is_snoo():
    inner = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1))
    alone = entropix.diloco(
        0.7, momentum=0.9, num_steps=K, step_size=1e-2, inner=inner, stepwise=True
    )
    snoo = entropix.snoo(optax.adamw(1e-2, weight_decay=0.1), 0.7, 0.9, num_steps=K)
    assert_close(run_stepwise(alone, PARAMS), run_stepwise(snoo, PARAMS), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("averaging", [0.0, 0.75, "linear"])
def test_a_pull_and_an_average_match_numpy(averaging):
    with jax.enable_x64(True):
        slope = lambda x: np.cos(x) + x  # noqa: E731
        tx = entropix.outer(
            optax.sgd(0.1), optax.sgd(0.8), num_steps=K, gamma=0.5, step_size=0.2,
            averaging=averaging,
        )  # fmt: skip
        w = jnp.asarray([1.0, -2.0])
        state, update = tx.init(w), jax.jit(tx.update)
        for _ in range(UPDATES):
            updates, state = update(jnp.cos(w) + w, state, w)
            w = w + updates
        x = np.asarray([1.0, -2.0])
        for _ in range(OUTER_STEPS):
            y, walked, mean = x, [], x
            for _ in range(K):
                y = y - 0.1 * slope(y) - 0.2 / 0.5 * (y - x)
                walked.append(y)
                mean = mean if averaging == "linear" else averaging * mean + (1 - averaging) * y
            x = x - 0.8 * (x - (np.mean(walked, 0) if averaging == "linear" else mean))
        np.testing.assert_allclose(entropix.eval_params(state, w), x, rtol=1e-12)


def test_a_walk_with_noise_has_the_variance_of_its_chain():
    # y <- y - a y + sqrt(2 s T) eps, a = 0.1 + s/gamma: variance 2 s T / (1 - (1 - a)^2).
    n, s, T, gamma = 20_000, 0.2, 0.05, 2.0
    tx = entropix.outer(
        optax.sgd(0.1), optax.sgd(0.0), num_steps=200, gamma=gamma, step_size=s, temperature=T
    )
    x = jnp.zeros(n)

    def body(carry, _):
        w, state = carry
        updates, state = tx.update(w, state, w)
        return (w + updates, state), None

    (w, _), _ = jax.jit(lambda c: jax.lax.scan(body, c, length=150))((x, tx.init(x)))
    exact = 2 * s * T / (1 - (1 - 0.1 - s / gamma) ** 2)
    error = exact * np.sqrt(2 / n)
    assert abs(float(jnp.var(w)) - exact) < 4 * error


@pytest.mark.parametrize("face", ["stepwise", "relax"])
def test_states_have_the_parameters_dtype_and_y_does_not(face):
    tx = entropix.snoo(optax.adamw(1e-2), num_steps=K, stepwise=face == "stepwise")
    state = tx.init(jnp.ones(3, jnp.bfloat16))
    assert optax.tree.get(state, "mu").dtype == jnp.bfloat16
    assert optax.tree.get(state, "trace").dtype == jnp.bfloat16
    if face == "stepwise":
        assert optax.tree.get(state, "y").dtype == jnp.float32


def test_in_the_middle_of_an_outer_step_x_is_the_last_one():
    tx = entropix.snoo(optax.sgd(0.1), num_steps=3)
    w = jnp.asarray([1.0])
    state = tx.init(w)
    for n in range(5):
        updates, state = tx.update(w, state, w)
        w = w + updates
        if n == 2:
            x = w
    assert_close(entropix.eval_params(state, w), x)


def test_the_outer_step_is_a_branch_of_the_program():
    tx = entropix.snoo(optax.sgd(0.1), num_steps=7)
    w = jnp.ones(64)
    program = jax.jit(tx.update).lower(w, tx.init(w), w).compile().as_text()
    assert " conditional(" in program


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": optax.scale_by_adam()}, "optimizer must be complete"),
        ({"outer_optimizer": optax.trace(0.9)}, "optimizer must be complete"),
        ({"gamma": 1.0}, "step_size is needed"),
        ({"temperature": 0.1}, "step_size is needed"),
        ({"gamma": 0.1, "step_size": 0.2}, "step_size/gamma must be below 2"),
        ({"num_steps": 0}, "num_steps must be a static integer >= 1"),
        ({"averaging": 1.0}, r"averaging must be a number in \[0, 1\) or 'linear'"),
        ({"averaging": "mean"}, r"averaging must be a number in \[0, 1\) or 'linear'"),
        ({"stepwise": "yes"}, "stepwise must be True or False"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        entropix.outer(**{"optimizer": optax.sgd(0.1)} | arguments)


def test_a_whole_outer_step_inside_another_is_told_what_to_write():
    """`relax` hands no `grad_fn` on to the optimiser inside; `stepwise` does."""
    w = jnp.ones(2)
    update = lambda tx: tx.update(w, tx.init(w), w, grad_fn=lambda w, i: w)  # noqa: E731
    with pytest.raises(ValueError, match="inside another .* build it with stepwise=True"):
        update(entropix.snoo(entropix.sam(0.1, 0.05), num_steps=2, stepwise=False))
    update(entropix.snoo(entropix.sam(0.1, 0.05, stepwise=True), num_steps=2, stepwise=False))
    update(entropix.snoo(entropix.sam(0.1, 0.05), num_steps=2))
