"""Figures: the numbers and colours in them, not their looks."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import LogNorm

from jaxmr.plot.maps import comparison_figure, estimates_figure, maps_figure
from jaxmr.plot.sequence import train_figure
from jaxmr.units import deg, ms


def maps(scale: float = 1.0) -> dict[str, np.ndarray]:
    y, x = np.mgrid[-1:1:32j, -1:1:24j]
    inside = x**2 + y**2 < 0.8
    t1 = np.where(inside, 0.8 + 0.5 * x, 0)
    b1 = np.where(inside, 1 + 0.1 * y, 0)
    return {"t1": t1 * scale, "t2": t1 * scale / 10, "b1": b1, "m0": inside * (1 + 1j) * scale}


def drawn(figure, row: int, column: int):
    (image,) = figure.axes[3 * row + column].get_images()
    return image


def test_maps_are_shown_in_display_units_with_their_median_error(tmp_path):
    truth, estimate = maps(), maps(1.1)
    figure = maps_figure(truth, estimate)
    assert [figure.axes[3 * row].get_ylabel() for row in range(4)] == ["T1", "T2", "B1", "M0"]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["truth", "estimate", "error"]
    inside = truth["t1"] != 0
    np.testing.assert_allclose(drawn(figure, 0, 0).get_array()[inside], 1e3 * truth["t1"][inside])
    assert drawn(figure, 0, 0).get_array().mask[~inside].all()
    np.testing.assert_allclose(drawn(figure, 0, 2).get_array()[inside], 10)
    assert figure.axes[2].texts[0].get_text() == "median |error| 10 %"
    figure.savefig(tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 10_000


def test_colours_and_windows_are_the_recommended_ones():
    figure = maps_figure(maps(), maps(1.1))
    names = [drawn(figure, row, 0).get_cmap().name for row in range(4)]
    assert names == ["cmc.lipari", "cmc.navia", "coolwarm", "gray"]
    assert isinstance(drawn(figure, 0, 0).norm, LogNorm)
    for row in range(4):
        assert drawn(figure, row, 0).get_clim() == drawn(figure, row, 1).get_clim()
        low, high = drawn(figure, row, 2).get_clim()
        assert low == -high
    assert np.mean(drawn(figure, 2, 0).get_clim()) == pytest.approx(1)


def test_estimates_without_a_truth_are_shown_alone():
    estimate = maps()
    figure = estimates_figure({**estimate, "correlation": estimate["b1"]})
    panels = [axis for axis in figure.axes if axis.get_images()]
    assert [axis.get_title() for axis in panels] == ["T1", "T2", "B1", "M0"]
    inside = estimate["t1"] != 0
    shown = panels[0].get_images()[0].get_array()
    np.testing.assert_allclose(shown[inside], 1e3 * estimate["t1"][inside])
    assert shown.mask[~inside].all()
    half = inside & (np.arange(24) > 12)
    assert (estimates_figure(estimate, half).axes[0].get_images()[0].get_array().mask == ~half).all()
    with pytest.raises(ValueError, match="nothing to show of"):
        estimates_figure(estimate, np.zeros_like(inside))


def test_estimates_are_compared_on_one_scale_with_their_mean_error():
    truth, mask = maps(), maps()["t1"] != 0
    worse = maps(1.2)
    worse["t1"] = truth["t1"] * np.where(np.arange(24) < 12, 0.7, 1.0)
    figure = comparison_figure(truth, {"good": maps(1.1), "worse": worse}, mask)
    panels = [axis for axis in figure.axes if axis.get_images()]
    assert [axis.get_title() for axis in panels[:5]] == ["truth", "good", "error", "worse", "error"]
    shown = [axis.get_images()[0] for axis in panels[:5]]
    assert shown[0].get_clim() == shown[1].get_clim() == shown[3].get_clim()
    assert shown[2].get_clim() == shown[4].get_clim()
    np.testing.assert_allclose(shown[2].get_array()[mask], 10)
    assert shown[4].get_array()[16, 5] == pytest.approx(-30)
    assert panels[2].texts[0].get_text() == "mean |error| 10 %"
    share = np.broadcast_to(np.arange(24) < 12, mask.shape)[mask].mean()
    assert panels[4].texts[0].get_text() == f"mean |error| {30 * share:.3g} %"
    with pytest.raises(ValueError, match="estimate 'bad' has no map of t2"):
        comparison_figure(truth, {"bad": {"t1": truth["t1"]}}, mask)
    with pytest.raises(ValueError, match="of the mask's shape"):
        comparison_figure(truth, {"good": maps()}, np.ones((3, 3)))


def test_mask_missing_estimates_and_field_maps():
    truth, estimate = maps(), maps()
    field = np.linspace(-20, 20, 32 * 24).reshape(32, 24)
    mask = np.arange(24) + np.zeros((32, 1)) > 12
    estimate["t1"] = np.full_like(estimate["t1"], np.nan)
    figure = maps_figure({"b0": field, "t1": truth["t1"]}, {"b0": field + 3, "t1": estimate["t1"]}, mask)
    assert figure.axes[2].texts[0].get_text() == "no estimate"
    assert figure.axes[5].texts[0].get_text() == "median |error| 3 Hz"
    np.testing.assert_array_equal(drawn(figure, 1, 0).get_array().mask, ~mask)


def test_map_errors_name_the_remedy():
    with pytest.raises(ValueError, match="both need one of"):
        maps_figure({"t1": np.ones((2, 2))}, {"t2": np.ones((2, 2))})
    with pytest.raises(ValueError, match="pass one slice"):
        maps_figure({"t1": np.ones((2, 2, 2))}, {"t1": np.ones((2, 2, 2))})
    with pytest.raises(ValueError, match="no voxel of t1"):
        maps_figure({"t1": np.zeros((2, 2))}, {"t1": np.ones((2, 2))})


def test_train_is_shown_in_degrees_and_milliseconds(tmp_path):
    flip = np.linspace(5, 60, 100) * deg
    figure = train_figure(flip, tr=12 * ms, te=np.full(100, 3 * ms), signals={"white matter": 1j * np.sin(flip)})
    angle, time, signal = figure.axes
    np.testing.assert_allclose(angle.lines[0].get_ydata(), np.linspace(5, 60, 100))
    assert [line.get_ydata()[7] for line in time.lines] == pytest.approx([12, 3])
    np.testing.assert_allclose(signal.lines[0].get_ydata(), np.sin(flip))
    figure.savefig(tmp_path / "train.png")
    assert len(train_figure(flip).axes) == 1
    with pytest.raises(ValueError, match="TR must have one value for each of the 100 pulses"):
        train_figure(flip, tr=np.ones(3))


def test_no_global_state_of_pyplot():
    program = """
import sys, numpy as np
import matplotlib.pyplot as plt
from jaxmr.plot.maps import estimates_figure, maps_figure
maps_figure({"t1": np.ones((4, 4))}, {"t1": np.ones((4, 4))})
sys.exit(len(plt.get_fignums()))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
