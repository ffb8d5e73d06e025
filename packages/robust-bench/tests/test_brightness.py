"""Brightness: parity with the published code, and Python's own colour model."""

import colorsys

import pytest
from robust_bench.corruptions import Draws, apply, corrupt


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_differs_from_the_published_code_by_truncation_only(published, apart, severity, preset):
    clean, expected, _ = published("brightness", severity, preset)
    largest, mean, _ = apart(corrupt(clean, "brightness", severity, preset), expected)
    assert largest <= 1
    assert mean < 0.25
    largest, _, share = apart(corrupt(clean, "brightness", severity, preset, precision="double"), expected)
    assert largest <= 1
    assert share < 0.04


def test_raises_v_and_keeps_hue_and_saturation(pictures):
    images = pictures(count=1, size=(24, 24))
    out = apply("brightness", images.double() / 255, 5, Draws(count=1, fields={}), preset="cifar")
    for before, after in zip(images[0].flatten(1).T.tolist(), out[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in before))
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.3)), abs=1e-12)
