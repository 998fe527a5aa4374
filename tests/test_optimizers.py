"""The aliases: chains of known links, the paper's constants, and the authors' own variant."""

import functools
import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix
from entropix.transforms.keys import step_key
from entropix.transforms.random import noise_like


def slope(x, count):
    """A gradient for every element by itself, so that replicas compute it alike."""
    return jax.tree.map(lambda x: jnp.sin(2 * x) + 0.1 * x * (1 + count % 3) - 0.3, x)


def random_tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(rng.normal(size=(5, 3)), dtype),
        "b": [jnp.asarray(rng.normal(size=7), dtype), jnp.asarray(rng.normal(), dtype)],
    }


def assert_close(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


class TestMomentum:
    @pytest.mark.parametrize("momentum", [None, 0.0, 0.5, 0.9, 0.99])
    def test_is_nesterovs_two_sequences(self, momentum):
        # Section 7.4: z <- x - eta grad, x <- z + delta (z - z_old).
        with jax.enable_x64(True):
            tx, eta, delta = entropix.sgd(0.07, momentum), 0.07, momentum or 0.0
            x = random_tree(0, jnp.float64)
            update, state = jax.jit(tx.update), tx.init(x)
            z = w = jax.tree.map(np.asarray, x)
            for count in range(30):
                updates, state = update(slope(x, count), state, x)
                x = optax.apply_updates(x, updates)
                z_old = z
                z = jax.tree.map(lambda w, g: w - eta * np.asarray(g), w, slope(w, count))
                w = jax.tree.map(lambda z, old: z + delta * (z - old), z, z_old)
                assert_close(x, w, 1e-12)

    def test_none_keeps_no_buffer(self):
        x = random_tree(0)
        assert jax.tree.leaves(entropix.sgd(0.1, None).init(x)) == []
        assert len(jax.tree.leaves(entropix.sgd(0.1).init(x))) == 3


class TestElasticReduction:
    """Identity 6: replicas that start together on the same data are SGD.

    To the bit among themselves; against SGD up to what compilers make of one rounding, since the
    two are different programs (of JAX 0.12, an ulp apart).
    """

    @pytest.mark.parametrize("p", [1, 2, 3, 5, 8])
    @pytest.mark.parametrize("momentum", [None, 0.9])
    def test_same_gradients(self, p, momentum):
        tx = entropix.elastic_sgd(0.05, 0.01, "r", momentum=momentum)
        sgd = entropix.sgd(0.05, momentum)
        alone = jax.jit(functools.partial(self.step, sgd))
        together = jax.jit(
            jax.vmap(functools.partial(self.step, tx), in_axes=(0, 0, None), axis_name="r")
        )
        x = random_tree(p)
        replicas = jax.tree.map(lambda leaf: jnp.stack([leaf] * p), x)
        state, states = sgd.init(x), jax.vmap(tx.init)(replicas)
        for count in range(20):
            grads = random_tree(100 + count)
            x, state = alone(x, state, grads)
            replicas, states = together(replicas, states, grads)
            for leaf, copies in zip(jax.tree.leaves(x), jax.tree.leaves(replicas), strict=True):
                np.testing.assert_array_equal(copies, jnp.stack([copies[0]] * p))
                np.testing.assert_allclose(copies[0], leaf, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("p", [1, 2, 3, 5, 8])
    def test_same_loss(self, p):
        # Both under vmap: XLA may round a scalar's gradient differently inside a vector.
        results = []
        for tx in (entropix.elastic_sgd(0.05, 0.01, "r"), entropix.sgd(0.05)):
            x = jax.tree.map(lambda leaf: jnp.stack([leaf] * p), random_tree(p))
            states = jax.vmap(tx.init)(x)

            def step(x, state, count, tx=tx):
                return self.step(tx, x, state, slope(x, count))

            step = jax.jit(jax.vmap(step, in_axes=(0, 0, None), axis_name="r"))
            for count in range(20):
                x, states = step(x, states, count)
            results.append(x)
        chex.assert_trees_all_equal(*results)

    def step(self, tx, x, state, grads):
        updates, state = tx.update(grads, state, x)
        return optax.apply_updates(x, updates), state


FACES = {
    "entropy": lambda **kw: entropix.entropy_sgd(0.1, 0.5, num_steps=3, temperature=0.01, **kw),
    "entropy_scoped": lambda **kw: entropix.entropy_sgd(
        0.5, entropix.scoping(0.5, 0.1), num_steps=3, output="displacement",
        inner=optax.trace(0.9, nesterov=True), step_size=0.02, **kw,
    ),
    "hj": lambda **kw: entropix.hj_sgd(0.1, 0.5, num_steps=3, **kw),
    "hj_gradient": lambda **kw: entropix.hj_sgd(0.1, 0.5, num_steps=3, form="gradient", **kw),
    "heat": lambda **kw: entropix.heat_sgd(0.1, 0.5, num_steps=3, temperature=0, **kw),
    "parle": lambda **kw: entropix.parle(
        0.1, 0.5, 2.0, "r", num_steps=3, temperature=0.01, period=2, **kw
    ),
    "diloco": lambda **kw: entropix.diloco(0.7, "r", num_steps=3, step_size=0.01, **kw),
}  # fmt: skip


class TestFaces:
    @pytest.mark.parametrize("name", FACES)
    @pytest.mark.parametrize("momentum", [None, 0.9])
    def test_agree(self, name, momentum):
        scan = FACES[name](momentum=momentum)
        step = FACES[name](momentum=momentum, stepwise=True)
        x = y = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), random_tree(1))
        scan_state, step_state = jax.vmap(scan.init)(x), jax.vmap(step.init)(y)
        over = functools.partial(jax.vmap, axis_name="r")
        scan_update = jax.jit(over(lambda g, s, x: scan.update(g, s, x, grad_fn=slope)))
        step_update = jax.jit(over(step.update))
        for _ in range(4):
            updates, scan_state = scan_update(slope(x, 0), scan_state, x)
            x = optax.apply_updates(x, updates)
            for i in range(3):
                updates, step_state = step_update(slope(y, i), step_state, y)
                y = optax.apply_updates(y, updates)
            assert_close(entropix.eval_params(step_state, y), x, 3e-6)


PAIRS = {
    "entropy_sgd": (
        lambda: entropix.entropy_sgd(
            0.1, 0.7, momentum=0.8, num_steps=4, step_size=0.03, inner=optax.scale_by_adam(),
            averaging=0.4, temperature=0.2, noise="normal", output="displacement", key=5,
        ),
        lambda: optax.chain(
            entropix.relax(entropix.local_entropy(
                0.7, num_steps=4, step_size=0.03, inner=optax.scale_by_adam(), averaging=0.4,
                temperature=0.2, noise="normal", output="displacement", key=5,
            )),
            optax.sgd(0.1, 0.8, nesterov=True),
        ),
    ),
    "hj_sgd": (
        lambda: entropix.hj_sgd(
            0.1, 0.7, momentum=None, num_steps=4, step_size=0.03, inner=optax.trace(0.5),
            form="gradient", output="displacement",
        ),
        lambda: optax.chain(
            entropix.relax(entropix.hamilton_jacobi(
                0.7, num_steps=4, step_size=0.03, inner=optax.trace(0.5), form="gradient",
                output="displacement",
            )),
            optax.sgd(0.1),
        ),
    ),
    "parle": (
        lambda: entropix.parle(
            0.1, 0.7, 2.0, "r", momentum=0.8, num_steps=4, step_size=0.03,
            inner=optax.trace(0.9), averaging=0.4, temperature=0.2, output="displacement", key=5,
            period=2,
        ),
        lambda: optax.chain(
            entropix.relax(entropix.local_entropy(
                0.7, num_steps=4, step_size=0.03, inner=optax.trace(0.9), averaging=0.4,
                temperature=0.2, output="displacement", key=5, axis_name="r",
            )),
            entropix.elastic_coupling(2.0, "r", period=2),
            optax.sgd(0.1, 0.8, nesterov=True),
        ),
    ),
    "easgd": (
        lambda: entropix.easgd(0.1, "r", momentum=0.8, period=2, moving_rate=0.7),
        lambda: optax.chain(
            optax.sgd(0.1, 0.8, nesterov=True), entropix.elastic_averaging(0.7, "r", period=2)
        ),
    ),
    "diloco": (
        lambda: entropix.diloco(0.1, "r", momentum=0.8, num_steps=4, step_size=0.03),
        lambda: optax.chain(
            entropix.relax(entropix.local_entropy(
                float("inf"), num_steps=4, step_size=0.03,
                inner=optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1)),
                averaging=0, temperature=0, output="displacement", reset_inner=False,
            )),
            entropix.average_updates("r"),
            optax.sgd(0.1, 0.8, nesterov=True),
        ),
    ),
    "heat_sgd": (
        lambda: entropix.heat_sgd(0.1, 0.7, num_steps=4, temperature=0.3, key=6),
        lambda: optax.chain(
            entropix.relax(entropix.heat(0.7, num_steps=4, temperature=0.3, key=6)),
            optax.sgd(0.1, 0.9, nesterov=True),
        ),
    ),
}  # fmt: skip


class TestAliases:
    """Every alias is the chain its docstring names."""

    @pytest.mark.parametrize("name", PAIRS)
    def test_is_its_chain(self, name):
        results = []
        for make in PAIRS[name]:
            tx = make()
            x = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1, leaf - 3]), random_tree(2))
            update = jax.vmap(functools.partial(tx.update, grad_fn=slope), axis_name="r")
            update, state = jax.jit(update), jax.vmap(tx.init)(x)
            for _ in range(3):
                updates, state = update(slope(x, 0), state, x)
                x = optax.apply_updates(x, updates)
            results.append(x)
        chex.assert_trees_all_equal(*results)

    def test_axis_name_reaches_the_noise(self):
        for make in (entropix.entropy_sgd, entropix.heat_sgd):
            tx = make(0.1, 1.0, num_steps=2, temperature=1.0, axis_name="r")
            x = jnp.zeros((2, 5))
            states = jax.vmap(tx.init)(x)
            update = functools.partial(tx.update, grad_fn=lambda p, i: p)
            updates, _ = jax.vmap(update, axis_name="r")(x, states, x)
            assert np.abs(updates[0] - updates[1]).min() > 1e-4

    def test_defaults_are_the_papers(self):
        expected = {  # section 7, and T = 1e-8 of the authors' code
            entropix.entropy_sgd: {
                "num_steps": 20, "step_size": 0.1, "averaging": 0.75, "temperature": 1e-8,
                "momentum": 0.9, "output": "gradient",
            },
            entropix.hj_sgd: {"num_steps": 5, "step_size": 0.1, "momentum": 0.9},
            entropix.heat_sgd: {"num_steps": 20, "momentum": 0.9},
            entropix.elastic_sgd: {"momentum": 0.9, "period": 1},
            entropix.parle: {
                "num_steps": 20, "step_size": 0.1, "averaging": 0.75, "temperature": 1e-8,
                "momentum": 0.9, "output": "gradient", "period": 1,
            },
            entropix.easgd: {"momentum": 0.9, "period": 10, "moving_rate": 0.9},
            entropix.diloco: {"momentum": 0.9, "num_steps": 500, "step_size": 4e-4},
            entropix.sgd: {"momentum": 0.9},
        }  # fmt: skip
        for alias, constants in expected.items():
            parameters = inspect.signature(alias).parameters
            assert {name: parameters[name].default for name in constants} == constants

    def test_defaults_agree_with_the_relaxations(self):
        pairs = (
            (entropix.entropy_sgd, entropix.local_entropy),
            (entropix.hj_sgd, entropix.hamilton_jacobi),
            (entropix.heat_sgd, entropix.heat),
            (entropix.elastic_sgd, entropix.elastic_coupling),
            (entropix.parle, entropix.local_entropy),
            (entropix.parle, entropix.elastic_coupling),
        )
        fixed = {"reset_inner"}  # by the algorithm's definition
        for alias, link in pairs:
            ours = inspect.signature(alias).parameters
            for name, parameter in inspect.signature(link).parameters.items():
                required = name in ours and ours[name].default is inspect.Parameter.empty
                if name in fixed or required:
                    continue
                assert ours[name].default == parameter.default, (alias, name)


class TestAuthorsVariant:
    """Nesterov inside (its buffer reset), a growing force, the displacement, Nesterov outside."""

    g0, g1, eta, alpha, L = 0.03, 0.1, 0.05, 0.75, 6

    def in_numpy(self, x, temperature, rates, key):
        """x after every outer step, written from the description alone."""
        outer_buffer = jax.tree.map(np.zeros_like, x)
        for outer, rate in enumerate(rates):
            force = self.g0 * (1 + self.g1) ** outer
            y = mean = x
            buffer = jax.tree.map(np.zeros_like, x)
            for i in range(self.L):
                grads = jax.tree.map(np.asarray, slope(y, outer * self.L + i))
                buffer = jax.tree.map(lambda b, g: 0.9 * b + g, buffer, grads)
                noise = noise_like(step_key(jax.random.key(key), outer, i), x)
                y = jax.tree.map(
                    lambda y, x, g, b, e, c=force: y - self.eta * (g + 0.9 * b + c * (y - x))
                    + np.sqrt(2 * self.eta * temperature) * np.asarray(e),
                    y, x, grads, buffer, noise,
                )  # fmt: skip
                mean = jax.tree.map(lambda m, y: self.alpha * m + (1 - self.alpha) * y, mean, y)
            displacement = jax.tree.map(lambda x, m: x - m, x, mean)
            outer_buffer = jax.tree.map(lambda b, d: 0.9 * b + d, outer_buffer, displacement)
            x = jax.tree.map(
                lambda x, d, b, rate=rate: x - rate * (d + 0.9 * b), x, displacement, outer_buffer
            )
            yield x

    @pytest.mark.parametrize("stepwise", [False, True])
    @pytest.mark.parametrize("temperature", [0.0, 1e-8, 0.5])
    def test_is_one_composition(self, stepwise, temperature):
        rates = [1.0, 1.0, 0.1, 0.1, 0.01]
        with jax.enable_x64(True):
            tx = entropix.entropy_sgd(
                lambda count: jnp.asarray(rates)[count],
                gamma=entropix.scoping(1 / self.g0, rate=self.g1 / (1 + self.g1)),
                num_steps=self.L,
                step_size=self.eta,
                inner=optax.trace(0.9, nesterov=True),
                averaging=self.alpha,
                temperature=temperature,
                noise="normal",
                output="displacement",
                key=7,
                stepwise=stepwise,
            )
            x = random_tree(3, jnp.float64)
            run = self.spread if stepwise else self.scanned
            expected = self.in_numpy(jax.tree.map(np.asarray, x), temperature, rates, key=7)
            for actual, twin in zip(run(tx, x, len(rates)), expected, strict=True):
                assert_close(actual, twin, 1e-13)

    def scanned(self, tx, x, outer_steps):
        @jax.jit
        def step(x, state, outer):
            grad_fn = lambda y, i: slope(y, outer * self.L + i)  # noqa: E731
            updates, state = tx.update(grad_fn(x, 0), state, x, grad_fn=grad_fn)
            return optax.apply_updates(x, updates), state

        state = tx.init(x)
        for outer in range(outer_steps):
            x, state = step(x, state, outer)
            yield x

    def spread(self, tx, x, outer_steps):
        update, state = jax.jit(tx.update), tx.init(x)
        for count in range(outer_steps * self.L):
            updates, state = update(slope(x, count), state, x)
            x = optax.apply_updates(x, updates)
            if (count + 1) % self.L == 0:
                yield entropix.eval_params(state, x)


def test_gradients_of_whole_numbers_move_the_parameters():
    w, g = jnp.ones(2), jnp.asarray([1, 2])
    plain = entropix.sgd(0.1)
    np.testing.assert_allclose(plain.update(g, plain.init(w), w)[0], [-0.19, -0.38], rtol=1e-6)
    for tx in (
        entropix.elastic_sgd(0.1, 1.0, "r"), entropix.elastic_sgd(0.1, 1.0, "r", period=2),
        entropix.easgd(0.1, "r"),
    ):  # fmt: skip
        update = jax.vmap(tx.update, axis_name="r", axis_size=2, in_axes=None)
        found = update(g, tx.init(w), w)[0]
        np.testing.assert_allclose(found, [[-0.19, -0.38]] * 2, rtol=1e-5)


def test_sgd_moves_parameters_in_their_precision():
    """Gradients in bfloat16 are common beside parameters in float32."""
    w, grads = jnp.ones(3), jnp.asarray([1.0, 0.3, -2.0], jnp.bfloat16)
    ours, theirs = entropix.sgd(0.1), optax.sgd(0.1, 0.9, nesterov=True)
    found, _ = ours.update(grads, ours.init(w), w)
    expected, _ = theirs.update(grads.astype(jnp.float32), theirs.init(w), w)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("make", [entropix.entropy_sgd, entropix.heat_sgd])
def test_replicas_on_a_named_axis_move_x_together(make):
    """One number decides whether x moves: a conditional stays one under `vmap`."""
    tx = make(0.1, 1.0, stepwise=True, axis_name="r")
    x = jnp.ones((2, 3))
    update = jax.vmap(tx.update, axis_name="r")
    program = jax.make_jaxpr(update)(x, jax.vmap(tx.init)(x), x)
    assert "cond[" in str(program)
