"""The result of a network that rounds the sides of its images."""

import torch
from torch import Tensor


def fit(result: Tensor, images: Tensor) -> Tensor:
    """Bring a network's `result` to the sides and the device of `images`.

    Strided layers that round up pad at the bottom and on the right, so what is too long is cut off there and the rest
    stays where it was; what is too short is stretched, bilinearly.

    Raises:
        ValueError: if the result is no batch of images like these, or its sides differ by more than rounding explains.
    """
    wanted, got = tuple(images.shape), tuple(result.shape)
    if result.ndim != 4 or got[:2] != wanted[:2] or any(2 * abs(got[i] - wanted[i]) >= wanted[i] for i in (2, 3)):
        raise ValueError(
            f"the network turned images {wanted} into {got}: it must return the same number of images and channels, "
            "and sides that differ by less than half"
        )
    result = result[..., : wanted[2], : wanted[3]].to(images.device)
    if result.shape[2:] == images.shape[2:]:
        return result
    return torch.nn.functional.interpolate(result, images.shape[2:], mode="bilinear", align_corners=False)
