"""Glass blur: pixels copied from near by, between two Gaussian blurs."""

import functools

import torch
from torch import Tensor
from torch.nn.functional import pad

from robust_bench.corruptions.banded import gaussian, replicate
from robust_bench.corruptions.corruption import Key, Shape
from robust_bench.corruptions.draws import Draws
from robust_bench.corruptions.fields import integer_field
from robust_bench.corruptions.levels import truncate, unit

_TRUNCATE = 4.0  # of the Gaussian, in multiples of sigma
_MOST_PASSES = 3


def sample_offsets(key: Key, shape: Shape, constant: tuple[float, int, int]) -> dict[str, Tensor]:
    """Draw from how far every pixel is copied, int8 (N, 3, 2, H, W): to the right and down, -d..d-1.

    There are three passes at most; those that a severity does not have are filled with 0, so that the draws of all
    severities have one shape.
    """
    _, distance, passes = constant
    drawn = integer_field(key("offsets"), (passes, 2, *shape[1:]), -distance, distance).to(torch.int8)
    return {"offsets": pad(drawn, (0,) * 7 + (_MOST_PASSES - passes,))}


def glass_blur(images: Tensor, constant: tuple[float, int, int], draws: Draws) -> Tensor:
    """Blur, quantise to 8 bits, copy every pixel from a random place near by, and blur again.

    The published code looks like a swap of two pixels but is a copy (its two sides are views of one array), done in
    place, pixel by pixel from the bottom right, as often as there are passes. Here all pixels are followed back to
    where their value came from at once, with the same result.

    Args:
        images: (N, C, H, W) floats.
        constant: sigma of the blurs, largest distance of a copied pixel, number of passes.
        draws: "offsets" (N, 3, 2, H, W), whole numbers from -distance to distance - 1; the passes come first.
    """
    sigma, distance, passes = constant
    count, _, height, width = images.shape
    offsets = draws.field("offsets", (count, _MOST_PASSES, 2, height, width))
    levels = truncate(gaussian(images, (sigma, sigma), _TRUNCATE, replicate))
    source = _copied_from(offsets[:, 0], distance)
    for step in range(1, passes):
        source = source.index_select(0, _copied_from(offsets[:, step], distance))
    planes = [plane.reshape(-1).index_select(0, source) for plane in levels.unbind(1)]
    copied = torch.stack([plane.view(count, height, width) for plane in planes], dim=1)
    return gaussian(unit(copied, images.dtype), (sigma, sigma), _TRUNCATE, replicate)


def _copied_from(offsets: Tensor, distance: int) -> Tensor:
    """Find where the value of every pixel stood before a pass: int32 (N H W,), positions in the whole batch.

    A pixel takes its value from its partner. A partner that comes later in raster order was written earlier in the
    pass, so the pixel takes what its partner took; else the partner still holds its old value. Old values are numbered
    from N H W on, so that every pixel points to a later pixel or to an old value. Letting all pointers skip ahead to
    where their targets point (pointer doubling) leads them to old values in as many rounds as the longest chain of
    pixels has binary digits.
    """
    count, _, height, width = offsets.shape
    pixels = count * height * width
    moving = _moving(height, width, distance, offsets.device)
    shift = offsets[:, 1].to(torch.int32).mul_(width).add_(offsets[:, 0]).mul_(moving).view(-1)
    pointers = torch.arange(2 * pixels, dtype=torch.int32, device=offsets.device)
    ahead = pointers.clone()
    pointers[:pixels].add_(shift).add_(shift <= 0, alpha=pixels)
    for _ in range((height * width).bit_length()):
        if pointers.device.type == "cpu" and int(pointers[:pixels].min()) >= pixels:  # a GPU does not tell in time
            break
        torch.index_select(pointers, 0, pointers[:pixels], out=ahead[:pixels])
        pointers, ahead = ahead, pointers
    return pointers[:pixels] - pixels


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept must serve callers that want gradients as well
def _moving(height: int, width: int, distance: int, device: torch.device) -> Tensor:
    """Mark the pixels that are copied to, whose partners cannot lie outside the image: int32 (H, W), 0 or 1."""
    rows, columns = (
        torch.arange(side).gt(distance).logical_and_(torch.arange(side) <= side - distance) for side in (height, width)
    )
    return (rows[:, None] & columns).to(torch.int32).to(device)
