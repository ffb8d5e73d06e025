"""Random patches under noise, and replaced by it: what patch attacks are compared with."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call
from robust_attacks._patches import random_patches
from robust_attacks._settings import check_count, check_number
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf

_ANY = Linf(eps=1.0)


@dataclass(frozen=True, kw_only=True)
class NoisyPatches:
    """Add Gaussian noise to random patches, the same that `PatchPGD` would attack.

    Guo, Stutz, Schiele (RSPC), CVPR 2023, Figure 1, which does not say how strong the noise is: the default is that of
    `gaussian_noise` at severity 5 in ImageNet-C. Called as an attack, so that it can stand wherever one can; model and
    labels are not used.

    Args:
        std: standard deviation of the noise in [0, 1] pixel units, positive; the sum is clipped to [0, 1].
        patch_size: side of the patches in pixels; it must divide both sides of the images.
        share: share of the patches that change, in (0, 1], rounded to the nearest number of patches.

    Examples:
        >>> images = torch.full((1, 1, 4, 4), 0.5)
        >>> noisy = NoisyPatches(patch_size=2, share=0.5)(None, images, torch.tensor([0]), random=ImageRandom(seed=0))
        >>> (noisy != images).sum()
        tensor(8)
    """

    std: float = 0.38
    patch_size: int = 16
    share: float = 0.1

    def __post_init__(self) -> None:
        check_number("NoisyPatches", "std", self.std, open_below=True)
        check_count("NoisyPatches", "patch_size", self.patch_size)
        check_number("NoisyPatches", "share", self.share, most=1, open_below=True)

    def __call__(
        self,
        model: Model | None,  # noqa: ARG002 -- an attack's signature
        images: Tensor,
        labels: Tensor,
        *,
        random: ImageRandom | None = None,
    ) -> Tensor:
        """New images with noise in some patches; float32 or float64 (N, C, H, W) in [0, 1] in and out.

        Draws: `patches/noise` by the flat pixel index.

        Raises:
            TypeError: if images, labels or `random` are of a wrong type.
            ValueError: if their shapes or values are wrong, or the images do not divide into patches.
        """
        random = check_call(_ANY, images, labels, random)
        mask = random_patches("NoisyPatches", images, random, self.patch_size, self.share)
        noise = random.normal("patches/noise", images.shape[1:], dtype=images.dtype)
        return _changed(images, mask, (images.detach() + self.std * noise).clamp(0, 1))


@dataclass(frozen=True, kw_only=True)
class OccludedPatches:
    """Replace random patches, the same that `PatchPGD` would attack, by uniform noise.

    Guo, Stutz, Schiele (RSPC), CVPR 2023, equation 1 and Figure 1. Called as an attack, so that it can stand wherever
    one can; model and labels are not used.

    Args:
        patch_size: side of the patches in pixels; it must divide both sides of the images.
        share: share of the patches that change, in (0, 1], rounded to the nearest number of patches.

    Examples:
        >>> images = torch.full((1, 1, 4, 4), 0.5)
        >>> attack = OccludedPatches(patch_size=2, share=0.5)
        >>> (attack(None, images, torch.tensor([0]), random=ImageRandom(seed=0)) != images).sum()
        tensor(8)
    """

    patch_size: int = 16
    share: float = 0.1

    def __post_init__(self) -> None:
        check_count("OccludedPatches", "patch_size", self.patch_size)
        check_number("OccludedPatches", "share", self.share, most=1, open_below=True)

    def __call__(
        self,
        model: Model | None,  # noqa: ARG002 -- an attack's signature
        images: Tensor,
        labels: Tensor,
        *,
        random: ImageRandom | None = None,
    ) -> Tensor:
        """New images with some patches replaced; float32 or float64 (N, C, H, W) in [0, 1] in and out.

        Draws: `patches/occlusion` by the flat pixel index.

        Raises:
            TypeError: if images, labels or `random` are of a wrong type.
            ValueError: if their shapes or values are wrong, or the images do not divide into patches.
        """
        random = check_call(_ANY, images, labels, random)
        mask = random_patches("OccludedPatches", images, random, self.patch_size, self.share)
        return _changed(images, mask, random.uniform("patches/occlusion", images.shape[1:], dtype=images.dtype))


def _changed(images: Tensor, mask: Tensor, patches: Tensor) -> Tensor:
    """New images in the memory layout of the given ones, with `patches` where the mask is True."""
    return torch.empty_like(images, requires_grad=False).copy_(torch.where(mask, patches, images.detach()))
