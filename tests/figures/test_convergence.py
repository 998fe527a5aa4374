import numpy as np
import pytest

from entropix.figures import convergence


def rows(algorithm="hj", seeds=3, bad=False, replicas=1):
    return [
        {
            "algorithm": algorithm,
            "seed": seed,
            "replicas": replicas,
            "effective_epochs": epoch,
            "train_loss": None if bad and epoch == 3.0 else (1 + seed) / epoch,
            "val_error": 10.0 * (1 + seed) / epoch,
        }
        for epoch in (1.0, 2.0, 3.0)
        for seed in range(seeds)
    ]


def test_lines_are_means_over_seeds():
    figure = convergence([*rows("hj"), *rows("sgd")])
    for panel, scale in zip(figure.axes, (1.0, 10.0), strict=True):
        assert len(panel.lines) == 2
        np.testing.assert_allclose(panel.lines[0].get_xdata(), [1, 2, 3])
        np.testing.assert_allclose(panel.lines[0].get_ydata(), scale * 2 / np.arange(1, 4))


def test_bands_are_one_standard_deviation():
    panel = convergence(rows()).axes[0]
    (band,) = panel.collections
    upper = band.get_paths()[0].vertices[:, 1].max()
    np.testing.assert_allclose(upper, 2 + np.std([1, 2, 3], ddof=1))


def test_saved_file(tmp_path):
    convergence(rows(seeds=1), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"


def test_measurements_that_were_not_finite_leave_a_gap():
    figure = convergence(rows(bad=True))
    assert np.isnan(figure.axes[0].lines[0].get_ydata()[2])


def test_replicas_are_counted_both_ways():
    figure = convergence([*rows("sgd"), *rows("parle", replicas=3), *rows("parle", replicas=6)])
    assert len(figure.axes) == 4
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["SGD", "Parle, p = 3", "Parle, p = 6"]
    for panels, divisors in ((figure.axes[:2], (1, 1, 1)), (figure.axes[2:], (1, 3, 6))):
        assert ("all replicas" in panels[0].get_xlabel()) == (divisors == (1, 1, 1))
        for panel in panels:
            for line, divisor in zip(panel.lines, divisors, strict=True):
                np.testing.assert_allclose(line.get_xdata(), np.arange(1, 4) / divisor)
    sgd, three, six = figure.axes[0].lines
    assert three.get_color() == six.get_color() != sgd.get_color()
    assert three.get_linestyle() != six.get_linestyle()


def test_no_rows():
    with pytest.raises(ValueError, match="at least one row"):
        convergence([])
