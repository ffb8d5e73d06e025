"""Occlusion: as many patches as asked, the same for every model and batch."""

import numpy as np
import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench import evaluate
from robust_bench.conditions.occluded import Occluded, mask_column, right_per_mask
from robust_models import NormalizedModel
from torch import nn
from torch.nn import functional

IMAGES = torch.full((5, 3, 28, 42), 0.4)  # no multiple of 2^-24, so that noise is never equal
LABELS = torch.zeros(5, dtype=torch.int64)
IDS = torch.tensor([3, 0, 11, 7, 20])


def patches(images, size):
    """Which patches of images changed, (N, patches), after checking that none changed in part."""
    changed = (images != 0.4).unfold(2, size, size).unfold(3, size, size)
    changed = changed.permute(0, 2, 3, 1, 4, 5).flatten(3)
    assert torch.equal(changed.all(dim=3), changed.any(dim=3))
    return changed.all(dim=3).flatten(1)


@pytest.mark.parametrize(("size", "share", "number"), [(14, 0.1, 1), (7, 0.1, 2), (2, 0.1, 29), (2, 1.0, 294)])
def test_exactly_the_rounded_share_of_patches_is_replaced(size, share, number):
    condition = Occluded(patch_size=size, share=share)
    for mask in range(3):
        shown = condition.change(None, IMAGES, LABELS, ImageRandom(0, IDS), mask)
        assert patches(shown, size).sum(dim=1).tolist() == [number] * 5
        assert float(shown.min()) >= 0.0
        assert float(shown.max()) < 1.0


def test_twenty_of_196_as_published():
    images = torch.full((1, 3, 224, 224), 0.4)
    shown = Occluded().change(None, images, LABELS[:1], ImageRandom(0, IDS[:1]))
    assert int(patches(shown, 16).sum()) == 20
    noise = shown[shown != 0.4].double()
    assert abs(float(noise.mean()) - 0.5) < 5 * (1 / 12) ** 0.5 / len(noise) ** 0.5
    assert float(noise.var()) == pytest.approx(1 / 12, rel=0.05)


def test_masks_belong_to_seed_image_and_number_alone():
    condition = Occluded(patch_size=2)

    def shown(rows, seed=0, mask=0):
        return condition.change(None, IMAGES[rows], LABELS[rows], ImageRandom(seed, IDS[rows]), mask)

    every = shown(slice(None))
    assert torch.equal(torch.cat([shown(slice(row, row + 1)) for row in range(5)]), every)
    assert torch.equal(shown(torch.tensor([4, 1])), every[[4, 1]])
    masks = {tuple(row.tolist()) for mask in range(4) for row in patches(shown(slice(None), mask=mask), 2)}
    assert len(masks) == 20  # of five images and four numbers, all different
    assert not torch.equal(shown(slice(None), seed=1), every)


class Bright(nn.Module):
    """Class 1 where the mean exceeds that of the clean image by some."""

    def __init__(self, least):
        super().__init__()
        self.least = least
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        score = 300 * (images.double().mean(dim=(1, 2, 3)) - self.least)
        return torch.stack((-score, score), dim=1).float()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_bits_say_under_which_masks_an_image_was_right(batch_size):
    """Mask after mask, image after image; more masks than one column holds."""
    condition, model = Occluded(patch_size=7, share=0.3, masks=70), Bright(0.43)
    columns, right, predictions, confidences = {}, [], [], []
    for rows in torch.arange(5).split(batch_size):
        found = condition.measure(model, IMAGES[rows], LABELS[rows], ImageRandom(9, IDS[rows]))
        for name, column in found.more.items():
            columns.setdefault(name, []).extend(column.tolist())
        right += found.right.tolist()
        predictions += found.predictions.tolist()
        confidences += found.confidences.tolist()
    assert list(columns) == [mask_column(0), mask_column(1)]
    bits = right_per_mask({name: np.array(column) for name, column in columns.items()}, 70)
    for image in range(5):
        one, largest = slice(image, image + 1), -1.0
        for mask in range(70):
            shown = condition.change(model, IMAGES[one], LABELS[one], ImageRandom(9, IDS[one]), mask)
            logits = model(shown)
            assert bits[image, mask] == (int(logits.argmax()) == 0)
            loss = float(functional.cross_entropy(logits, LABELS[one]))
            if loss > largest:
                largest, worst = loss, logits[0]
        assert predictions[image] == int(worst.argmax())
        assert confidences[image] == pytest.approx(float(worst.softmax(dim=0).max()), rel=1e-5)
    assert right == bits.all(axis=1).tolist()
    assert 0.2 < bits.mean() < 0.8


def test_every_mask_costs_one_look_at_an_image():
    model = Bright(0.4)
    Occluded(patch_size=7, masks=5).measure(model, IMAGES, LABELS, ImageRandom(0, IDS))
    assert model.calls == 5


def test_noise_behind_the_normalisation_has_the_same_patches():
    model = NormalizedModel(nn.Identity(), [0.5, 0.4, 0.3], [0.1, 0.2, 0.25])
    random = ImageRandom(0, IDS)
    plain = Occluded(patch_size=7, share=0.3).change(model, IMAGES, LABELS, random)
    shown = Occluded(patch_size=7, share=0.3, noise="normalized").change(model, IMAGES, LABELS, random)
    inside = plain != 0.4
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.5, 0.4, 0.3], [0.1, 0.2, 0.25]))
    torch.testing.assert_close(shown, torch.where(inside, mean + std * plain, IMAGES))
    with pytest.raises(ValueError, match=r"needs a model with robust_models\.Normalize inside"):
        Occluded(patch_size=7, noise="normalized").change(nn.Identity(), IMAGES, LABELS, random)


def test_settings_are_complete_and_wrong_ones_are_refused():
    assert Occluded(patch_size=2).settings == {
        "kind": "occlusion",
        "patch_size": 2,
        "share": 0.1,
        "masks": 100,
        "noise": "pixels",
    }
    assert Occluded().label == "10 % of patches of 16 px occluded, worst of 100 masks"
    for settings in ({"masks": 0}, {"share": 0.0}, {"noise": "grey"}, {"patch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Occluded(**settings)
    with pytest.raises(ValueError, match="do not divide into patches"):
        Occluded(patch_size=16).measure(Bright(0.4), IMAGES, LABELS, ImageRandom(0, IDS))


def test_columns_survive_their_files(model, grey, tmp_path):
    condition = Occluded(patch_size=2, share=0.25, masks=63)
    kept = evaluate(model, grey, conditions=(condition,), out=tmp_path, batch_size=7, shard_size=5)
    free = evaluate(model, grey, conditions=(condition,), batch_size=64)
    assert [row.correct for row in kept.rows] == [row.correct for row in free.rows]
