import pytest
import torch
from robust_augs._resample import Boxes, cubic, random_boxes, resized_crop, triangle
from torchvision.transforms.v2 import InterpolationMode, functional


def boxes_of(*boxes):
    return Boxes(**dict(zip(("top", "left", "height", "width"), torch.tensor(boxes).T, strict=True)))


@pytest.mark.parametrize(
    ("kernel", "mode"),
    [(triangle, InterpolationMode.BILINEAR), (cubic, InterpolationMode.BICUBIC)],
    ids=["bilinear", "bicubic"],
)
@pytest.mark.parametrize("size", [(9, 7), (23, 30), (60, 61)], ids=str)
def test_equals_torchvision_on_every_image(kernel, mode, size):
    images = torch.rand(4, 3, 23, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boxes = [(0, 0, 23, 31), (3, 5, 11, 8), (22, 30, 1, 1), (10, 0, 13, 30)]
    result = resized_crop(images, boxes_of(*boxes), size, kernel)
    for image, box, cut in zip(images, boxes, result, strict=True):
        expected = functional.resized_crop(image, *box, list(size), mode, antialias=True)
        torch.testing.assert_close(cut, expected, rtol=0, atol=1e-12)


def test_a_box_of_the_right_size_is_copied():
    images = torch.rand(2, 3, 16, 16)
    cut = resized_crop(images, boxes_of((2, 5, 8, 8), (8, 0, 8, 8)), (8, 8), cubic)
    assert torch.equal(cut, torch.stack([images[0, :, 2:10, 5:13], images[1, :, 8:, :8]]))


@pytest.mark.parametrize("sides", [(32, 32), (20, 64), (64, 20)], ids=str)
def test_boxes_lie_inside_and_have_the_right_areas_and_shapes(sides):
    height, width = sides
    uniforms = torch.rand(4000, 22, generator=torch.Generator().manual_seed(0))
    boxes = random_boxes(uniforms, height, width, (0.25, 1.0), (0.5, 2.0))
    for start, length, side in ((boxes.top, boxes.height, height), (boxes.left, boxes.width, width)):
        assert (start >= 0).all()
        assert (length >= 1).all()
        assert (start + length <= side).all()
    area = boxes.height * boxes.width / (height * width)
    assert area.min() > 0.25 * 0.9
    ratio = boxes.width / boxes.height
    assert ratio.min() > 0.5 * 0.9
    assert ratio.max() < 2.0 * 1.12


def test_small_boxes_have_uniform_area_and_log_uniform_shape_and_any_place():
    uniforms = torch.rand(20_000, 22, generator=torch.Generator().manual_seed(0))
    boxes = random_boxes(uniforms, 1000, 1000, (0.01, 0.04), (0.5, 2.0))  # every box fits
    area = boxes.height * boxes.width / 1e6
    assert abs(area.mean() - 0.025) < 2e-4
    assert abs(area.std() - 0.03 / 12**0.5) < 2e-4
    shape = (boxes.width / boxes.height).log()
    assert abs(shape.mean()) < 0.01
    assert abs(shape.std() - torch.tensor(4.0).log() / 12**0.5) < 0.01
    place = boxes.top / (1000 - boxes.height)
    assert abs(place.mean() - 0.5) < 0.01
    assert abs(place.std() - 12**-0.5) < 0.01


def test_where_no_box_fits_the_central_one_is_taken():
    uniforms = torch.rand(50, 22, generator=torch.Generator().manual_seed(0))
    boxes = random_boxes(uniforms, 100, 10, (1.0, 1.0), (3 / 4, 4 / 3))
    assert set(boxes.width.tolist()) == {10}
    assert set(boxes.height.tolist()) == {13}
    assert set(boxes.top.tolist()) == {43}
    assert set(boxes.left.tolist()) == {0}
