"""Scoping, and the count at which every schedule is read."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix


class TestScoping:
    def test_is_a_product_taken_step_by_step(self, x64):
        gammas = [7.0]
        for _ in range(200):
            gammas.append((1 - 0.03) * gammas[-1])
        schedule = entropix.scoping(7.0, rate=0.03)
        np.testing.assert_allclose(schedule(jnp.arange(201)), gammas, rtol=1e-13)

    def test_paper_rate_is_the_default(self):
        np.testing.assert_allclose(entropix.scoping(1.0)(693), 0.5, rtol=1e-3)

    def test_force_coefficient_of_the_authors_code(self, x64):
        # 1/gamma = g0 (1 + g1)^k is a scope of rate g1/(1 + g1).
        g0, g1 = 1e-4, 1e-3
        schedule = entropix.scoping(1 / g0, rate=g1 / (1 + g1))
        counts = jnp.arange(5000)
        np.testing.assert_allclose(1 / schedule(counts), g0 * (1 + g1) ** counts, rtol=1e-10)

    def test_clips_at_the_end_value(self):
        schedule = entropix.scoping(2.0, rate=0.5, end_value=0.3)
        np.testing.assert_allclose(schedule(jnp.arange(5)), [2, 1, 0.5, 0.3, 0.3])
        assert float(entropix.scoping(2.0, rate=0.5)(10_000)) == 0

    def test_rate_zero_is_constant(self):
        np.testing.assert_array_equal(entropix.scoping(3.0, rate=0)(jnp.arange(5)), 3.0)

    def test_traced_counts(self):
        schedule = entropix.scoping(2.0, rate=0.1, end_value=0.5)
        counts = jnp.arange(30, dtype=jnp.int32)
        together = jax.jit(jax.vmap(schedule))(counts)
        assert together.dtype == jnp.float32
        expected = np.maximum(2.0 * 0.9 ** np.arange(30), 0.5)
        np.testing.assert_allclose(together, expected, rtol=1e-5)

    def test_huge_counts_are_finite(self):
        assert np.isfinite(entropix.scoping(1e4, end_value=0.2)(jnp.asarray(2**31 - 1)))

    @pytest.mark.parametrize("integer", [int, np.int32, jnp.int32])
    def test_compiles_once_for_all_counts(self, integer, compilations):
        schedule = entropix.scoping(3.0, rate=0.217, end_value=0.1)
        jax.clear_caches()
        values = [float(schedule(integer(1)))]
        first = len(compilations)
        assert first > 0
        values += [float(schedule(integer(count))) for count in range(2, 20)]
        assert len(compilations) == first
        np.testing.assert_allclose(
            values, np.maximum(3 * 0.783 ** np.arange(1, 20), 0.1), rtol=1e-6
        )


TABLES = {  # values for outer steps 0, 1, 2, ...
    "gamma": [0.9, 0.2, 0.6, 0.4],
    "step_size": [0.02, 0.1, 0.05, 0.08],
    "temperature": [0.5, 0.01, 0.2, 0.7],
}
MAKERS = {
    "local_entropy": lambda **kw: entropix.local_entropy(num_steps=3, averaging=0.5, **kw),
    "displacement": lambda **kw: entropix.local_entropy(num_steps=3, output="displacement", **kw),
    "proximal": lambda gamma, step_size, temperature: entropix.hamilton_jacobi(
        gamma, num_steps=3, step_size=step_size
    ),
    "gradient": lambda gamma, step_size, temperature: entropix.hamilton_jacobi(
        gamma, num_steps=3, step_size=step_size, form="gradient", output="displacement"
    ),
    "heat": lambda gamma, step_size, temperature: entropix.heat(
        gamma, num_steps=3, temperature=temperature
    ),
}


class TestOuterCount:
    """gamma, step_size and temperature change once per outer step, whoever runs the loop."""

    def stages(self, make, problem, rate):
        """x after every outer step, with a new relaxation of constant numbers for each."""

        @jax.jit
        def stage(x, outer, numbers):
            relaxation = make(**numbers)
            state = relaxation.init(x)._replace(outer_count=outer)
            relaxed, _ = entropix.relaxed_grad(relaxation, problem.grad)(x, state)
            return optax.tree.add_scale(x, -rate, relaxed)

        x = problem.params
        for outer, numbers in enumerate(zip(*TABLES.values(), strict=True)):
            x = stage(x, jnp.asarray(outer, jnp.int32), dict(zip(TABLES, numbers, strict=True)))
            yield x

    @pytest.mark.parametrize("name", MAKERS)
    def test_both_faces(self, x64, regression, assert_close, name):
        problem, rate = regression(1, jnp.float64), 0.2
        tables = {key: jnp.asarray(values) for key, values in TABLES.items()}
        relaxation = MAKERS[name](
            **{key: lambda count, key=key: tables[key][count] for key in tables}
        )
        scan = optax.chain(entropix.relax(relaxation), optax.sgd(rate))
        step = entropix.stepwise(relaxation, optax.sgd(rate))
        scan_update = jax.jit(lambda g, s, x: scan.update(g, s, x, grad_fn=problem.grad))
        step_update = jax.jit(step.update)
        x = problem.params
        scan_state, step_state = scan.init(x), step.init(x)
        y = relaxation.point(step_state.inner)
        for expected in self.stages(MAKERS[name], problem, rate):
            updates, scan_state = scan_update(problem.grad(x, 0), scan_state, x)
            x = optax.apply_updates(x, updates)
            assert_close(x, expected, 1e-13)
            for i in range(3):
                updates, step_state = step_update(problem.grad(y, i), step_state, y)
                y = optax.apply_updates(y, updates)
            assert_close(entropix.eval_params(step_state, y), expected, 1e-13)

    def test_schedules_of_the_outer_optimizer_count_outer_steps(self):
        rates = jnp.asarray([1.0, 0.1, 0.01])
        tx = entropix.stepwise(
            entropix.heat(1.0, num_steps=4, temperature=0), optax.sgd(lambda count: rates[count])
        )
        x = jnp.asarray(0.0)
        state, update, seen = tx.init(x), jax.jit(tx.update), []
        for _ in range(12):
            updates, state = update(jnp.asarray(-1.0), state, x)
            x = x + updates
            seen.append(float(x))
        np.testing.assert_allclose(seen, [0] * 3 + [1] * 4 + [1.1] * 4 + [1.11], rtol=1e-6)

    def test_infinite_gamma_may_come_from_a_schedule(self):
        relaxation = entropix.local_entropy(
            lambda count: jnp.inf, num_steps=1, averaging=0, temperature=0, output="displacement"
        )
        x = jnp.ones(2)
        moved, _ = entropix.relaxed_grad(relaxation, lambda p, i: p)(x, relaxation.init(x))
        np.testing.assert_allclose(moved, 0.1, rtol=1e-6)

    def test_static_args_of_inject_hyperparams_keep_the_outer_clock(self):
        arguments = {"gamma": entropix.scoping(10.0, 0.1, end_value=0.06), "num_steps": 20}

        def x_after(make):
            tx = make(learning_rate=0.1, stepwise=True, **arguments)

            def body(carry, _):
                w, state = carry
                updates, state = tx.update(w - 3.0, state, w)
                return (w + updates, state), None

            start = jnp.zeros(1)
            carry = jax.lax.scan(body, (start, tx.init(start)), length=200)[0]
            return entropix.eval_params(carry[1], carry[0])

        inject = lambda *names: optax.inject_hyperparams(entropix.entropy_sgd, static_args=names)  # noqa: E731
        expected = x_after(entropix.entropy_sgd)
        np.testing.assert_allclose(x_after(inject("num_steps", "gamma")), expected, rtol=1e-5)
        # Otherwise gamma shrinks twenty times as fast.
        assert not np.allclose(x_after(inject("num_steps")), expected, rtol=1e-2)


@pytest.mark.parametrize("stepwise", [True, False])
@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (entropix.entropy_sgd, {"gamma": 1.0, "temperature": 0.0}),
        (entropix.entropy_sgd, {"gamma": 1.0, "averaging": 0.0}),
        (entropix.entropy_sgd, {"gamma": 1.0, "temperature": 0.0, "averaging": 0.0}),
        (entropix.heat_sgd, {"gamma": 1.0, "temperature": 0.0}),
    ],
)
def test_an_injected_zero_makes_the_state_that_the_update_wants(factory, options, stepwise):
    """Numbers are arrays when the state is made, and traced when it is updated."""
    made = {"learning_rate": 0.1, "num_steps": 3, "stepwise": stepwise, **options}
    injected = optax.inject_hyperparams(factory, static_args=("num_steps",))(**made)
    w, states = jnp.ones(2), []
    extra = {} if stepwise else {"grad_fn": lambda w, i: w}
    for tx in (injected, factory(**made)):
        update, params, state = jax.jit(lambda w, s, tx=tx: tx.update(w, s, w, **extra)), w, None
        state = tx.init(w)
        for _ in range(6):
            updates, state = update(params, state)
            params = optax.apply_updates(params, updates)
        states.append(params)
    np.testing.assert_allclose(*states, rtol=1e-5)


def test_what_snoo_wants_under_inject_hyperparams_is_said():
    tx = optax.inject_hyperparams(entropix.snoo, static_args=("num_steps",))(optax.adam(0.1))
    with pytest.raises(ValueError, match=r"static_args=\('num_steps', 'gamma', 'temperature'"):
        tx.init(jnp.ones(2))
    names = ("num_steps", "gamma", "temperature", "averaging")
    tx = optax.inject_hyperparams(entropix.snoo, static_args=names)(optax.adam(0.1), num_steps=2)
    plain, w = entropix.snoo(optax.adam(0.1), num_steps=2), jnp.ones(2)
    found, expected = (jax.jit(t.update)(w, t.init(w), w)[0] for t in (tx, plain))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("rate", "count"), [(1e-6, 10**6), (1e-7, 10**7), (2e-8, 10**7)])
def test_slow_scoping_is_not_lost_in_single_precision(rate, count):
    expected = np.exp(count * np.log1p(-rate))
    np.testing.assert_allclose(entropix.scoping(1.0, rate)(count), expected, rtol=1e-5)


def test_a_traced_scope_in_single_precision_is_one_in_double(x64):
    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(lambda start: entropix.scoping(start, 0.1)(2))(jnp.float32(1.0))
    np.testing.assert_allclose(found, 0.81, rtol=1e-12)


def test_a_count_beyond_int32_stays_at_the_end_of_the_schedule():
    found = entropix.per_outer_step(lambda count: count, 10**6)(jnp.asarray(3000))
    assert 2**31 - 10**6 <= int(found) < 2**31


@pytest.mark.parametrize("gamma", [
    lambda count: jnp.where(count < 5, 1.0, -1.0), optax.linear_schedule(1.0, -1.0, 7),
])  # fmt: skip
def test_a_scope_below_zero_is_refused(gamma):
    with pytest.raises(ValueError, match=r"gamma must be positive.*at outer step \d of 10"):
        entropix.check(entropix.hj_sgd(0.1, gamma), 10)


@pytest.mark.parametrize("name", ["sgd", "elastic_sgd", "easgd", "sam", "snoo", "lookahead"])
def test_nothing_pulls_y_where_gradients_are_taken_at_x(name):
    made = {
        "sgd": lambda: entropix.sgd(0.1),
        "elastic_sgd": lambda: entropix.elastic_sgd(0.1, 1.0, "replica"),
        "easgd": lambda: entropix.easgd(0.1, "replica"),
        "sam": lambda: entropix.sam(0.1, rho=0.1),
        "snoo": lambda: entropix.snoo(optax.adamw(1e-3)),
        "lookahead": lambda: entropix.lookahead(optax.adamw(1e-3)),
    }[name]()
    assert entropix.check(made, 10) == 0.0


def test_arrays_of_numbers_that_switch_something_off_are_explained():
    for options in ({"gamma": jnp.asarray(jnp.inf)}, {"temperature": jnp.asarray(0.0)}):
        with pytest.raises(ValueError, match="as Python numbers: an array counts as unknown"):
            entropix.outer(optax.sgd(0.1), **options)


def test_an_optimiser_whose_update_was_replaced_cannot_be_seen():
    """It counted as one without a relaxation, whose schedules are stable."""
    tx = entropix.hj_sgd(0.1, gamma=entropix.scoping(1.0, 0.1))
    hidden = tx._replace(update=lambda *args, **extra: tx.update(*args, **extra))
    with pytest.raises(ValueError, match="check cannot see a relaxation inside tx="):
        entropix.check(hidden, 1000)
