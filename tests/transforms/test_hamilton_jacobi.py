"""Hamilton-Jacobi: both forms against NumPy, the proximal point, and closed-form curvatures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import entropix
from entropix.transforms.hamilton_jacobi import displacement_step

FORMS = ["proximal", "gradient"]


def relaxed(relaxation, grad_fn, x):
    return jax.jit(entropix.relaxed_grad(relaxation, grad_fn))(x, relaxation.init(x))[0]


class TestNumpyTwin:
    """(33) and (34) written out, with a mini-batch for every gradient."""

    @pytest.mark.parametrize("output", ["gradient", "displacement"])
    @pytest.mark.parametrize("L", [1, 2, 9])
    def test_gradient_form(self, x64, regression, assert_close, output, L):
        problem, gamma, eta = regression(seed=1, dtype=jnp.float64), 0.6, 0.08
        x = problem.params
        relaxation = entropix.hamilton_jacobi(
            gamma, num_steps=L, step_size=eta, form="gradient", output=output
        )
        y = jax.tree.map(lambda x: np.zeros(x.shape), x)
        for i in range(L - 1):  # L - 1 gradients move y, the L-th is the result
            grads = problem.grad(optax.tree.sub(x, y), i)
            y = jax.tree.map(lambda y, g: y - eta * (y / gamma - np.asarray(g)), y, grads)
        expected = problem.grad(optax.tree.sub(x, y), L - 1)
        expected = optax.tree.scale(gamma if output == "displacement" else 1.0, expected)
        assert_close(relaxed(relaxation, problem.grad, x), expected, 1e-14)

    @pytest.mark.parametrize("output", ["gradient", "displacement"])
    @pytest.mark.parametrize("L", [1, 5])
    def test_proximal_form(self, x64, regression, assert_close, output, L):
        problem, gamma, eta = regression(seed=2, dtype=jnp.float64), 0.6, 0.08
        x = y = problem.params
        relaxation = entropix.hamilton_jacobi(gamma, num_steps=L, step_size=eta, output=output)
        for i in range(L):
            grads = problem.grad(y, i)
            y = jax.tree.map(lambda y, x, g: y - eta * (g + (y - x) / gamma), y, x, grads)
        expected = jax.tree.map(lambda x, y: x - y, x, y)
        expected = optax.tree.scale(1 / gamma if output == "gradient" else 1.0, expected)
        assert_close(relaxed(relaxation, problem.grad, x), expected, 1e-14)

    def test_inner_transformation_of_the_gradient_form_runs_at_x_minus_y(
        self, x64, regression, assert_close
    ):
        problem, gamma, eta, L = regression(seed=3, dtype=jnp.float64), 0.6, 0.08, 6
        inner = optax.chain(optax.add_decayed_weights(0.1), optax.trace(0.9, nesterov=True))
        relaxation = entropix.hamilton_jacobi(
            gamma, num_steps=L, step_size=eta, form="gradient", inner=inner
        )
        x = problem.params
        y = trace = jax.tree.map(lambda x: np.zeros(x.shape), x)
        for i in range(L - 1):
            point = optax.tree.sub(x, y)
            decayed = optax.tree.add_scale(problem.grad(point, i), 0.1, point)
            trace = jax.tree.map(lambda t, d: 0.9 * t + d, trace, decayed)
            direction = jax.tree.map(lambda t, d: 0.9 * t + d, trace, decayed)
            y = jax.tree.map(lambda y, d: y - eta * (y / gamma - d), y, direction)
        expected = problem.grad(optax.tree.sub(x, y), L - 1)
        assert_close(relaxed(relaxation, problem.grad, x), expected, 1e-14)

    def test_kernel(self, x64):
        y, d = np.random.default_rng(0).normal(size=(2, 5))
        stepped = displacement_step(jnp.asarray(y), jnp.asarray(d), 2.5, 0.3)
        np.testing.assert_allclose(stepped, y - 0.3 * (y / 2.5 - d), rtol=1e-15, atol=1e-15)

    @pytest.mark.parametrize("form", FORMS)
    def test_state_has_no_key_and_counts_outer_steps(self, form):
        relaxation = entropix.hamilton_jacobi(1.0, form=form)
        x = jnp.ones(2)
        state = relaxation.init(x)
        assert state.key is None
        _, state = entropix.relaxed_grad(relaxation, lambda p, i: p)(x, state)
        assert int(state.outer_count) == 1


class TestProximalPoint:
    """Lemmas 2 and 3: both forms tend to (x - p)/gamma = grad f(p) at the proximal point p."""

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_forms_agree_in_the_limit(self, x64, seed):
        # A random sum of cosines; gamma is half the bound of Remark 6 on -1/min eig D^2 f.
        rng = np.random.default_rng(seed)
        waves, phases, heights = rng.normal(size=(9, 4)), rng.normal(size=9), rng.normal(size=9)
        f = lambda x: heights @ jnp.cos(waves @ x + phases)  # noqa: E731
        grad_fn = lambda x, i: jax.grad(f)(x)  # noqa: E731
        bound = np.linalg.norm(waves.T @ np.diag(np.abs(heights)) @ waves, 2)
        gamma = 0.5 / bound
        x = jnp.asarray(rng.normal(size=4))
        slopes = [
            relaxed(
                entropix.hamilton_jacobi(gamma, num_steps=300, step_size=gamma / 2, form=form),
                grad_fn, x,
            )
            for form in FORMS
        ]  # fmt: skip
        np.testing.assert_allclose(slopes[0], slopes[1], rtol=0, atol=1e-12)
        proximal_point = x - gamma * slopes[0]
        np.testing.assert_allclose(slopes[0], grad_fn(proximal_point, 0), rtol=0, atol=1e-12)
        assert np.linalg.norm(slopes[0] - grad_fn(x, 0)) > 0.05  # the limit is another gradient

    @pytest.mark.parametrize("form", FORMS)
    def test_derivative_of_the_hopf_lax_formula(self, x64, form):
        # Brute force: u(x) = min_y f(y) + (x - y)^2/(2 gamma) on a grid, differenced in x.
        f = lambda y: y**4 / 4 - y**2 / 2 + y / 3 + y**3 / 5  # noqa: E731
        gamma, h, y = 0.5, 1e-3, np.linspace(-4, 4, 800_001)
        u = lambda x: np.min(f(y) + (x - y) ** 2 / (2 * gamma))  # noqa: E731
        relaxation = entropix.hamilton_jacobi(gamma, num_steps=3000, step_size=0.02, form=form)
        for x in (-1.3, -0.2, 0.6, 1.7):
            slope = relaxed(relaxation, lambda y, i: jax.grad(f)(y), jnp.asarray(x))
            difference = (u(x + h) - u(x - h)) / (2 * h)
            np.testing.assert_allclose(slope, difference, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_gradient_form_contracts_like_a_matrix_power(self, x64, quadratic, points, seed):
        f = quadratic(seed, 4, -0.5, 3.0)
        gamma, eta, L = 1.1, 0.3, 15
        x = np.random.default_rng(seed).normal(size=4)
        relaxation = entropix.hamilton_jacobi(gamma, num_steps=L, step_size=eta, form="gradient")
        slope, seen = points(relaxation, f.grad)(jnp.asarray(x))
        goal = x - f.mean(x, gamma)
        factor = np.eye(4) - eta * f.pulled(gamma)
        y = [goal - np.linalg.matrix_power(factor, n) @ goal for n in range(L)]
        np.testing.assert_allclose(seen, x - np.asarray(y), rtol=0, atol=1e-12)
        np.testing.assert_allclose(slope, f.grad(x - y[-1]), rtol=0, atol=1e-12)


class TestCurvature:
    """Examples 13 and 14: what each relaxation makes of the curvature c at time t = gamma."""

    @pytest.mark.parametrize("c", [0.5, 3.0, 20.0])
    @pytest.mark.parametrize("t", [0.1, 1.0, 5.0])
    @pytest.mark.parametrize("name", ["proximal", "gradient", "local_entropy"])
    def test_hamilton_jacobi_flattens_a_parabola(self, x64, name, c, t):
        step_size = 1 / (c + 1 / t)
        if name == "local_entropy":
            relaxation = entropix.local_entropy(t, num_steps=90, step_size=step_size, temperature=0)
        else:
            relaxation = entropix.hamilton_jacobi(t, num_steps=90, step_size=step_size, form=name)
        x = jnp.asarray([1.0, -2.0])
        slope = relaxed(relaxation, lambda y, i: c * y, x)
        np.testing.assert_allclose(slope, c / (1 + c * t) * x, rtol=1e-10)

    def test_viscosity_leaves_that_curvature_alone(self):
        # Example 13 holds for every beta: noise moves single chains, not their mean.
        c, t, chains = 3.0, 0.5, 40_000
        relaxation = entropix.local_entropy(t, num_steps=60, step_size=0.1, temperature=0.5)
        slope = relaxed(relaxation, lambda y, i: c * y, jnp.full(chains, 2.0))
        error = float(slope.std()) / chains**0.5
        assert abs(float(slope.mean()) - c / (1 + c * t) * 2.0) < 4 * error
        assert error < 0.01

    def test_heat_leaves_a_parabola_alone(self):
        c, chains = 3.0, 40_000
        relaxation = entropix.heat(0.5, num_steps=10, temperature=0.5)
        slope = relaxed(relaxation, lambda y, i: c * y, jnp.full(chains, 2.0))
        error = float(slope.std()) / chains**0.5
        assert abs(float(slope.mean()) - c * 2.0) < 4 * error
        assert error < 0.01
