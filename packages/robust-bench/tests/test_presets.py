"""The tables of constants: complete, and chosen by size."""

import pytest
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, GROUPS, PRESETS, preset_for
from robust_bench.corruptions.presets import constant_of

PUBLISHED = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")


def test_names_are_in_the_published_order():
    assert tuple(name for name in PUBLISHED if name in CORRUPTIONS) == CORRUPTIONS
    assert tuple(name for name in EXTRA if name in EXTRA_CORRUPTIONS) == EXTRA_CORRUPTIONS
    assert set(GROUPS) == {*CORRUPTIONS, *EXTRA_CORRUPTIONS}
    assert set(GROUPS.values()) <= {"noise", "blur", "weather", "digital"}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_corruption_has_five_constants_of_one_form(preset):
    constants = PRESETS[preset].constants
    assert constants.keys() == {*PUBLISHED, *EXTRA}
    for name, severities in constants.items():
        assert len(severities) == 5
        forms = {len(constant) if isinstance(constant, tuple) else 0 for constant in severities}
        assert len(forms) == 1, name


@pytest.mark.parametrize("preset", PRESETS)
def test_zoom_factors_end_where_the_table_says(preset):
    for end, step, count in PRESETS[preset].constants["zoom_blur"]:
        assert 1 + step * (count - 1) == pytest.approx(end)


def test_the_package_has_constants_of_its_own_for_elastic_transform():
    assert constant_of("elastic_transform", 1, "imagenet") == pytest.approx((488, 170.8, 24.4))
    assert constant_of("elastic_transform", 1, "imagenet", "imagecorruptions") == pytest.approx(12.5)
    assert constant_of("shot_noise", 5, "imagenet", "imagecorruptions") == 3


@pytest.mark.parametrize(("side", "preset"), [(8, "cifar"), (32, "cifar"), (64, "tiny_imagenet"), (299, "imagenet")])
def test_the_nearest_preset_is_chosen(side, preset):
    assert preset_for(side, side) == preset
