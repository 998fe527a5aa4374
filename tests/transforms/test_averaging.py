"""Averages over replicas: NumPy twins of EASGD and DiLoCo, agreement to the bit, free steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix


def replicas(seed, p, dtype=np.float64):
    """A tree of p random replicas."""
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(p, 3, 2)), dtype),
        "b": jnp.asarray(rng.normal(size=(p, 4)), dtype),
    }


def slope(x, count):
    return jax.tree.map(lambda x: np.sin(3 * x + count), x)


def run(tx):
    """`tx.update` over the leading axis of gradients, states and parameters."""
    return jax.jit(jax.vmap(tx.update, axis_name="r"))


def assert_alike(tree):
    """All replicas in `tree` hold the same bits."""
    for leaf in jax.tree.leaves(tree):
        np.testing.assert_array_equal(leaf, jnp.broadcast_to(leaf[:1], leaf.shape))


class TestAverageUpdates:
    @pytest.mark.parametrize("p", [1, 2, 3, 7])
    def test_is_the_mean_on_every_replica(self, x64, assert_close, p):
        tx, grads = entropix.average_updates("r"), replicas(0, p)
        averaged, state = run(tx)(grads, jax.vmap(tx.init)(grads), grads)
        assert_close(averaged, jax.tree.map(lambda g: 0 * g + np.mean(g, axis=0), grads), 1e-15)
        assert_alike(averaged)
        assert jax.tree.leaves(state) == []

    def test_params_are_not_needed(self):
        tx = entropix.average_updates("r")
        mean = jax.vmap(lambda g: tx.update(g, tx.init(g))[0], axis_name="r")
        np.testing.assert_array_equal(mean(jnp.asarray([1.0, 4.0])), [2.5, 2.5])

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
    def test_mean_of_narrow_numbers_is_taken_in_wide_ones(self, x64, dtype):
        # 64 equal numbers just below the largest would overflow in their own sum.
        grads = jnp.full((64, 3), 0.9 * jnp.finfo(dtype).max, dtype)
        tx = entropix.average_updates("r")
        averaged, _ = run(tx)(grads, jax.vmap(tx.init)(grads), grads)
        assert averaged.dtype == dtype
        if dtype == "float16":
            np.testing.assert_array_equal(averaged, grads)


class TestElasticAveraging:
    """Zhang et al 2015: an exchange with a slow centre at every tau-th step, SGD in between."""

    @pytest.mark.parametrize("period", [1, 2, 5])
    @pytest.mark.parametrize("beta", [0.3, 0.9, 1.0])
    @pytest.mark.parametrize("momentum", [None, 0.9])
    def test_easgd_is_its_numpy_twin(self, x64, assert_close, period, beta, momentum):
        p, rate = 4, 0.05
        tx = entropix.easgd(rate, "r", momentum=momentum, period=period, moving_rate=beta)
        x = replicas(5, p)
        state, update = jax.vmap(tx.init)(x), run(tx)
        z = jax.tree.map(np.asarray, x)
        centre = jax.tree.map(lambda z: z.mean(axis=0), z)
        trace, decay = jax.tree.map(np.zeros_like, z), momentum or 0.0
        for count in range(11):
            updates, state = update(slope(x, count), state, x)
            x = optax.apply_updates(x, updates)

            grads = slope(z, count)
            trace = jax.tree.map(lambda t, g: decay * t + g, trace, grads)
            moved = jax.tree.map(lambda z, t, g: z - rate * (g + decay * t), z, trace, grads)
            if count % period == 0:
                mean = jax.tree.map(lambda z: z.mean(axis=0), z)
                moved = jax.tree.map(lambda m, z, c: m - beta / p * (z - c), moved, z, centre)
                centre = jax.tree.map(lambda c, m: c + beta * (m - c), centre, mean)
            z = moved
            assert_close(x, z, 1e-13)
            found = optax.tree.get(state, "centre")
            assert_alike(found)
            assert_close(jax.tree.map(lambda leaf: leaf[0], found), centre, 1e-13)

    def test_between_exchanges_replicas_are_sgd_to_the_bit(self):
        x = replicas(6, 3, np.float32)
        tx, sgd = entropix.easgd(0.1, "r", period=4), entropix.sgd(0.1)
        state, alone = jax.vmap(tx.init)(x), jax.vmap(sgd.init)(x)
        for count in range(8):
            grads = replicas(7 + count, 3, np.float32)
            updates, state = run(tx)(grads, state, x)
            expected, alone = run(sgd)(grads, alone, x)
            same = jax.tree.map(lambda u, e: bool(jnp.all(u == e)), updates, expected)
            # The first exchange is around the mean of different starting points.
            assert set(jax.tree.leaves(same)) == {count % 4 != 0}
            x = optax.apply_updates(x, updates)

    def test_exchange_conserves_what_replicas_and_centre_share(self, x64):
        # With alpha = beta/p the replicas lose in all what the centre gains: the symmetry that
        # the paper's choice of alpha and beta is made for.
        p, beta = 5, 0.7
        tx = entropix.elastic_averaging(beta, "r")
        x = jnp.asarray(np.random.default_rng(8).normal(size=p))
        state = jax.vmap(tx.init)(x)
        _, state = run(tx)(0 * x, state, x)
        x = x + 1.0  # the centre now lags
        before = np.sum(x) + state.centre[0]
        moves, state = run(tx)(0 * x, state, x)
        assert abs(np.sum(x + moves) + state.centre[0] - before) < 1e-13
        assert abs(state.centre[0] - np.mean(x)) < 0.31

    def test_one_replica_lags_behind_its_centre_too(self, x64):
        # Unlike the elastic coupling's, this pull does not vanish for p = 1.
        tx = entropix.easgd(0.1, "r", momentum=None, period=1, moving_rate=0.5)
        x = jnp.asarray([2.0])
        state = jax.vmap(tx.init)(x)
        z, centre = 2.0, 2.0
        for _ in range(4):
            updates, state = run(tx)(x, state, x)
            x = x + updates
            z, centre = z - 0.1 * z - 0.5 * (z - centre), centre + 0.5 * (z - centre)
            np.testing.assert_allclose(x, [z], rtol=1e-14)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
    @pytest.mark.parametrize("period", [1, 3])
    def test_dtypes_are_kept(self, x64, dtype, period):
        x = replicas(4, 3, dtype)
        tx = entropix.elastic_averaging(0.9, "r", period=period)
        state = jax.vmap(tx.init)(x)
        types = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
        updates, new_state = jax.eval_shape(run(tx), x, state, x)
        assert (types(updates), types(new_state)) == (types(x), types(state))


class TestDiloco:
    """Douillard et al 2023, written out: AdamW moments live on, Nesterov takes the mean."""

    p, H, outer, inner_rate, decay = 3, 4, 0.7, 0.02, 0.1

    def in_numpy(self, x, grad, outer_steps, reset):
        """x after every outer step; all replicas hold the same."""
        zeros = jax.tree.map(np.zeros_like, x)
        moments = [(zeros, zeros, 0) for _ in range(self.p)]
        buffer = zeros
        for n in range(outer_steps):
            ends = []
            for a in range(self.p):
                y, (m, v, t) = x, (zeros, zeros, 0) if reset else moments[a]
                for i in range(self.H):
                    g, t = jax.tree.map(np.asarray, grad(y, n, i, a)), t + 1
                    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
                    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, v, g)
                    y = jax.tree.map(
                        lambda y, m, v, t=t: y - self.inner_rate * (
                            m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
                            + self.decay * y),
                        y, m, v,
                    )  # fmt: skip
                moments[a] = m, v, t
                ends.append(y)
            delta = jax.tree.map(lambda x, *ys: x - np.mean(ys, axis=0), x, *ends)
            buffer = jax.tree.map(lambda b, d: 0.9 * b + d, buffer, delta)
            x = jax.tree.map(lambda x, d, b: x - self.outer * (d + 0.9 * b), x, delta, buffer)
            yield x

    def walk(self, problem, stepwise, outer_steps):
        """All replicas after every outer step."""
        tx = entropix.diloco(
            self.outer, "r", num_steps=self.H, step_size=self.inner_rate, stepwise=stepwise
        )
        x = jax.tree.map(lambda leaf: jnp.stack([leaf] * self.p), problem.params)
        state, index = jax.vmap(tx.init)(x), jnp.arange(self.p)

        def step(x, state, a, start):
            grad_fn = lambda y, i: problem.grad(y, start + i + 3 * a)  # noqa: E731
            updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
            return optax.apply_updates(x, updates), state

        step = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None), axis_name="r"))
        for n in range(outer_steps):
            for i in range(self.H if stepwise else 1):
                x, state = step(x, state, index, n * self.H + i)
            yield entropix.eval_params(state, x)

    @pytest.mark.parametrize("stepwise", [False, True])
    def test_is_its_numpy_twin(self, x64, regression, assert_close, stepwise):
        problem, outer_steps = regression(11, jnp.float64), 5
        grad = lambda y, n, i, a: problem.grad(y, n * self.H + i + 3 * a)  # noqa: E731
        twins = [
            list(self.in_numpy(problem.params, grad, outer_steps, reset)) for reset in (False, True)
        ]
        walked = list(self.walk(problem, stepwise, outer_steps))
        for x, kept in zip(walked, twins[0], strict=True):
            assert_alike(x)
            assert_close(jax.tree.map(lambda leaf: leaf[0], x), kept, 1e-12)
        # Power: moments that start anew at every outer step end somewhere else.
        gap = optax.tree.norm(optax.tree.sub(*(twin[-1] for twin in twins)))
        assert gap > 0.01

    def test_replicas_keep_their_own_moments(self, regression):
        problem = regression(12)
        tx = entropix.diloco(0.7, "r", num_steps=3)
        x = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), problem.params)

        def step(x, state, a):
            grad_fn = lambda y, i: problem.grad(y, i + 5 * a)  # noqa: E731
            return tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)

        updates, state = jax.vmap(step, axis_name="r")(x, jax.vmap(tx.init)(x), jnp.arange(2))
        assert_alike(updates)
        memory = optax.tree.get(state, "inner_memory")
        for leaf in jax.tree.leaves(optax.tree.get(memory, "mu")):
            assert np.abs(leaf[0] - leaf[1]).min() > 0
        np.testing.assert_array_equal(optax.tree.get(memory, "count"), [3, 3])

    def test_one_replica_and_outer_rate_one_is_adamw(self, x64, regression, assert_close):
        problem, H = regression(13, jnp.float64), 6
        tx = entropix.diloco(1.0, "r", momentum=None, num_steps=H, step_size=0.01)
        adamw = optax.adamw(0.01, weight_decay=0.1)
        x = jax.tree.map(lambda leaf: leaf[None], problem.params)
        y, state, alone = problem.params, jax.vmap(tx.init)(x), adamw.init(problem.params)

        def step(x, state, n):
            grad_fn = lambda y, i: problem.grad(y, n * H + i)  # noqa: E731
            updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
            return optax.apply_updates(x, updates), state

        step = jax.jit(jax.vmap(step, in_axes=(0, 0, None), axis_name="r"))
        for n in range(3):
            x, state = step(x, state, n)
            for i in range(H):
                updates, alone = adamw.update(problem.grad(y, n * H + i), alone, y)
                y = optax.apply_updates(y, updates)
            assert_close(x, jax.tree.map(lambda leaf: leaf[None], y), 1e-13)


class TestKeptInnerState:
    """`local_entropy(reset_inner=False)`, on both faces."""

    def tx(self, stepwise, reset_inner=False):
        relaxation = entropix.local_entropy(
            0.7, num_steps=3, inner=optax.trace(0.9), temperature=0, reset_inner=reset_inner
        )
        if stepwise:
            return entropix.stepwise(relaxation, optax.sgd(0.1))
        return optax.chain(entropix.relax(relaxation), optax.sgd(0.1))

    def walk(self, tx, problem, stepwise, outer_steps=4):
        x = problem.params
        state, update = tx.init(x), jax.jit(tx.update, static_argnames="grad_fn")
        for n in range(outer_steps):
            grad_fn = jax.tree_util.Partial(lambda n, y, i: problem.grad(y, 3 * n + i), n)
            if not stepwise:
                updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
                x = optax.apply_updates(x, updates)
            else:
                for i in range(3):
                    updates, state = update(grad_fn(x, i), state, x)
                    x = optax.apply_updates(x, updates)
        return entropix.eval_params(state, x), state

    def test_faces_agree_and_differ_from_resetting(self, x64, regression, assert_close):
        problem = regression(14, jnp.float64)
        kept, _ = self.walk(self.tx(False), problem, False)
        spread, _ = self.walk(self.tx(True), problem, True)
        assert_close(spread, kept, 1e-13)
        reset, _ = self.walk(self.tx(False, reset_inner=True), problem, False)
        assert optax.tree.norm(optax.tree.sub(kept, reset)) > 1e-3

    def test_the_state_is_held_once(self, regression):
        # During a stepwise outer step the chain has it, and the outer state does not.
        problem = regression(15)
        state = self.tx(True).init(problem.params)
        assert state.inner.outer.inner_memory is None
        assert jax.tree.leaves(state.inner.inner_state)
        scanned = self.tx(False).init(problem.params)
        assert optax.tree.get(scanned, "inner_memory") is not None
        assert optax.tree.get(self.tx(False, True).init(problem.params), "inner_memory") is None
