"""The blurs against the published code's results (specification, 9 a and b)."""

import numpy as np
import pytest
import torch
from robust_attacks import ImageRandom
from robust_bench.corruptions import Draws, apply, corrupt, sample
from robust_bench.corruptions.blur import BLUR, gaussian_blur
from robust_bench.corruptions.presets import PRESETS, constant_of
from scipy import ndimage

NAMES = [corruption.name for corruption in BLUR]
NO_DRAWS = ("defocus_blur", "zoom_blur", "gaussian_blur")
CASES = pytest.mark.parametrize(
    ("severity", "preset"), [(severity, preset) for preset in ("imagenet", "cifar") for severity in (1, 2, 3, 4, 5)]
)
# Share of the values that may differ in double precision, all by truncation at exact grey levels; 1e-3 elsewhere.
TRUNCATED = {
    ("defocus_blur", "imagenet", 1): 0.04,
    ("defocus_blur", "cifar", 4): 0.01,
    ("defocus_blur", "cifar", 5): 0.06,
}


@pytest.mark.shared_data
@CASES
class TestPublishedResults:
    @pytest.mark.parametrize("name", NO_DRAWS)
    def test_without_randomness(self, published, apart, name, severity, preset):
        clean, expected, _ = published(name, severity, preset)
        variant = "imagecorruptions" if preset == "imagenet" else "imagenet_c"
        largest, mean, _ = apart(corrupt(clean, name, severity, preset, variant), expected)
        assert largest <= 1
        assert mean < 0.25
        largest, _, share = apart(corrupt(clean, name, severity, preset, variant, precision="double"), expected)
        assert largest <= 1
        assert share < TRUNCATED.get((name, preset, severity), 1e-3)

    def test_motion_blur_with_the_published_angles(self, published, apart, severity, preset):
        clean, expected, numbers = published("motion_blur", severity, preset)
        angles = [np.random.RandomState(1000 * number + severity).uniform(-45, 45) for number in numbers]
        draws = Draws(count=len(angles), fields={"angle": torch.tensor(angles)})
        for precision in ("float32", "double"):
            out = apply("motion_blur", clean, severity, draws, preset=preset, precision=precision)
            largest, _, share = apart(out, expected)
            assert largest <= 1
            assert share < 0.01  # at 32 pixels the reference is ImageMagick, which computes with 16-bit levels

    def test_glass_blur_with_the_published_offsets(self, published, apart, severity, preset):
        clean, expected, numbers = published("glass_blur", severity, preset)
        constant = constant_of("glass_blur", severity, preset)
        fields = [published_offsets(1000 * number + severity, *clean.shape[2:], constant) for number in numbers]
        draws = Draws(count=len(fields), fields={"offsets": torch.from_numpy(np.stack(fields))})
        largest, mean, _ = apart(apply("glass_blur", clean, severity, draws, preset=preset), expected)
        assert largest <= 1
        assert mean < 0.25
        assert torch.equal(apply("glass_blur", clean, severity, draws, preset=preset, precision="double"), expected)


def published_offsets(seed, height, width, constant):
    """What `randint(-d, d, size=2)` gave, pixel by pixel from the bottom right, as a field (3, 2, H, W)."""
    _, distance, passes = constant
    generator, offsets = np.random.RandomState(seed), np.zeros((3, 2, height, width), np.int8)
    rows, columns = (side - 2 * distance for side in (height, width))
    for step in range(passes):
        drawn = generator.randint(-distance, distance, size=(rows, columns, 2))  # the same stream, all at once
        inside = slice(distance + 1, height - distance + 1), slice(distance + 1, width - distance + 1)
        offsets[(step, slice(None), *inside)] = np.moveaxis(drawn[::-1, ::-1], -1, 0)
    return offsets


@pytest.mark.parametrize("sigma", [0.4, 1, 6])
@pytest.mark.parametrize("size", [(32, 32), (33, 70), (224, 180)], ids=str)
def test_gaussian_blur_is_the_filter_of_scipy(sigma, size):
    images = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    filtered = ndimage.gaussian_filter(images.numpy(), sigma, mode="nearest", truncate=4, axes=(2, 3))
    out = gaussian_blur(images, sigma, Draws(count=2, fields={}))
    torch.testing.assert_close(out, torch.from_numpy(filtered), rtol=0, atol=1e-12)
    torch.testing.assert_close(gaussian_blur(images.float(), sigma, Draws(count=2, fields={})), out.float())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.filterwarnings("ignore::robust_bench.corruptions.SizeWarning")
def test_a_plain_image_stays_as_it_is(name, preset):
    """All weights add up to 1, except for disks that fill their grid: the published code lets them brighten by 1 %."""
    images = torch.full((1, 3, 64, 80), 0.7, dtype=torch.float64)
    for severity in (1, 2, 3, 4, 5):
        radius = constant_of(name, severity, preset)[0] if name == "defocus_blur" else 0
        draws = sample(name, severity, images.shape, random=ImageRandom(0), preset=preset)
        out = apply(name, images, severity, draws, preset=preset)
        within = 1 / 255 if name == "glass_blur" else 0.01 if radius >= 8 else 1e-9
        assert (out - 0.7).abs().max() <= within


@pytest.mark.parametrize("name", NAMES)
def test_small_images_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} needs images of 32 pixels a side or more, got 31 x 40"):
        corrupt(torch.zeros(1, 3, 31, 40, dtype=torch.uint8), name, 3, "cifar")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.filterwarnings("ignore::robust_bench.corruptions.SizeWarning")
def test_every_constant_works_at_the_smallest_size(pictures, name, preset):
    images = pictures(size=(32, 35))
    for severity in (1, 2, 3, 4, 5):
        whole = corrupt(images, name, severity, preset)
        some = torch.tensor([4, 1])
        assert torch.equal(corrupt(images[some], name, severity, preset, ids=some), whole[some])
