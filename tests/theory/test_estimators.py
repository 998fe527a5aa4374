"""The optimisers' estimates against the PDEs' gradients: bias and spread, and what makes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entropix.landscape.functions.estimators import (
    METHODS,
    accuracy,
    estimates,
    sweep,
    true_gradient,
)
from entropix.pde import Grid, ball_maximum, estimate
from entropix.pde import phi as solve_phi

GRID = Grid(-6.0, 6.0, 1201)
POINTS = np.linspace(-2.0, 2.0, 9)
PLANE = Grid((-5.0, -5.0), (5.0, 5.0), (101, 101))
CORNERS = np.asarray([[-1.0, -0.5], [0.4, 1.2], [1.3, 0.2]])


def double_well(x):
    return x**2 / 4 + jnp.exp(-(x**2)) + x / 5


def plane(x):
    return double_well(x[0]) + (x[1] - 0.4 * x[0]) ** 2 / 2 + jnp.cos(5 * x[1]) / 10


def drawn(method, f, points, gamma, temperature, L, seed=0, **options):
    return np.asarray(
        estimates(
            method, f, points, jax.random.key(seed), gamma=gamma, temperature=temperature,
            num_steps=L, **options,
        ),
        np.float64,
    )  # fmt: skip


class TestQuadratic:
    """What the guide says of a direction of curvature c: two formulas, and their measurement."""

    eta, alpha = 0.1, 0.75

    def missing(self, c, gamma, L):
        """The part of the relaxed gradient that L steps do not find."""
        r, k = 1 - self.eta * (c + 1 / gamma), np.arange(1, L + 1)
        return self.alpha**L + (1 - self.alpha) * np.sum(self.alpha ** (L - k) * r**k)

    def spread(self, c, gamma, temperature):
        """Standard deviation of (x - <y>)/gamma once the chain, an AR(1) process, is stationary."""
        a = c + 1 / gamma
        r, alpha = 1 - self.eta * a, self.alpha
        variance = temperature / (a * (1 - self.eta * a / 2))
        memory = (1 - alpha) / (1 + alpha) * (1 + alpha * r) / (1 - alpha * r)
        return np.sqrt(variance * memory) / gamma

    @pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0])
    @pytest.mark.parametrize("c", [0.0, 1.0])
    def test_bias(self, c, gamma):
        f = lambda x: c * x**2 / 2 + x  # noqa: E731
        x = np.asarray([1.5])
        truth = np.asarray(true_gradient("heat", GRID, f, x, gamma=1.0, temperature=1e-6))
        truth = truth / (1 + gamma * c)  # Lemma 4
        for L in (5, 20, 80):
            got = drawn("local_entropy", f, x, gamma, 0.0, L, num_chains=2)[0]
            expected = truth * (1 - self.missing(c, gamma, L))
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)

    @pytest.mark.parametrize("gamma", [0.1, 1.0])
    def test_spread_does_not_fall_with_more_steps(self, gamma):
        c, T, chains = 0.5, 0.1, 4000
        f = lambda x: c * x**2 / 2  # noqa: E731
        for L in (40, 160):
            samples = drawn("local_entropy", f, [0.0], gamma, T, L, num_chains=chains)
            ratio = samples.std(ddof=1) / self.spread(c, gamma, T)
            assert abs(ratio - 1) < 4 / np.sqrt(2 * chains)


class TestRelaxations:
    @pytest.mark.parametrize("temperature", [0.01, 0.3])
    @pytest.mark.parametrize(("f", "grid", "points"), [(double_well, GRID, POINTS),
                                                       (plane, PLANE, CORNERS)])  # fmt: skip
    def test_heat_is_unbiased_and_its_spread_falls_with_the_root(
        self, f, grid, points, temperature
    ):
        truth = true_gradient("heat", grid, f, points, gamma=1.0, temperature=temperature)
        spreads = []
        for L in (4, 64):
            mean, error = estimate(drawn("heat", f, points, 1.0, temperature, L))
            assert np.abs((mean - truth) / error).max() < 4
            spreads.append(np.asarray(error))
        np.testing.assert_allclose(spreads[0] / spreads[1], 4, rtol=0.15)

    @pytest.mark.parametrize(("f", "grid", "points"), [(double_well, GRID, POINTS),
                                                       (plane, PLANE, CORNERS)])  # fmt: skip
    def test_local_entropy_with_small_steps(self, f, grid, points):
        # Enough steps, and steps so small that the chain's own bias is below the errors.
        options = {"step_size": 0.02, "averaging": 0.95}
        truth = true_gradient("local_entropy", grid, f, points, gamma=1.0, temperature=0.2)
        samples = drawn("local_entropy", f, points, 1.0, 0.2, 600, **options)
        mean, error = estimate(samples)
        assert np.abs((mean - truth) / error).max() < 4
        # Power: ten steps, or the temperature of another convention, would be seen.
        early, error = estimate(drawn("local_entropy", f, points, 1.0, 0.2, 10, **options))
        assert np.abs((early - truth) / error).max() > 20
        wrong = true_gradient("local_entropy", grid, f, points, gamma=1.0, temperature=0.4)
        assert np.abs((mean - wrong) / error).max() > 8

    def test_hamilton_jacobi_below_and_above_the_threshold(self):
        # Below gamma = -1/min f'' = 2/3 the proximal point is found to rounding (Lemma 3); above,
        # from points on the wrong side, the descent ends in the nearest of two minima.
        biases = []
        for gamma in (0.6, 3.0):
            truth = true_gradient("hamilton_jacobi", GRID, double_well, POINTS, gamma=gamma,
                                  temperature=0.0)  # fmt: skip
            samples = drawn("hamilton_jacobi", double_well, POINTS, gamma, 0.0, 2000)
            biases.append(np.abs(samples[0] - truth))
        assert biases[0].max() < 1e-4
        assert biases[1].max() > 0.3
        assert np.median(biases[1]) < 1e-4

    def test_cold_chains_stay_in_the_nearest_well_warm_ones_do_not(self):
        bias = {}
        for T in (0.005, 0.3):
            truth = true_gradient("local_entropy", GRID, double_well, POINTS, gamma=3.0,
                                  temperature=T)  # fmt: skip
            samples = drawn("local_entropy", double_well, POINTS, 3.0, T, 1000)
            bias[T] = accuracy(samples, truth)
        assert bias[0.005].bias > 0.2 * bias[0.005].truth > 20 * bias[0.005].error
        assert bias[0.3].bias < 0.06 * bias[0.3].truth


class TestReplicas:
    def test_around_a_centre_at_rest_they_estimate_local_entropy(self):
        truth = true_gradient("elastic_coupling", GRID, double_well, POINTS, gamma=1.0,
                              temperature=0.2)  # fmt: skip
        spreads = []
        for p in (4, 64):
            samples = drawn("elastic_coupling", double_well, POINTS, 1.0, 0.2, p, step_size=0.02)
            mean, error = estimate(samples)
            assert np.abs((mean - truth) / error).max() < 4
            spreads.append(samples.std(axis=0, ddof=1).mean())
        assert spreads[0] / spreads[1] == pytest.approx(4, rel=0.2)

    def test_around_their_own_mean_they_descend_another_function(self, measured):
        # Conditioned on their mean being x, many replicas sample rho_1(.; z), with z such that
        # <y>_z = x. The centre then moves by grad f_gamma(z), z = x + gamma grad f_gamma(z): that
        # is grad phi(x), of which f_gamma is the Moreau envelope. Both have the same critical
        # points, and with T -> 0 and convex f phi is f itself. One replica descends f.
        phi = np.asarray(solve_phi(Grid(-9.0, 9.0, 1801), double_well, 1.0, 5.0, POINTS).gradient)
        relaxed = true_gradient("local_entropy", GRID, double_well, POINTS, gamma=1.0,
                                temperature=0.2)  # fmt: skip
        plain = jax.vmap(jax.grad(double_well))(jnp.asarray(POINTS))
        distance = {}
        for p in (2, 8, 128):
            mean, error = estimate(
                drawn("live_centre", double_well, POINTS, 1.0, 0.2, p, step_size=0.02)
            )
            distance[p] = accuracy(np.stack([mean + error, mean - error]), phi)
        far = np.sqrt(np.mean((np.asarray(relaxed) - phi) ** 2))
        few, many = distance[2], distance[128]
        measured(
            "(22)",
            f"around their own mean: 128 replicas move it by phi's gradient, {many.bias:.4f} "
            f"({many.error:.4f}) off, 2 replicas {few.bias:.4f} ({few.error:.4f}) off; local "
            f"entropy's is {far:.3f} off (rms over 9 points)",
            "3 s.e. for 128; 20 s.e.",
        )
        assert distance[128].bias < 3 * distance[128].error
        assert distance[2].bias > 4 * distance[8].bias > 4 * distance[8].error
        assert far > 20 * distance[128].error
        assert np.sqrt(np.mean((np.asarray(plain) - phi) ** 2)) > 20 * distance[128].error
        # Signs, hence critical points, agree wherever the slopes are not small.
        clear = np.abs(phi) > 0.02
        np.testing.assert_array_equal(np.sign(phi)[clear], np.sign(relaxed)[clear])


class TestSharpness:
    """SAM against the maximum over its ball: one step finds it where the ball holds no hill."""

    def test_one_step_where_f_is_convex_and_many_where_it_is_not(self):
        rugged = lambda x: x**2 / 4 + jnp.cos(7 * x) / 16 + jnp.sin(11 * x) / 32  # noqa: E731
        for f, rho, L, largest in (
            (lambda x: jnp.exp(x) - x, 0.3, 2, 1e-3),
            (rugged, 0.02, 2, 0.1),
            (rugged, 1.0, 2, None),
        ):
            points = POINTS + 0.03
            truth = true_gradient("sharpness", GRID, f, points, gamma=rho, temperature=0.0)
            got = accuracy(drawn("sharpness", f, points, rho, 0.0, L), truth)
            assert got.spread == 0
            if largest:
                assert got.bias < largest * got.truth
            else:
                assert got.bias > 0.1 * got.truth

    def test_the_truth_is_the_maximum_over_the_ball_and_norms_are_of_one_point(self):
        truth = true_gradient("sharpness", PLANE, plane, CORNERS, gamma=0.2, temperature=0.0)
        np.testing.assert_allclose(
            truth, ball_maximum(PLANE, plane, 0.2, CORNERS, num_radii=64).gradient
        )
        together = drawn("sharpness", plane, CORNERS, 0.2, 0.0, 2)[0]
        alone = [drawn("sharpness", plane, c[None], 0.2, 0.0, 2)[0, 0] for c in CORNERS]
        np.testing.assert_allclose(together, alone, rtol=1e-5)

    @pytest.mark.parametrize("method", ["sharpness", "live_centre"])
    def test_fewer_than_two_gradients_are_refused(self, method):
        message = f"num_steps must be at least 2 for {method}; got num_steps=1"
        with pytest.raises(ValueError, match=message):
            drawn(method, double_well, POINTS, 0.1, 0.0, 1)


class TestSweep:
    def test_rows_are_the_accuracy_of_the_estimates(self):
        methods = METHODS[:3]
        rows = sweep(GRID, double_well, POINTS, gammas=[0.5], temperatures=[0.1, 0.2],
                     steps=[2, 10], methods=methods, num_chains=64)  # fmt: skip
        seen = [(row["method"], row["temperature"], row["steps"]) for row in rows]
        assert seen == [
            (m, T, L)
            for m in methods
            for T in ([0.0] if m == "hamilton_jacobi" else [0.1, 0.2])
            for L in (2, 10)
        ]
        row = rows[1]
        samples = drawn("local_entropy", double_well, POINTS, 0.5, 0.1, 10, num_chains=64)
        truth = true_gradient("local_entropy", GRID, double_well, POINTS, gamma=0.5,
                              temperature=0.1)  # fmt: skip
        assert row["gamma"] == 0.5
        assert row["truth"] == accuracy(samples, truth).truth
        # Other noise, the same law.
        assert row["spread"] == pytest.approx(accuracy(samples, truth).spread, rel=0.3)

    def test_numpy_twin(self):
        rng = np.random.default_rng(0)
        samples, truth = rng.normal(size=(50, 4, 2)), rng.normal(size=(4, 2))
        got = accuracy(samples, truth)
        bias = [[np.mean(samples[:, i, j]) - truth[i, j] for j in range(2)] for i in range(4)]
        variance = [[np.var(samples[:, i, j]) * 50 / 49 for j in range(2)] for i in range(4)]
        assert got.truth == pytest.approx((np.sum(truth**2) / 8) ** 0.5)
        assert got.bias == pytest.approx((np.sum(np.square(bias)) / 8) ** 0.5)
        assert got.spread == pytest.approx((np.sum(variance) / 8) ** 0.5)
        assert got.error == pytest.approx(got.spread / 50**0.5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"gammas": [0.04]}, r"step_size must be below 2/.* = 0.07\d*, .*got 0.1"),
            ({"gammas": [0.0]}, "gamma must be one number > 0"),
            ({"temperatures": [-1.0]}, "temperature must be one number > 0"),
            ({"steps": [5, 1]}, "steps must be an integer >= 2; got steps=1"),
            ({"steps": []}, "steps must be one or more, each once; got steps="),
            ({"gammas": [0.5, 0.5]}, "gammas must be one or more, each once; got gammas="),
            ({"steps": [5, 20, 5]}, "steps must be one or more, each once; got steps="),
            ({"methods": ["hj"]}, "method must be one of .*got method='hj'"),
        ],
    )
    def test_messages(self, options, message):
        good = {"gammas": [1.0], "temperatures": [0.1], "steps": [5]}
        with pytest.raises(ValueError, match=message):
            sweep(GRID, double_well, POINTS, **(good | options))

    def test_a_step_that_no_method_takes_may_be_long(self):
        gradient_alone = {"gammas": [0.5], "temperatures": [0.1], "steps": [2], "num_chains": 2}
        (row,) = sweep(
            GRID, double_well, POINTS, methods=["heat"], step_size=9.0, **gradient_alone
        )  # fmt: skip
        assert row["truth"] > 0

    def test_functions_that_end(self):
        barrier = lambda x: x - jnp.sqrt(x)  # noqa: E731
        with pytest.raises(ValueError, match="estimates of heat .* are not finite"):
            sweep(Grid(0.5, 5.0, 501), barrier, np.asarray([0.6, 2.0]), gammas=[1.0],
                  temperatures=[0.5], steps=[20], methods=["heat"])  # fmt: skip


@pytest.mark.parametrize(("gamma", "step_size"), [(30.0, 0.1), (10.0, 0.01)])
def test_replicas_are_in_equilibrium_though_the_pull_is_weak(x64, gamma, step_size):
    """A quadratic's relaxed gradient by Lemma 4; after 300 steps 8 and 64 % were missing."""
    slope = drawn(
        "elastic_coupling", lambda x: 0.05 * x**2 / 2, jnp.asarray([2.0]), gamma, 1e-4, 50,
        step_size=step_size,
    )  # fmt: skip
    error = slope.std() / len(slope) ** 0.5
    assert abs(slope.mean() - 0.1 / (1 + 0.05 * gamma)) < 4 * error + 1e-4 * slope.mean()


def test_steps_may_be_numbers_of_numpy(x64):
    given = {"gammas": [0.5], "temperatures": [0.1], "num_chains": 4, "methods": ["heat"]}
    given |= {"gammas": jnp.asarray([0.5])}
    (row,) = sweep(GRID, double_well, POINTS, steps=np.asarray([5]), **given)
    assert row == sweep(GRID, double_well, POINTS, steps=[5], **given)[0]
    assert type(row["steps"]) is int  # which JSON takes


def test_a_function_without_a_hash_is_as_good(x64):
    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return double_well(x)

    found = [
        estimates("heat", f, POINTS, jax.random.key(0), gamma=0.5, temperature=0.1, num_steps=2,
                  num_chains=4)
        for f in (double_well, Unhashable())
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)


def test_a_seed_is_a_key(x64):
    solve = lambda key: estimates(  # noqa: E731
        "heat", double_well, POINTS, key, gamma=1.0, temperature=0.1, num_steps=5, num_chains=4
    )
    np.testing.assert_array_equal(solve(3), solve(jax.random.key(3)))
