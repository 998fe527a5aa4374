"""Figure 1 from saved data, and the data themselves against brute force."""

import itertools

import jax
import numpy as np
import pytest
from PIL import Image

from entropix.landscape.functions.relaxations import (
    convex_intervals,
    convex_nodes,
    descend_while_scoping,
    relaxations,
)
from entropix.landscape.functions.saved import load_landscape, save_landscape
from entropix.pde import Grid
from entropix.report import figure1, scoping_animation

RUGGED = "(x**2 - 1)**2/2 + cos(5*x)/4"


def rugged(x):
    return (x**2 - 1) ** 2 / 2 + np.cos(5 * x) / 4


def rugged_in_jax(x):
    return (x**2 - 1) ** 2 / 2 + jax.numpy.cos(5 * x) / 4


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    save_landscape(folder, RUGGED, [-2, 2], [0.05, 0.3], 8.0, nodes=201, frames=5)
    return folder


@pytest.fixture(scope="module")
def saved_2d(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contours")
    save_landscape(folder, "x**2/4 + cos(3*y)", [-2, 2, -1, 1], [0.1], 4.0, nodes=15, frames=4)
    return folder


def runs(mask):
    """First and last index of every run of True, by walking along."""
    found, start = [], None
    for i, inside in enumerate([*mask, False]):
        if inside and start is None:
            start = i
        if not inside and start is not None:
            found.append((start, i - 1))
            start = None
    return found


class TestData:
    def test_against_brute_force(self, saved):
        data = load_landscape(saved / "relaxations.npz")
        x, y = data["points"], np.linspace(-4, 4, 16_001)
        np.testing.assert_allclose(data["f"], rugged(x), rtol=1e-12, atol=1e-12)
        for n, t in enumerate(data["times"]):
            square = (x[:, None] - y) ** 2 / (2 * t)
            energy = 8.0 * (rugged(y) + square)
            low = energy.min(axis=1)
            mass = np.exp(-(energy - low[:, None])).sum(axis=1) * (y[1] - y[0])
            u = (low - np.log(mass / np.sqrt(2 * np.pi * t / 8.0))) / 8.0
            np.testing.assert_allclose(data["values"][0, n], u, atol=1e-7)
            hj = (rugged(y) + square).min(axis=1)
            np.testing.assert_allclose(data["values"][1, n], hj, atol=1e-4)
            kernel = np.exp(-8.0 * square)
            v = kernel @ rugged(y) / kernel.sum(axis=1)
            np.testing.assert_allclose(data["values"][2, n], v, atol=2e-3)

    def test_convex_intervals_of_f_are_the_true_ones(self, saved):
        data = load_landscape(saved / "relaxations.npz")
        x = data["points"]
        second = 6 * x**2 - 2 - 25 * np.cos(5 * x) / 4
        intervals = convex_intervals(x, data["f_convex"])
        truth = np.asarray([(x[a], x[b]) for a, b in runs(second > 0)])
        np.testing.assert_allclose(intervals, truth, atol=1.01 * (x[1] - x[0]))
        assert len(truth) == 2

    def test_convex_parts_of_hopf_lax_are_those_of_the_proximal_points(self, saved):
        """u is convex around x where f'' > 0 at prox(x), away from kinks: by brute force."""
        data = load_landscape(saved / "relaxations.npz")
        x, y = data["points"], np.linspace(-4, 4, 80_001)
        for n, t in enumerate(data["times"]):
            p = y[(rugged(y) + (x[:, None] - y) ** 2 / (2 * t)).argmin(axis=1)]
            smooth = np.abs(np.gradient(p)) < 0.2
            second = 6 * p**2 - 2 - 25 * np.cos(5 * p) / 4
            clear = smooth & (np.abs(second) > 1)
            clear[[0, -1]] = False
            np.testing.assert_array_equal(data["convex"][1, n][clear], (second > 0)[clear])
            assert clear.sum() > 100

    @pytest.mark.parametrize("seed", range(5))
    def test_intervals_are_runs(self, seed):
        mask = np.random.default_rng(seed).random(40) < 0.6
        x = np.linspace(0, 1, 40)
        expected = np.asarray([(x[a], x[b]) for a, b in runs(mask)])
        np.testing.assert_array_equal(convex_intervals(x, mask), expected)
        assert convex_intervals(x, np.zeros(40, bool)).shape == (0, 2)

    def test_convexity_in_two_dimensions(self):
        grid = Grid((-2, -2), (2, 2), (41, 31))
        x, y = np.moveaxis(grid.points, -1, 0)
        for turn in (0.0, 0.4):  # turned axes: the mixed derivative counts
            a, b = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
            mask = convex_nodes(grid, np.cos(2 * a) + b**2)
            clear = np.abs(np.cos(2 * a)) > 0.1
            clear[[0, -1]] = clear[:, [0, -1]] = False
            np.testing.assert_array_equal(mask[clear], (np.cos(2 * a) < 0)[clear])

    def test_other_equations_on_request(self, tmp_path):
        names = ["hj", "sharpness", "live_centre"]
        save_landscape(
            tmp_path, RUGGED, [-2, 2], [0.1, 0.3], 8.0, nodes=101, frames=0, equations=names
        )
        data = load_landscape(tmp_path / "relaxations.npz")
        x, offsets = data["points"], np.linspace(-1, 1, 20_001)
        for n, t in enumerate(data["times"]):
            highest = rugged(x[:, None] + t * offsets).max(axis=1)
            np.testing.assert_allclose(data["values"][1, n], highest, atol=1e-5)
            # Of phi, local entropy is the Moreau envelope.
            with jax.enable_x64(True):
                u = relaxations(Grid(-2.0, 2.0, 101), rugged_in_jax, [t], 8.0, ["viscous_hj"])
            inside = np.abs(x) < 1
            envelope = (data["values"][2, n] + (x[:, None] - x) ** 2 / (2 * t)).min(axis=1)
            np.testing.assert_allclose(envelope[inside], u.values[0, 0][inside], atol=0.02)
        titles = [panel.get_title() for panel in figure1(data).axes if panel.get_title()]
        assert titles == [
            "Hamilton-Jacobi",
            "maximum over a ball of radius t",
            "replicas around their own mean",
        ]

    def test_a_constant_is_convex_nowhere(self):
        with jax.enable_x64(True):
            data = relaxations(Grid(-1.0, 1.0, 41), lambda x: 3 + 0 * x, [0.1], 5.0)
        assert not data.convex.any()
        np.testing.assert_allclose(data.values, 3, rtol=1e-12)
        assert figure1(data._asdict() | {"function": np.asarray("3")}) is not None

    @pytest.mark.parametrize(
        ("text", "options", "message"),
        [
            ("x**2", {"beta": 1e300}, r"beta must be at most 1e\+12"),
            (
                "x**2",
                {"equations": ["sam"]},
                r"equations must be some of viscous_hj.*got \['sam'\]",
            ),
            ("x**2", {"start": ["a"]}, r"start must be 1 numbers within the interval"),
            ("x**2", {"nodes": "many"}, "nodes must be an integer >= 1; got nodes='many'"),
            ("exp(x**3)", {}, "must not be so steep for a descent: its curvature reaches"),
        ],
    )
    def test_refusals(self, text, options, message, tmp_path):
        options = {"nodes": 41, "frames": 2, "beta": 5.0} | options
        beta = options.pop("beta")
        with pytest.raises(ValueError, match=message):
            save_landscape(tmp_path / "new", text, [-6, 6], [0.1], beta, **options)
        assert not (tmp_path / "new").exists()

    def test_walls_where_the_function_ends(self):
        with jax.enable_x64(True):
            data = relaxations(Grid(0.1, 3.0, 59), lambda x: -jax.numpy.log(x), [0.1], 10.0)
        assert np.isfinite(data.values).all()

    def test_scoping_passes_ripples_that_hold_the_descent_on_f(self):
        f = lambda x: x**2 / 8 + jax.numpy.cos(8 * x) / 5  # noqa: E731
        with jax.enable_x64(True):
            film = descend_while_scoping(Grid(-4.0, 4.0, 201), f, 2.0, 5.0, [3.0])
        assert film.path[0] == film.plain[0] == 3.0
        assert np.all(np.diff(film.gammas) < 0)
        assert abs(film.path[-1]) < 0.5
        assert film.plain[-1] > 2
        at_end = np.interp(film.path[-1], np.linspace(-4, 4, 201), film.values[-1])
        assert at_end < film.values[-1][np.abs(np.linspace(-4, 4, 201) - film.plain[-1]).argmin()]


class TestFigure:
    def test_curves_and_bars_are_the_saved_ones(self, saved):
        data = load_landscape(saved / "relaxations.npz")
        figure = figure1(data)
        above, below = figure.axes[:3], figure.axes[3:]
        for column in range(3):
            lines = above[column].lines
            np.testing.assert_array_equal(lines[0].get_ydata(), data["f"])
            for n in range(2):
                np.testing.assert_array_equal(lines[n + 1].get_ydata(), data["values"][column, n])
            bars = [(line.get_ydata()[0], *line.get_xdata()) for line in below[column].lines]
            masks = [data["f_convex"], *data["convex"][column]]
            expected = [
                (row, data["points"][a], data["points"][b])
                for row, mask in enumerate(masks)
                for a, b in runs(mask)
            ]
            np.testing.assert_allclose(bars, expected)

    def test_contours(self, saved_2d, tmp_path):
        figure = figure1(load_landscape(saved_2d / "relaxations.npz"), tmp_path / "figure.png")
        titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
        assert titles[-3:] == ["HJ, t = 0.1", "f (white: convex within)", "heat, t = 0.1"]
        assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"

    @pytest.mark.parametrize(("name", "frames"), [("saved", 5), ("saved_2d", 4)])
    def test_the_film_moves(self, name, frames, request, tmp_path):
        folder = request.getfixturevalue(name)
        scoping_animation(load_landscape(folder / "scoping.npz"), tmp_path / "film.gif")
        with Image.open(tmp_path / "film.gif") as film:
            assert film.n_frames == frames
            pictures = []
            for k in range(frames):
                film.seek(k)
                pictures.append(np.asarray(film.convert("RGB")))
        assert all(np.any(a != b) for a, b in itertools.pairwise(pictures))
