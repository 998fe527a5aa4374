"""Simulated paths: closed-form moments, orders of both methods, noise of every shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix import pde
from entropix.pde import estimate, simulate

KEY = jax.random.key(0)


def run(drift, start, **options):
    settings = {"sigma": 0.5, "horizon": 1.0, "num_steps": 20} | options
    return np.asarray(simulate(drift, start, KEY, **settings))


class TestScheme:
    @pytest.mark.parametrize("method", ["heun", "euler"])
    def test_numpy_twin(self, method):
        x = np.linspace(-1, 1, 6).reshape(3, 2)
        paths = run(lambda x, s: jnp.sin(3 * x) - s, x, method=method, num_steps=6, num_saves=3)
        dt, b = 1 / 6, lambda x, s: np.sin(3 * x) - s
        for n in range(6):
            dw = 0.5 * dt**0.5 * np.asarray(jax.random.normal(jax.random.fold_in(KEY, n), (3, 2)))
            slope = b(x, n * dt)
            if method == "heun":
                slope = (slope + b(x + dt * slope + dw, (n + 1) * dt)) / 2
            x = x + dt * slope + dw
            if n % 2:
                np.testing.assert_allclose(paths[n // 2], x, rtol=0, atol=1e-14)

    @pytest.mark.parametrize(("method", "order"), [("heun", 2), ("euler", 1)])
    def test_weak_order(self, method, order):
        # A linear drift has linear moments: mean and variance of the scheme are exact recursions,
        # and the antithetic paths give the mean without any Monte-Carlo error.
        steps, errors = np.asarray([10, 20, 40, 80]), []
        for n in steps:
            x = run(lambda x, s: -2 * x, jnp.ones(2), num_steps=n, method=method, antithetic=True)
            errors.append(abs(x.mean() - np.exp(-2)))
        assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(-order, abs=0.1)

    @pytest.mark.parametrize("method", ["heun", "euler"])
    def test_strong_order_is_one(self, method):
        # Each path against its own, four times refined: noise sums must agree, so a refined
        # Brownian path is summed into the coarse one by hand.
        def solve(n, fine):
            dw = fine.reshape(n, -1, fine.shape[-1]).sum(axis=1)
            x, dt = np.zeros(fine.shape[-1]), 1 / n
            b = lambda x: np.sin(3 * x) + 1  # noqa: E731
            for w in dw:
                slope = b(x)
                if method == "heun":
                    slope = (slope + b(x + dt * slope + w)) / 2
                x = x + dt * slope + w
            return x

        fine = np.random.default_rng(0).normal(size=(4096, 400)) / 64
        truth = solve(4096, fine)
        steps = np.asarray([16, 32, 64, 128])
        errors = [np.sqrt(np.mean((solve(n, fine) - truth) ** 2)) for n in steps]
        assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(-1, abs=0.15)


class TestMoments:
    @pytest.mark.parametrize("point", [(), (2,)])
    def test_ornstein_uhlenbeck(self, point):
        x = run(lambda x, s: -x, jnp.ones((20_000, *point)), num_steps=50)[-1]
        mean, variance = np.exp(-1), 0.25 / 2 * (1 - np.exp(-2))
        for samples, truth in ((x, mean), ((x - mean) ** 2, variance)):
            got, error = estimate(samples)
            assert np.all(np.abs(got - truth) < 4 * error + 1e-4)  # 1e-4: the step's bias
            assert np.all(error < 3e-3)

    def test_stationary_variance_is_the_temperature(self):
        # dX = -X ds + sqrt(2T) dW has the Gibbs measure exp(-x^2/2T).
        x = run(lambda x, s: -x, jnp.zeros(20_000), sigma=0.6**0.5, horizon=8.0, num_steps=160)
        got, error = estimate(x[-1] ** 2)
        assert abs(got - 0.3) < 4 * error + 1e-3

    def test_time_dependence(self):
        x = run(lambda x, s: jnp.cos(s) + 0 * x, jnp.zeros(3), sigma=0.0, num_steps=100)
        np.testing.assert_allclose(x[-1], np.sin(1), rtol=0, atol=1e-4)


class TestNoise:
    still = staticmethod(lambda x, s: 0 * x)

    def test_vector_and_matrix(self):
        start = jnp.zeros((5000, 2))
        diagonal = run(self.still, start, sigma=jnp.asarray([0.5, 0.0]))[-1]
        assert diagonal[:, 1].tolist() == [0.0] * 5000
        shared = run(self.still, start, sigma=jnp.asarray([[0.5], [1.0]]))[-1]
        np.testing.assert_allclose(shared[:, 1], 2 * shared[:, 0], rtol=1e-13)
        sigma = np.asarray([[1.0, 0.0, 0.5], [0.3, 1.0, 0.0]])
        x = run(self.still, start, sigma=sigma)[-1]
        np.testing.assert_allclose(np.cov(x.T), sigma @ sigma.T, rtol=0, atol=0.08)

    def test_keys(self):
        start = jnp.zeros(8)
        a, b = (
            simulate(self.still, start, jax.random.key(k), sigma=1.0, horizon=1.0, num_steps=4)
            for k in (0, 1)
        )
        same = simulate(self.still, start, KEY, sigma=1.0, horizon=1.0, num_steps=4)
        np.testing.assert_array_equal(a, same)
        assert np.all(a != b)
        assert len(np.unique(a)) == 8

    def test_common_random_numbers(self):
        start = jnp.zeros(2000)
        x, y = (run(lambda x, s, c=c: c - x, start)[-1] for c in (0.0, 1.0))
        np.testing.assert_allclose(y - x, 1 - np.exp(-1), rtol=0, atol=1e-3)

    def test_antithetic_pairs(self):
        x = run(self.still, jnp.zeros(10), antithetic=True)[-1]
        np.testing.assert_allclose(x[:5], -x[5:], rtol=1e-14)
        assert np.all(x != 0)
        got, error = estimate(x, antithetic=True)
        assert abs(got) < 1e-15
        assert error < 1e-15


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"horizon": 0.0}, "horizon must be one number > 0 and finite; got horizon=0.0"),
            ({"num_steps": 2.5}, "num_steps must be an integer >= 1; got num_steps=2.5"),
            ({"num_saves": 3}, "num_steps must be a multiple of num_saves; got 20 and 3"),
            ({"method": "milstein"}, "method must be 'heun' or 'euler'; got method='milstein'"),
            ({"sigma": jnp.ones(2)}, "sigma must be a number.*got shape .2,. for points of shape"),
            ({"sigma": np.nan}, "sigma must be finite; got sigma with nan"),
            ({"antithetic": True}, "antithetic paths come in pairs; got 3 paths"),
        ],
    )
    def test_messages(self, options, message):
        with pytest.raises(ValueError, match=message):
            run(lambda x, s: -x, jnp.zeros(3), **options)

    @pytest.mark.parametrize(
        "drift", [lambda x, s: 0.0, lambda x, s: jnp.zeros(3), lambda x, s: [x]]
    )
    def test_a_drift_of_another_shape(self, drift):
        """Of two paths in the plane a number for each would be spread over the dimensions."""
        with pytest.raises(ValueError, match=r"drift must map a point of shape \(2,\), and a time"):
            run(drift, jnp.zeros((2, 2)))

    def test_start(self):
        with pytest.raises(ValueError, match=r"start must have shape \(paths, \*point\)"):
            run(lambda x, s: -x, 0.0)

    def test_single_precision(self):
        with jax.enable_x64(False), pytest.raises(ValueError, match="needs float64"):
            run(lambda x, s: -x, jnp.zeros(3))


def test_a_seed_is_a_key():
    for solve in (
        lambda key: pde.simulate(lambda x, s: -x, [1.0], key, sigma=1.0, horizon=1.0, num_steps=4),
        lambda key: pde.first_passage(lambda x: -1.0, [0.0], 1.0, key, temperature=0.1, dt=0.1),
        lambda key: pde.simulated_annealing(
            lambda x: x, [1.0], key, step_size=0.1, schedule=[1.0, 0.5]
        ),
        lambda key: pde.scoped_descent(
            lambda x: x, [1.0], key, step_size=0.1, schedule=[1.0], temperature=1.0, num_steps=2
        ),
    ):
        np.testing.assert_array_equal(solve(np.int64(3)), solve(jax.random.key(3)))
        with pytest.raises(ValueError, match="key must be a JAX key or an integer; got key=True"):
            solve(True)


GRID = pde.Grid(-1.0, 1.0, 5)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("drift", lambda a: pde.simulate(a, [1.0], 0, sigma=1.0, horizon=1.0, num_steps=4)),
        ("gradient", lambda a: pde.first_passage(a, [0.0], 1.0, 0, temperature=0.1, dt=0.1)),
        ("gradient", lambda a: pde.gradient_flow(a, 1.0, horizon=1.0, num_steps=2)),
        ("p", lambda a: pde.characteristics(a, [0.5], t=1.0)),
        ("f", lambda a: pde.control_gap(GRID, a, jnp.cos, [0.0], 0, beta=1.0, horizon=1.0)),
        ("V", lambda a: pde.control_gap(GRID, jnp.cos, a, [0.0], 0, beta=1.0, horizon=1.0)),
    ],
)
def test_values_in_the_place_of_a_function(name, call):
    with pytest.raises(ValueError, match=f"^{name} must be a JAX function; got ndarray"):
        call(np.zeros(5))


def test_a_constant_may_be_an_integer():
    """Its derivative ended in JAX's message."""
    zero = lambda x: 0  # noqa: E731
    setting = {"gamma": 1.0, "temperature": 0.1, "epsilon": 0.1, "horizon": 0.1, "num_steps": 2}
    x, _ = pde.fast_slow(zero, [1.0, 2.0], 0, form="heat", **setting)
    np.testing.assert_array_equal(x, [[1.0, 2.0]])
    top = pde.ball_maximum(GRID, lambda x: 3, 0.1)
    assert set(top.value.tolist()) == {3}
    assert not top.gradient.any()
    gap = pde.control_gap(GRID, zero, zero, [0.0, 0.5], 0, beta=1.0, horizon=1.0, num_steps=2)
    np.testing.assert_allclose(gap.cost.mean, 0, atol=1e-12)


def test_first_passage_takes_a_list_of_paths_alone():
    with pytest.raises(ValueError, match=r"start must have shape \(paths,\); got shape \(\)"):
        pde.first_passage(jnp.cos, 0.0, 1.0, 0, temperature=0.1, dt=0.1)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_an_odd_number_of_samples_makes_no_pairs(count):
    with pytest.raises(ValueError, match=f"in pairs, so their number must be even; got {count}"):
        estimate(np.ones(count), antithetic=True)


def test_a_step_of_ones_own():
    """A slot takes any function; this one is exact for the drift -x without noise."""

    def exponential(drift, x, s, dt, dw):
        return x * jnp.exp(-dt) + dw

    start = jnp.asarray([1.0, -2.0])
    options = {"sigma": 0.0, "horizon": 1.0, "num_steps": 3}
    end = simulate(lambda x, s: -x, start, jax.random.key(0), method=exponential, **options)[-1]
    np.testing.assert_allclose(end, start * np.exp(-1), rtol=1e-12)
