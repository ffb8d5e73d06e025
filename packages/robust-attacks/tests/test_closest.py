import pytest
import torch
from robust_attacks import margin, succeeded
from robust_attacks._gradient import Objective
from robust_attacks.closest import Closest, Shortest, cosine, distance, farthest, length, unit, verified
from torch import nn


def rule(logits, labels):
    return succeeded(margin, logits, labels)


def closest_of(distances):
    distances = torch.tensor(distances, dtype=torch.float64)
    return Closest(adversarial=torch.zeros(len(distances), 1, 1, 1), distances=distances, norm="L2")


class Threshold(nn.Module):
    """Class 1 where the first pixel is at least `bound`; the bound may change from call to call."""

    def __init__(self, *bounds):
        super().__init__()
        self.bounds = list(bounds)
        self.seen = []

    def forward(self, images):
        bound = self.bounds.pop(0) if len(self.bounds) > 1 else self.bounds[0]
        self.seen.append(len(images))
        value = images[:, 0, 0, 0] - bound
        return torch.stack((torch.zeros_like(value), value + 1e-30), dim=1)


def test_the_curve_counts_the_images_beyond_each_radius():
    closest = closest_of([0.0, 0.5, 0.5, 2.0, torch.inf])
    eps = torch.tensor([[0.0, 0.4999], [0.5, 2.0], [100.0, torch.inf]])
    expected = torch.tensor([[0.8, 0.8], [0.4, 0.2], [0.2, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(closest.accuracy(eps), expected)
    assert closest.accuracy([]).shape == (0,)


def test_the_curve_of_many_radii_equals_the_definition():
    generator = torch.Generator().manual_seed(0)
    distances = torch.randint(20, (101,), generator=generator).double() / 8
    eps = torch.randint(20, (57,), generator=generator).double() / 8
    closest = Closest(adversarial=torch.zeros(101, 1, 1, 1), distances=distances, norm="L1")
    expected = (distances[None] > eps[:, None]).double().mean(dim=1)
    torch.testing.assert_close(closest.accuracy(eps), expected)


def test_an_image_whose_own_logits_are_not_finite_is_neither_found_nor_robust():
    closest = closest_of([torch.nan, torch.inf, 1.0, 0.0])
    assert closest.found.tolist() == [False, False, True, True]
    assert closest.accuracy([0.0, 0.5, 1.0]).tolist() == [0.5, 0.5, 0.25]


@pytest.mark.parametrize("eps", [[-0.1], [0.1, float("nan")]], ids=repr)
def test_a_radius_must_be_a_number_from_zero(eps):
    with pytest.raises(ValueError, match=r"eps must be numbers >= 0, one per point of the curve, got \["):
        closest_of([1.0]).accuracy(eps)


def test_no_images_have_no_accuracy():
    with pytest.raises(ValueError, match="the accuracy of no images is undefined"):
        closest_of([]).accuracy([0.1])


def test_distances_in_float64():
    images = torch.tensor([0.5, 0.5, 0.5, 0.5]).reshape(1, 1, 2, 2)
    others = torch.tensor([0.5, 0.25, 1.0, 0.5]).reshape(1, 1, 2, 2)
    expected = {"L0": 2.0, "L1": 0.75, "L2": 0.3125**0.5, "Linf": 0.5}
    for norm, value in expected.items():
        found = distance(norm, images, others)
        assert found.dtype == torch.float64
        assert found.tolist() == pytest.approx([value], rel=1e-15)
        assert length(norm, others - images).shape == (1, 1, 1, 1)
    tiny = torch.full((1, 1, 1000, 1000), 1e-4)  # in float32 the sum of squares is off by 1e-5
    assert float(length("L2", tiny)) == pytest.approx(float(tiny[0, 0, 0, 0].double()) * 1000, rel=1e-12)


def test_only_closer_winners_are_kept():
    images = torch.full((4, 1, 1, 1), 0.5)
    shortest = Shortest("Linf", images)
    assert shortest.distances.tolist() == [torch.inf] * 4
    shown = shortest.show(images + 0.25, torch.tensor([True, True, False, False]))
    assert shown.tolist() == [True, True, False, False]
    shown = shortest.show(
        images + torch.tensor([0.125, 0.375, 0.125, 0.375]).reshape(4, 1, 1, 1), torch.tensor([True, True, True, False])
    )
    assert shown.tolist() == [True, False, True, False]
    assert shortest.adversarial.flatten().tolist() == [0.625, 0.75, 0.625, 0.5]
    assert shortest.distances.tolist() == [0.125, 0.25, 0.125, torch.inf]
    assert images.unique().tolist() == [0.5]


def judged(model, images, adversarial, labels):
    shortest = Shortest("Linf", images)
    shortest.adversarial = adversarial
    return verified(Objective(model, margin, images), rule, shortest, labels)


def test_what_does_not_win_again_at_all_is_not_found():
    images, labels = torch.full((3, 1, 1, 1), 0.25), torch.tensor([0, 1, 0])
    adversarial = torch.tensor([0.75, 0.25, 0.5]).reshape(3, 1, 1, 1)
    closest = judged(Threshold(0.6), images, adversarial, labels)
    assert closest.distances.tolist() == [0.5, 0.0, torch.inf]
    assert closest.adversarial.flatten().tolist() == [0.75, 0.25, 0.25]
    assert closest.found.tolist() == [True, True, False]


def test_what_loses_by_rounding_is_pushed_on_until_it_wins():
    images, labels = torch.full((3, 1, 1, 1), 0.25), torch.zeros(3, dtype=torch.int64)
    adversarial = torch.tensor([0.75, 0.7499, 0.25]).reshape(3, 1, 1, 1)
    model = Threshold(0.75)
    closest = judged(model, images, adversarial, labels)
    first, second, third = closest.adversarial.flatten().tolist()
    assert first == 0.75
    assert 0.75 <= second < 0.7503
    assert third == 0.25
    assert model.seen[0] == 3
    assert set(model.seen[1:]) == {1}  # only the one that needs it
    assert closest.distances.tolist() == [0.5, pytest.approx(second - 0.25), torch.inf]


def test_the_second_verdict_is_given_without_autocast():
    seen = []

    def model(images):
        seen.append(torch.is_autocast_enabled("cpu"))
        return torch.stack((images[:, 0, 0, 0], 1 - images[:, 0, 0, 0]), dim=1)

    images = torch.full((2, 1, 1, 1), 0.25)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        judged(model, images, images, torch.tensor([0, 1]))
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False]


def test_not_found_and_not_finite_differ():
    def model(images):
        x = images[:, 0, 0, 0]
        return torch.stack((x, x / (x > 0.5)), dim=1)  # 0.25 / 0

    images = torch.tensor([0.25, 0.75, 0.75]).reshape(3, 1, 1, 1)
    adversarial = torch.tensor([0.25, 0.75, 0.3]).reshape(3, 1, 1, 1)
    closest = judged(model, images, adversarial, torch.zeros(3, dtype=torch.int64))
    assert closest.distances.isnan().tolist() == [True, False, False]
    assert closest.distances[1:].tolist() == [torch.inf, torch.inf]
    assert torch.equal(closest.adversarial, images)


def test_the_cosine_schedule_passes_from_the_first_to_the_last():
    assert [cosine(1.0, 0.01, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.505, 0.01])


def test_no_change_inside_the_box_is_longer_than_the_farthest():
    images = torch.tensor([0.25, 1.0]).reshape(1, 1, 1, 2)
    expected = {"L0": 2.0, "L1": 1.75, "L2": 1.25, "Linf": 1.0}
    assert {norm: float(farthest(norm, images)) for norm in expected} == expected


def test_unit_vectors_at_all_scales():
    vectors = torch.tensor([[3.0, 4.0], [3e-40, 4e-40], [3e38, 3e38], [0.0, 0.0]]).reshape(4, 1, 1, 2)
    found = unit(vectors).flatten(1)
    assert found.dtype == torch.float32
    expected = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.5**0.5, 0.5**0.5], [0.0, 0.0]])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
