"""Options that all algorithms share, against closed forms and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import bowl, one_run

from entropix.experiment import Settings, algorithm
from entropix.experiment.method import build
from entropix.experiment.options import COMMON, learning_rate, on_gradient
from entropix.training.state import centre, init_state
from entropix.training.step import make_step

CURVATURE, MINIMUM = np.array([1.0, 3.0]), np.array([2.0, -1.0])


def walk(steps, gradients=None, **options):
    """x after each of some steps of SGD on the bowl, as the package trains it."""
    run = one_run("sgd", bowl(CURVATURE, MINIMUM), budget=(gradients or steps, 1), **options)
    method = run.method()
    state = init_state(method, [run.problem.init(jax.random.key(0))], 0)
    step = jax.jit(make_step(run.problem, method))
    points = []
    for _ in range(steps):
        state = step(state, run.problem.data)[0]
        points.append(centre(state, method).params)
    return np.asarray(points)


def twin(steps, rate, momentum=0.0, decay=0.0, l2=0.0, clip=np.inf):
    """The same in NumPy: Nesterov's momentum as Optax has it."""
    x, trace, points = np.zeros(2), np.zeros(2), []
    for k in range(steps):
        g = CURVATURE * (x - MINIMUM) + l2 * x
        g = g * min(1.0, clip / np.linalg.norm(g))
        trace = momentum * trace + g
        eta = rate(k) if callable(rate) else rate
        x = x - eta * (g + momentum * trace) - eta * decay * x
        points.append(x)
    return np.asarray(points)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, {}),
        ({"momentum": None}, {"momentum": 0.0}),
        ({"weight_decay": 0.3}, {"decay": 0.3}),
        ({"l2": 0.3}, {"l2": 0.3}),
        ({"clip": 1.5}, {"clip": 1.5}),
        ({"l2": 0.3, "clip": 1.5, "weight_decay": 0.2}, {"l2": 0.3, "clip": 1.5, "decay": 0.2}),
    ],
)
def test_decay_and_clipping(options, changes):
    found = walk(8, learning_rate=0.1, **options)
    expected = twin(8, 0.1, **{"momentum": 0.9} | changes)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_decoupled_and_coupled_decay_differ_under_momentum():
    coupled, decoupled = (twin(8, 0.1, momentum=0.9, **o) for o in ({"l2": 0.3}, {"decay": 0.3}))
    assert np.max(np.abs(coupled - decoupled)) > 0.01


def test_decoupled_decay_follows_the_learning_rate():
    rate = lambda k: 0.1 if k < 4 else 0.01  # noqa: E731
    found = walk(8, learning_rate=0.1, drop_at=(0.5,), weight_decay=0.5, momentum=None)
    np.testing.assert_allclose(found, twin(8, rate, decay=0.5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("b", [0.8, 0.9999])
def test_an_average_has_the_weights_of_an_unbiased_exponential_one(b):
    x = walk(6, learning_rate=0.1)
    found = walk(6, learning_rate=0.1, ema=b)
    for t in range(1, 7):
        weights = (1 - b) * b ** np.arange(t - 1, -1, -1) / (1 - b**t)
        assert weights.sum() == pytest.approx(1)
        np.testing.assert_allclose(found[t - 1], weights @ x[:t], rtol=1e-5, atol=1e-6)


def rates(steps, **options):
    schedule = learning_rate(COMMON | {"learning_rate": 0.4} | options, steps)
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps)))


def test_drops_come_at_fractions_of_the_run():
    for steps in (8, 80):
        found = rates(steps, drop_at=(0.75, 0.5), drop_factor=4.0)
        expected = 0.4 / 4.0 ** np.repeat([0, 1, 2], [steps // 2, steps // 4, steps // 4])
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_cosine_and_warmup_in_closed_form():
    t = np.arange(50) / 50
    plain = 0.4 * 0.5 * (1 + np.cos(np.pi * t))
    np.testing.assert_allclose(rates(50, schedule="cosine"), plain, rtol=1e-5, atol=1e-7)
    w = 0.2
    rise = np.minimum(1, (np.arange(50) + 1) / (w * 50))
    fall = 0.5 * (1 + np.cos(np.pi * np.clip((t - w) / (1 - w), 0, 1)))
    both = rates(50, schedule="cosine", warmup=w)
    np.testing.assert_allclose(both, 0.4 * rise * fall, rtol=1e-5, atol=1e-7)
    assert both[9] == pytest.approx(0.4)  # a fifth of 50 steps
    np.testing.assert_allclose(rates(50, schedule="constant"), 0.4)


@pytest.mark.parametrize(
    ("name", "options", "changes"),
    [
        ("hj", {"num_steps": 5}, [2, 4]),  # 30 gradients are 6 outer steps
        ("sgd", {}, [10, 20]),
        ("elastic_sgd", {}, [5, 10]),  # of two replicas
    ],
)
def test_a_schedule_of_outer_steps_has_as_many_as_the_run(name, options, changes):
    """Drops after a third and two thirds of the run, whatever an outer step costs."""
    made = algorithm(name, learning_rate=1.0, momentum=None, drop_at=(1 / 3, 2 / 3), **options)
    replicas = 2 if made.replicated else None
    method = build(made, gradients=30, replicas=replicas)
    update = jax.vmap(method.optimizer.update, axis_name="replica")
    x = jnp.ones(replicas or 1)
    state, sizes = jax.vmap(method.optimizer.init)(x), []
    for _ in range(changes[1] + 1):
        updates, state = update(jnp.ones_like(x), state, x)
        sizes.append(-float(updates[0]))
    drops = np.flatnonzero(np.diff(sizes)) + 1
    assert drops.tolist() == changes
    np.testing.assert_allclose(sizes[:: changes[0]][:3], [1.0, 0.1, 0.01], rtol=1e-5)


def test_gamma_is_divided_by_the_number_of_parameters():
    made = algorithm("hj", gamma=12.0, gamma_end=6.0, scoping_rate=0.5, normalise_gamma=True)
    gamma = build(made, gradients=100, num_parameters=3).gamma
    np.testing.assert_allclose([gamma(jnp.asarray(k)) for k in range(3)], [4.0, 2.0, 2.0])
    run = one_run("hj", bowl(), gamma=12.0, normalise_gamma=True)
    assert run.num_parameters == 2
    assert float(run.method().gamma(jnp.asarray(0))) == 6.0


def test_gamma_falls_once_in_a_scoping_period():
    made = algorithm("hj", gamma=8.0, scoping_rate=0.5, scoping_period=3)
    gamma = build(made, gradients=100).gamma
    found = [float(gamma(jnp.asarray(k))) for k in range(7)]
    np.testing.assert_allclose(found, [8, 8, 8, 4, 4, 4, 2])
    assert algorithm("elastic_sgd").all_options["scoping_period"] == 20


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgd", {"learning_rate": 0.0}, "learning_rate must be a number > 0; got .*=0.0"),
        ("sgd", {"learning_rate": float("nan")}, "learning_rate must be a number > 0; got .*nan"),
        ("sgd", {"schedule": "step"}, "schedule must be 'drops' or 'cosine' or 'constant'; got"),
        ("sgd", {"drop_at": 0.5}, r"drop_at must be numbers in \(0, 1\).*; got drop_at=0.5"),
        ("sgd", {"drop_at": (3, 4)}, r"got drop_at=\(3, 4\)\. Fractions of the run"),
        ("sgd", {"drop_at": (0.5,), "schedule": "cosine"}, "drop_at must be empty with schedule="),
        ("sgd", {"drop_factor": 0.0}, "drop_factor must be a number > 0"),
        ("sgd", {"warmup": 1.0}, r"warmup must be a number in \[0, 1\)"),
        ("sgd", {"ema": -0.1}, r"ema must be a number in \[0, 1\)"),
        ("sgd", {"weight_decay": -1.0}, "weight_decay must be a number >= 0"),
        ("sgd", {"l2": "a"}, "l2 must be a number >= 0; got l2='a'"),
        ("sgd", {"clip": -1}, "clip must be a number >= 0"),
        ("sgd", {"momentum": 1.0}, r"momentum must be a number in \[0, 1\) or None"),
        ("hj", {"scoping_rate": 1.0}, r"scoping_rate must be a number in \[0, 1\)"),
        ("hj", {"scoping_period": 0}, "scoping_period must be a static integer >= 1"),
        ("hj", {"normalise_gamma": 1}, "normalise_gamma must be True or False"),
        ("hj", {"inner": "adams"}, "unknown inner 'adams'.*Did you mean 'adam'"),
        ("hj", {"gamma": -1.0}, "gamma must be a number > 0"),
        ("hj", {"num_steps": 2.5}, "num_steps must be a static integer >= 1"),
        ("snoo", {"optimizer": "lion"}, "unknown optimizer 'lion'"),
    ],
)
def test_bad_options_are_named_before_work(name, options, message):
    with pytest.raises(ValueError, match=message):
        one_run(name, bowl(), **options)


def test_a_schedule_that_makes_inner_steps_diverge_is_known_before_work():
    options = {"gamma": 1.0, "step_size": 0.1, "scoping_rate": 0.01}
    with pytest.raises(ValueError, match=r"hj: step_size/gamma reaches 2.* at outer step 299 of"):
        one_run("hj", bowl(), budget=(5000, 1), **options)
    one_run("hj", bowl(), budget=(5000, 1), gamma_end=0.06, **options)


@pytest.mark.parametrize(("run", "scope"), [("hj", "gamma"), ("parle", "rho")])
def test_a_scope_that_begins_below_its_end_is_refused(run, scope):
    with pytest.raises(ValueError, match=f"{scope} must be at least {scope}_end=2; got .*1.5"):
        one_run(run, bowl(), **{scope: 1.5, f"{scope}_end": 2.0})
    one_run(run, bowl(), **{scope: 2.0, f"{scope}_end": 2.0})


@pytest.mark.parametrize(
    "value", [{"replica_start": "diferent"}, {"eval_train_examples": -5}, {"checkpoints_kept": 0}]
)
def test_settings_are_checked_as_configs_are(value):
    (name,) = value
    with pytest.raises(ValueError, match=f"{name} must be"):
        Settings(**value)
    assert Settings(eval_train_examples=0).eval_train_examples == 0


def test_leaves_of_several_precisions_have_one_norm():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        grads = {"a": jnp.asarray([3.0], jnp.float32), "b": jnp.asarray([4.0], jnp.float64)}
        found = on_gradient({"l2": 0.0, "clip": 1.0})(grads, grads)
        assert [leaf.dtype for leaf in found.values()] == [jnp.float32, jnp.float64]
        assert [float(leaf[0]) for leaf in found.values()] == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_the_norm_of_few_bits_is_measured_in_many(dtype):
    """The squares of float16 overflow from 256 on, and every gradient became zero."""
    clipped = on_gradient({"l2": 0.0, "clip": 1.0})
    for size, count in ((200.0, 4), (1.0, 1000)):
        grads = {str(k): jnp.full((), size, dtype) for k in range(count)}
        found = clipped(grads, grads)
        assert {leaf.dtype for leaf in found.values()} == {jnp.dtype(dtype)}
        assert np.linalg.norm([float(leaf) for leaf in found.values()]) == pytest.approx(
            1, rel=1e-2
        )


def test_momentum_is_checked_where_another_optimizer_stands_in_for_sgd():
    with pytest.raises(ValueError, match=r"momentum must be .*got momentum=-0.1"):
        one_run("elastic", momentum=-0.1).check()
