"""The best-fitting trapezoid: found where it is known, and told from what is none."""

import numpy as np
import pytest

from jaxmr.design.trapezoid import fit_trapezoid

PULSE = np.arange(300)


def trapezoid(a, b, c, d):
    return np.interp(PULSE, [a, b, c, d], [0.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize("corners", [(40, 90, 180, 260), (-30, 20, 200, 210), (100, 101, 250, 400)])
def test_a_trapezoid_is_found(corners):
    train = 0.2 + 0.9 * trapezoid(*corners)
    found = fit_trapezoid(train)
    assert found.correlation > 0.9995
    assert np.abs(found.curve - train).max() < 0.06
    assert np.corrcoef(found.curve, train)[0, 1] == pytest.approx(found.correlation, abs=1e-9)
    if min(corners) > 0 and max(corners) < 300:
        assert np.allclose(found.corners, corners, atol=2)
        assert np.allclose((found.base, found.plateau), (0.2, 1.1), atol=0.02)


def test_a_smooth_one_is_nearly_one():
    smooth = np.convolve(np.pad(trapezoid(40, 90, 180, 260), 30, mode="edge"), np.hanning(61), mode="valid")
    assert 0.99 < fit_trapezoid(smooth).correlation < 1


def test_other_patterns_are_none():
    """Three lobes, noise, and a trapezoid on its head, which is one of the train turned over."""
    assert fit_trapezoid(np.sin(3 * np.pi * PULSE / 300) ** 2).correlation < 0.75
    assert fit_trapezoid(np.random.default_rng(0).normal(size=300)).correlation < 0.4
    upside_down = 1 - trapezoid(60, 100, 200, 240)
    assert fit_trapezoid(upside_down).correlation < 0.9
    assert fit_trapezoid(-upside_down).correlation > 0.9995


def test_a_constant_train_is_refused():
    with pytest.raises(ValueError, match="4 or more flips that differ"):
        fit_trapezoid(np.ones(30))
