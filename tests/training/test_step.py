"""One step of training against the same step written by hand."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import arrays, bowl, line, one_run

import entropix
from entropix.experiment import Problem, classification
from entropix.experiment.problem import Measure
from entropix.training.evaluation import evaluation_data, make_estimate, make_evaluate, means
from entropix.training.state import centre, init_state
from entropix.training.step import (
    NEVER,
    Advance,
    make_advance,
    make_interval,
    make_step,
    over_seeds,
)


@pytest.fixture(scope="module")
def digits():
    """A network with dropout and batch norm."""
    model = {"name": "mlp", "widths": (4,), "input_dropout": 0.1, "dropout": 0.2}
    return classification("digits", model, batch_size=32)


def begun(run, seed=0):
    method = run.method()
    return method, init_state(method, [run.problem.init(jax.random.key(seed))], seed)


def by_hand(problem, key, num_steps, optimizer, start, steps):
    """The loop that a user of the optimisers would write, with the same mini-batches."""
    (params, model_state), losses = start, []
    state = optimizer.init(params)

    @jax.jit
    def step(params, model_state, state, key):
        batch_key, model_key = jax.random.split(key)
        batch = problem.draw(batch_key, problem.data)
        (loss, new), grads = jax.value_and_grad(problem.loss, has_aux=True)(
            params, model_state, batch, model_key
        )
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), new, state, loss

    for k in range(steps):
        for i in range(num_steps):
            this = jax.random.fold_in(jax.random.fold_in(key, k), i)
            params, model_state, state, loss = step(params, model_state, state, this)
            losses.append(float(loss))
    return entropix.eval_params(state, params), model_state, np.mean(losses)


@pytest.mark.parametrize(
    ("name", "options", "optimizer"),
    [
        ("sgd", {}, lambda: entropix.stepwise(entropix.heat(1.0, num_steps=1, temperature=0),
                                              entropix.sgd(0.1))),
        ("hj", {}, lambda: entropix.hj_sgd(0.1, entropix.scoping(1.0), stepwise=True)),
        (
            "entropy_sgd",
            {"num_steps": 4, "temperature": 0.0},
            lambda: entropix.entropy_sgd(
                0.1, entropix.scoping(1.0), temperature=0, num_steps=4, stepwise=True
            ),
        ),
    ],
)  # fmt: skip
def test_training_equals_a_hand_written_loop(digits, name, options, optimizer):
    run = one_run(name, digits, **options)
    method, state = begun(run)
    start = digits.init(jax.random.key(0))
    after, loss = jax.jit(make_interval(make_step(digits, method), 3))(state, digits.data)
    x, model_state, expected = by_hand(
        digits, state.key, method.relaxation.num_steps, optimizer(), start, steps=3
    )
    chex.assert_trees_all_close(after.params, x, rtol=2e-4, atol=2e-5)
    chex.assert_trees_all_close(after.model_state, model_state, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    moved = [
        np.max(np.abs(a - b)) for a, b in zip(*map(jax.tree.leaves, (x, start[0])), strict=True)
    ]
    assert max(moved) > 1e-3


def test_replicas_differ_and_the_centre_is_their_mean():
    run = one_run("elastic_sgd", replicas=3)
    method, state = begun(run)
    state, _ = jax.jit(make_interval(make_step(run.problem, method), 2))(state, run.problem.data)
    leaf = state.params["w"]
    assert leaf.shape == (3, 3)
    assert not np.allclose(leaf[0], leaf[1])
    np.testing.assert_allclose(centre(state, method).params["w"], np.mean(leaf, 0), rtol=1e-6)


def test_seeds_run_alone_or_together_with_one_result():
    run = one_run("entropy_sgd", num_steps=3, temperature=1e-3)
    problem, method = run.problem, run.method()
    interval = make_interval(make_step(problem, method), 2)
    states = [begun(run, seed)[1] for seed in range(3)]
    alone = [jax.jit(interval)(state, problem.data) for state in states]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    for layout in ("map", "vmap"):
        together, losses = jax.jit(over_seeds(interval, layout))(stacked, problem.data)
        for seed, (state, loss) in enumerate(alone):
            of_seed = jax.tree.map(lambda leaf, s=seed: leaf[s], together.params)
            chex.assert_trees_all_close(of_seed, state.params, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(losses[seed], loss, rtol=1e-4)
    assert not np.allclose(losses[0], losses[1])


def test_an_evaluation_in_batches_is_the_mean_over_all_examples():
    """Sizes that divide the sets, and sizes that leave a rest."""
    problem = line()
    params, model_state = problem.init(jax.random.key(0))
    found = []
    for size in (96, 40, 7, 1000):
        evaluate = jax.jit(make_evaluate(line(eval_batch_size=size)))
        found.append(evaluate((params, model_state), evaluation_data(problem, 0)))
    x, y = (np.asarray(problem.data[name], float) for name in ("x", "y"))
    residual = x @ np.asarray(params["w"], float) + float(params["b"]) - y
    for measured in found:
        np.testing.assert_allclose(measured["train_loss"], np.mean(residual**2), rtol=1e-5)
        wrong = 100 * np.mean(np.abs(residual) > 0.5)
        np.testing.assert_allclose(measured["train_error"], wrong, rtol=1e-5)
        assert set(measured) == {"train_loss", "train_error", "val_loss", "val_error"}


def test_measures_in_half_precision_are_averaged_in_single():
    x = jnp.asarray(np.random.default_rng(0).normal(10.0, 1.0, 1000), jnp.bfloat16)
    mean = Measure(lambda params, state, batch: jnp.mean(batch))
    found = means({"mean": mean}, (), (), x, 96)["mean"]
    batches = [x[first : first + 96] for first in range(0, 1000, 96)]
    seen, weights = [float(jnp.mean(b)) for b in batches], [len(b) for b in batches]
    np.testing.assert_allclose(found, np.average(seen, weights=weights), rtol=1e-6)


def test_measures_see_128_examples_at_most_and_statistics_whole_batches():
    """More activations than that leave a CPU's cache, or do not fit at all."""
    sizes = set()

    def size(params, state, batch):
        sizes.add(len(batch["x"]))
        return jnp.mean(batch["x"])

    problem = line(
        data=arrays(0, 500), eval_batch_size=250, measures={"mean": (size, "lower", "")},
        estimate=lambda params, state, batch: {"mean": jnp.full(3, float(len(batch["x"])))},
    )  # fmt: skip
    sizes.clear()  # of what is seen when the problem is made
    point, data = problem.init(jax.random.key(0)), evaluation_data(problem, 0)
    found = make_evaluate(problem)(point, data)
    assert sizes == {128, 500 % 128, 40}
    np.testing.assert_allclose(found["train_mean"], jnp.mean(problem.data["x"]), atol=1e-6)
    np.testing.assert_array_equal(make_estimate(problem)(point, data).model_state["mean"], 250.0)


def test_a_part_of_the_training_set_is_measured_on():
    problem = line()
    some = evaluation_data(problem, 10)
    np.testing.assert_array_equal(some.train["x"], problem.data["x"][:10])
    assert len(some.validation["x"]) == 40
    assert evaluation_data(line(validation=None), 10).validation is None


def start(state) -> Advance:
    zero = jnp.zeros([], jnp.int32)
    return Advance(state=state, loss_sum=jnp.zeros([]), bad=zero + NEVER, done=zero)


@pytest.mark.parametrize("name", ["sgd", "hj", "elastic_sgd"])
def test_advancing_is_the_scan_however_it_is_divided(name):
    run = one_run(name)
    method, state = begun(run)
    step, data = make_step(run.problem, method), run.problem.data
    scanned, loss = jax.jit(make_interval(step, 5))(state, data)
    advance = jax.jit(make_advance(step, method.relaxation.num_steps))
    whole = advance(start(state), (jnp.asarray(5), data))
    assert (int(whole.done), int(whole.bad)) == (5, NEVER)
    chex.assert_trees_all_close(whole.state.params, scanned.params, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.loss_sum / 5, loss, rtol=1e-5)
    parts = start(state)
    for count in (1, 3, 1):
        parts = advance(parts, (jnp.asarray(count), data))
        assert int(parts.done) == count
    np.testing.assert_array_equal(parts.loss_sum, whole.loss_sum)
    chex.assert_trees_all_equal(parts.state.params, whole.state.params)


def test_the_first_bad_loss_stops_the_seed_and_is_named():
    """One example is no number: the first mini-batch with it is known beforehand."""
    run = one_run("hj")
    problem, (method, state) = run.problem, begun(run)
    at = jnp.arange(50)

    def drawn(outer, inner):
        key = jax.random.fold_in(jax.random.fold_in(state.key, outer), inner)
        return problem.draw(jax.random.split(key)[0], {"place": jnp.arange(96)})["place"]

    places = np.asarray(jax.vmap(lambda k: jax.vmap(lambda i: drawn(k, i))(at[:5]))(at))
    # An example that is first drawn in the middle of some outer step after the first one.
    first = {place: np.argwhere((places == place).any(axis=2))[0] for place in range(96)}
    place, (outer, inner) = next((p, at) for p, at in first.items() if at.min() > 0)
    ill = problem.data | {"y": problem.data["y"].at[place].set(jnp.nan)}
    advance = jax.jit(make_advance(make_step(problem, method), 5))
    after = advance(start(state), (jnp.asarray(50), ill))
    assert (int(after.done) - 1, int(after.bad)) == (outer, inner)
    again = advance(after, (jnp.asarray(50), problem.data))  # a seed that failed does nothing
    assert (int(again.done), int(again.bad)) == (0, inner)


@pytest.mark.parametrize(("name", "moves"), [("sam", 1), ("hj", 5)])
def test_a_mini_batch_moves_the_model_state_once(name, moves):
    """Both gradients of a step of SAM are of one mini-batch; HJ's five are of five."""
    counted = line(
        init=lambda key: (line().init(key)[0], {"batches": 0, "key": jax.random.key(0)}),
        loss=lambda params, state, batch, key: (
            line().loss(params, {"mean": 0.0}, batch, key)[0],
            {"batches": state["batches"] + 1, "key": jax.random.split(state["key"])[0]},
        ),
    )
    method, state = begun(one_run(name, counted))
    after, _ = jax.jit(make_interval(make_step(counted, method), 3))(state, counted.data)
    assert int(after.model_state["batches"]) == 3 * moves
    key = jax.random.key(0)
    for _ in range(3 * moves):
        key = jax.random.split(key)[0]
    assert after.model_state["key"] == key


def test_the_loss_that_is_bad_where_sam_looks_is_the_second():
    at_start = bowl()
    narrow = dataclasses.replace(
        at_start,
        loss=lambda x, state, batch, key: (
            jnp.where(jnp.all(x == 0), at_start.loss(x, state, batch, key)[0], jnp.nan), state
        ),
    )  # fmt: skip
    method, state = begun(one_run("sam", narrow))
    advance = jax.jit(make_advance(make_step(narrow, method), 2))
    after = advance(start(state), (jnp.asarray(1), narrow.data))
    assert (int(after.done), int(after.bad)) == (1, 1)


def test_bad_parameters_with_good_losses_are_found_at_the_end_of_a_call():
    run = one_run("hj", learning_rate=100.0)
    method, state = begun(run)
    advance = jax.jit(make_advance(make_step(run.problem, method), 5))
    huge = jax.tree.map(lambda x: jnp.full_like(x, 1e38) if x.ndim else x, state.optimizer)
    after = advance(start(state._replace(optimizer=huge)), (jnp.asarray(1), run.problem.data))
    assert (int(after.done), int(after.bad)) == (1, 5)
    assert bool(jnp.isfinite(after.loss_sum))


def test_a_loss_that_overflows_in_half_precision_sums_in_single():
    """The mean mini-batch loss of a run in bfloat16 is kept in float32."""
    half = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)  # noqa: E731
    problem = line()
    cast = line(
        init=lambda key: (half(problem.init(key)[0]), ()),
        loss=lambda params, state, batch, key: (
            jnp.mean((half(batch)["x"] @ params["w"] - half(batch)["y"]) ** 2), state
        ),
    )  # fmt: skip
    run = one_run("hj", cast)
    method, state = begun(run)
    advance = jax.jit(make_advance(make_step(cast, method), 5))
    after = advance(start(state), (jnp.asarray(3), cast.data))
    assert after.loss_sum.dtype == jnp.float32
    assert after.state.params["w"].dtype == jnp.bfloat16
    assert int(after.bad) == NEVER


@pytest.mark.parametrize("double", [False, True])
def test_a_step_promotes_no_dtype(double):
    """Also with an average, which has more digits than the parameters."""

    def loss(w, state, batch, key):
        x, y = (batch[name].astype(w.dtype) for name in ("x", "y"))
        return jnp.mean((x @ w - y) ** 2), state

    start = lambda key: (jnp.zeros(3, jnp.bfloat16), ())  # noqa: E731
    narrow = Problem(name="narrow", init=start, loss=loss, data=arrays(), batch_size=8)
    with jax.enable_x64(double), jax.numpy_dtype_promotion("strict"):
        method, state = begun(one_run("entropy_sgd", narrow, ema=0.9))
        after, *_ = jax.eval_shape(make_step(narrow, method), state, narrow.data)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
