"""The caller owns the parameters: whatever happens to them between two updates counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contract_cases import CASES, assert_close, drive, every_case, mixed_tensors, rosenbrock, run

import entropix

STEPWISE = {name: case for name, case in CASES.items() if case.face == "stepwise"}
every_stepwise = pytest.mark.parametrize("case", STEPWISE.values(), ids=STEPWISE)


@every_case
def test_weights_loaded_after_init_are_where_training_starts(case):
    target = mixed_tensors()
    tx = case.make()
    step = jax.jit(case.step(tx, target.objective))
    loaded = case.spread(jax.tree.map(lambda leaf: leaf + 2.9, target.start))
    elsewhere = tx.init(case.spread(target.start))
    after_loading = drive(step, loaded, elsewhere, length=6)
    params, state = drive(step, loaded, tx.init(loaded), length=6)
    assert_close(after_loading[0], params, rtol=1e-6)
    assert_close(case.solution(*after_loading[::-1]), case.solution(state, params), rtol=1e-6)


@every_stepwise
def test_a_box_holds_x_too(case):
    # The minimiser is at 3, outside the box |x| <= 1.
    tx = case.make()
    step = case.step(tx, lambda w: jnp.sum((w - 3.0) ** 2) / 2)

    def projected(params, state):
        params, state = step(params, state)
        return jnp.clip(params, -1, 1), state

    params = case.spread(jnp.zeros(2))
    params, state = run(projected, params, tx.init(params), length=4000)
    x = entropix.eval_params(state, params)
    assert jnp.all(jnp.abs(x) <= 1)
    assert jnp.all(x > 0.5)


@every_stepwise
def test_elements_set_by_the_caller_are_what_is_evaluated(case):
    target = rosenbrock()
    tx = case.make()
    params = case.spread(target.start)
    params, state = drive(case.step(tx, target.objective), params, tx.init(params), length=6)
    before = entropix.eval_params(state, params)
    pruned = params.at[..., 0].set(0.75)
    x = entropix.eval_params(state, pruned)
    np.testing.assert_array_equal(x[..., 0], 0.75 * jnp.ones_like(x[..., 0]))
    np.testing.assert_array_equal(x[..., 1], before[..., 1])


@every_stepwise
@pytest.mark.parametrize("bad", [jnp.inf, -jnp.inf, jnp.nan], ids=str)
def test_weights_loaded_over_infinities_are_what_is_evaluated(case, bad):
    tx = case.make()
    params = case.spread(jnp.asarray([1.0, 2.0]))
    step = case.step(tx, lambda w: jnp.sum(w * jnp.asarray([bad, 1.0])))
    reached, state, updates = params, tx.init(params), 0
    while jnp.all(jnp.isfinite(reached)):
        reached, state = drive(step, reached, state, length=1)
        updates += 1
        assert updates <= 4  # HEAT moves at the end of an outer step alone
    loaded = params + 2.9
    np.testing.assert_array_equal(entropix.eval_params(state, loaded), loaded)


CHAINS = {
    "average": {"averaging": 0.75, "temperature": 0.0, "output": "gradient"},
    "last": {"averaging": 0.0, "temperature": 0.0, "output": "displacement"},
}
GAMMA, STEP, RATE, L = 0.8, 0.1, 0.5, 4


def changes(num_updates, size):
    """Some elements, at some updates, with the values that the caller gives them."""
    rng = np.random.default_rng(1)
    moved = rng.random((num_updates, size)) < 0.15
    return moved, rng.normal(size=(num_updates, size))


def run_ours(relaxation, moved, values, gradient):
    tx = entropix.stepwise(relaxation, optax.sgd(RATE))
    update = jax.jit(tx.update)
    w = jnp.linspace(-1.0, 1.0, moved.shape[1])
    state = tx.init(w)
    for mask, value in zip(moved, values, strict=True):
        w = jnp.where(mask, value, w)
        updates, state = update(gradient(w), state, w)
        w = w + updates
    return w, entropix.eval_params(state, w)


@pytest.mark.parametrize("name", CHAINS)
def test_random_changes_of_a_langevin_chain_match_numpy(name):
    with jax.enable_x64(True):
        gradient = lambda w: w**3 - w + 0.3  # noqa: E731
        moved, values = changes(30, 5)
        arguments = CHAINS[name]
        relaxation = entropix.local_entropy(GAMMA, num_steps=L, step_size=STEP, **arguments)
        w, x = run_ours(relaxation, moved, values, gradient)

        alpha = arguments["averaging"]
        scale = GAMMA if arguments["output"] == "gradient" else 1.0
        ours = x_, y, mean = [np.linspace(-1.0, 1.0, 5) for _ in range(3)]
        for n, (mask, value) in enumerate(zip(moved, values, strict=True)):
            for tree in ours:
                tree[mask] = value[mask]
            y -= STEP * (gradient(y) + (y - x_) / GAMMA)
            mean[:] = alpha * mean + (1 - alpha) * y
            if n % L == L - 1:
                x_ -= RATE * (x_ - mean) / scale
                y[:], mean[:] = x_, x_
        assert_close(w, y, rtol=1e-12)
        assert_close(x, x_, rtol=1e-12)


def test_random_changes_of_the_gradient_form_match_numpy():
    with jax.enable_x64(True):
        gradient = lambda w: w**3 - w + 0.3  # noqa: E731
        moved, values = changes(30, 5)
        relaxation = entropix.hamilton_jacobi(GAMMA, num_steps=L, step_size=STEP, form="gradient")
        w, x = run_ours(relaxation, moved, values, gradient)

        x_, d = np.linspace(-1.0, 1.0, 5), np.zeros(5)
        for n, (mask, value) in enumerate(zip(moved, values, strict=True)):
            x_[mask], d[mask] = value[mask], 0
            g = gradient(x_ - d)
            d -= STEP * (d / GAMMA - g)
            if n % L == L - 1:
                x_ -= RATE * g
                d[:] = 0
        assert_close(w, x_ - d, rtol=1e-12)
        assert_close(x, x_, rtol=1e-12)


def test_random_changes_of_heat_keep_the_mean_as_in_numpy():
    with jax.enable_x64(True):
        gradient = lambda w: w**3 - w + 0.3  # noqa: E731
        moved, values = changes(30, 5)
        w, x = run_ours(entropix.heat(1.0, num_steps=L, temperature=0), moved, values, gradient)

        x_, mean = np.linspace(-1.0, 1.0, 5), np.zeros(5)
        for n, (mask, value) in enumerate(zip(moved, values, strict=True)):
            x_[mask] = value[mask]
            mean += gradient(x_) / L
            if n % L == L - 1:
                x_ -= RATE * mean
                mean[:] = 0
        assert_close(w, x_, rtol=1e-12)
        assert_close(x, x_, rtol=1e-12)


def alarmed(relaxation):
    """The relaxation with NaN wherever an element is taken for changed by the caller."""

    def restart(inner, params, moved):
        del params
        poison = lambda m, x: jnp.where(m, jnp.nan, x).astype(x.dtype)  # noqa: E731
        return inner._replace(params=jax.tree.map(poison, moved, inner.params))

    return relaxation._replace(restart=restart)


WALKS = {
    "langevin": entropix.local_entropy(1.0, num_steps=5, step_size=0.6, temperature=1e-3),
    "momentum_inside": entropix.local_entropy(
        1.0, num_steps=5, step_size=0.3, temperature=0, inner=optax.trace(0.9)
    ),
    "gradient_form": entropix.hamilton_jacobi(1.0, step_size=0.6, form="gradient"),
    "heat": entropix.heat(1.0, num_steps=5, temperature=0.1),
}


@pytest.mark.parametrize("apply", ["in_the_step", "eagerly"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", WALKS)
def test_rounding_is_never_taken_for_a_change(name, dtype, apply):
    # Elements that start at zero, and walks that overshoot: signs change, sizes change tenfold.
    tx = entropix.stepwise(alarmed(WALKS[name]), optax.sgd(0.7, momentum=0.5))
    curvature = jnp.logspace(-2, 0.1, 500).astype(dtype)
    gradient = lambda w: curvature * (w - jnp.asarray(1e-2, dtype))  # noqa: E731
    w = jnp.concatenate([jnp.zeros(250), jnp.logspace(-6, 3, 250)]).astype(dtype)
    state = tx.init(w)
    w = WALKS[name].point(state.inner)

    def together(w, state):
        updates, state = tx.update(gradient(w), state, w)
        return optax.apply_updates(w, updates), state

    update = jax.jit(tx.update)

    def apart(w, state):
        updates, state = update(gradient(w), state, w)
        return optax.apply_updates(w, updates), state

    step = jax.jit(together) if apply == "in_the_step" else apart
    for _ in range(60):
        w, state = step(w, state)
    assert jnp.all(jnp.isfinite(w))
    # The alarm rings where the caller changes an element.
    _, state = update(gradient(w), state, w.at[3].add(0.5))
    assert jnp.flatnonzero(jnp.isnan(state.inner.params)).tolist() == [3]


def quadratic(w):
    return jnp.sum((w - 3.0) ** 2) / 2


BEHIND = {
    "apply_every": optax.apply_every(4),
    "reduce_on_plateau": optax.contrib.reduce_on_plateau(patience=2, rtol=0.5),
    "keep_params_nonnegative": optax.keep_params_nonnegative(),
}


@pytest.mark.parametrize("name", BEHIND)
def test_links_behind_stepwise_never_run_away(name):
    tx = optax.chain(entropix.hj_sgd(0.1, gamma=1.0, stepwise=True), BEHIND[name])

    @jax.jit
    def step(w, state):
        updates, state = tx.update(jax.grad(quadratic)(w), state, w, value=quadratic(w))
        return optax.apply_updates(w, updates), state

    w, state = drive(step, jnp.zeros(2), tx.init(jnp.zeros(2)), length=200)
    x = entropix.eval_params(state, w)
    assert jnp.all((w >= 0) & (w <= 3.01) & (x >= 0) & (x <= 3.5))
    assert jnp.all(jnp.abs(w - x) < 0.5)


def make_stepwise():
    return entropix.hj_sgd(0.1, gamma=1.0, stepwise=True)


AROUND = {
    "mechanize": lambda: optax.contrib.mechanize(make_stepwise()),
    "MultiSteps": lambda: optax.MultiSteps(make_stepwise(), 2).gradient_transformation(),
    "schedule_free": lambda: optax.contrib.schedule_free(make_stepwise(), learning_rate=0.1),
}


@pytest.mark.parametrize("name", AROUND)
def test_wrappers_that_move_the_parameters_converge(name):
    tx = AROUND[name]()

    @jax.jit
    def step(w, state):
        updates, state = tx.update(jax.grad(quadratic)(w), state, w)
        return optax.apply_updates(w, updates), state

    start = jnp.zeros(2)
    w, _ = drive(step, start, tx.init(start), length=1000)
    np.testing.assert_allclose(w, 3.0, atol=0.1)


def test_a_lookahead_sync_counts():
    tx = optax.lookahead(make_stepwise(), sync_period=5, slow_step_size=0.5)
    pair = optax.LookaheadParams.init_synced(jnp.zeros(2))

    @jax.jit
    def step(pair, state):
        updates, state = tx.update(jax.grad(quadratic)(pair.fast), state, pair)
        return optax.apply_updates(pair, updates), state

    pair, _ = drive(step, pair, tx.init(pair), length=400)
    np.testing.assert_allclose(pair.slow, 3.0, atol=0.1)


INSIDE = {
    "reduce_on_plateau": lambda: optax.chain(
        optax.adam(0.1), optax.contrib.reduce_on_plateau(patience=5)
    ),
    "apply_every": lambda: optax.chain(optax.sgd(0.1), optax.apply_every(4)),
    "mechanize": lambda: optax.contrib.mechanize(optax.sgd(0.1)),
    "schedule_free": lambda: optax.contrib.schedule_free(optax.sgd(0.1), learning_rate=0.1),
    "keep_params_nonnegative": lambda: optax.chain(optax.sgd(0.1), optax.keep_params_nonnegative()),
}


@pytest.mark.parametrize("name", INSIDE)
def test_what_scales_or_projects_belongs_inside(name):
    tx = entropix.stepwise(entropix.hamilton_jacobi(1.0), INSIDE[name]())

    @jax.jit
    def step(w, state):
        updates, state = tx.update(jax.grad(quadratic)(w), state, w, value=quadratic(w))
        return optax.apply_updates(w, updates), state

    w, state = drive(step, jnp.zeros(2), tx.init(jnp.zeros(2)), length=2000)
    x = entropix.eval_params(state, w)
    if name == "schedule_free":
        x = optax.contrib.schedule_free_eval_params(state.optimizer_state, x)
    np.testing.assert_allclose(x, 3.0, atol=0.2)


def test_eval_params_takes_leaves_that_the_optimizer_never_saw():
    # As an Equinox model that was filtered for the optimiser but not for the evaluation.
    tx = make_stepwise()
    model = {"w": jnp.ones(2), "activation": jnp.tanh, "bias": None}
    filtered = {"w": model["w"], "activation": None, "bias": None}
    updates, state = tx.update(filtered, tx.init(filtered), filtered)
    moved = model | {"w": model["w"] + updates["w"]}
    assert float(jnp.abs(moved["w"] - 1).min()) > 0.01
    x = entropix.eval_params(state, moved)
    np.testing.assert_array_equal(x["w"], model["w"])
    assert x["activation"] is jnp.tanh


def test_eval_params_names_a_tree_of_another_structure():
    tx = make_stepwise()
    state = tx.init({"w": jnp.ones(2)})
    with pytest.raises(ValueError, match="as tx.init got them"):
        entropix.eval_params(state, {"w": jnp.ones(2), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match="as tx.init got them"):
        entropix.eval_params(state, [jnp.ones(2)])


def test_eval_params_takes_the_states_of_nnx_as_they_are():
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    start = jax.tree.map(jnp.copy, nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(model, make_stepwise(), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda m: jnp.sum(m(jnp.ones((1, 3))) ** 2))(model))
    params = nnx.state(model, nnx.Param)
    x = entropix.eval_params(optimizer.opt_state, params)
    assert jax.tree.structure(x) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, x, start)
    assert float(optax.tree.norm(optax.tree.sub(params, start))) > 0.01
    with pytest.raises(ValueError, match=r"nnx\.state\(model, nnx\.Param\)"):
        entropix.eval_params(optimizer.opt_state, model)


@every_stepwise
def test_a_step_of_one_rounding_is_a_change(case):
    """In bfloat16 an ulp is up to 0.8 %: the shrinking of a loop by 0.5 % must not be lost."""
    tx = case.make()
    step = case.step(tx, lambda w: jnp.sum(0 * w))
    params = case.spread(jnp.full(2, 1.5, jnp.bfloat16))
    state, expected = tx.init(params), params
    for _ in range(100):
        params, expected = ((0.995 * p).astype(p.dtype) for p in (params, expected))
        params, state = step(params, state)
    start = case.spread(jnp.full(2, 1.5, jnp.bfloat16))
    assert jnp.all(expected < 0.9 * start)
    assert jnp.all(params < 0.95 * start)
    if not case.replicated:  # replicas pull at each other
        np.testing.assert_allclose(
            np.asarray(params, np.float32), np.asarray(expected, np.float32), rtol=0.01
        )


@pytest.mark.parametrize("key", [jax.random.key(3), jax.random.PRNGKey(3)], ids=["typed", "legacy"])
def test_a_callers_key_outlives_donated_states(key):
    tx = entropix.entropy_sgd(0.1, 1.0, num_steps=2, stepwise=True, key=key)
    step = jax.jit(lambda w, state: tx.update(w, state, w), donate_argnums=1)
    w = jnp.ones(2)
    for _ in range(2):
        step(w, tx.init(w))
    many = jax.random.split(jax.random.key(0), 3)
    for _ in range(2):
        states = entropix.reseed(jax.vmap(tx.init)(jnp.ones((3, 2))), many)
        jax.jit(lambda states: jax.tree.map(jnp.copy, states), donate_argnums=0)(states)
    assert not key.is_deleted()
    assert not many.is_deleted()
