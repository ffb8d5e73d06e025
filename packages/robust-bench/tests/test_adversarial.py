"""Adversarial scores by counting, the relation between them, and the published losses of short and long attacks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from robust_bench.metrics.adversarial import (
    adversarial_robustness,
    attack_effectiveness,
    robust_accuracy,
    robust_counts,
    worst_case_adversarial_robustness,
)

# rows are images: right when clean, under fgsm, under pgd, under square
IMAGES = st.lists(st.tuples(*[st.booleans()] * 4), min_size=1, max_size=60)
RIGHT_WHEN_CLEAN = IMAGES.filter(lambda images: any(image[0] for image in images))


def columns(images):
    clean, *attacked = zip(*images, strict=True)
    return clean, dict(zip(("fgsm", "pgd", "square"), attacked, strict=True))


@given(RIGHT_WHEN_CLEAN)
def test_robust_accuracy_is_clean_accuracy_times_wcar(images):
    clean, attacked = columns(images)
    clean_accuracy = sum(clean) / len(clean)
    expected = clean_accuracy * worst_case_adversarial_robustness(clean, attacked)
    assert robust_accuracy(clean, attacked) == pytest.approx(expected, rel=1e-12)


@given(IMAGES)
def test_agrees_with_counting(images):
    clean, attacked = columns(images)
    assert robust_accuracy(clean, attacked) == sum(all(image) for image in images) / len(images)
    assert robust_counts(clean, attacked) == {
        "fgsm": sum(all(image[:2]) for image in images),
        "pgd": sum(all(image[:3]) for image in images),
        "square": sum(all(image) for image in images),
    }
    right = [image for image in images if image[0]]
    if right:
        assert worst_case_adversarial_robustness(clean, attacked) == sum(all(image) for image in right) / len(right)
        for position, name in enumerate(attacked, start=1):
            ar = adversarial_robustness(clean, attacked[name])
            assert ar == sum(image[position] for image in right) / len(right)


@given(RIGHT_WHEN_CLEAN)
def test_the_worst_case_is_never_above_one_attack_and_falls_with_more(images):
    clean, attacked = columns(images)
    worst = worst_case_adversarial_robustness(clean, attacked)
    assert worst <= min(adversarial_robustness(clean, column) for column in attacked.values())
    assert worst <= worst_case_adversarial_robustness(clean, {"pgd": attacked["pgd"]})
    counts = list(robust_counts(clean, attacked).values())
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] / len(images) == robust_accuracy(clean, attacked)


def test_an_image_that_is_wrong_when_clean_never_counts_as_robust():
    assert robust_accuracy([False, True], {"pgd": [True, True]}) == 0.5
    assert adversarial_robustness([False, True], [True, True]) == 1.0
    assert robust_counts(torch.tensor([False, True]), {"pgd": torch.tensor([True, True])}) == {"pgd": 1}


@pytest.mark.parametrize(
    ("losses", "oracle", "percent"),
    [
        ((2.1252, 2.2014, 2.2463, 2.2614), 2.2793, (6.76, 3.42, 1.45, 0.79)),
        ((2.3133, 2.4173, 2.5259, 2.5837), 2.6498, (12.70, 8.77, 4.68, 2.49)),
        ((2.0036, 2.3030, 2.9123, 4.1818), 7.0335, (71.51, 67.26, 58.59, 40.54)),
    ],
    ids=["XCiT-S12", "GELU ResNet-50", "canonical"],
)
def test_the_published_losses_give_the_published_effectiveness(losses, oracle, percent):
    for loss, printed in zip(losses, percent, strict=True):
        effect = attack_effectiveness(loss, oracle)
        assert 100 * effect.relative_difference == pytest.approx(printed, abs=0.0051)
        assert effect.ratio == pytest.approx(1.0 - printed / 100, abs=0.000051)


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6))
def test_the_difference_is_the_distance_of_the_ratio_from_one(loss, oracle):
    effect = attack_effectiveness(loss, oracle)
    difference, ratio = effect.relative_difference, effect.ratio
    assert difference == pytest.approx(abs(1.0 - ratio), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ((-0.1, 1.0), "loss must be a mean cross-entropy, finite and at least 0, got -0.1"),
        ((float("nan"), 1.0), "loss must be .* got nan"),
        ((1.0, 0.0), "oracle_loss must be a mean cross-entropy, finite and above 0, got 0.0"),
        ((1.0, float("inf")), "oracle_loss must be .* got inf"),
    ],
)
def test_refuses_impossible_losses(losses, message):
    with pytest.raises(ValueError, match=message):
        attack_effectiveness(*losses)


@pytest.mark.parametrize("score", [robust_accuracy, worst_case_adversarial_robustness, robust_counts])
@pytest.mark.parametrize(
    ("attacked", "kind", "message"),
    [
        ({}, ValueError, "attacked_correct is empty: give at least one attack"),
        ([[True, True]], TypeError, r"must map the name of every attack to its column, e.g. .*, got list"),
        (
            {"pgd": [True]},
            ValueError,
            "clean_correct and pgd must have one entry per image each, got 2 of .*, 1 of pgd",
        ),
        ({"pgd": [True, True], "fgsm": []}, ValueError, "fgsm is empty"),
        ({"pgd": [3, 7]}, ValueError, r"pgd must be boolean \(or 0 and 1\), got 3"),
    ],
)
def test_names_the_attack_that_does_not_fit(score, attacked, kind, message):
    with pytest.raises(kind, match=message):
        score([True, False], attacked)


def test_no_clean_image_right_leaves_nothing_to_be_relative_to():
    assert robust_accuracy([False, False], {"pgd": [True, False]}) == 0.0
    for score, attacked in (
        (adversarial_robustness, [True, False]),
        (worst_case_adversarial_robustness, {"pgd": [True, False]}),
    ):
        with pytest.raises(ValueError, match=r"no clean image of 2 is right: .* report the robust accuracy, 0"):
            score([False, False], attacked)
