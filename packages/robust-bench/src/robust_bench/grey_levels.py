"""Images of 8 bits: grey levels 0 to 255, and the one that stands for an adversarial image inside its ball."""

import torch
from torch import Tensor

LEVELS = 255
_SLACK = 1e-9  # relative; 4 / 255 and the like are not exact in binary
_HALVINGS = 32


def to_levels(images: Tensor) -> Tensor:
    """Give the grey levels of images that were 8-bit files.

    Args:
        images: float32 (N, C, H, W) in [0, 1], on the CPU.

    Returns:
        uint8 (N, C, H, W).

    Raises:
        ValueError: if a value is not a level / 255.
    """
    levels = images.mul(LEVELS).round_().to(torch.uint8)
    if not torch.equal(from_levels(levels), images):
        raise ValueError("the images are not of 8 bits (whole numbers / 255): write --format npy")
    return levels


def from_levels(levels: Tensor) -> Tensor:
    """Give the images that levels stand for, as `robust_bench.datasets.Folder` reads them: float32, level / 255."""
    return levels.cpu().to(torch.float32).div_(LEVELS)


def radius(eps: float) -> float:
    """Give eps in grey levels, a whole number where it is meant to be one."""
    levels = eps * LEVELS
    return float(round(levels)) if abs(levels - round(levels)) <= _SLACK * levels else levels


def length(norm: str, changes: Tensor) -> Tensor:
    """Measure changes (N, C, H, W) of whole grey levels, the L2 norm as its square; exact, in float64 (N,)."""
    changes = changes.to(torch.float64).flatten(1)
    if norm == "L2":
        return changes.square().sum(dim=1)
    return changes.abs().amax(dim=1) if norm == "Linf" else changes.abs().sum(dim=1)


def distance(norm: str, levels: Tensor, others: Tensor) -> Tensor:
    """Measure how far images of 8 bits are apart, in units of [0, 1] pixels, float64 (N,)."""
    found = length(norm, others.to(torch.int16) - levels.to(torch.int16))
    return (found.sqrt() if norm == "L2" else found) / LEVELS


def rounded_inside(norm: str, eps: float, images: Tensor, adversarial: Tensor) -> Tensor:
    """Round adversarial images to grey levels so that they stay inside the ball around images of 8 bits.

    Under Linf every pixel gets the nearest level inside. Under L2 and L1, where eps is spread over so many pixels that
    the nearest levels would be those of the image itself or lie outside, the change is first scaled, image by image, by
    the largest number with which its rounded length is at most eps. Under L2 no change of whole levels that is as short
    or shorter has a larger inner product with the attack's.

    Args:
        norm: "Linf", "L2" or "L1".
        eps: in units of [0, 1] pixels.
        images: clean, of 8 bits, float32 (N, C, H, W) in [0, 1].
        adversarial: float32 (N, C, H, W) in [0, 1].

    Returns:
        uint8 (N, C, H, W); the distance in whole levels is at most eps, but for 1e-9 of it.
    """
    origin = images.to(torch.float64)
    clean = (origin * LEVELS).round_()
    change = (adversarial.to(torch.float64) - origin).mul_(LEVELS)  # 0 where nothing moved
    largest = radius(eps)
    if norm == "Linf":
        bound = float(int(largest))
        return (clean + change.round_().clamp_(-bound, bound)).clamp_(0, LEVELS).to(torch.uint8)
    allowed = (largest**2 if norm == "L2" else largest) * (1 + _SLACK)

    def scaled(scale: Tensor) -> Tensor:
        return (change * scale[:, None, None, None]).round_().add_(clean).clamp_(0, LEVELS).sub_(clean)

    biggest = change.abs().flatten(1).amax(dim=1)
    above = torch.where(biggest > 0, (largest + 1) / biggest, 0.0)
    below = torch.zeros_like(above)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        fits = length(norm, scaled(middle)) <= allowed
        below, above = torch.where(fits, middle, below), torch.where(fits, above, middle)
    return (clean + scaled(below)).to(torch.uint8)
