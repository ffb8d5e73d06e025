"""Free photographs, cut into images: they lie in the wheel of scikit-image, nothing is fetched."""

import functools

import torch
from skimage import data
from torch import Tensor
from torch.nn.functional import interpolate

_CROP = 224


@functools.cache
def photographs(count: int, side: int = _CROP) -> Tensor:
    """Cut `count` images out of four photographs, at seeded places; uint8 (count, 3, side, side).

    An astronaut (NASA, public domain), the cat Chelsea, a cup of coffee and a rocket (CC0). Crops of 224 pixels are
    taken and, for another side, resized.
    """
    pictures = [torch.from_numpy(load()) for load in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    generator = torch.Generator().manual_seed(0)
    crops = []
    for place in range(count):
        picture = pictures[place % len(pictures)]
        top, left = (int(torch.randint(size - _CROP + 1, (), generator=generator)) for size in picture.shape[:2])
        crops.append(picture[top : top + _CROP, left : left + _CROP].permute(2, 0, 1))
    images = torch.stack(crops)
    if side == _CROP:
        return images
    small = interpolate(images.float(), size=(side, side), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
