"""The registry: options read from signatures, records added, and every algorithm trains."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import bowl, line, one_run

import entropix
from entropix.experiment import (
    ALGORITHMS,
    Algorithm,
    Budget,
    Problem,
    algorithm,
    algorithms,
    load,
    make_config,
    register,
    runs,
    train,
)
from entropix.experiment.making import make_runs
from entropix.experiment.names import check_name
from entropix.experiment.plan import plan
from entropix.training.programs import make_programs
from entropix.training.state import centre, init_state
from entropix.training.step import make_interval, make_step


def test_the_papers_come_first_and_the_others_are_left_out_unless_named():
    papers = ["sgd", "entropy_sgd", "hj", "heat", "elastic_sgd"]
    assert list(ALGORITHMS)[:5] == papers
    assert [name for name, a in ALGORITHMS.items() if not a.beyond_the_paper] == papers
    assert {"parle", "easgd", "diloco", "adamw", "sam", "lookahead", "snoo", "schedule_free"} < set(
        ALGORITHMS
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_defaults_are_those_of_the_factory(name):
    record = ALGORITHMS[name]
    read = 0
    for option, parameter in inspect.signature(record.make).parameters.items():
        known = option in record.all_options and option not in record.defaults
        if known and parameter.default is not inspect.Parameter.empty:
            assert record.all_options[option] == parameter.default, option
            read += 1
    assert read >= 1
    assert set(record.search) <= set(record.all_options)


def test_the_factories_of_the_package_need_no_second_table():
    """One default of each, from the public function itself."""
    for name, factory, option in [
        ("hj", entropix.hj_sgd, "num_steps"),
        ("entropy_sgd", entropix.entropy_sgd, "temperature"),
        ("heat", entropix.heat_sgd, "noise"),
        ("adamw", optax.adamw, "b2"),
        ("easgd", entropix.easgd, "moving_rate"),
    ]:
        default = inspect.signature(factory).parameters[option].default
        assert ALGORITHMS[name].all_options[option] == default


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: algorithm("hjj"), "unknown algorithm 'hjj'.*Did you mean 'hj'"),
        (lambda: algorithm("sgd", lr=0.1), "'lr'.*Did you mean 'learning_rate'"),
        (lambda: algorithm("sgd", qqq=0.1), "'qqq'; known: [^.]*[.]$"),
        (lambda: algorithm("hj", gama=1.0), "option of algorithm hj 'gama'.*mean 'gamma'"),
        (lambda: algorithm("sgd", gamma=1.0), "option of algorithm sgd 'gamma'"),
        (lambda: algorithm("sgd", axis_name="x"), "option of algorithm sgd 'axis_name'"),
        (lambda: register(optax.adamw(1e-3)), "register takes an entropix.experiment.Algorithm"),
        (lambda: check_name("field of config.arguments", "scale", []), "'scale'; known: none[.]$"),
        (lambda: register(Algorithm("a-b", optax.sgd)), "must be a Python name.*name='a-b'"),
    ],
)
def test_what_is_not_known_is_refused_with_the_nearest(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def registry():
    """The registry as it is, and again afterwards."""
    before = dict(ALGORITHMS)
    yield
    algorithms._registry.clear()
    algorithms._registry.update(before)


def test_a_users_own_is_as_good_as_the_packages(registry):
    def my_sgd(learning_rate, *, speed: float = 2.0):
        return optax.sgd(lambda count: speed * learning_rate(count))

    register(Algorithm("mine", my_sgd, "Mine", search={"speed": (0.1, 10.0)}))
    assert algorithm("mine").all_options["speed"] == 2.0
    config = make_config(
        dataset="digits", model={"name": "mlp", "widths": (4,)}, algorithms="mine",
        optimizers={"mine": {"learning_rate": 0.25, "schedule": "cosine"}},
    )  # fmt: skip
    assert config.search.mine.speed == (0.1, 10.0)
    (run,) = plan(config, line())
    assert run.label == "Mine"
    ours = walked(one_run("mine", bowl(), learning_rate=0.25, budget=(3, 1)), 3)
    theirs = walked(one_run(optax.sgd(0.5), bowl(), budget=(3, 1)), 3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    register(Algorithm("mine", my_sgd, "Mine again"))  # replaces
    assert algorithm("mine").label == "Mine again"


def walked(run, steps, seed=0):
    """The points after each of some outer steps: x, or the replicas' mean, to be evaluated."""
    method = run.method()
    state = init_state(method, [run.problem.init(jax.random.key(seed))], seed)
    step = jax.jit(make_step(run.problem, method))
    points = []
    for _ in range(steps):
        state = step(state, run.problem.data)[0]
        points.append(centre(state, method).params)
    return np.asarray(points)


AROUND_ADAM = ("adamw", "muon", "snoo", "outer", "diloco", "elastic", "parle_outer")
CYCLES = {
    "sgd": 1, "entropy_sgd": 20, "hj": 5, "heat": 20, "elastic_sgd": 2, "parle": 40, "easgd": 2,
    "diloco": 100, "adamw": 1, "muon": 1, "sam": 2, "lookahead": 6, "snoo": 30, "outer": 20,
    "schedule_free": 1, "data_parallel": 2, "elastic": 2, "parle_outer": 40,
}  # fmt: skip


@pytest.mark.parametrize("name", CYCLES)
def test_every_algorithm_trains(name):
    """Gradients per outer step, and the way from the start to a better point."""
    options = {"learning_rate": 0.05} if name in AROUND_ADAM else {}
    run = one_run(name, budget=(200, 1), **options)
    method = run.method()
    assert method.cycle == CYCLES[name]
    assert (method.replicas is None) == (not ALGORITHMS[name].replicated)
    problem, steps = run.problem, -(-200 // method.cycle)
    state = init_state(method, [problem.init(jax.random.key(0))], 0)
    after, _ = jax.jit(make_interval(make_step(problem, method), steps))(state, problem.data)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    losses = [
        float(problem.measures["loss"].function(centre(s, method).params, None, problem.validation))
        for s in (state, after)
    ]
    assert losses[1] < 0.8 * losses[0]


def test_every_registered_algorithm_is_in_the_test_above():
    assert set(CYCLES) == set(ALGORITHMS)


def test_weights_decay_where_that_is_said_alone():
    """Of equal work: a comparison around SGD had two runs with decay, by a default for AdamW."""
    decays = {name: one_run(name).algorithm.all_options["weight_decay"] for name in ALGORITHMS}
    assert decays.pop("adamw") == 1e-4  # Optax's
    assert set(decays.values()) == {0.0}


def by_hand(tx, problem, gradients, evaluated):
    """A plain Optax loop on a loss without data."""
    x, _ = problem.init(jax.random.key(0))
    state, points = tx.init(x), []
    grad = jax.grad(lambda x: problem.loss(x, (), None, None)[0])
    update = jax.jit(lambda x, state: tx.update(grad(x), state, x))
    for _ in range(gradients):
        updates, state = update(x, state)
        x = optax.apply_updates(x, updates)
        points.append(evaluated(state, x))
    return np.asarray(points)


def test_snoo_is_the_optimiser_of_that_name_and_its_schedule_counts_gradients():
    run = one_run(
        "snoo", bowl(), budget=(24, 1), num_steps=4, learning_rate=0.1, momentum=0.5,
        weight_decay=0.01, drop_at=(0.5,),
    )  # fmt: skip
    rate = optax.piecewise_constant_schedule(0.1, {12: 0.1})
    tx = entropix.snoo(optax.adamw(rate, weight_decay=0.01), momentum=0.5, num_steps=4)
    hand = by_hand(tx, run.problem, 24, entropix.eval_params)[3::4]
    np.testing.assert_allclose(walked(run, 6), hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inside", ["adamw", "muon", "sgd"])
def test_the_chain_with_an_optimiser_inside_is_outers(inside):
    run = one_run(
        "outer", bowl(), budget=(24, 1), num_steps=4, learning_rate=0.1, gamma=5.0,
        step_size=0.5, averaging=0.75, outer_learning_rate=0.8, optimizer=inside, weight_decay=0.01,
    )  # fmt: skip
    made = {
        "adamw": lambda: optax.adamw(0.1, weight_decay=0.01),
        "muon": lambda: optax.contrib.muon(0.1, weight_decay=0.01),
        "sgd": lambda: optax.chain(optax.add_decayed_weights(0.01), entropix.sgd(0.1)),
    }[inside]()
    tx = entropix.outer(made, optax.sgd(0.8), num_steps=4, gamma=5.0, step_size=0.5, averaging=0.75)
    hand = by_hand(tx, run.problem, 24, entropix.eval_params)[3::4]
    np.testing.assert_allclose(walked(run, 6), hand, rtol=1e-5, atol=1e-6)


def test_sam_is_that_of_the_package_and_goes_around_adamw():
    run = one_run("sam", bowl(), budget=(12, 1), learning_rate=0.1, rho=0.3)
    tx = entropix.sam(0.1, rho=0.3, stepwise=True)
    hand = by_hand(tx, run.problem, 12, entropix.eval_params)[1::2]
    np.testing.assert_allclose(walked(run, 6), hand, rtol=1e-5, atol=1e-6)
    chosen = {"learning_rate": 0.1, "rho": 0.3, "optimizer": "adamw", "weight_decay": 0.01}
    run = one_run("sam", bowl(), budget=(12, 1), **chosen)
    tx = entropix.stepwise(entropix.sharpness(0.3), optax.adamw(0.1, weight_decay=0.01))
    hand = by_hand(tx, run.problem, 12, entropix.eval_params)[1::2]
    np.testing.assert_allclose(walked(run, 6), hand, rtol=1e-5, atol=1e-6)


def test_lookahead_is_that_of_the_package():
    run = one_run("lookahead", bowl(), budget=(12, 1), num_steps=3, learning_rate=0.1)
    tx = entropix.lookahead(entropix.sgd(0.1), num_steps=3)
    hand = by_hand(tx, run.problem, 12, entropix.eval_params)[2::3]
    np.testing.assert_allclose(walked(run, 4), hand, rtol=1e-5, atol=1e-6)


def test_schedule_free_is_evaluated_at_its_average():
    run = one_run("schedule_free", bowl(), budget=(8, 1), learning_rate=0.2)
    tx = optax.contrib.schedule_free(optax.sgd(0.2), 0.2, b1=0.9)
    evaluated = optax.contrib.schedule_free_eval_params
    hand = by_hand(tx, run.problem, 8, evaluated)
    np.testing.assert_allclose(walked(run, 8), hand, rtol=1e-5, atol=1e-6)
    assert not np.allclose(hand, by_hand(tx, run.problem, 8, lambda state, x: x))


@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: optax.chain(optax.clip(10.0), tx)])
def test_a_users_schedule_free_is_evaluated_at_its_average(wrap):
    tx = wrap(optax.contrib.schedule_free(optax.sgd(0.2), 0.2, b1=0.9))
    named = one_run("schedule_free", bowl(), budget=(8, 1), learning_rate=0.2, schedule="constant")
    np.testing.assert_allclose(walked(one_run(tx, bowl(), budget=(8, 1)), 8), walked(named, 8))


def schedule_free():
    return optax.contrib.schedule_free(optax.sgd(0.2), 0.2, b1=0.9)


def test_schedule_free_of_some_parameters_leaves_the_others_at_x():
    labels = {"w": "w", "b": "b"}
    parts = optax.partition({"w": schedule_free(), "b": optax.set_to_zero()}, labels)
    params = {"w": jnp.asarray([1.0, -2.0, 3.0]), "b": jnp.asarray(0.5)}
    state = parts.init(params)
    evaluated = one_run(parts).method().eval_params
    grads = jax.tree.map(jnp.ones_like, params)
    for _ in range(3):
        updates, state = parts.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    alone = schedule_free()
    w = jnp.asarray([1.0, -2.0, 3.0])
    of_w = alone.init(w)
    for _ in range(3):
        updates, of_w = alone.update(jnp.ones(3), of_w, w)
        w = optax.apply_updates(w, updates)
    x = evaluated(state, params)
    np.testing.assert_allclose(x["w"], optax.contrib.schedule_free_eval_params(of_w, w), rtol=1e-6)
    assert not np.allclose(x["w"], params["w"])
    assert x["b"] == params["b"]


def test_two_schedule_free_optimisers_say_what_to_give():
    labels = {"w": "w", "b": "b"}
    parts = optax.partition({"w": schedule_free(), "b": schedule_free()}, labels)
    with pytest.raises(ValueError, match=r"2 schedule-free .*Algorithm\(..., eval_params="):
        assert one_run(parts).identity


@pytest.mark.parametrize(
    "given",
    [
        optax.lookahead(optax.sgd(0.1), 5, 0.5),
        Algorithm("a", lambda axis_name: optax.lookahead(optax.sgd(0.1), 5, 0.5), replicated=True),
    ],
)
def test_a_transformation_that_needs_other_parameters_is_refused(given):
    with pytest.raises(ValueError, match="its update failed"):
        one_run(given)


def test_sam_is_evaluated_at_x_and_its_gradients_share_a_batch():
    """On noisy data, where two batches would give another step."""
    problem = line()
    run = one_run("sam", problem, budget=(2, 1), momentum=None, rho=0.3, learning_rate=0.1)
    method = run.method()
    start = problem.init(jax.random.key(0))
    state = init_state(method, [start], 0)
    key = jax.random.split(jax.random.fold_in(jax.random.fold_in(state.key, 0), 0))
    batch = problem.draw(key[0], problem.data)
    grad = jax.grad(lambda p: problem.loss(p, start[1], batch, key[1])[0])
    first = grad(start[0])
    norm = optax.tree.norm(first)
    second = grad(jax.tree.map(lambda p, g: p + 0.3 * g / norm, start[0], first))
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, start[0], second)
    after = jax.jit(make_step(problem, method))(state, problem.data)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.params, expected)


def test_a_chain_with_a_link_of_the_package_is_evaluated_at_x():
    """Not at y, which is what the loop's parameters are."""
    tx = optax.chain(optax.clip_by_global_norm(0.5), entropix.snoo(optax.sgd(0.1), num_steps=4))
    run = one_run(tx, bowl(), budget=(10, 1))
    assert run.method().cycle == 1
    found = walked(run, 10)
    np.testing.assert_allclose(
        found, by_hand(tx, run.problem, 10, entropix.eval_params), rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(found, by_hand(tx, run.problem, 10, lambda state, x: x))
    assert len(np.unique(found[:3], axis=0)) == 1  # x moves at every fourth gradient alone


def test_easgd_is_evaluated_at_its_centre_with_decay_too():
    for decay in (0.0, 0.1):
        run = one_run("easgd", bowl(), budget=(40, 1), period=5, weight_decay=decay)
        method = run.method()
        state = init_state(method, [run.problem.init(jax.random.key(0))], 0)
        state = jax.jit(make_interval(make_step(run.problem, method), 7))(state, run.problem.data)[
            0
        ]
        slow = optax.tree.get(state.optimizer, "centre")[0]
        np.testing.assert_allclose(centre(state, method).params, slow, rtol=1e-6)
        assert not np.allclose(slow, state.params[0])


@pytest.mark.parametrize("inside", ["adamw", "sgd"])
def test_data_parallel_makes_the_step_of_the_mean_gradient(inside):
    """Of the replicas' own mini-batches; and the replicas stay together, to the bit."""
    problem, p = line(), 3
    run = one_run("data_parallel", problem, replicas=p, optimizer=inside, learning_rate=0.1)
    method = run.method()
    params, model_state = problem.init(jax.random.key(0))
    state = init_state(method, [(params, model_state)], 0)

    def of(replica):
        own = jax.tree.map(lambda leaf: leaf[replica], state.key)
        key = jax.random.split(jax.random.fold_in(jax.random.fold_in(own, 0), 0))
        batch = problem.draw(key[0], problem.data)
        return jax.grad(lambda w: problem.loss(w, model_state, batch, key[1])[0])(params)

    grads = [of(replica) for replica in range(p)]
    assert not np.allclose(grads[0]["w"], grads[1]["w"])
    mean = jax.tree.map(lambda *g: sum(g) / p, *grads)
    tx = {"adamw": optax.adamw(0.1, weight_decay=0.0), "sgd": entropix.sgd(0.1)}[inside]
    updates, _ = tx.update(mean, tx.init(params), params)
    after = jax.jit(make_step(problem, method))(state, problem.data)[0]
    for name, update in updates.items():
        np.testing.assert_allclose(after.params[name][0], params[name] + update, rtol=1e-4)
        assert (after.params[name] == after.params[name][0]).all()


def test_easgd_goes_around_adamw():
    """Replicas without data walk together, around a slow centre."""
    run = one_run("easgd", bowl(), budget=(24, 1), period=4, learning_rate=0.1, optimizer="adamw")
    averaging = entropix.elastic_averaging(0.9, "replica", period=4)
    tx = optax.chain(optax.adamw(0.1, weight_decay=0.0), averaging)
    problem = run.problem
    x = jnp.stack([problem.init(jax.random.key(0))[0]] * 2)
    state, points = jax.vmap(tx.init)(x), []
    grad = jax.vmap(jax.grad(lambda x: problem.loss(x, (), None, None)[0]))
    update = jax.jit(jax.vmap(tx.update, axis_name="replica"))
    for _ in range(12):
        updates, state = update(grad(x), state, x)
        x = optax.apply_updates(x, updates)
        points.append(optax.tree.get(state, "centre")[0])
    np.testing.assert_allclose(walked(run, 12), points, rtol=1e-5, atol=1e-6)


APART = np.float32([[0.0, 0.0], [1.0, 2.0], [-3.0, 0.5]])  # where three replicas start


def replicas_after(run, steps):
    """The replicas' own x after some outer steps from `APART`."""
    method, problem = run.method(), run.problem
    state = init_state(method, [(jnp.asarray(x), ()) for x in APART], 0)
    step = jax.jit(make_step(problem, method))
    for _ in range(steps):
        state = step(state, problem.data)[0]
    return np.asarray(state.params)


def test_elastic_is_the_papers_with_sgd_inside_and_goes_around_adamw():
    problem = bowl()
    shared = {"replicas": 3, "budget": (60, 1), "learning_rate": 0.1, "gamma": 2.0}
    ours = one_run("elastic", problem, optimizer="sgd", weight_decay=0.0, **shared)
    papers = one_run("elastic_sgd", problem, scoping_rate=0.0, **shared)
    np.testing.assert_allclose(replicas_after(ours, 9), replicas_after(papers, 9), rtol=1e-6)
    x, moments = APART.astype(np.float64), np.zeros((2, 3, 2))
    for t in range(1, 10):
        g = np.float64([1.0, 3.0]) * (x - np.float64([2.0, -1.0])) + (x - x.mean(axis=0)) / 2.0
        moments = np.stack([0.9 * moments[0] + 0.1 * g, 0.999 * moments[1] + 0.001 * g**2])
        mean, square = moments[0] / (1 - 0.9**t), moments[1] / (1 - 0.999**t)
        x = x - 0.1 * (mean / (np.sqrt(square) + 1e-8) + 0.01 * x)
    ours = one_run("elastic", problem, optimizer="adamw", weight_decay=0.01, **shared)
    np.testing.assert_allclose(replicas_after(ours, 9), x, rtol=1e-4)


def test_parle_around_an_optimiser_is_entropy_sgds_chain_and_a_pull_once_an_outer_step():
    run = one_run(
        "parle_outer", bowl(), replicas=3, budget=(60, 1), num_steps=4, learning_rate=0.1,
        gamma=5.0, rho=2.0, step_size=0.5, averaging=0.75, outer_learning_rate=0.8, optimizer="sgd",
        weight_decay=0.0,
    )  # fmt: skip
    x, trace = APART.astype(np.float64), np.zeros((3, 2))
    for _ in range(5):
        y, average = x, x
        for _ in range(4):
            g = np.float64([1.0, 3.0]) * (y - np.float64([2.0, -1.0]))
            trace = g + 0.9 * trace
            y = y - 0.1 * (g + 0.9 * trace) - 0.5 / 5.0 * (y - x)
            average = 0.75 * average + 0.25 * y
        x = x - 0.8 * (x - average + (x - x.mean(axis=0)) / 2.0)
    np.testing.assert_allclose(replicas_after(run, 5), x, rtol=1e-4)


def test_a_factory_takes_over_the_common_options_that_it_has_itself(registry):
    def decayed(learning_rate, *, l2: float = 0.0):
        return optax.chain(optax.add_decayed_weights(l2), optax.sgd(learning_rate))

    mine = Algorithm("mine", decayed, options={"learning_rate": 0.1, "l2": 1.0})
    run = one_run(mine, bowl(curvature=(0.0, 0.0), start=(1.0, 1.0)), budget=(1, 1))
    np.testing.assert_allclose(walked(run, 1)[0], [0.9, 0.9], rtol=1e-6)


@pytest.mark.parametrize(
    "option", [{"weight_decay": 0.1}, {"schedule": "cosine"}, {"warmup": 0.5}, {"drop_at": (0.5,)}]
)
def test_options_that_would_do_nothing_are_refused(option):
    with pytest.raises(ValueError, match="acts through the learning rate.*no argument learning_ra"):
        Algorithm("mine", lambda lr=0.1: optax.sgd(lr), options=option)


@pytest.mark.parametrize("option", [{"clip": 1.0}, {"l2": 0.1}, {"clip": 1.0, "l2": 0.1}])
def test_whole_numbers_among_the_parameters_stay(option):
    def loss(params, model_state, batch, key):
        return 0.5 * jnp.sum(params["w"] ** 2), model_state

    start = {"w": jnp.asarray([3.0, 4.0]), "n": jnp.arange(2)}
    problem = bowl()
    problem = dataclasses.replace(problem, init=lambda key: (start, ()), loss=loss, measures={})
    run = one_run("sgd", problem, budget=(1, 1), learning_rate=0.1, momentum=None, **option)
    method = run.method()
    state = init_state(method, [start_of(problem)], 0)
    after = jax.jit(make_step(problem, method))(state, problem.data)[0].params
    gradient = (1 + option.get("l2", 0)) * np.asarray([3.0, 4.0])
    gradient = gradient / max(1, np.linalg.norm(gradient) / option.get("clip", np.inf))
    np.testing.assert_allclose(after["w"], [3, 4] - 0.1 * gradient, rtol=1e-5)
    assert after["n"].tolist() == [0, 1]


@pytest.mark.parametrize("kind", [np.int32, bool])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("sgd", {"weight_decay": 0.1}),
        ("sgd", {"ema": 0.9}),
        ("adamw", {"weight_decay": 0.1}),
        ("hj", {"weight_decay": 0.1, "ema": 0.5}),
        ("muon", {}),
        ("schedule_free", {}),
        ("elastic_sgd", {"weight_decay": 0.1}),
        ("snoo", {"num_steps": 2}),
    ],
)
def test_a_mask_among_the_parameters_rests(name, option, kind):
    """Decay would make zeros of its ones, Adam floats, and an average a fraction of each."""

    def loss(params, model_state, batch, key):
        return 0.5 * jnp.sum((params["w"] * params["mask"] - 1) ** 2), model_state

    mask = np.asarray([[1, 0], [1, 1]], kind)
    start = {"w": jnp.full((2, 2), 3.0), "mask": jnp.asarray(mask)}
    measures = {"loss": lambda params, state, batch: loss(params, state, batch, None)[0]}
    problem = dataclasses.replace(
        bowl(), init=lambda key: (start, ()), loss=loss, measures=measures
    )
    run = one_run(name, problem, budget=(8, 1), seeds=1, learning_rate=0.05, **option)
    programs = make_programs(run)
    now = programs.starter.place(programs.starter.init())
    after = programs.advance(now, (jnp.asarray(2, jnp.int32), programs.data))
    point = programs.starter.points(after.state)
    assert point.params["mask"].dtype == mask.dtype
    np.testing.assert_array_equal(point.params["mask"][0], mask)
    assert np.all(np.abs(point.params["w"][0] - 3.0)[mask == 1] > 0)


@pytest.mark.parametrize("name", ["sgd", "hj", "sam", "adamw"])
def test_complex_parameters_descend(name):
    """As their real and imaginary parts would: JAX's gradients are the conjugates of these."""

    def problem_of(start, number):
        def loss(params, model_state, batch, key):
            return 0.5 * jnp.abs((1 + 2j) * number(params) - 3j) ** 2, model_state

        measures = {"loss": lambda params, state, batch: loss(params, state, batch, None)[0]}
        return dataclasses.replace(
            bowl(), init=lambda key: (start, ()), loss=loss, measures=measures
        )

    whole = problem_of(jnp.asarray(2.0 + 1j, jnp.complex64), lambda z: z)
    parts = problem_of(jnp.asarray([2.0, 1.0]), lambda z: z[0] + 1j * z[1])
    found = []
    for problem in (whole, parts):
        run = one_run(name, problem, budget=(20, 1), seeds=1, learning_rate=0.01)
        programs = make_programs(run)
        now = programs.starter.place(programs.starter.init())
        after = programs.advance(now, (jnp.asarray(4, jnp.int32), programs.data))
        found.append(programs.starter.points(after.state).params[0])
    as_one = found[1][0] + 1j * found[1][1]
    if name != "adamw":  # whose second moment is |g|^2 for the number, and of each part for two
        np.testing.assert_allclose(found[0], as_one, rtol=1e-4)
    minimum = 3j / (1 + 2j)
    assert abs(found[0] - minimum) < abs(2 + 1j - minimum)


def start_of(problem):
    return problem.init(jax.random.key(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": "gradient"}, "counts must be 'outer steps' or 'gradients'; got counts='gradie"),
        ({"make": "adam"}, "make must be a function that returns .*; got make='adam'"),
        ({"make": lambda learning_rate, beta: entropix.sgd(learning_rate)}, "gives beta"),
        (
            {"make": lambda axis_name: entropix.sgd(0.1)},
            "With replicated=True the run gives axis_n",
        ),
        (
            {"make": lambda opt: opt(0.1), "defaults": {"opt": optax.sgd}},
            "option opt of algorithm mine must be a number, .*got <function sgd.* by a name",
        ),
        ({"defaults": {"momentun": 0.5}}, "'momentun'; known: learning_rate, .*mean 'momentum'"),
        (
            {
                "make": lambda learning_rate, **rest: optax.adam(learning_rate, **rest),
                "defaults": {"b1": 0.5},
            },
            "unknown option of algorithm mine in defaults 'b1'",
        ),
        ({"defaults": {"gamma": 1.0}}, "unknown option of algorithm mine in defaults 'gamma'"),
        ({"defaults": 3}, "defaults must be option -> value; got defaults=3"),
        ({"search": [("learning_rate", 0.1, 1)]}, r"search must be option -> \(low, high\); got"),
        ({"label": "two\nlines"}, "label must be words in one line"),
        ({"label": 3}, "label must be words in one line, .*got label=3"),
        ({"colour": 3}, "colour must be one of Matplotlib's, .*got colour=3"),
        ({"eval_params": "x"}, "eval_params must be a function, or None .*got eval_params='x'"),
        ({"replicated": "no"}, "replicated must be True or False; got replicated='no'"),
    ],
)
def test_a_record_is_checked(changes, message):
    """A wrong word was taken for "outer steps", and a cosine was spent in a thirtieth of a run."""
    with pytest.raises(ValueError, match=message):
        Algorithm(**{"name": "mine", "make": entropix.sgd} | changes)


@pytest.mark.parametrize("name", ["sgd", "adamw", "hj", "snoo", "elastic_sgd", "easgd"])
def test_keys_and_whole_numbers_among_the_parameters_rest(name, tmp_path):
    def init(key):
        return {"x": jnp.zeros(2), "key": key, "count": jnp.asarray(3)}, ()

    def loss(params, model_state, batch, key):
        return jnp.sum((params["x"] - 1) ** 2), model_state

    problem = Problem(name="keys", init=init, loss=loss, data=np.zeros((2, 1)), batch_size=1,
                      measures={"loss": lambda p, s, b: loss(p, s, b, None)[0]})  # fmt: skip
    of_run = {"budget": Budget(300, 1), "seeds": 2, "replicas": 2}
    rows = train(problem, name, **of_run, workdir=tmp_path)
    assert rows[-1].measures["train_loss"].value < 1.9
    (run,) = runs(problem, {name: name}, **of_run)
    trained = load(tmp_path, run=run)
    assert trained.params["count"].tolist() == [3, 3]
    given = jax.vmap(jax.random.key_data)(trained.params["key"])
    assert len({tuple(key.tolist()) for key in given}) == 2  # each seed's


def test_decay_follows_a_rate_that_counts_gradients():
    """Decoupled decay read the schedule of gradients at the number of outer steps."""

    def make(learning_rate):
        return entropix.snoo(optax.sgd(learning_rate), num_steps=10)

    record = Algorithm("mine", make, counts="gradients", options={
        "learning_rate": 1.0, "weight_decay": 0.1, "drop_at": (0.5,), "drop_factor": 1e6,
    })  # fmt: skip
    flat = bowl(curvature=(0.0,), start=(1.0,), minimum=(0.0,))
    (run,) = make_runs(flat, {"mine": record}, Budget(200, 2), 1)
    x = walked(run, 20)[:, 0]
    np.testing.assert_allclose(x[:10], 0.9 ** np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(x[10:], 0.9**10, rtol=1e-4)


def test_a_slow_average_of_few_bits_moves():
    """A hundredth of the way is less than half of bfloat16's last bit."""
    start = np.asarray([0.0], jnp.bfloat16)
    line = dataclasses.replace(
        bowl(), init=lambda key: (jnp.asarray(start), ()),
        loss=lambda x, s, batch, key: (-jnp.sum(x.astype(jnp.float32)), s), measures={},
    )  # fmt: skip
    run = one_run("sgd", line, budget=(400, 1), learning_rate=0.25, momentum=None, ema=0.98)
    found = walked(run, 400)[-1]
    x, average = start, 0.0
    for t in range(1, 401):
        x = (x + np.asarray(0.25, jnp.bfloat16)).astype(jnp.bfloat16)
        average += 0.02 / (1 - 0.98**t) * (float(x[0]) - average)
    assert found.dtype == jnp.bfloat16
    assert float(found[0]) == pytest.approx(average, rel=2**-8)
