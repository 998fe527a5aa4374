"""One gradient per update: the same trajectory as the scan, in any training loop."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix

SCOPES = entropix.scoping(0.8, rate=0.1)
RELAXATIONS = {
    "local_entropy": entropix.local_entropy(0.5, num_steps=4, temperature=0.01, key=3),
    "cold": entropix.local_entropy(0.5, num_steps=4, temperature=0),
    "scoped_nesterov": entropix.local_entropy(
        SCOPES, num_steps=5, step_size=0.03, inner=optax.trace(0.9, nesterov=True),
        temperature=1e-3, output="displacement",
    ),
    "adam_inside": entropix.local_entropy(
        SCOPES, num_steps=5, step_size=0.02, inner=optax.scale_by_adam(), averaging=0,
    ),
    "one_step": entropix.local_entropy(0.5, num_steps=1, temperature=0.1),
    "proximal": entropix.hamilton_jacobi(SCOPES, num_steps=3),
    "gradient": entropix.hamilton_jacobi(0.5, num_steps=5, form="gradient"),
    "gradient_nesterov": entropix.hamilton_jacobi(
        SCOPES, num_steps=4, step_size=0.03, form="gradient", inner=optax.trace(0.9),
        output="displacement",
    ),
    "heat": entropix.heat(SCOPES, num_steps=4, temperature=0.1, key=4),
    "cold_heat": entropix.heat(0.5, num_steps=4, temperature=0),
}  # fmt: skip
NESTEROV = entropix.sgd(optax.exponential_decay(0.2, 1, 0.7))
over_relaxations = pytest.mark.parametrize("name", RELAXATIONS)


def scanned(relaxation, optimizer, problem, outer_steps):
    """x after every outer step of chain(relax, optimizer), mini-batches in order."""
    tx, L = optax.chain(entropix.relax(relaxation), optimizer), relaxation.num_steps

    @jax.jit
    def step(x, state, outer):
        grad_fn = lambda p, i: problem.grad(p, outer * L + i)  # noqa: E731
        updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
        return optax.apply_updates(x, updates), state

    x, state = problem.params, tx.init(problem.params)
    for outer in range(outer_steps):
        x, state = step(x, state, outer)
        yield x


def stepped(relaxation, optimizer, problem, outer_steps):
    """x after every outer step of stepwise, mini-batches in the same order."""
    tx, L = entropix.stepwise(relaxation, optimizer), relaxation.num_steps
    update = jax.jit(tx.update)
    state = tx.init(problem.params)
    params = relaxation.point(state.inner)  # x itself, except for heat
    for count in range(outer_steps * L):
        updates, state = update(problem.grad(params, count), state, params)
        params = optax.apply_updates(params, updates)
        if (count + 1) % L == 0:
            yield entropix.eval_params(state, params)


class TestTrajectory:
    @over_relaxations
    def test_is_that_of_the_scan(self, x64, regression, assert_close, name):
        arguments = RELAXATIONS[name], NESTEROV, regression(1, jnp.float64), 5
        for x, z in zip(stepped(*arguments), scanned(*arguments), strict=True):
            assert_close(x, z, 1e-13)

    @pytest.mark.parametrize("name", ["scoped_nesterov", "gradient", "heat"])
    def test_is_that_of_the_scan_in_single_precision(self, regression, assert_close, name):
        arguments = RELAXATIONS[name], optax.adam(0.05), regression(2), 5
        for x, z in zip(stepped(*arguments), scanned(*arguments), strict=True):
            assert_close(x, z, 2e-6)

    def test_cold_heat_needs_no_special_start(self, x64, regression, assert_close):
        problem = regression(3, jnp.float64)
        relaxation = RELAXATIONS["cold_heat"]
        state = entropix.stepwise(relaxation, optax.sgd(0.1)).init(problem.params)
        assert_close(relaxation.point(state.inner), problem.params, 0)

    @pytest.mark.parametrize("name", ["local_entropy", "proximal", "gradient_nesterov", "heat"])
    def test_parameters_walk_along_the_points_and_x_rests(
        self, x64, regression, points, assert_close, name
    ):
        problem, relaxation = regression(4, jnp.float64), RELAXATIONS[name]
        x = problem.params
        _, seen = points(relaxation, problem.grad)(x)
        tx = entropix.stepwise(relaxation, optax.sgd(0.1))
        update, state = jax.jit(tx.update), tx.init(x)
        params = relaxation.point(state.inner)
        for i in range(relaxation.num_steps):
            assert_close(params, jax.tree.map(lambda s, i=i: s[i], seen), 1e-14)
            jax.tree.map(np.testing.assert_array_equal, entropix.eval_params(state, params), x)
            updates, state = update(problem.grad(params, i), state, params)
            params = optax.apply_updates(params, updates)
        moved = optax.tree.sub(entropix.eval_params(state, params), x)
        assert float(optax.tree.norm(moved)) > 1e-4

    def test_dropped_updates_are_made_up_for(self, regression, assert_close):
        problem, relaxation = regression(5), RELAXATIONS["proximal"]
        tx = entropix.stepwise(relaxation, optax.sgd(0.1))
        params, state = problem.params, tx.init(problem.params)
        _, state = tx.update(problem.grad(params, 0), state, params)  # not applied
        updates, state = tx.update(problem.grad(params, 1), state, params)
        landed = optax.apply_updates(params, updates)
        assert_close(landed, relaxation.point(state.inner), 1e-7)

    def test_seeds_may_be_vmapped(self, assert_close):
        tx = entropix.stepwise(RELAXATIONS["local_entropy"], optax.sgd(0.1))
        starts = jnp.linspace(-1, 1, 6).reshape(3, 2)

        @jax.jit
        def run(state, x):
            for _ in range(5):
                updates, state = tx.update(jnp.sin(x), state, x)
                x = x + updates
            return entropix.eval_params(state, x)

        states = entropix.reseed(jax.vmap(tx.init)(starts), 5)
        together = jax.vmap(run)(states, starts)
        one_by_one = [
            run(jax.tree.map(lambda s, n=n: s[n], states), x) for n, x in enumerate(starts)
        ]
        assert_close(together, jnp.stack(one_by_one), 1e-6)

    def test_one_program_serves_all_steps(self):
        tx, x = entropix.stepwise(RELAXATIONS["local_entropy"], optax.adam(0.1)), jnp.ones(3)
        chex.clear_trace_counter()

        @jax.jit
        @chex.assert_max_traces(n=1)
        def step(x, state):
            updates, state = tx.update(x, state, x)
            return x + updates, state

        state = tx.init(x)
        for _ in range(9):
            x, state = step(x, state)


class TestExtraArguments:
    def test_reach_the_inner_step_and_the_optimizer(self):
        init = lambda params: optax.EmptyState()  # noqa: E731

        def by_scale(updates, state, params=None, *, scale, **extra_args):
            del params, extra_args
            return optax.tree.scale(scale, updates), state

        scaled = optax.GradientTransformationExtraArgs(init, by_scale)
        relaxation = entropix.local_entropy(
            float("inf"), num_steps=2, step_size=1.0, averaging=0, temperature=0, inner=scaled,
            output="displacement",
        )  # fmt: skip
        tx = entropix.stepwise(relaxation, optax.chain(scaled, optax.scale(-1.0)))
        x = jnp.asarray(0.0)
        state = tx.init(x)
        updates, state = tx.update(jnp.asarray(1.0), state, x, scale=2.0, stranger="x")
        y = x + updates
        assert float(y) == -2  # the first inner step: -2 * 1
        updates, state = tx.update(jnp.asarray(1.0), state, y, scale=3.0, stranger="x")
        # The second makes y = -2 - 3 * 1; the displacement 5 times 3 moves x from 0 to -15.
        assert float(y + updates) == -15

    def test_of_wrappers_fit_the_plain_optimizer(self):
        tx, x = entropix.stepwise(RELAXATIONS["cold"], optax.sgd(0.1)), jnp.ones(2)
        updates, _ = tx.update(x, tx.init(x), x, value=1.0, grad=x, value_fn=jnp.sum)
        np.testing.assert_array_equal(updates, tx.update(x, tx.init(x), x)[0])

    def test_of_the_inner_iterate_start_no_line_search_of_x(self):
        tx, x = entropix.stepwise(RELAXATIONS["cold"], optax.lbfgs()), jnp.ones(2)
        with pytest.raises(ValueError, match="optimizer must do without grad and value_fn.*'grad'"):
            jax.jit(lambda x, s: tx.update(x, s, x, value=1.0, grad=x, value_fn=jnp.sum))(
                x, tx.init(x)
            )
        inside = entropix.outer(optax.lbfgs(), optax.sgd(1.0), num_steps=2)
        bowl = lambda w: jnp.sum((w - 3) ** 2)  # noqa: E731
        state = inside.init(x)
        for _ in range(4):
            given = {"value": bowl(x), "grad": jax.grad(bowl)(x), "value_fn": bowl}
            updates, state = inside.update(given["grad"], state, x, **given)
            x = x + updates
        assert bowl(x) < 1e-3


class TestDtypes:
    @over_relaxations
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "mixed"])
    def test_dtypes_are_kept(self, x64, name, dtype):
        kinds = ["bfloat16", "float32", "float64"] if dtype == "mixed" else [dtype] * 3
        x = [jnp.linspace(-1, 1, 3 + n, dtype=kind) for n, kind in enumerate(kinds)]
        tx = entropix.stepwise(RELAXATIONS[name], optax.sgd(0.1, momentum=0.9))
        state = tx.init(x)
        types = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
        updates, new_state = jax.eval_shape(tx.update, x, state, x)
        assert types(updates) == types(x)
        assert types(new_state) == types(state)
        assert types(entropix.eval_params(new_state, x)) == types(x)


WRAPPERS = {
    "bare": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.clip(10.0), tx),
    "nested_chains": lambda tx: optax.chain(optax.chain(optax.identity(), optax.chain(tx))),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "multi_steps": lambda tx: optax.MultiSteps(tx, every_k_schedule=1),
    "conditionally": lambda tx: optax.conditionally_transform(tx, lambda step: step >= 0),
}


class TestEvalParams:
    """x is found through whatever stands around the link."""

    @pytest.mark.parametrize("wrapper", WRAPPERS)
    def test_through_wrappers(self, wrapper):
        link = entropix.stepwise(RELAXATIONS["cold"], optax.sgd(0.1))
        tx = WRAPPERS[wrapper](link)
        x = {"a": jnp.ones(2), "b": jnp.full(3, 2.0)}
        updates, state = tx.update(x, tx.init(x), x)
        y = optax.apply_updates(x, updates)
        assert float(jnp.abs(y["a"] - x["a"]).min()) > 0.01
        jax.tree.map(np.testing.assert_array_equal, entropix.eval_params(state, y), x)

    @pytest.mark.parametrize("wrapper", ["masked", "partition"])
    def test_leaves_of_others_are_returned_as_they_are(self, wrapper):
        link = entropix.stepwise(RELAXATIONS["cold"], optax.sgd(0.1))
        if wrapper == "masked":
            tx = optax.masked(link, {"ours": True, "theirs": False})
        else:
            tx = optax.partition({"e": link, "s": optax.sgd(0.1)}, {"ours": "e", "theirs": "s"})
        x = {"ours": jnp.ones(2), "theirs": jnp.ones(2)}
        updates, state = tx.update(x, tx.init(x), x)
        y = optax.apply_updates(x, updates)
        found = entropix.eval_params(state, y)
        np.testing.assert_array_equal(found["ours"], x["ours"])
        np.testing.assert_array_equal(found["theirs"], y["theirs"])
        assert float(jnp.abs(y["ours"] - x["ours"]).min()) > 0.01

    def test_two_links_own_different_leaves(self):
        links = {
            "e": entropix.stepwise(RELAXATIONS["cold"], optax.sgd(0.1)),
            "h": entropix.stepwise(RELAXATIONS["proximal"], optax.sgd(0.1)),
        }
        tx = optax.partition(links, {"left": "e", "right": "h"})
        x = {"left": jnp.ones(2), "right": jnp.ones(3)}
        updates, state = tx.update(x, tx.init(x), x)
        y = optax.apply_updates(x, updates)
        jax.tree.map(np.testing.assert_array_equal, entropix.eval_params(state, y), x)

    def test_under_inject_hyperparams(self):
        tx = optax.inject_hyperparams(
            entropix.hj_sgd, static_args=("num_steps", "inner", "form", "output", "stepwise")
        )(learning_rate=0.1, gamma=1.0, stepwise=True)
        x = jnp.ones(2)
        updates, state = tx.update(x, tx.init(x), x)
        np.testing.assert_array_equal(entropix.eval_params(state, x + updates), x)

    def test_after_relax_is_the_parameters(self):
        tx = optax.chain(entropix.relax(RELAXATIONS["cold"]), optax.sgd(0.1))
        x = jnp.ones(2)
        assert entropix.eval_params(tx.init(x), x) is x


def test_an_outer_step_that_a_larger_num_steps_began_ends():
    """The states are alike for every L, so that a checkpoint of another L is taken."""
    longer, shorter = (entropix.hj_sgd(0.1, 1.0, num_steps=n, stepwise=True) for n in (20, 5))
    w = jnp.full(1, 3.0)
    state = longer.init(w)
    for tx, count in ((longer, 12), (shorter, 1 + 5 * 40)):
        for _ in range(count):
            updates, state = jax.jit(tx.update)(w, state, w)
            w = optax.apply_updates(w, updates)
    assert int(state.gradient_count) == 0
    assert int(state.inner.outer.outer_count) == 41
    assert jnp.all(jnp.abs(entropix.eval_params(state, w)) < 0.5)


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("own", "other"), [("entropy_sgd", "snoo"), ("snoo", "entropy_sgd")])
def test_the_state_of_another_optimiser_is_refused(own, other, jitted):
    made = {
        "entropy_sgd": entropix.entropy_sgd(0.1, gamma=1.0, stepwise=True),
        "snoo": entropix.snoo(optax.adam(1e-3)),
    }
    w = {"a": jnp.ones(3)}
    update = jax.jit(made[own].update) if jitted else made[own].update
    with pytest.raises(ValueError, match="from tx.init.*got that of another optimiser"):
        update(w, made[other].init(w), w)


def test_an_eager_update_makes_no_array_beside_its_program():
    tx = entropix.hj_sgd(0.1, gamma=1.0, num_steps=2, stepwise=True)
    w = {"a": jnp.ones(3), "b": jnp.zeros(2)}
    state = tx.init(w)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            updates, state = tx.update(w, state, w)
    assert int(state.inner.outer.outer_count) == 1


def test_an_optimisers_own_error_passes():
    def fail(updates, state, params=None):
        raise ValueError("a fault of its own")

    broken = optax.GradientTransformation(optax.identity().init, fail)
    tx = entropix.stepwise(entropix.hamilton_jacobi(1.0, num_steps=1), broken)
    w = jnp.ones(3)
    with pytest.raises(ValueError, match="a fault of its own"):
        tx.update(w, tx.init(w), w)


@pytest.mark.parametrize("shape", [(2, 3), (), (4,)], ids=str)
def test_eval_params_refuses_other_shapes(shape):
    state = entropix.hj_sgd(0.1, 1.0, stepwise=True).init(jnp.ones(3))
    with pytest.raises(ValueError, match=r"made for.*shape \(3,\), got"):
        entropix.eval_params(state, jnp.ones(shape))


def test_eval_params_has_the_dtype_of_the_parameters():
    tx = entropix.hj_sgd(0.1, 1.0, stepwise=True)
    w = jnp.ones(3)
    found = entropix.eval_params(tx.init(w), w.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, w)


@pytest.mark.parametrize(
    ("state", "params", "message"),
    [
        (lambda tx, w: (tx.init(w),), jnp.ones(3), "needs the state of this.*got a tuple"),
        (lambda tx, w: tx.init(w), jnp.ones(4), r"those that init got.*\(3,\), got \(4,\)"),
        (lambda tx, w: tx.init(w), {"a": jnp.ones(3)}, "structure of those that init got"),
    ],
)
def test_a_state_of_something_else_is_refused(state, params, message):
    tx = entropix.hj_sgd(0.1, 1.0, stepwise=True)
    with pytest.raises(ValueError, match=message):
        tx.update(params, state(tx, jnp.ones(3)), params)


@pytest.mark.parametrize("factory", ["hj_sgd", "sam", "entropy_sgd", "heat_sgd"])
def test_whole_gradients_count_as_real_ones(factory):
    tx = getattr(entropix, factory)(0.1, 1.0, stepwise=True)
    w = jnp.ones(3)
    whole, real = np.array([1, 2, 3]), jnp.asarray([1.0, 2.0, 3.0])
    found, expected = (tx.update(g, tx.init(w), w)[0] for g in (whole, real))
    np.testing.assert_array_equal(found, expected)


class TestDoublePrecisionBesideSingle:
    """Numbers and gradients in float64 do not widen what belongs to float32 parameters."""

    @pytest.mark.parametrize("stepwise", [True, False])
    @pytest.mark.parametrize("inside", [optax.sgd, optax.adamw, optax.contrib.muon])
    def test_a_rate_from_numpy(self, x64, inside, stepwise):
        tx = entropix.snoo(inside(np.float64(1e-2)), num_steps=3, stepwise=stepwise)
        w = jnp.ones((2, 2), jnp.float32)
        extra = {} if stepwise else {"grad_fn": lambda w, i: w}
        updates, state = jax.jit(lambda w, s: tx.update(w, s, w, **extra))(w, tx.init(w))
        assert updates.dtype == jnp.float32
        assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, tx.init(w))

    @pytest.mark.parametrize("factory", ["hj_sgd", "sam", "entropy_sgd", "heat_sgd"])
    def test_gradients(self, x64, factory):
        tx = getattr(entropix, factory)(0.1, 1.0, stepwise=True)
        w = jnp.ones(2, jnp.float32)
        updates, state = jax.jit(tx.update)(w.astype(jnp.float64), tx.init(w), w)
        assert updates.dtype == jnp.float32
        assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, tx.init(w))


@pytest.mark.parametrize("name", ["sam", "hj_sgd", "entropy_sgd"])
def test_inside_an_outer_optimiser_bfloat16_is_no_change_of_the_callers(name):
    """K = L without outer momentum: the walk is the inner optimiser alone, to a rounding."""
    options = {"num_steps": 4} if name != "sam" else {"num_ascents": 3}
    make = lambda: getattr(entropix, name)(0.1, 1.0, stepwise=True, **options)  # noqa: E731
    nested = entropix.outer(make(), optax.sgd(1.0), num_steps=4)
    start = jax.random.normal(jax.random.key(0), (2000,), jnp.bfloat16)
    ends = []
    for tx in (make(), nested):
        update, w, state = jax.jit(tx.update), start, tx.init(start)
        for _ in range(3):
            updates, state = update((w * 1.01).astype(w.dtype), state, w)
            w = optax.apply_updates(w, updates)
        ends.append(w)
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("stepwise", [True, False])
def test_an_outer_optimiser_that_is_spread_too_is_evaluated_at_its_x(stepwise):
    """Three displacements make one of its outer steps; its x has moved once after four."""
    spread = entropix.hj_sgd(0.5, 1.0, momentum=None, num_steps=3, stepwise=True)
    tx = entropix.outer(optax.sgd(0.1), spread, num_steps=2, stepwise=stepwise)
    extra = {} if stepwise else {"grad_fn": lambda w, i: w}
    update = jax.jit(lambda w, state: tx.update(w, state, w, **extra))
    w = jnp.asarray([1.0, -2.0])
    state, seen = tx.init(w), []
    for _ in range(8 if stepwise else 4):
        updates, state = update(w, state)
        w = optax.apply_updates(w, updates)
        seen.append(entropix.eval_params(state, w))
    points = np.unique(np.stack(seen), axis=0)
    assert len(points) == 2
    hand = x = y = np.asarray([1.0, -2.0])
    for _ in range(3):  # the displacement of two steps of SGD from y is 0.19 y
        y = y - 0.1 * (0.19 * y + (y - x) / 1.0)
    hand = x - 0.5 * (x - y) / 1.0
    np.testing.assert_allclose(seen[-1], hand, rtol=1e-5)


def seeing(name, seen):
    """A link that wants one extra argument, as Optax's own chains hand on."""

    def update(updates, state, params=None, **extra):
        seen.append(extra[name])
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


@pytest.mark.parametrize("name", ["x", "grads", "chain", "ascent", "value"])
@pytest.mark.parametrize(
    "make", [entropix.entropy_sgd, entropix.hj_sgd, entropix.heat_sgd, entropix.elastic_sgd]
)
def test_extra_arguments_of_other_links_may_have_any_name(name, make):
    arguments = {"axis_name": "r"} if make is entropix.elastic_sgd else {"stepwise": True}
    seen = []
    tx, w = optax.chain(seeing(name, seen), make(0.1, 1.0, **arguments)), jnp.ones((2, 3))
    jax.vmap(lambda w, s: tx.update(w, s, w, **{name: 5.0}), axis_name="r")(w, jax.vmap(tx.init)(w))
    assert seen == [5.0]


def test_a_flag_may_decide_what_a_link_does_outside_of_jit():
    def update(updates, state, params=None, *, flag):
        return optax.tree.scale(2.0 if flag else 1.0, updates), state

    link = optax.GradientTransformationExtraArgs(lambda params: (), update)
    tx, w = entropix.hj_sgd(0.1, 1.0, inner=link, stepwise=True), jnp.ones(2)
    (twice, _), (once, _) = (tx.update(w, tx.init(w), w, flag=flag) for flag in (True, False))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


@pytest.mark.parametrize("optimizer", [optax.scale_by_adam(), optax.trace(0.9), optax.identity()])
def test_an_optimiser_without_its_sign_is_refused(optimizer):
    """It climbed: nothing behind this link can turn the sign."""
    with pytest.raises(ValueError, match="optimizer must be complete, with its learning rate and"):
        entropix.stepwise(entropix.hamilton_jacobi(1.0, num_steps=2), optimizer)
