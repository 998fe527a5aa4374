import numpy as np
import pytest

from entropix.figures import convergence


def rows(algorithm="hj", seeds=3, bad=False):
    return [
        {
            "algorithm": algorithm,
            "seed": seed,
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


def test_no_rows():
    with pytest.raises(ValueError, match="at least one row"):
        convergence([])
