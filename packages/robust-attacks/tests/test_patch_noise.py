import pytest
import torch
from robust_attacks import ImageRandom
from robust_attacks.patch_noise import NoisyPatches, OccludedPatches
from robust_attacks.patch_pgd import PatchPGD

LABELS = torch.zeros(50, dtype=torch.int64)
RANDOM = ImageRandom(0, torch.arange(50))
each_change = pytest.mark.parametrize("make", [NoisyPatches, OccludedPatches])


def images(seed=0):
    return torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@each_change
def test_they_change_the_patches_of_the_attack_and_nothing_else(make):
    change = make(patch_size=4, share=0.3)
    found = change(None, images(), LABELS, random=RANDOM)
    mask = PatchPGD(patch_size=4, share=0.3).mask(images(), RANDOM)
    assert torch.equal(torch.where(mask, images(), found), images())
    assert float((found != images())[mask.expand_as(found)].double().mean()) > 0.8  # clipped ones may stay
    assert ((found >= 0) & (found <= 1)).all()


def test_the_noise_is_normal_and_added():
    grey = torch.full((50, 3, 16, 16), 0.5, dtype=torch.float64)
    change = NoisyPatches(std=0.05, patch_size=4, share=0.5)
    added = change(None, grey, LABELS, random=RANDOM) - grey
    added = added[PatchPGD(patch_size=4, share=0.5).mask(grey, RANDOM).expand_as(grey)] / 0.05
    assert abs(float(added.mean())) < 0.05
    assert float(added.std()) == pytest.approx(1, abs=0.03)
    assert float((added.abs() < 1).double().mean()) == pytest.approx(0.6827, abs=0.02)


def test_the_occlusion_is_uniform_and_forgets_the_image():
    change = OccludedPatches(patch_size=4, share=1.0)
    found = change(None, images(), LABELS, random=RANDOM)
    assert torch.equal(found, change(None, images(1), LABELS, random=RANDOM))
    counts = torch.histc(found, bins=10, min=0, max=1)
    expected = found.numel() / 10
    assert float(((counts - expected) ** 2 / expected).sum()) < 50  # chi-square of 9 degrees, p ~ 1e-7


@each_change
def test_they_belong_to_the_image(make):
    change = make(patch_size=4, share=0.3)
    whole = change(None, images(), LABELS, random=RANDOM)
    order = torch.tensor([30, 2, 11])
    assert torch.equal(change(None, images()[order], LABELS[order], random=RANDOM[order]), whole[order])
    assert not torch.equal(change(None, images(), LABELS, random=ImageRandom(1)), whole)


@each_change
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_layout_and_the_given_images_stay(make, dtype):
    given = images().to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    before = given.detach().clone()
    found = make(patch_size=4, share=0.3)(None, given, LABELS)
    assert (found.dtype, found.requires_grad) == (dtype, False)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(given, before)


@each_change
def test_wrong_settings_and_images_are_refused(make):
    name = make.__name__
    with pytest.raises(ValueError, match=f"{name}: share must be above 0"):
        make(share=0)
    with pytest.raises(ValueError, match=f"{name}: patch_size must be at least 1"):
        make(patch_size=0)
    with pytest.raises(ValueError, match=f"{name}: images of 16 x 16 pixels do not divide into patches of 5 x 5"):
        make(patch_size=5)(None, images(), LABELS)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        make(patch_size=4)(None, images() * 2, LABELS)
    with pytest.raises(ValueError, match="NoisyPatches: std must be above 0, and finite"):
        NoisyPatches(std=0)
