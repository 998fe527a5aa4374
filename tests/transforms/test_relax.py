"""The inner loop as one scan: which gradients it asks for, what it compiles, what it keeps."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix
from entropix.transforms.hamilton_jacobi import displacement_step
from entropix.transforms.local_entropy import langevin_step

RELAXATIONS = {
    "local_entropy": functools.partial(entropix.local_entropy, 0.5, temperature=0.01),
    "cold": functools.partial(entropix.local_entropy, 0.5, temperature=0),
    "proximal": functools.partial(entropix.hamilton_jacobi, 0.5),
    "gradient": functools.partial(entropix.hamilton_jacobi, 0.5, form="gradient"),
    "heat": functools.partial(entropix.heat, 0.5, temperature=0.01),
    "cold_heat": functools.partial(entropix.heat, 0.5, temperature=0),
}
over_relaxations = pytest.mark.parametrize("name", RELAXATIONS)


class TestGradientsAskedFor:
    """One update costs exactly L gradients, the first of which came with the call."""

    @over_relaxations
    @pytest.mark.parametrize("L", [1, 2, 5])
    def test_indices(self, name, L):
        asked = []

        def grad_fn(p, i):
            jax.debug.callback(lambda i: asked.append(int(i)), i, ordered=True)
            return p

        tx, x = entropix.relax(RELAXATIONS[name](num_steps=L)), jnp.ones(3)
        jax.block_until_ready(tx.update(x, tx.init(x), x, grad_fn=grad_fn))
        jax.effects_barrier()
        assert asked == list(range(0 if name == "heat" else 1, L))

    @over_relaxations
    def test_gradient_passed_in_is_number_zero(self, regression, assert_close, name):
        problem = regression(seed=1)
        relaxation = RELAXATIONS[name](num_steps=4)
        tx, x = entropix.relax(relaxation), problem.params
        passed = problem.grad(x, 10)  # another mini-batch than grad_fn's number 0

        def with_passed(p, i):
            return optax.tree.where(i == 0, passed, problem.grad(p, i))

        relaxed, _ = tx.update(passed, tx.init(x), x, grad_fn=problem.grad)
        grad_fn = problem.grad if name == "heat" else with_passed
        expected, _ = entropix.relaxed_grad(relaxation, grad_fn)(x, relaxation.init(x))
        assert_close(relaxed, expected, 1e-6)

    @pytest.mark.parametrize(("name", "gradients"), [("heat", 1), ("cold", 2)])
    def test_unused_gradient_is_compiled_away(self, name, gradients):
        tx = entropix.relax(RELAXATIONS[name](num_steps=5))
        slope = jax.grad(lambda p: jnp.sum(jnp.sin(p)))

        def step(x, state):
            return tx.update(slope(x), state, x, grad_fn=lambda p, i: slope(p))

        x = jnp.ones(3)
        program = jax.jit(step).lower(x, tx.init(x)).compile().as_text()
        assert len(re.findall(r" cosine\(", program)) == gradients

    @over_relaxations
    def test_grad_fn_is_traced_once_whatever_the_length(self, name):
        for L in (3, 300):
            calls = []
            relaxation = RELAXATIONS[name](num_steps=L)
            fn = entropix.relaxed_grad(relaxation, lambda p, i, calls=calls: calls.append(i) or p)
            x = jnp.ones(3)
            jax.make_jaxpr(fn)(x, relaxation.init(x))
            assert len(calls) == 1

    @over_relaxations
    def test_so_is_one_at_constants_of_a_program(self, name, assert_close):
        """Constants are no tracers: the loop was unrolled, and 300 steps compiled for minutes."""
        relaxation, x, calls = RELAXATIONS[name](num_steps=5), jnp.ones(3), []
        tx, state = entropix.relax(relaxation), relaxation.init(x)

        def slope(t):
            grad_fn = lambda p, i: calls.append(i) or t * p  # noqa: E731
            pure, _ = entropix.relaxed_grad(relaxation, grad_fn)(x, state)
            return pure, tx.update(x, state, x, grad_fn=grad_fn)[0]

        traced = jax.jit(slope)(2.0)
        assert len(calls) == 2
        assert_close(traced[0], slope(2.0)[0], tolerance=1e-5)


class TestProgram:
    """What is compiled neither grows with L nor contains noise that nobody asked for."""

    def jaxpr(self, relaxation):
        x = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}
        fn = entropix.relaxed_grad(relaxation, lambda p, i: p)
        return str(jax.make_jaxpr(fn)(x, relaxation.init(x)))

    @over_relaxations
    def test_size_does_not_depend_on_the_number_of_steps(self, name):
        sizes = {self.jaxpr(RELAXATIONS[name](num_steps=L)).count(" = ") for L in (2, 20, 200)}
        assert len(sizes) == 1

    @pytest.mark.parametrize(
        ("hot", "cold"), [("local_entropy", "cold"), ("local_entropy", "proximal"),
                          ("heat", "cold_heat")],
    )  # fmt: skip
    def test_zero_temperature_compiles_no_noise(self, hot, cold):
        noise = re.compile(r"random|threefry|shift_|erf_inv|population_count|key<")
        hot, cold = (self.jaxpr(RELAXATIONS[name](num_steps=5)) for name in (hot, cold))
        assert noise.search(hot)
        assert not noise.search(cold)
        assert cold.count(" = ") < hot.count(" = ") / 2

    def test_no_average_is_stored_without_averaging(self):
        x = jnp.ones(3)
        plain = entropix.local_entropy(1.0, averaging=0)
        averaged = entropix.local_entropy(1.0, averaging=0.5)
        assert plain.begin(x, plain.init(x)).average is None
        assert averaged.begin(x, averaged.init(x)).average.shape == (3,)


class TestFaces:
    @over_relaxations
    def test_link_and_pure_function_agree(self, x64, regression, assert_close, name):
        problem = regression(seed=2, dtype=jnp.float64)
        relaxation = RELAXATIONS[name](num_steps=5)
        outer = optax.sgd(0.2, momentum=0.9, nesterov=True)
        tx = optax.chain(entropix.relax(relaxation), outer)
        slope = jax.jit(entropix.relaxed_grad(relaxation, problem.grad))
        x = z = problem.params
        state, relaxation_state, outer_state = tx.init(x), relaxation.init(x), outer.init(x)

        @jax.jit
        def step(x, state):
            updates, state = tx.update(problem.grad(x, 0), state, x, grad_fn=problem.grad)
            return optax.apply_updates(x, updates), state

        for _ in range(4):
            x, state = step(x, state)
            relaxed, relaxation_state = slope(z, relaxation_state)
            updates, outer_state = outer.update(relaxed, outer_state, z)
            z = optax.apply_updates(z, updates)
            assert_close(x, z, 1e-14)
        assert int(state[0].outer_count) == 4

    def test_carry_threads_through_the_inner_loop(self):
        relaxation = entropix.hamilton_jacobi(1.0, num_steps=4, step_size=0.5)

        def grad_fn(p, i, carry):
            return p, {"sum": carry["sum"] + p, "last": i}

        fn = entropix.relaxed_grad(relaxation, grad_fn, has_carry=True)
        x = jnp.asarray([1.0, -2.0])
        start = {"sum": jnp.zeros(2), "last": jnp.asarray(-1)}
        relaxed, state, carry = jax.jit(fn)(x, relaxation.init(x), start)
        # y - x/2 = (1 - 2/2)^n x/2 vanishes after one step of size 1/2.
        np.testing.assert_allclose(relaxed, x / 2)
        np.testing.assert_allclose(carry["sum"], x * (1 + 3 / 2))
        assert int(carry["last"]) == 3
        assert int(state.outer_count) == 1

    def test_grad_fn_may_cross_a_jit_boundary(self, regression, assert_close):
        problem = regression(seed=3)
        tx, x = entropix.relax(RELAXATIONS["cold"](num_steps=3)), problem.params
        grads, state = problem.grad(x, 0), tx.init(x)
        partial = jax.tree_util.Partial(problem.grad)
        relaxed, _ = jax.jit(tx.update)(grads, state, x, grad_fn=partial)
        expected, _ = jax.jit(lambda: tx.update(grads, state, x, grad_fn=problem.grad))()
        assert_close(relaxed, expected, 1e-6)

    def test_foreign_extra_arguments_are_ignored(self):
        tx, x = entropix.relax(RELAXATIONS["proximal"](num_steps=3)), jnp.ones(2)
        call = functools.partial(tx.update, x, tx.init(x), x, grad_fn=lambda p, i: p)
        relaxed, _ = call(value=jnp.asarray(3.0), value_fn=jnp.sum, stranger="x")
        np.testing.assert_array_equal(relaxed, call()[0])

    def test_numbers_may_be_swept_by_vmap(self, assert_close):
        def slope(gamma, step_size, temperature, averaging):
            relaxation = entropix.local_entropy(
                gamma, num_steps=6, step_size=step_size, temperature=temperature,
                averaging=averaging,
            )  # fmt: skip
            x = jnp.linspace(-1, 1, 5)
            fn = entropix.relaxed_grad(relaxation, lambda p, i: jnp.sin(3 * p))
            return fn(x, relaxation.init(x))[0]

        sweep = jnp.asarray(
            [[0.1, 0.05, 0.0, 0.0], [1.0, 0.2, 0.3, 0.9], [float(7), 0.1, 1e-8, 0.75]]
        )
        together = jax.vmap(slope)(*sweep.T)
        one_by_one = jnp.stack([slope(*map(float, row)) for row in sweep])
        assert_close(together, one_by_one, 1e-6)


class TestDtypes:
    """Kernels compute in float32 or wider; what goes in comes out in its own dtype."""

    @over_relaxations
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
    def test_dtype_is_kept(self, x64, regression, name, dtype):
        problem = regression(seed=4, dtype=dtype)
        self.check(RELAXATIONS[name](num_steps=3), problem.params, problem.grad)

    @over_relaxations
    def test_mixed_dtypes_are_kept(self, x64, name):
        x = {
            "half": jnp.linspace(-1, 1, 4, dtype=jnp.bfloat16),
            "single": jnp.linspace(-1, 1, 3, dtype=jnp.float32),
            "double": jnp.asarray(0.5, jnp.float64),
        }
        self.check(RELAXATIONS[name](num_steps=3), x, lambda p, i: jax.tree.map(lambda q: q * q, p))

    def check(self, relaxation, x, grad_fn):
        tx = entropix.relax(relaxation)
        state = tx.init(x)
        update = functools.partial(tx.update, grad_fn=grad_fn)
        relaxed, new_state = jax.eval_shape(update, grad_fn(x, 0), state, x)
        types = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
        assert types(relaxed) == types(x)
        assert types(new_state) == types(state)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_kernels_compute_in_single_precision(self, dtype):
        y, x, d = (jnp.asarray(v, dtype) for v in np.random.default_rng(0).normal(size=(3, 50)))
        wide = [np.asarray(v, np.float64) for v in (y, x, d)]
        langevin = wide[0] - 0.1 * (wide[2] + (wide[0] - wide[1]) / 0.3)
        np.testing.assert_allclose(langevin_step(y, x, d, 0.3, 0.1), langevin, rtol=0, atol=1e-6)
        displaced = wide[0] - 0.1 * (wide[0] / 0.3 - wide[2])
        np.testing.assert_allclose(displacement_step(y, d, 0.3, 0.1), displaced, rtol=0, atol=1e-6)

    def test_heat_sums_many_small_gradients(self):
        # In bfloat16 a running sum of 1000 equal terms would stop growing after 256 of them.
        relaxation = entropix.heat(1.0, num_steps=1000, temperature=0)
        x = jnp.ones(3, jnp.bfloat16)
        relaxed, _ = entropix.relaxed_grad(relaxation, lambda p, i: p)(x, relaxation.init(x))
        np.testing.assert_array_equal(relaxed, x)


class TestEagerCalls:
    """Outside of `jax.jit`: nothing compiles after the first call, and i is a Python int."""

    def test_compile_once(self, compilations):
        for tx in (
            entropix.entropy_sgd(0.1, gamma=1.0, num_steps=3),
            entropix.entropy_sgd(0.1, gamma=1.0, num_steps=3, stepwise=True),
            entropix.heat_sgd(0.1, gamma=1.0, num_steps=3),
        ):
            w, number = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}, []
            state = tx.init(w)
            for _ in range(7):  # stepwise: two outer steps
                before = len(compilations)
                updates, state = tx.update(w, state, w, grad_fn=lambda p, i: p)
                w = optax.apply_updates(w, updates)
                number.append(len(compilations) - before)
            assert number[0] > 0
            assert number[4:] == [0, 0, 0]

    @pytest.mark.parametrize(
        "tx",
        [
            entropix.elastic_coupling(1.0, "replica", period=2),
            entropix.elastic_averaging(0.5, "replica", period=2),
        ],
    )
    def test_links_of_replicas_compile_once(self, tx, compilations):
        """Mapped by `jax.vmap` alone."""
        x = jnp.asarray([1.0, 3.0])
        state, update = jax.vmap(tx.init)(x), jax.vmap(tx.update, axis_name="replica")
        for n in range(6):
            if n == 3:
                before = len(compilations)
            _, state = update(x, state, x)
        assert len(compilations) == before > 0

    def test_are_the_compiled_ones(self, regression, assert_close):
        problem = regression(3)
        for tx in (
            entropix.entropy_sgd(0.1, gamma=0.5, temperature=1e-3, num_steps=4),
            entropix.heat_sgd(0.1, gamma=0.5, num_steps=4),
            entropix.sam(0.1, rho=0.1),
        ):
            x = problem.params
            update = lambda x, s, tx=tx: tx.update(  # noqa: E731
                problem.grad(x, 0), s, x, grad_fn=problem.grad
            )
            eagerly, compiled = update(x, tx.init(x)), jax.jit(update)(x, tx.init(x))
            assert_close(eagerly[0], compiled[0], 1e-6)

    def test_read_numpy_batches_and_loaders(self):
        batches = np.arange(4.0)
        relaxation = entropix.local_entropy(
            float("inf"), num_steps=4, step_size=1.0, averaging=0, temperature=0,
            output="displacement",
        )  # fmt: skip
        tx = entropix.relax(relaxation)
        x = jnp.zeros(2)
        by_index = lambda x, i: jnp.full(2, batches[i])  # noqa: E731
        displacement, _ = tx.update(by_index(x, 0), tx.init(x), x, grad_fn=by_index)
        np.testing.assert_array_equal(displacement, 6.0)  # 0 + 1 + 2 + 3
        loader = iter(batches)
        from_loader = lambda x, i: jnp.full(2, next(loader))  # noqa: E731
        displacement, _ = tx.update(from_loader(x, 0), tx.init(x), x, grad_fn=from_loader)
        np.testing.assert_array_equal(displacement, 6.0)

    def test_do_not_freeze_what_grad_fn_closes_over(self):
        tx, x, scale = entropix.relax(entropix.hamilton_jacobi(1.0)), jnp.ones(2), [1.0]
        grad_fn = lambda x, i: scale[0] * x  # noqa: E731
        first, _ = tx.update(grad_fn(x, 0), tx.init(x), x, grad_fn=grad_fn)
        scale[0] = 0.0
        second, _ = tx.update(grad_fn(x, 0), tx.init(x), x, grad_fn=grad_fn)
        assert jnp.all(first > 0)
        np.testing.assert_array_equal(second, 0.0)


def test_whole_numbers_stay_beside_a_memory_that_is_kept():
    params = {"w": jnp.ones(3), "n": jnp.arange(2)}
    inner = optax.trace(0.9)
    relaxation = entropix.local_entropy(1.0, num_steps=2, inner=inner, reset_inner=False)
    grad_fn = lambda p, i: {"w": p["w"], "n": np.zeros(2, jax.dtypes.float0)}  # noqa: E731
    found, state = entropix.relaxed_grad(relaxation, grad_fn)(params, relaxation.init(params))
    alone, _ = entropix.relaxed_grad(relaxation, lambda p, i: p)(
        params["w"], relaxation.init(params["w"])
    )
    np.testing.assert_array_equal(found["w"], alone)
    assert found["n"].tolist() == [0, 0]
    again, _ = entropix.relaxed_grad(relaxation, grad_fn)(params, state)
    assert jnp.all(again["w"] > found["w"])  # the momentum is still there


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, w: entropix.relaxed_grad(r, lambda p, i, c: p, has_carry=True)(w, r.init(w), 1),
         r"must return a pair, \(grads, carry\)"),
        (lambda r, w: entropix.relaxed_grad(r, lambda p, i: p)(w, r.init(w), 0.0),
         "carry must be None without has_carry=True; got carry=0.0"),
        (lambda r, w: entropix.relax(r).update(w, r.init(w), w, grad_fn=w), "grad_fn must be a"),
        (lambda r, w: entropix.relaxed_grad(
            entropix.heat(lambda count: None), lambda p, i: p)(w, r.init(w)),
         "a schedule's value must be a real number"),
        (lambda r, w: entropix.check(entropix.hamilton_jacobi(lambda c: jnp.ones(3)), 3),
         "a schedule's value must be a real number"),
    ],
)  # fmt: skip
def test_what_a_function_must_return_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call(entropix.heat(1.0), jnp.ones(3))


def test_a_relaxation_without_a_state_is_one():
    """The protocol lets `init` return anything."""
    stateless = entropix.Relaxation(
        init=lambda params: None,
        begin=lambda params, state: {"params": params, "grads": params},
        point=lambda inner: inner["params"],
        step=lambda grads, inner: dict(inner, grads=grads),
        finish=lambda inner, state: (inner["grads"], state),
        num_steps=1,
    )
    w = jnp.ones(2)
    assert entropix.relaxed_grad(stateless, lambda p, i: 2 * p)(w, None)[0].tolist() == [2.0, 2.0]


QUIET, NOISY = (entropix.local_entropy(1.0, num_steps=2, temperature=t) for t in (0.0, 0.1))


@pytest.mark.parametrize(
    ("made_by", "given_to", "message"),
    [
        (optax.sgd(0.1), entropix.relax(QUIET), "a RelaxationState, .*got a tuple"),
        (entropix.stepwise(QUIET, optax.sgd(0.1)), entropix.relax(NOISY), "got a StepwiseState"),
        (entropix.relax(QUIET), entropix.relax(NOISY), "the state .* has no random key"),
        (entropix.relax(QUIET), entropix.relax(entropix.heat(1.0)), "has no random key"),
        (optax.trace(0.9), entropix.relax(entropix.sharpness(0.1)), "got a TraceState"),
        (optax.trace(0.9), entropix.relax(entropix.hamilton_jacobi(1.0)), "got a TraceState"),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_the_state_of_another_optimiser_is_refused_in_words(made_by, given_to, message, jit):
    w = jnp.ones(2)
    update = lambda state: given_to.update(w, state, w, grad_fn=lambda p, i: p)  # noqa: E731
    with pytest.raises(ValueError, match=message):
        (jax.jit(update) if jit else update)(made_by.init(w))
    given_to.update(w, given_to.init(w), w, grad_fn=lambda p, i: p)


def test_an_eager_update_is_of_one_gamma():
    """What a schedule reads from outside counts as it was at the first update, everywhere."""
    outside = {"gamma": 1.0}
    tx = entropix.relax(entropix.hamilton_jacobi(lambda count: outside["gamma"], num_steps=50))
    w = jnp.asarray(2.0)
    state = tx.init(w)
    update = lambda: tx.update(w, state, w, grad_fn=lambda w, i: w)[0]  # noqa: E731
    first = update()
    outside["gamma"] = 9.0
    np.testing.assert_allclose(update(), first, rtol=1e-6)


@pytest.mark.parametrize("name", RELAXATIONS)
def test_relaxations_are_static_arguments(name):
    relaxation = RELAXATIONS[name]()

    @functools.partial(jax.jit, static_argnums=0)
    def of_quadratic(relaxation, x):
        return entropix.relaxed_grad(relaxation, lambda p, i: p)(x, relaxation.init(x))[0]

    x = jnp.asarray([1.0, -2.0])
    expected = entropix.relaxed_grad(relaxation, lambda p, i: p)(x, relaxation.init(x))[0]
    np.testing.assert_allclose(of_quadratic(relaxation, x), expected, rtol=1e-5)


def test_a_relaxation_in_a_chain_says_what_to_write():
    tx = optax.chain(entropix.local_entropy(1.0), optax.sgd(0.1))
    w = jnp.ones(2)
    with pytest.raises(AttributeError, match=r"write entropix\.relax\(relaxation\) in an optax"):
        tx.update(w, tx.init(w), w)
