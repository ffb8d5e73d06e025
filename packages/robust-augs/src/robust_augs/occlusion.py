"""Random patches that are hidden behind noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_augs._images import as_float, check_images, check_patches, check_share, like
from robust_augs._random import uniform


@dataclass(frozen=True, kw_only=True)
class OcclusionDraws:
    """What `PatchOcclusion` draws: which patches are hidden, bool (N, rows, columns), and uniforms (N, C, H, W)."""

    hidden: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class PatchOcclusion:
    """Replace random patches of every image by uniform noise.

    Guo, Stutz & Schiele, "Improving Robustness of Vision Transformers by Reducing Sensitivity to Patch Corruptions"
    (RSPC), CVPR 2023, equation 1: x' = M x + (1 - M) u with u uniform per pixel and channel in [0, 1]. Here the patches
    are drawn at random, which is the baseline of the paper; there they are learned.

    Args:
        patch_size: side of the patches in pixels; it must divide both sides of the images.
        share: share of an image's patches that are hidden, in [0, 1], rounded to the nearest number and at least one
            unless it is 0: 20 of 196 for 0.1.

    Raises:
        ValueError: if the share is outside [0, 1] or the patch size below 1.

    Examples:
        >>> images = torch.zeros(1, 3, 32, 32)
        >>> hidden = PatchOcclusion(patch_size=8, share=0.25)(images, generator=torch.Generator().manual_seed(0))
        >>> int((hidden > 0).any(dim=1).sum()) // 8**2
        4
    """

    patch_size: int = 16
    share: float = 0.1

    def __post_init__(self) -> None:
        check_share("share", self.share)
        if self.patch_size < 1:
            raise ValueError(f"patch_size must be at least 1 pixel, got {self.patch_size}")

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Hide patches of `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

        Args:
            images: the batch; it is not changed.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape, values that are not finite or outside [0, 1], or sides that the
                patch size does not divide.
        """
        check_images(images)
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> OcclusionDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        check_patches(self.patch_size, *shape[2:])
        count, rows, columns = shape[0], shape[2] // self.patch_size, shape[3] // self.patch_size
        patches = rows * columns
        number = max(round(self.share * patches), 1 if self.share > 0 else 0)
        ranks = uniform((count, patches), generator, device).argsort(dim=1).argsort(dim=1)
        noise = uniform(shape, generator, device)
        return OcclusionDraws(hidden=(ranks < number).view(count, rows, columns), noise=noise)

    @torch.no_grad()
    def apply(self, images: Tensor, draws: OcclusionDraws) -> Tensor:
        """Hide what was drawn; a pure function of its arguments."""
        hidden = draws.hidden.repeat_interleave(self.patch_size, 1).repeat_interleave(self.patch_size, 2)
        floats = as_float(images)
        return like(images, torch.where(hidden[:, None], draws.noise.to(floats), floats))
