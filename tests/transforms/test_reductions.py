"""Degenerate settings equal the simpler method: SGD, Lookahead, extragradient, larger batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix

INNERS = {
    "sgd": optax.identity(),
    "nesterov": optax.trace(0.9, nesterov=True),
    "adam": optax.scale_by_adam(),
    "clipped_adamw": optax.chain(
        optax.clip_by_global_norm(0.5), optax.scale_by_adam(), optax.add_decayed_weights(0.1)
    ),
}


def free_relaxation(L, inner, step_size=0.05):
    """Local entropy without pull, noise and average: what is left is the inner optimiser."""
    return entropix.local_entropy(
        float("inf"), num_steps=L, step_size=step_size, inner=inner, averaging=0, temperature=0,
        output="displacement",
    )  # fmt: skip


def run_inner_optimizer(inner, step_size, params, grad_fn, steps):
    """`steps` steps of an Optax optimiser made of `inner` and its learning rate."""
    tx = optax.chain(inner, optax.scale(-step_size))
    state = tx.init(params)
    for i in steps:
        updates, state = tx.update(grad_fn(params, i), state, params)
        params = optax.apply_updates(params, updates)
    return params


class TestInfiniteScope:
    """Identity 4: gamma = inf, T = 0, alpha = 0, displacement."""

    @pytest.mark.parametrize("name", INNERS)
    @pytest.mark.parametrize("L", [1, 6])
    def test_one_outer_step_is_that_many_inner_steps(self, x64, regression, assert_close, name, L):
        problem = regression(seed=2, dtype=jnp.float64)
        tx = optax.chain(entropix.relax(free_relaxation(L, INNERS[name])), optax.sgd(1.0))
        params = problem.params
        updates, _ = tx.update(
            problem.grad(params, 0), tx.init(params), params, grad_fn=problem.grad
        )
        expected = run_inner_optimizer(INNERS[name], 0.05, params, problem.grad, range(L))
        assert_close(optax.apply_updates(params, updates), expected, 1e-15)

    @pytest.mark.parametrize("name", INNERS)
    @pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
    def test_outer_rate_below_one_is_lookahead(self, x64, regression, assert_close, name, rate):
        problem, L = regression(seed=3, dtype=jnp.float64), 4
        tx = entropix.stepwise(free_relaxation(L, INNERS[name]), optax.sgd(rate))
        update = jax.jit(tx.update)
        params, slow = problem.params, problem.params
        state = tx.init(params)
        for outer in range(3):
            fast = run_inner_optimizer(
                INNERS[name], 0.05, slow, problem.grad, range(outer * L, (outer + 1) * L)
            )
            slow = jax.tree.map(lambda s, f: s + rate * (f - s), slow, fast)
            for i in range(outer * L, (outer + 1) * L):
                updates, state = update(problem.grad(params, i), state, params)
                params = optax.apply_updates(params, updates)
            assert_close(entropix.eval_params(state, params), slow, 1e-14)

    @pytest.mark.parametrize("name", ["sgd", "nesterov", "adam"])
    def test_lookahead_is_optaxs(self, x64, regression, assert_close, name):
        problem, L, rate = regression(seed=4, dtype=jnp.float64), 5, 0.5
        ours = entropix.stepwise(free_relaxation(L, INNERS[name]), optax.sgd(rate))
        theirs = optax.lookahead(
            optax.chain(INNERS[name], optax.scale(-0.05)), L, rate, reset_state=True
        )
        y, pair = problem.params, optax.LookaheadParams.init_synced(problem.params)
        our_state, their_state = ours.init(y), theirs.init(pair)
        our_update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
        for i in range(2 * L + 2):
            updates, our_state = our_update(problem.grad(y, i), our_state, y)
            y = optax.apply_updates(y, updates)
            updates, their_state = their_update(problem.grad(pair.fast, i), their_state, pair)
            pair = optax.apply_updates(pair, updates)
            assert_close(y, pair.fast, 1e-14)
            assert_close(entropix.eval_params(our_state, y), pair.slow, 1e-14)

    def test_gradient_form_of_two_steps_is_extragradient(self, x64, regression, assert_close):
        problem = regression(seed=5, dtype=jnp.float64)
        relaxation = entropix.hamilton_jacobi(
            float("inf"), num_steps=2, step_size=0.05, form="gradient"
        )
        x = problem.params
        relaxed, _ = entropix.relaxed_grad(relaxation, problem.grad)(x, relaxation.init(x))
        ahead = optax.tree.add_scale(x, -0.05, problem.grad(x, 0))
        assert_close(relaxed, problem.grad(ahead, 1), 1e-14)


class TestOneStep:
    """Identity 5 and its relatives: L = 1 with the first gradient at x."""

    @pytest.mark.parametrize("averaging", [0.0, 0.5, 0.75])
    @pytest.mark.parametrize("gamma", [0.1, 1.0, float("inf")])
    def test_displacement_is_scaled_gradient(self, x64, regression, assert_close, averaging, gamma):
        problem = regression(seed=6, dtype=jnp.float64)
        tx = entropix.relax(
            entropix.local_entropy(
                gamma, num_steps=1, step_size=0.07, averaging=averaging, temperature=0,
                output="displacement",
            )
        )  # fmt: skip
        x = problem.params
        grads = problem.grad(x, 0)
        displacement, _ = tx.update(grads, tx.init(x), x, grad_fn=problem.grad)
        assert_close(displacement, optax.tree.scale((1 - averaging) * 0.07, grads), 1e-15)

    @pytest.mark.parametrize(
        "relaxation",
        [
            entropix.hamilton_jacobi(0.3, num_steps=1, form="gradient"),
            entropix.heat(0.3, num_steps=1, temperature=0),
        ],
        ids=["hj_gradient", "heat"],
    )
    def test_gradient_is_left_alone(self, regression, relaxation):
        problem = regression(seed=7)
        x = problem.params
        tx = entropix.relax(relaxation)
        relaxed, _ = tx.update(problem.grad(x, 0), tx.init(x), x, grad_fn=problem.grad)
        jax.tree.map(np.testing.assert_array_equal, relaxed, problem.grad(x, 0))


class TestColdHeat:
    """HEAT at T = 0: L mini-batch gradients at x, that is one larger batch."""

    def test_is_the_mean_of_minibatch_gradients(self, x64, regression, assert_close):
        problem = regression(seed=8, dtype=jnp.float64)
        x = problem.params
        for L in (2, 7):
            relaxation = entropix.heat(2.0, num_steps=L, temperature=0)
            relaxed, _ = entropix.relaxed_grad(relaxation, problem.grad)(x, relaxation.init(x))
            grads = [problem.grad(x, i) for i in range(L)]
            assert_close(relaxed, jax.tree.map(lambda *g: np.mean(g, axis=0), *grads), 1e-15)

    def test_is_the_gradient_of_the_larger_batch(self, x64, regression, assert_close):
        problem = regression(seed=9, dtype=jnp.float64)
        tx = entropix.relax(entropix.heat(2.0, num_steps=11, temperature=0))
        x = problem.params
        relaxed, _ = tx.update(problem.grad(x, 0), tx.init(x), x, grad_fn=problem.grad)
        assert_close(relaxed, problem.full_grad(x), 1e-15)


class TestSmallScope:
    """Identity 7: as gamma -> 0 the relaxed gradient tends to the gradient, at a known rate."""

    def errors(self, make, problem, target, scopes):
        @jax.jit
        def error(gamma):
            relaxation = make(gamma)
            fn = entropix.relaxed_grad(relaxation, lambda p, i: problem.grad(p, 0))
            relaxed, _ = fn(problem.params, relaxation.init(problem.params))
            return optax.tree.norm(optax.tree.sub(relaxed, target))

        return [float(error(gamma)) for gamma in scopes]

    @pytest.mark.parametrize(
        ("relaxation", "order"),
        [("local_entropy", 1), ("proximal", 1), ("gradient", 1), ("heat", 0.5)],
    )
    def test_tends_to_the_gradient(self, x64, regression, relaxation, order):
        make = {
            "local_entropy": lambda g: entropix.local_entropy(
                g, num_steps=200, step_size=g / 2, temperature=0
            ),
            "proximal": lambda g: entropix.hamilton_jacobi(g, num_steps=80, step_size=g / 2),
            "gradient": lambda g: entropix.hamilton_jacobi(
                g, num_steps=80, step_size=g / 2, form="gradient"
            ),
            # With few points the width sqrt(gamma T) is the error, not its square.
            "heat": lambda g: entropix.heat(g, num_steps=5, temperature=1.0),
        }[relaxation]
        problem = regression(seed=10, dtype=jnp.float64)
        scopes = [1e-3, 1e-4, 1e-5, 1e-6]
        errors = self.errors(make, problem, problem.grad(problem.params, 0), scopes)
        slope, _ = np.polyfit(np.log(scopes), np.log(errors), 1)
        assert abs(slope - order) < 0.03
        assert errors[-1] < 1e-2

    def test_momentum_inside_multiplies_the_gradient(self, x64, regression):
        # What the docstring warns of: with another inner than the identity the chain settles
        # where momentum's 1/(1 - mu) times the gradient balances the pull.
        problem = regression(seed=10, dtype=jnp.float64)
        make = lambda g: entropix.hamilton_jacobi(  # noqa: E731
            g, num_steps=200, step_size=g / 2, inner=optax.trace(0.5, nesterov=True)
        )
        target = optax.tree.scale(2.0, problem.grad(problem.params, 0))
        errors = self.errors(make, problem, target, [1e-4, 1e-6])
        assert errors[0] < 0.02
        assert abs(errors[0] / errors[1] - 100) < 3
