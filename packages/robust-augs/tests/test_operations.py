"""The thirteen operations of AugMix against Pillow, and on floats against their definitions written out."""

import math

import pytest
import torch
from robust_augs.geometry import rotate, shear_x, shear_y, translate_x, translate_y
from robust_augs.operations import OPERATIONS, OVERLAPPING, operate
from robust_augs.tone import autocontrast, equalize, posterize, solarize

EQUAL = {"autocontrast", "equalize", "posterize", "solarize", "translate_x", "translate_y"}
SHAPES = [(3, 32, 32), (3, 21, 40), (1, 17, 30), (3, 2, 3), (1, 1, 1)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(kind, shape, count=8, seed=0):
    """Images that differ in what they try: every level, one level, few levels (many ties), smooth ones."""
    random = generator(seed)
    channels, height, width = shape
    if kind == "noise":
        return torch.randint(256, (count, *shape), generator=random, dtype=torch.uint8)
    if kind == "constant":
        return torch.randint(256, (count, channels, 1, 1), generator=random, dtype=torch.uint8).repeat(1, 1, *shape[1:])
    if kind == "few":
        return (torch.randint(3, (count, *shape), generator=random) * 60 + 40).to(torch.uint8)
    coarse = torch.rand(count, channels, 2 + height // 8, 2 + width // 8, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")
    return (smooth * 200 + 30).to(torch.uint8)


def strengths(count, seed=0, largest=9.9):
    random = generator(seed)
    return torch.rand(count, generator=random) * (largest - 0.1) + 0.1, torch.randint(
        2, (count,), generator=random
    ) * 2 - 1


def with_pillow(name, levels, strength, sign):
    """The published definitions, one image (C, H, W) at a time."""
    from PIL import Image, ImageEnhance, ImageOps

    image = Image.fromarray(levels.permute(1, 2, 0).squeeze(2).contiguous().numpy())
    width, height = image.size
    enhance = {"color": "Color", "contrast": "Contrast", "brightness": "Brightness", "sharpness": "Sharpness"}

    def affine(*coefficients):
        return image.transform(image.size, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BILINEAR)

    match name:
        case "autocontrast":
            result = ImageOps.autocontrast(image)
        case "equalize":
            result = ImageOps.equalize(image)
        case "posterize":
            result = ImageOps.posterize(image, 4 - int(strength * 4 / 10))
        case "rotate":
            result = image.rotate(sign * int(strength * 30 / 10), resample=Image.Resampling.BILINEAR)
        case "solarize":
            result = ImageOps.solarize(image, 256 - int(strength * 256 / 10))
        case "shear_x":
            result = affine(1, sign * strength * 0.3 / 10, 0, 0, 1, 0)
        case "shear_y":
            result = affine(1, 0, 0, sign * strength * 0.3 / 10, 1, 0)
        case "translate_x":
            result = affine(1, 0, sign * int(strength * (width / 3) / 10), 0, 1, 0)
        case "translate_y":
            result = affine(1, 0, 0, 0, 1, sign * int(strength * (height / 3) / 10))
        case _:
            result = getattr(ImageEnhance, enhance[name])(image).enhance(strength * 1.8 / 10 + 0.1)
    return torch.tensor(list(result.tobytes()), dtype=torch.uint8).view(*levels.shape[1:], -1).permute(2, 0, 1)


@pytest.mark.parametrize("name", OPERATIONS + OVERLAPPING)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bytes_are_those_of_pillow_or_within_one_level(name, shape):
    pytest.importorskip("PIL")
    for kind in ("noise", "constant", "few", "smooth"):
        levels = pictures(kind, shape)
        strength, sign = strengths(len(levels))
        result = operate(name, levels, strength, sign)
        assert result.dtype == torch.uint8
        images = zip(levels, strength.tolist(), sign.tolist(), strict=True)
        expected = torch.stack([with_pillow(name, *each) for each in images])
        difference = (result.int() - expected.int()).abs()
        assert difference.max() <= (0 if name in EQUAL else 1)
        assert (difference > 0).float().mean() < 0.03


def test_unturned_and_uniform_images_stay_as_they_are():
    """Cutting off fractions must not turn 7 into 6 where 7 came out as 6.99999."""
    levels = pictures("noise", (3, 64, 48), count=4)
    assert torch.equal(rotate(levels, torch.zeros(4)), levels)
    for operation in (shear_x, shear_y, translate_x, translate_y):
        assert torch.equal(operation(levels, torch.zeros(4, dtype=torch.int64)), levels)
    uniform = pictures("constant", (3, 64, 48), count=8)
    for operation, parameter in ((rotate, torch.arange(8) * 4 - 15), (shear_x, torch.linspace(-0.3, 0.3, 8))):
        result = operation(uniform, parameter)
        assert ((result == uniform) | (result == 0)).all()


def sample(image, x, y):
    """Bilinear value of a picture (C, H, W) at a point, by Pillow's rule, written out for one point."""
    height, width = image.shape[1:]
    if not (0 <= x < width and 0 <= y < height):
        return torch.zeros_like(image[:, 0, 0])
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    total = torch.zeros_like(image[:, 0, 0])
    for row, weight_y in ((top, top + 1.5 - y), (top + 1, y - 0.5 - top)):
        for column, weight_x in ((left, left + 1.5 - x), (left + 1, x - 0.5 - left)):
            neighbour = image[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
            total = total + weight_x * weight_y * neighbour
    return total


def turned(degrees):
    def source(x, y, width, height):
        angle = math.radians(degrees)
        x, y = x - width / 2, y - height / 2
        across = math.cos(angle) * x - math.sin(angle) * y
        return across + width / 2, math.sin(angle) * x + math.cos(angle) * y + height / 2

    return source


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("operation", "parameter", "source"),
    [
        (rotate, 13, turned(13)),
        (rotate, -29, turned(-29)),
        (rotate, 120, turned(120)),
        (shear_x, 0.17, lambda x, y, w, h: (x + 0.17 * y, y)),
        (shear_x, -0.3, lambda x, y, w, h: (x - 0.3 * y, y)),
        (shear_y, 0.23, lambda x, y, w, h: (x, y + 0.23 * x)),
        (shear_y, -4.1, lambda x, y, w, h: (x, y - 4.1 * x)),
        (translate_x, 3, lambda x, y, w, h: (x + 3, y)),
        (translate_x, -40, lambda x, y, w, h: (x - 40, y)),
        (translate_y, -2, lambda x, y, w, h: (x, y - 2)),
        (translate_y, 40, lambda x, y, w, h: (x, y + 40)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_floats_are_moved_by_the_definition_point_by_point(dtype, operation, parameter, source):
    images = torch.rand(2, 2, 9, 13, generator=generator(), dtype=torch.float64) * 255
    expected = torch.stack(
        [
            torch.stack([sample(image, *source(c + 0.5, r + 0.5, 13, 9)) for r in range(9) for c in range(13)], dim=1)
            for image in images
        ]
    ).view_as(images)
    result = operation(images.to(dtype), torch.tensor([parameter] * 2, dtype=torch.float64))
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-2)


def test_floats_are_toned_by_the_definitions_without_rounding():
    floats = torch.rand(3, 2, 20, 30, generator=generator(), dtype=torch.float64) * 180 + 40
    floats[2, 1] = 77.25
    low, high = floats.amin((2, 3), keepdim=True), floats.amax((2, 3), keepdim=True)
    stretched = (floats - low) / (high - low).clamp_min(1e-9) * 255
    stretched[2, 1] = 77.25
    torch.testing.assert_close(autocontrast(floats), stretched)
    bits = torch.tensor([1, 4, 8])
    for i, step in enumerate((128, 16, 1)):
        torch.testing.assert_close(posterize(floats, bits)[i], floats[i] - floats[i] % step)
    threshold = torch.tensor([100, 0, 255])
    expected = torch.where(floats < threshold.view(3, 1, 1, 1), floats, 255 - floats)
    torch.testing.assert_close(solarize(floats, threshold), expected)
    assert not torch.equal(stretched, stretched.round())


def test_floats_are_equalized_by_the_exact_quotient():
    floats = torch.rand(1, 1, 30, 30, generator=generator(), dtype=torch.float64) * 255
    ranks = floats.round().long().flatten().tolist()
    counts = [ranks.count(level) for level in range(256)]
    step = (900 - [count for count in counts if count][-1]) // 255
    expected = [min((step // 2 + sum(counts[:level])) / step, 255.0) for level in ranks]
    torch.testing.assert_close(equalize(floats).flatten(), torch.tensor(expected, dtype=torch.float64))
    few = floats[..., :2, :3]
    assert torch.equal(equalize(few), few)  # too few pixels for a step


@pytest.mark.parametrize("name", OPERATIONS + OVERLAPPING)
def test_floats_at_whole_levels_lie_near_the_bytes(name):
    """The same formulas: what differs is a fraction cut off, and in a blend a level or a mean rounded before."""
    levels = pictures("smooth", (3, 24, 24))
    strength, sign = strengths(len(levels))
    difference = operate(name, levels.double(), strength, sign) - operate(name, levels, strength, sign)
    assert difference.abs().max() < 1.5


@pytest.mark.parametrize("name", OPERATIONS + OVERLAPPING)
@pytest.mark.parametrize("quantized", [True, False])
def test_every_image_is_worked_on_alone_and_the_input_stays(name, quantized):
    levels = pictures("noise", (3, 16, 12), count=5)
    levels = levels if quantized else levels.float()
    before = levels.clone()
    strength, sign = strengths(5)
    together = operate(name, levels, strength, sign)
    assert torch.equal(levels, before)
    assert together.min() >= 0
    assert together.max() <= 255
    for i in range(5):
        alone = operate(name, levels[i : i + 1], strength[i : i + 1], sign[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=0 if quantized else 1e-4)


def test_posterize_with_no_bits_is_black():
    levels = pictures("noise", (3, 4, 4))
    assert (posterize(levels, torch.zeros(8, dtype=torch.int64)) == 0).all()


def test_mistakes_are_told():
    levels = pictures("noise", (4, 8, 8))
    for name in ("color", "contrast"):
        with pytest.raises(ValueError, match="need grey or RGB images, got 4 channels: all_ops=False"):
            operate(name, levels, *strengths(8))
    with pytest.raises(ValueError, match="no operation is called 'blur': choose one of autocontrast, equalize"):
        operate("blur", levels, *strengths(8))


@pytest.mark.parametrize("operation", [posterize, solarize, shear_x])
def test_operations_compile(operation):
    levels = pictures("noise", (3, 8, 8))
    parameter = torch.full((8,), 0.1 if operation is shear_x else 3)
    compiled = torch.compile(operation, fullgraph=True, backend="eager")
    assert torch.equal(compiled(levels, parameter), operation(levels, parameter))
