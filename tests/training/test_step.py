"""One step of training against the same step written by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entropix.training.algorithm import make_algorithm
from entropix.training.config import DEFAULTS, experiment, runs
from entropix.training.epoch import (
    NEVER,
    Advance,
    cross_entropy,
    make_advance,
    make_interval,
    make_step,
    over_seeds,
)
from entropix.training.network import build_network

import entropix
from entropix.data import load, sample_batch
from entropix.training.evaluation import make_evaluate
from entropix.training.state import centre, init_state

MODEL = {"name": "mlp", "widths": (16,), "input_dropout": 0.1, "dropout": 0.2}


@pytest.fixture(scope="module")
def data():
    return load("digits")


def build(algorithm, replicas=3, **options):
    config = experiment(
        dataset="digits",
        model=MODEL,
        optimizers={algorithm: options},
        algorithms=algorithm,
        replicas=(replicas,),
    )
    network = build_network(config.model, (8, 8, 1), seed=0)
    (single,) = runs(config).values()
    built = make_algorithm(single.optimizer, gradients_per_epoch=10.0)
    return network, built


def run(algorithm, data, steps=3, seed=0, **options):
    network, built = build(algorithm, **options)
    state = init_state(built, [(network.params, network.batch_stats)], seed)
    interval = jax.jit(make_interval(make_step(network.apply, built, 32), steps))
    state, loss = interval(state, data)
    return network, built, state, loss


def by_hand(network, data, key, num_steps, optimizer, params, steps):
    """The loop a user of the optimisers would write, with the same mini-batches."""
    stats, state, losses = network.batch_stats, optimizer.init(params), []

    def value_and_grad(params, stats, key):
        def loss_fn(params):
            batch_key, dropout_key = jax.random.split(key)
            images, labels = sample_batch(batch_key, data, 32)
            logits, new = network.apply(params, stats, images, train=True, key=dropout_key)
            return cross_entropy(logits, labels), new

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    update = jax.jit(lambda g, s, p: optimizer.update(g, s, p))
    value_and_grad = jax.jit(value_and_grad)
    for step in range(steps):
        for i in range(num_steps):
            own = jax.random.fold_in(jax.random.fold_in(key, step), i)
            (loss, stats), grads = value_and_grad(params, stats, own)
            updates, state = update(grads, state, params)
            params = optax.apply_updates(params, updates)
            losses.append(float(loss))
    return params, state, stats, np.mean(losses)


@pytest.mark.parametrize(
    ("algorithm", "optimizer", "num_steps"),
    [
        ("sgd", lambda: entropix.sgd(0.1), 1),
        ("hj", lambda: entropix.hj_sgd(0.1, entropix.scoping(1.0), stepwise=True), 5),
        (
            "entropy_sgd",
            lambda: entropix.entropy_sgd(0.1, entropix.scoping(1.0), temperature=0, stepwise=True),
            20,
        ),
    ],
)
def test_training_equals_a_hand_written_loop(data, algorithm, optimizer, num_steps):
    options = {"temperature": 0.0} if algorithm == "entropy_sgd" else {}
    network, _, state, loss = run(algorithm, data, steps=3, **options)
    tx = optimizer()
    params, opt_state, stats, expected = by_hand(
        network, data, state.key, num_steps, tx, network.params, steps=3
    )
    x = params if algorithm == "sgd" else entropix.eval_params(opt_state, params)
    chex.assert_trees_all_close(state.params, x, rtol=2e-4, atol=2e-5)
    chex.assert_trees_all_close(state.batch_stats, stats, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_learning_rate_drops_at_effective_epochs():
    _, built = build("hj", learning_rate=0.5, momentum=0.0, drop_at=(1, 2), drop_factor=10.0)
    # 10 gradients an epoch, 5 an outer step: the drops come after 2 and 4 outer steps.
    params = jnp.ones(1)
    state, sizes = built.optimizer.init(params), []
    for _ in range(6):
        updates, state = built.optimizer.update(jnp.ones(1), state, params)
        sizes.append(-float(updates[0]))
    np.testing.assert_allclose(sizes, [0.5, 0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-5)


@pytest.mark.slow
def test_every_default_algorithm_lowers_the_loss(data):
    for algorithm in DEFAULTS:
        _, _, _, first = run(algorithm, data, steps=1)
        _, _, _, later = run(algorithm, data, steps=40)
        assert later < first, algorithm


def test_replicas_differ_and_the_centre_is_their_mean(data):
    _, built, state, _ = run("elastic_sgd", data, steps=2)
    leaf = jax.tree.leaves(state.params)[0]
    assert leaf.shape[0] == built.replicas == 3
    assert not np.allclose(leaf[0], leaf[1])
    np.testing.assert_allclose(
        jax.tree.leaves(centre(state, built).params)[0], np.mean(leaf, axis=0), rtol=1e-6, atol=1e-7
    )


def test_seeds_run_alone_or_together_with_one_result(data):
    network, built = build("entropy_sgd")
    interval = make_interval(make_step(network.apply, built, 32), 2)
    states = [init_state(built, [(network.params, network.batch_stats)], s) for s in range(3)]
    alone = [jax.jit(interval)(state, data) for state in states]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    for layout in ("map", "vmap"):
        together, losses = jax.jit(over_seeds(interval, layout))(stacked, data)
        for seed, (state, loss) in enumerate(alone):
            own = jax.tree.map(lambda leaf, s=seed: leaf[s], together.params)
            chex.assert_trees_all_close(own, state.params, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(losses[seed], loss, rtol=1e-4)
    assert not np.allclose(losses[0], losses[1])


def test_evaluation_estimates_batch_norm_at_x(data):
    """With one batch the estimated statistics are those of the whole training set, exactly."""
    network, built, state, _ = run("sgd", data, steps=5)
    evaluation = jax.jit(make_evaluate(network.apply, network.estimate))(centre(state, built), data)
    _, stats = network.estimate(state.params, network.batch_stats, data.train_images, train=True)

    first = next(iter(jax.tree.leaves(stats)))
    assert first.shape == (16,)
    logits, _ = network.apply(state.params, stats, data.test_images, train=False)
    wrong = 100 * jnp.mean(jnp.argmax(logits, -1) != data.test_labels)
    np.testing.assert_allclose(evaluation.val_error, wrong, rtol=1e-5)
    np.testing.assert_allclose(
        evaluation.val_loss, cross_entropy(logits, data.test_labels), rtol=1e-4
    )


def test_estimated_statistics_are_the_means_of_the_hidden_layer(data):
    network, _ = build("sgd")
    _, stats = network.estimate(network.params, network.batch_stats, data.train_images, train=True)
    weights = [leaf for leaf in jax.tree.leaves(network.params) if leaf.shape == (64, 16)]
    hidden = data.train_images.reshape(-1, 64) @ weights[0]  # biases start at zero
    found = jax.tree.leaves(stats)
    for expected in (hidden.mean(axis=0), hidden.var(axis=0)):
        assert any(np.allclose(leaf, expected, rtol=1e-3, atol=1e-5) for leaf in found)


def test_evaluation_in_batches_agrees_with_one_pass(data):
    network, built, state, _ = run("sgd", data, steps=5)
    make = lambda batch: make_evaluate(network.apply, network.estimate, batch)  # noqa: E731
    whole, parts = (jax.jit(make(batch))(centre(state, built), data) for batch in (2000, 200))
    np.testing.assert_allclose(parts.train_loss, whole.train_loss, rtol=0.05)
    np.testing.assert_allclose(parts.val_error, whole.val_error, atol=2.0)


def start(state) -> Advance:
    zero = jnp.zeros([], jnp.int32)
    return Advance(state=state, loss_sum=jnp.zeros([]), bad=zero + NEVER, done=zero)


@pytest.mark.parametrize("algorithm", ["sgd", "entropy_sgd", "hj", "elastic_sgd"])
def test_advancing_is_the_scan_however_it_is_divided(algorithm, data):
    options = {"replicas": 2} if algorithm == "elastic_sgd" else {}
    network, built, scanned, loss = run(algorithm, data, steps=5, **options)
    state = init_state(built, [(network.params, network.batch_stats)], 0)
    advance = jax.jit(make_advance(make_step(network.apply, built, 32), 5))
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


def test_the_first_bad_loss_stops_the_seed_and_is_named(data):
    """Two images are not numbers: the first mini-batch with one of them is known beforehand."""
    network, built = build("hj")
    state = init_state(built, [(network.params, network.batch_stats)], 0)
    images = data.train_images.at[7:9].set(jnp.nan)

    def is_bad(outer, inner):
        key = jax.random.fold_in(jax.random.fold_in(state.key, outer), inner)
        batch, _ = sample_batch(jax.random.split(key)[0], data._replace(train_images=images), 32)
        return bool(jnp.isnan(batch).any())

    outer, inner = next((k, i) for k in range(50) for i in range(5) if is_bad(k, i))
    assert outer > 0  # or the test would see no step before
    advance = jax.jit(make_advance(make_step(network.apply, built, 32), 5))
    after = advance(start(state), (jnp.asarray(50), data._replace(train_images=images)))
    assert (int(after.done) - 1, int(after.bad)) == (outer, inner)
    again = advance(after, (jnp.asarray(50), data))  # a seed that failed does nothing
    assert (int(again.done), int(again.bad)) == (0, inner)


def test_bad_parameters_with_good_losses_are_found_at_the_end_of_a_call(data):
    network, built = build("hj", learning_rate=100.0)
    state = init_state(built, [(network.params, network.batch_stats)], 0)
    advance = jax.jit(make_advance(make_step(network.apply, built, 32), 5))
    huge = jax.tree.map(lambda x: jnp.full_like(x, 1e38) if x.ndim else x, state.optimizer)
    after = advance(start(state._replace(optimizer=huge)), (jnp.asarray(1), data))
    assert (int(after.done), int(after.bad)) == (1, 5)
    assert bool(jnp.isfinite(after.loss_sum))
