"""Saturation: parity with the published code, and Python's own colour model."""

import colorsys

import pytest
import torch
from robust_bench.corruptions import PRESETS, Draws, apply, corrupt


@pytest.mark.shared_data
@pytest.mark.parametrize("preset", ["imagenet", "cifar"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_differs_from_the_published_code_by_truncation_only(published, apart, severity, preset):
    clean, expected, _ = published("saturate", severity, preset)
    largest, mean, _ = apart(corrupt(clean, "saturate", severity, preset), expected)
    assert largest <= 1
    assert mean < 0.25
    largest, _, share = apart(corrupt(clean, "saturate", severity, preset, precision="double"), expected)
    assert largest <= 1
    assert share < (0.16 if severity == 3 else 0.02)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_changes_s_and_keeps_hue_and_v(pictures, severity):
    """Grey and black pixels, of which the pictures have some, have the hue 0."""
    factor, offset = PRESETS["cifar"].constants["saturate"][severity - 1]
    images = pictures(count=1, size=(24, 24))
    out = apply("saturate", images.double() / 255, severity, Draws(count=1, fields={}), preset="cifar")
    for before, after in zip(images[0].flatten(1).T.tolist(), out[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in before))
        changed = min(1.0, max(0.0, saturation * factor + offset))
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, changed, value), abs=1e-12)


def test_grey_turns_red_where_the_published_code_adds_an_offset():
    grey = torch.full((1, 3, 1, 1), 100, dtype=torch.uint8)
    assert corrupt(grey, "saturate", 3, "cifar").flatten().tolist() == [100, 100, 100]
    assert corrupt(grey, "saturate", 5, "cifar").flatten().tolist() == [100, 80, 80]
