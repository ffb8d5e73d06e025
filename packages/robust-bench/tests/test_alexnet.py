"""The baseline's constants: the lists against their stated means, and the published raw results."""

import json

import pytest
from robust_bench.metrics.alexnet import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS, ALEXNET_FLIP_PROBABILITIES

MEANS = {  # the constants of the AugMix code
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.92264,
    "defocus_blur": 0.81988,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.79836,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.71784,
    "jpeg_compression": 0.6065,
}


def test_the_severities_average_to_the_stated_means_in_the_published_order():
    assert list(ALEXNET_ERRORS) == list(MEANS)
    assert {name: len(errors) for name, errors in ALEXNET_ERRORS.items()} == dict.fromkeys(MEANS, 5)
    for name, mean in MEANS.items():
        assert sum(ALEXNET_ERRORS[name]) / 5 == pytest.approx(mean, abs=1e-12)


def test_every_error_is_a_count_of_the_50000_images():
    for error in (ALEXNET_CLEAN_ERROR, *(error for errors in ALEXNET_ERRORS.values() for error in errors)):
        assert 50_000 * error == pytest.approx(round(50_000 * error), abs=1e-6)


def test_corrupted_images_are_harder_than_clean_ones():
    assert min(min(errors) for errors in ALEXNET_ERRORS.values()) > ALEXNET_CLEAN_ERROR


def test_flip_probabilities_are_fractions_of_ten_perturbations():
    assert list(ALEXNET_FLIP_PROBABILITIES) == [
        "gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "snow", "brightness", "translate", "rotate",
        "tilt", "scale",
    ]  # fmt: skip
    assert all(0 < probability < 1 for probability in ALEXNET_FLIP_PROBABILITIES.values())


@pytest.mark.parametrize("constant", [ALEXNET_ERRORS, ALEXNET_FLIP_PROBABILITIES], ids=["errors", "flips"])
def test_nobody_can_change_them(constant):
    with pytest.raises(TypeError, match="item assignment"):
        constant["snow"] = 0.0


@pytest.mark.shared_data
def test_they_are_the_baseline_of_the_published_tables(shared):
    tables = json.loads((shared / "metrics" / "resnext_wsl_tables.json").read_text())
    assert tables["corruptions"] == list(ALEXNET_ERRORS)
    assert tables["perturbations"] == list(ALEXNET_FLIP_PROBABILITIES)
    assert tables["alexnet_clean_err"] == ALEXNET_CLEAN_ERROR
    assert tables["alexnet_fp_p"] == dict(ALEXNET_FLIP_PROBABILITIES)
    for name, errors in ALEXNET_ERRORS.items():
        assert tables["alexnet_err_c"][name] == pytest.approx(sum(errors) / 5, abs=1e-12)
