"""Laws that every augmentation of images obeys."""

import dataclasses

import pytest
import torch
from robust_augs import APRPair, GaussianNoise, PatchGaussian, PatchOcclusion, Patchwise
from robust_augs.apr import APRSingle
from robust_augs.augmix import AugMix
from robust_augs.color import RandomColor
from robust_augs.diffeomorphism import Diffeomorphism
from robust_augs.filter import RandomFilter
from robust_augs.noise2net import Noise2Net
from robust_augs.prime import PRIME
from robust_augs.style import StyleTransfer

SQUARE_ONLY = [
    pytest.param(Diffeomorphism(), id="Diffeomorphism"),
    pytest.param(PRIME.cifar, id="PRIME, CIFAR"),
    pytest.param(PRIME.imagenet, id="PRIME, ImageNet"),
]
ALL = [
    *SQUARE_ONLY,
    pytest.param(RandomColor.cifar, id="RandomColor, CIFAR"),
    pytest.param(RandomColor.imagenet, id="RandomColor, ImageNet"),
    pytest.param(RandomFilter(), id="RandomFilter"),
    pytest.param(RandomFilter(size=5, upstream_shift=True), id="RandomFilter, shifted"),
    pytest.param(PRIME(primitives=(RandomColor(), RandomFilter()), width=2, depth=2), id="PRIME, two primitives"),
    pytest.param(APRPair(), id="APRPair"),
    pytest.param(APRPair(per_batch=True, clip=True), id="APRPair, per batch"),
    pytest.param(APRSingle(), id="APRSingle"),
    pytest.param(APRSingle(wrap=True, quantize=False), id="APRSingle, wrapped"),
    pytest.param(AugMix(), id="AugMix"),
    pytest.param(AugMix(quantize=False, width=2, depth=2), id="AugMix, floats"),
    pytest.param(GaussianNoise(), id="GaussianNoise"),
    pytest.param(GaussianNoise.multiple, id="GaussianNoise, multiple"),
    pytest.param(GaussianNoise(speckle=True, sigma=0.3), id="GaussianNoise, speckle"),
    pytest.param(Noise2Net(), id="Noise2Net"),
    pytest.param(Noise2Net(space="unit", eps=(0.1, 0.2)), id="Noise2Net, unit"),
    pytest.param(Noise2Net.imagenet, id="Noise2Net, ImageNet"),
    pytest.param(PatchGaussian(patch_size=4, sigma=0.2), id="PatchGaussian"),
    pytest.param(PatchGaussian.imagenet, id="PatchGaussian, ranges"),
    pytest.param(PatchOcclusion(patch_size=1), id="PatchOcclusion"),
    pytest.param(Patchwise(patch_size=1, probability=0.5, sigma=0.1), id="Patchwise"),
    pytest.param(StyleTransfer(torch.nn.Identity(), torch.nn.Identity()), id="StyleTransfer"),
    pytest.param(StyleTransfer(torch.nn.Identity(), torch.nn.Identity(), alpha=0.5), id="StyleTransfer, half"),
]
DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]


def images_of(dtype=torch.float32, shape=(6, 3, 8, 8), seed=0):
    levels = torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return levels if dtype == torch.uint8 else (levels.double() / 255).to(dtype)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("augmentation", ALL)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shape_and_dtype_come_back_and_the_input_stays(augmentation, dtype):
    images = images_of(dtype)
    before = images.clone()
    changed = augmentation(images, generator=generator(3))
    assert changed.shape == images.shape
    assert changed.dtype == dtype
    assert changed.float().isfinite().all()
    assert torch.equal(images, before)
    assert changed.data_ptr() != images.data_ptr()
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("augmentation", ALL)
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (5, 1, 7, 4), (2, 4, 1, 1), (0, 3, 8, 8)], ids=str)
def test_one_image_other_channels_odd_sides_and_no_image_at_all(augmentation, shape):
    if shape[2] != shape[3] and any(augmentation in param.values for param in SQUARE_ONLY):
        with pytest.raises(ValueError, match="square images only"):
            augmentation(images_of(shape=shape), generator=generator())
    else:
        assert augmentation(images_of(shape=shape), generator=generator()).shape == shape


@pytest.mark.parametrize("augmentation", ALL)
def test_half_precision_is_computed_in_float32(augmentation):
    images = images_of(torch.float16)
    draws = augmentation.sample(images.shape, generator())
    assert torch.equal(augmentation.apply(images, draws), augmentation.apply(images.float(), draws).half())


@pytest.mark.parametrize("augmentation", ALL)
def test_eight_bit_images_are_those_of_floats_rounded(augmentation):
    images = images_of(torch.uint8)
    draws = augmentation.sample(images.shape, generator())
    floats = augmentation.apply(images.float() / 255, draws)
    levels = augmentation.apply(images, draws)
    assert torch.equal(levels, (floats.clamp(0, 1) * 255).round().to(torch.uint8))


@pytest.mark.parametrize("augmentation", ALL)
def test_the_generator_alone_decides_and_the_global_state_stays(augmentation):
    images = images_of()
    before = torch.get_rng_state()
    first = augmentation(images, generator=generator(7))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(augmentation(images, generator=generator(7)), first)
    assert not torch.equal(augmentation(images, generator=generator(8)), first)


@pytest.mark.parametrize("augmentation", ALL)
def test_without_a_generator_torchs_own_seed_decides(augmentation):
    images = images_of()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = augmentation(images)
        second = augmentation(images)
        torch.manual_seed(5)
        assert torch.equal(augmentation(images), first)
        assert not torch.equal(second, first)


@pytest.mark.parametrize("augmentation", ALL)
def test_draws_can_be_injected_and_replayed(augmentation):
    images = images_of()
    draws = augmentation.sample(images.shape, generator(1))
    assert torch.equal(augmentation.apply(images, draws), augmentation(images, generator=generator(1)))
    assert torch.equal(augmentation.apply(images, draws), augmentation.apply(images, draws))


@pytest.mark.parametrize("augmentation", ALL)
def test_no_gradient_flows(augmentation):
    assert not augmentation(images_of().requires_grad_(), generator=generator()).requires_grad


@pytest.mark.parametrize("augmentation", ALL)
def test_settings_are_values(augmentation):
    assert augmentation == dataclasses.replace(augmentation)
    assert hash(augmentation) == hash(dataclasses.replace(augmentation))
    with pytest.raises(dataclasses.FrozenInstanceError):
        augmentation.share = 0.1


@pytest.mark.parametrize("augmentation", ALL)
def test_what_apr_leaves_beyond_the_range_is_refused_with_the_way_out(augmentation):
    images = images_of().round()
    with pytest.raises(ValueError, match=r"APRPair\(clip=True\) keeps to the range"):
        augmentation(APRPair(probability=1.0)(images, generator=generator()))
    augmentation(APRPair(probability=1.0, clip=True)(images, generator=generator()))


@pytest.mark.parametrize("augmentation", ALL)
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([[1.0]], TypeError, "torch.Tensor"),
        (torch.ones(2, 3, 4, 4, dtype=torch.int64), TypeError, "floats in .* or uint8, got torch.int64"),
        (torch.ones(3, 4, 4), ValueError, r"\(N, C, H, W\), got \(3, 4, 4\): images.unsqueeze"),
        (torch.ones(2, 3, 0, 4), ValueError, r"got \(2, 3, 0, 4\)"),
        (torch.full((2, 3, 4, 4), 1.5), ValueError, r"must lie in \[0, 1\], got \[1.5, 1.5\].*inside the model"),
        (torch.full((2, 3, 4, 4), -0.1), ValueError, r"must lie in \[0, 1\]"),
        (torch.full((2, 3, 4, 4), float("nan")), ValueError, "got .nan, nan."),
    ],
    ids=["list", "int64", "no batch", "empty side", "above", "below", "NaN"],
)
def test_what_is_not_a_batch_of_images_is_refused(augmentation, images, error, message):
    with pytest.raises(error, match=message):
        augmentation(images)
