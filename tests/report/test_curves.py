"""What is drawn, read back from the figure."""

import matplotlib
import numpy as np
import pytest
from runs.survival import no_file_beyond

from entropix.report import accuracy, convergence, figure1
from entropix.report.style import PALETTE

ERRORS = np.asarray([[10.0, 20.0, 30.0], [5.0, 10.0, 15.0], [3.0, 6.0, 9.0]])


def lines(figure, panel=0):
    return figure.axes[panel].lines


def test_lines_are_means_over_seeds(make_rows):
    rows = [row for run in ("hj", "sgd")
            for row in make_rows(run, val_error=ERRORS, train_loss=ERRORS / 10)]  # fmt: skip
    figure = convergence(rows)
    titles = [panel.get_ylabel() for panel in figure.axes]
    assert titles == ["validation error, %", "training loss"]
    for panel, scale in ((0, 1.0), (1, 0.1)):
        assert len(lines(figure, panel)) == 2
        np.testing.assert_allclose(lines(figure, panel)[0].get_xdata(), [1, 2, 3])
        np.testing.assert_allclose(lines(figure, panel)[0].get_ydata(), scale * ERRORS[:, 1])


def test_a_number_at_the_end_of_a_name_is_no_format(make_rows, tmp_path):
    convergence(make_rows("hj", val_error=ERRORS), tmp_path / "rate_0.1")
    assert (tmp_path / "rate_0.1.png").exists()


def test_an_unknown_format_is_refused(make_rows, tmp_path):
    with pytest.raises(ValueError, match=r"path must end in a format .*, pdf, .*'a\.foo'\. Add"):
        convergence(make_rows("hj", val_error=ERRORS), tmp_path / "a.foo")
    convergence(make_rows("hj", val_error=ERRORS), tmp_path / "a.PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]


@pytest.mark.parametrize("suffix", [".png", ".pdf", ""])
def test_a_figure_that_cannot_be_written_leaves_the_old_one(make_rows, tmp_path, suffix):
    path = tmp_path / f"figure{suffix}"
    rows = make_rows("hj", val_error=ERRORS)
    convergence(rows, path)
    (written,) = tmp_path.iterdir()
    assert written.suffix == (suffix or ".png")
    old = written.read_bytes()
    with no_file_beyond(len(old) // 2), pytest.raises(OSError, match=f"{written} could not be"):
        convergence(make_rows("sgd", val_error=2 * ERRORS), path)
    assert written.read_bytes() == old
    assert list(tmp_path.iterdir()) == [written]


def test_bands_are_one_standard_deviation(make_rows):
    (band,) = convergence(make_rows("hj", val_error=ERRORS)).axes[0].collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    np.testing.assert_allclose([low, high], [6 - 3, 20 + 10])


def test_axes_are_logarithmic_only_where_logarithms_exist_and_low_is_good(make_rows):
    rows = make_rows("hj", val_error=ERRORS, val_accuracy=ERRORS, val_loss=ERRORS - 3)
    figure = convergence(rows)
    scales = {panel.get_ylabel(): panel.get_yscale() for panel in figure.axes}
    assert scales == {
        "validation error, %": "log", "validation accuracy, %": "linear",
        "validation loss": "linear",  # has a zero
    }  # fmt: skip


@pytest.mark.parametrize("factors", [(1.0, 1.1), (1.0, 5.0), (1.0, 300.0), (1e-6, 1.0)])
def test_any_range_has_ticks(factors, make_rows):
    figure = convergence(make_rows("hj", val_error=np.asarray(factors)[:, None] * [[2.1, 2.1]]))
    (panel,) = figure.axes
    figure.draw_without_rendering()
    low, high = panel.get_ylim()
    seen = [text.get_text() for text, place in zip(panel.get_yticklabels(), panel.get_yticks(),
            strict=True) if low <= place <= high and text.get_text()]  # fmt: skip
    assert 2 <= len(seen) <= 12


def test_a_single_evaluation_is_seen(make_rows):
    rows = make_rows("hj", val_error=ERRORS[:1]) + make_rows("sgd", val_error=ERRORS)
    one, several = lines(convergence(rows))
    assert one.get_marker() == "o"
    assert several.get_marker() == "None"


def test_colours_are_those_given_then_free_ones_then_dashes(make_rows):
    names = ["a", "b", "c", "d", "e"]
    rows = [row for name in names for row in make_rows(name, val_error=ERRORS)]
    given = {"a": "#0072B2", "b": None, "c": "no colour", "e": "#0072B2"}
    a, b, c, d, e = lines(convergence(rows, colours=given))
    assert a.get_color() == e.get_color() == "#0072B2"
    assert (a.get_linestyle(), e.get_linestyle()) == ("-", "--")
    assert [b.get_color(), c.get_color(), d.get_color()] == [
        PALETTE[name] for name in ("black", "vermillion", "orange")
    ]
    many = [row for k in range(9) for row in make_rows(f"run{k}", val_error=ERRORS)]
    drawn = [(line.get_color(), line.get_linestyle()) for line in lines(convergence(many))]
    assert len(set(drawn)) == 9


def test_one_legend_above_the_panels_names_every_run(make_rows):
    names = ["sgd", "hj", "heat"]
    rows = [row for name in names for row in make_rows(name, val_error=ERRORS, val_loss=ERRORS)]
    figure = convergence(rows)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(names)
    assert all(panel.get_legend() is None for panel in figure.axes)
    figure.draw_without_rendering()
    bottom = legend.get_window_extent().y0
    assert all(panel.get_window_extent().y1 <= bottom for panel in figure.axes)


def test_measurements_that_were_not_finite_leave_a_gap_if_no_seed_is_whole(make_rows):
    errors = ERRORS.copy()
    errors[2, 0] = np.nan
    mean = lines(convergence(make_rows("hj", val_error=errors)))[0].get_ydata()
    np.testing.assert_allclose(mean, ERRORS[:, 1:].mean(axis=1))
    errors[2] = np.nan
    mean = lines(convergence(make_rows("hj", val_error=errors)))[0].get_ydata()
    np.testing.assert_allclose(mean, [20, 10, np.nan])
    convergence(make_rows("hj", val_error=np.full((1, 2), np.nan))).draw_without_rendering()


def test_replicas_are_counted_both_ways(make_rows):
    rows = [*make_rows("sgd", val_error=ERRORS), *make_rows("p3", replicas=3, val_error=ERRORS)]
    figure = convergence(rows)
    above, below = figure.axes
    assert above.get_xlabel() == "effective epochs of all replicas"
    assert below.get_xlabel() == "effective epochs of one replica"
    for panel, divisors in ((above, (1, 1)), (below, (1, 3))):
        for line, divisor in zip(panel.lines, divisors, strict=True):
            np.testing.assert_allclose(line.get_xdata(), np.arange(1, 4) / divisor)


def test_without_epochs_gradients_are_the_axis(make_rows):
    figure = convergence(make_rows("hj", val_error=ERRORS, epochs=False))
    assert figure.axes[0].get_xlabel() == "gradients"
    np.testing.assert_allclose(lines(figure)[0].get_xdata(), [12, 24, 36])


def test_at_most_four_panels(make_rows):
    measures = {f"val_{letter}": ERRORS for letter in "abcdef"}
    rows = make_rows("hj", **measures)
    assert len(convergence(rows).axes) == 4
    assert convergence(rows, measures=["val_f"]).axes[0].get_ylabel() == "validation f"
    with pytest.raises(ValueError, match="at most 4 measures; got 6"):
        convergence(rows, measures=list(measures))


def test_the_users_matplotlibrc_is_ignored(make_rows, tmp_path):
    rows = make_rows("hj", val_error=ERRORS, label="$100 & $200_")  # not to be read as formulas
    convergence(rows, tmp_path / "plain.png")
    assert (tmp_path / "plain.png").read_bytes()[1:4] == b"PNG"
    mine = {"text.usetex": True, "font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20,
            "axes.labelsize": 5, "lines.linewidth": 9}  # fmt: skip
    with matplotlib.rc_context(mine):
        figure = convergence(rows, tmp_path / "mine.png")
        assert matplotlib.rcParams["text.usetex"]
        assert matplotlib.rcParams["font.size"] == 30
    assert not any(text.get_usetex() for text in figure.findobj(matplotlib.text.Text))
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "mine.png").read_bytes()


def test_the_other_figures_ignore_it_too(tmp_path):
    x = np.linspace(-1, 1, 11)
    data = {"f": x**2, "points": x, "times": np.asarray([0.1]), "beta": 1.0, "function": "x**2",
            "values": np.stack([[x**2]] * 3), "f_convex": x > 0,
            "convex": np.stack([[x > 0]] * 3)}  # fmt: skip
    row = {"method": "heat", "gamma": 1.0, "temperature": 0.1, "steps": 5, "truth": 1.0,
           "bias": 0.1, "error": 0.01, "spread": 0.2}  # fmt: skip
    with matplotlib.rc_context({"text.usetex": True}):
        drawn = [figure1(data), accuracy({"rows": [row], "function": "x"})]
    for figure in drawn:
        assert not any(text.get_usetex() for text in figure.findobj(matplotlib.text.Text))


def test_no_rows():
    with pytest.raises(ValueError, match="at least one row"):
        convergence([])


def test_earlier_places_answer():
    from entropix import figures
    from entropix.figures.convergence import COLOURS

    assert figures.convergence is convergence
    assert (figures.figure1, figures.accuracy) == (figure1, accuracy)
    assert COLOURS["hj"] == PALETTE["vermillion"]


def test_what_is_measured_at_some_evaluations_is_a_line_through_those(make_rows):
    """Points with gaps between them were joined by no line, and had no marker: an empty panel."""
    rows = make_rows("hj", val_error=np.ones((4, 3)), trace=np.arange(12.0).reshape(4, 3))
    for row in rows:
        if row.effective_epochs in (1, 3):
            del row.measures["trace"]
    last = [row for row in rows if row.seed == 2][-1]
    last.measures["trace"] = last.measures["trace"]._replace(value=None)  # diverged
    (line,) = lines(convergence(rows, measures=["trace"]))
    np.testing.assert_allclose(line.get_xdata(), [2, 4])
    np.testing.assert_allclose(line.get_ydata(), [3.5, 9.5])  # of the other two seeds


def test_seeds_that_were_measured_at_fewer_evaluations_count(make_rows):
    """A seed that was added later, by another number of evaluations."""
    rows = make_rows("hj", val_error=ERRORS)
    rows = [row for row in rows if (row.seed, row.gradients) != (2, 12)]
    drawn = lines(convergence(rows))[0]
    np.testing.assert_allclose(drawn.get_xdata(), [2, 3])
    np.testing.assert_allclose(drawn.get_ydata(), ERRORS[1:].mean(axis=1))
