"""Elastic coupling: NumPy twins, exact zeros, stale centres; its measure is in `theory/`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import entropix
from entropix.transforms.coupling import elastic_force


def replicas(seed, p, dtype=np.float64):
    """A tree of p random replicas."""
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(p, 3, 2)), dtype),
        "b": jnp.asarray(rng.normal(size=(p, 4)), dtype),
    }


def run(tx, axis_name="r"):
    """`tx.update` over the leading axis of gradients, states and parameters."""
    return jax.jit(jax.vmap(tx.update, axis_name=axis_name))


class TestPull:
    @pytest.mark.parametrize("p", [2, 3, 7])
    @pytest.mark.parametrize("gamma", [0.01, 3.0, float("inf")])
    def test_numpy_twin(self, x64, assert_close, p, gamma):
        x, grads = replicas(0, p), replicas(1, p)
        tx = entropix.elastic_coupling(gamma, "r")
        pulled, state = run(tx)(grads, jax.vmap(tx.init)(x), x)
        expected = jax.tree.map(
            lambda g, x: g + (np.asarray(x) - np.mean(x, axis=0)) / gamma, grads, x
        )
        assert_close(pulled, expected, 1e-14)
        assert state.centre is None
        np.testing.assert_array_equal(state.update_count, np.ones(p))

    def test_pulls_cancel(self, x64):
        x = replicas(2, 5)
        tx = entropix.elastic_coupling(0.1, "r")
        pull, _ = run(tx)(optax.tree.zeros_like(x), jax.vmap(tx.init)(x), x)
        for leaf in jax.tree.leaves(pull):
            np.testing.assert_allclose(np.sum(leaf, axis=0), 0, rtol=0, atol=1e-13)
            assert np.abs(leaf).max() > 1

    def test_mean_over_a_tuple_of_axes(self, x64):
        x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 3, 4)))
        for names, axes in ((("host", "device"), (0, 1)), ("host", 0), (("device",), 1)):
            tx = entropix.elastic_coupling(0.5, names)
            update = jax.vmap(jax.vmap(tx.update, axis_name="device"), axis_name="host")
            state = jax.vmap(jax.vmap(tx.init))(x)
            pulled, _ = update(jnp.zeros_like(x), state, x)
            expected = (x - np.mean(x, axis=axes, keepdims=True)) / 0.5
            np.testing.assert_allclose(pulled, expected, rtol=0, atol=1e-14)

    @pytest.mark.parametrize("period", [1, 3])
    def test_replicas_on_devices(self, period):
        tx = entropix.elastic_coupling(0.5, "device", period=period)
        x = jnp.asarray([[1.0, -2.0]])  # one device, one replica
        pulled = self.shard_map(lambda x: tx.update(x, tx.init(x), x)[0])(x)
        np.testing.assert_array_equal(pulled, x)

    @pytest.mark.parametrize("period", [1, 3])
    def test_replicas_on_devices_and_within_them(self, period):
        # JAX cannot check how values vary over an axis of vmap inside shard_map.
        tx = entropix.elastic_coupling(0.5, ("device", "replica"), period=period)
        pull = jax.vmap(lambda x: tx.update(0 * x, tx.init(x), x)[0], axis_name="replica")
        x = jnp.asarray([0.0, 1.0, 5.0])
        pulled = self.shard_map(pull, check_vma=False)(x)
        np.testing.assert_allclose(pulled, (x - 2) / 0.5, rtol=1e-6)

    def shard_map(self, fn, **options):
        mesh = jax.make_mesh((1,), ("device",), axis_types=(jax.sharding.AxisType.Auto,))
        spec = PartitionSpec("device")
        return jax.shard_map(fn, mesh=mesh, in_specs=spec, out_specs=spec, **options)

    def test_extra_arguments_and_schedules(self):
        tx = entropix.elastic_coupling(lambda count: 1.0 + count, "r")
        x = jnp.asarray([0.0, 2.0])
        update = jax.vmap(functools.partial(tx.update, value=1.0), axis_name="r")
        state = jax.vmap(tx.init)(x)
        for count in range(3):
            pull, state = update(jnp.zeros(2), state, x)
            np.testing.assert_allclose(pull, np.asarray([-1, 1]) / (1 + count), rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
    @pytest.mark.parametrize("period", [1, 3])
    def test_dtypes_are_kept(self, x64, dtype, period):
        x = replicas(4, 3, dtype)
        tx = entropix.elastic_coupling(1.0, "r", period=period)
        state = jax.vmap(tx.init)(x)
        pulled, new_state = jax.eval_shape(run(tx), x, state, x)
        types = functools.partial(jax.tree.map, lambda leaf: (leaf.shape, leaf.dtype))
        assert types(pulled) == types(x)
        assert types(new_state) == types(state)


class TestNoPull:
    """Replicas that agree feel nothing, to the bit, whatever the mean's rounding."""

    @pytest.mark.parametrize("p", [1, 2, 3, 5, 6, 7, 8, 13, 64])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
    @pytest.mark.parametrize("period", [1, 2])
    def test_identical_replicas(self, x64, p, dtype, period):
        rng = np.random.default_rng(p)
        x = jnp.asarray(rng.normal(size=500) * 10.0 ** rng.integers(-30, 30, size=500), dtype)
        x = jnp.broadcast_to(x, (p, 500))
        grads = jnp.asarray(rng.normal(size=(p, 500)), dtype)
        tx = entropix.elastic_coupling(1e-6, "r", period=period)
        pulled, _ = run(tx)(grads, jax.vmap(tx.init)(x), x)
        np.testing.assert_array_equal(pulled, grads)

    @pytest.mark.parametrize("p", [2, 8, 64])
    def test_real_differences_are_felt(self, p):
        # The threshold below which a difference counts as rounding is p eps |x|, no more.
        x = np.ones(p, np.float32)
        x[0] += 4 * p * np.finfo(np.float32).eps
        tx = entropix.elastic_coupling(1.0, "r")
        pull, _ = run(tx)(jnp.zeros(p), jax.vmap(tx.init)(jnp.asarray(x)), jnp.asarray(x))
        expected = x[0].astype(np.float64) - x.astype(np.float64).mean()
        assert abs(float(pull[0]) - expected) < 0.2 * expected

    def test_kernel(self, x64):
        x, centre = np.random.default_rng(0).normal(size=(2, 6))
        force = elastic_force(jnp.asarray(x), jnp.asarray(centre), 0.3, 4)
        np.testing.assert_allclose(force, (x - centre) / 0.3, rtol=1e-14)


class TestPeriod:
    """The centre of every tau-th update serves until the next."""

    @pytest.mark.parametrize("period", [1, 2, 3, 5])
    @pytest.mark.parametrize("momentum", [None, 0.9])
    def test_numpy_twin_with_a_stale_centre(self, x64, assert_close, period, momentum):
        p, gamma, rate = 4, 0.7, 0.05
        tx = entropix.elastic_sgd(rate, gamma, "r", momentum=momentum, period=period)
        x = replicas(5, p)
        z, state = x, jax.vmap(tx.init)(x)
        trace = optax.tree.zeros_like(x)
        update = run(tx)
        for count in range(11):
            grads = jax.tree.map(lambda x, count=count: jnp.sin(3 * x + count), x)
            updates, state = update(grads, state, x)
            x = optax.apply_updates(x, updates)

            if count % period == 0:
                centre = jax.tree.map(lambda z: np.mean(z, axis=0), z)
            force = jax.tree.map(
                lambda z, c, count=count: np.sin(3 * z + count) + (z - c) / gamma, z, centre
            )
            decay = momentum or 0.0
            trace = jax.tree.map(lambda t, g, d=decay: d * t + g, trace, force)
            z = jax.tree.map(
                lambda z, t, g, d=decay: z - rate * (g + d * t if d else g), z, trace, force
            )
            assert_close(x, z, 1e-13)


class TestConvergence:
    def test_without_noise_all_replicas_reach_the_minimiser(self, x64, quadratic):
        f = quadratic(6, 3, 0.5, 4.0)
        tx = entropix.elastic_sgd(0.1, 0.5, "r")
        x = jnp.asarray(np.random.default_rng(6).normal(size=(5, 3)))
        state = jax.vmap(tx.init)(x)

        @jax.jit
        def steps(x, state):
            def body(_, loop):
                x, state = loop
                updates, state = jax.vmap(tx.update, axis_name="r")(x @ f.Q + f.p, state, x)
                return x + updates, state

            return jax.lax.fori_loop(0, 600, body, (x, state))

        x, _ = steps(x, state)
        minimiser = np.broadcast_to(-np.linalg.solve(f.Q, f.p), (5, 3))
        np.testing.assert_allclose(x, minimiser, rtol=0, atol=1e-12)


class TestComposition:
    def test_after_relax_it_is_parle(self, x64, regression, assert_close):
        """x^a <- x^a - eta [(x^a - <y^a>)/gamma + (x^a - mean x)/rho], written out."""
        problem, p, gamma, rho, rate, L = regression(7, jnp.float64), 3, 0.4, 2.0, 0.1, 4
        relaxation = entropix.local_entropy(gamma, num_steps=L, averaging=0.5, temperature=0)
        tx = optax.chain(
            entropix.relax(relaxation), entropix.elastic_coupling(rho, "r"), optax.sgd(rate)
        )
        x = jax.tree.map(
            lambda leaf: leaf + jnp.linspace(-1, 1, p).reshape(p, *[1] * leaf.ndim), problem.params
        )

        def step(x, state, a):
            grad_fn = lambda y, i: problem.grad(y, i + a)  # noqa: E731
            updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
            return optax.apply_updates(x, updates), state

        step = jax.jit(jax.vmap(step, axis_name="r"))
        state, z = jax.vmap(tx.init)(x), x
        for _ in range(3):
            x, state = step(x, state, jnp.arange(p))
            centre = jax.tree.map(lambda leaf: np.mean(leaf, axis=0), z)
            moved = []
            for a in range(p):
                start = jax.tree.map(lambda leaf, a=a: leaf[a], z)
                y = mean = start
                for i in range(L):
                    y = jax.tree.map(
                        lambda y, g, s: y - 0.1 * (g + (y - s) / gamma),
                        y, problem.grad(y, i + a), start,
                    )  # fmt: skip
                    mean = jax.tree.map(lambda m, y: 0.5 * m + 0.5 * y, mean, y)
                moved.append(
                    jax.tree.map(
                        lambda s, m, c: s - rate * ((s - m) / gamma + (s - c) / rho),
                        start, mean, centre,
                    )
                )  # fmt: skip
            z = jax.tree.map(lambda *leaves: np.stack(leaves), *moved)
            assert_close(x, z, 1e-13)


@pytest.mark.parametrize(
    "make",
    [lambda: entropix.elastic_coupling(1.0, "r"), lambda: entropix.elastic_averaging(0.5, "r")],
)
def test_a_pull_is_not_lost_in_narrow_gradients(make):
    """Parameters in float32 and gradients in bfloat16, whose digits end at 0.004 near one."""
    x, tx = jnp.asarray([[1.0, 3.0], [1.001, 3.003]]), make()
    grads, state = jnp.ones_like(x), jax.vmap(tx.init)(x)
    expected, _ = run(tx)(grads, state, x)
    found, _ = run(tx)(grads.astype(jnp.bfloat16), state, x)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - 1).max() > 2e-4


@pytest.mark.parametrize(
    "tx",
    [entropix.elastic_coupling(1.0, "r", period=2), entropix.elastic_averaging(0.5, "r", period=2)],
)
@pytest.mark.parametrize(
    ("grads", "message"),
    [
        (jnp.ones((2, 1)), r"have the shapes of the parameters: .*expected \(3,\), got \(1,\)"),
        ({"w": jnp.ones((2, 3))}, "have the structure of the parameters"),
    ],
)
def test_gradients_of_another_shape_are_refused(tx, grads, message):
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=message):
        run(tx)(grads, jax.vmap(tx.init)(x), x)


@pytest.mark.parametrize(
    ("made_by", "message"),
    [
        (entropix.elastic_coupling(1.0, "r"), "a coupling of period 1 made that state"),
        (entropix.elastic_averaging(0.5, "r"), "a ElasticState, .*got a ElasticAveragingState"),
    ],
)
def test_the_state_of_another_coupling_is_refused_in_words(made_by, message):
    x, tx = jnp.ones((2, 3)), entropix.elastic_coupling(1.0, "r", period=2)
    with pytest.raises(ValueError, match=message):
        run(tx)(x, jax.vmap(made_by.init)(x), x)
    other = entropix.elastic_averaging(0.5, "r")
    with pytest.raises(ValueError, match="ElasticAveragingState, .*got a ElasticState"):
        run(other)(x, jax.vmap(tx.init)(x), x)


NARROW = ("float32", "bfloat16", "float16", "float8_e4m3fn")


@pytest.mark.parametrize("of_params", NARROW)
@pytest.mark.parametrize("of_grads", NARROW)
@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_gradients_and_parameters_may_have_any_two_dtypes(of_params, of_grads, promotion):
    x = jnp.asarray([[1.0, -2.0], [3.0, 0.5]], of_params)
    grads = jnp.asarray([[0.5, 1.0], [-2.0, 1.0]], of_grads)
    expected = of_params if of_params == of_grads else "float32"
    links = {
        "coupling": entropix.elastic_coupling(1.0, "r"),
        "averaging": entropix.elastic_averaging(0.5, "r", period=2),
        "sgd": entropix.sgd(0.5, momentum=None),
    }
    for name, tx in links.items():
        state = jax.vmap(tx.init)(x)
        with jax.numpy_dtype_promotion(promotion):
            found, _ = run(tx)(grads, state, x)
        assert found.dtype == expected, name
        wide = jax.vmap(tx.init)(x.astype(jnp.float32))
        right, _ = run(tx)(grads.astype(jnp.float32), wide, x.astype(jnp.float32))
        np.testing.assert_allclose(found.astype(jnp.float32), right, rtol=0.1)
