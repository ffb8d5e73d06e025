"""The patch-wise augmentation of Robust Vision Transformers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_augs._images import as_float, check_images, check_patches, check_share, like, those
from robust_augs._random import normal, uniform
from robust_augs._resample import ATTEMPTS, Boxes, random_boxes, resized_crop, triangle


@dataclass(frozen=True, kw_only=True)
class PatchwiseDraws:
    """What `Patchwise` draws, for the patches of all images in rows, P in total.

    `boxes` of the crops, `cropped`, `noisy` and `flipped`, bool (P,) each, and standard normal numbers `noise`
    (N, C, H, W).
    """

    boxes: Boxes
    cropped: Tensor
    noisy: Tensor
    flipped: Tensor
    noise: Tensor


@dataclass(frozen=True, kw_only=True)
class Patchwise:
    """Change every patch of an image on its own: crop, noise, flip.

    Mao et al., "Towards Robust Vision Transformer" (RVT), CVPR 2022, arXiv:2105.07926, section 3.3: the image is cut
    into the patches that the transformer sees, and each of them, with some probability each and independently of the
    others, is cropped and resized back (bilinearly), gets Gaussian noise, and is flipped from left to right. The
    published model learns from the clean and the patch-wise view, both with the label. In the published training loop
    the gradients are zeroed between the two backward passes, so that the second view has no effect: add both losses.

    Differs from the published code: the noise is added to images in [0, 1], there to normalised ones, where 0.01 is
    about a quarter as much. The result is clipped to [0, 1].

    Args:
        patch_size: side of the patches in pixels; it must divide both sides of the images.
        probability: of each change, for each patch.
        scale: smallest and largest share of a patch's area that a crop keeps; crops are squares of whole pixels.
        sigma: standard deviation of the noise in units of [0, 1] pixels.

    Raises:
        ValueError: if a setting is out of range.

    Examples:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> Patchwise(patch_size=8)(images, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """

    patch_size: int = 16
    probability: float = 0.1
    scale: tuple[float, float] = (0.85, 1.0)
    sigma: float = 0.01

    def __post_init__(self) -> None:
        check_share("probability", self.probability)
        object.__setattr__(self, "scale", tuple(self.scale))  # it may come as a list, from a file of settings
        if self.patch_size < 1:
            raise ValueError(f"patch_size must be at least 1 pixel, got {self.patch_size}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be (smallest, largest) within (0, 1], got {self.scale}")
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"sigma must be a finite number of at least 0, got {self.sigma}")

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Change the patches of `images` (N, C, H, W), floats in [0, 1] or uint8; same shape and dtype come back.

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
    ) -> PatchwiseDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        check_patches(self.patch_size, *shape[2:])
        patches = shape[0] * (shape[2] // self.patch_size) * (shape[3] // self.patch_size)
        uniforms = uniform((patches, 2 * ATTEMPTS + 2), generator, device)
        cropped, noisy, flipped = uniform((3, patches), generator, device) < self.probability
        return PatchwiseDraws(
            boxes=random_boxes(uniforms, self.patch_size, self.patch_size, self.scale, (1.0, 1.0)),
            cropped=cropped,
            noisy=noisy,
            flipped=flipped,
            noise=normal(shape, generator, device),
        )

    @torch.no_grad()
    def apply(self, images: Tensor, draws: PatchwiseDraws) -> Tensor:
        """Change `images` as drawn; a pure function of its arguments."""
        patches = self._cut(as_float(images))
        noise = self._cut(draws.noise.to(patches))
        chosen = those(draws.cropped)
        whole = torch.full_like(draws.boxes.top, self.patch_size)
        boxes = Boxes(
            top=(draws.boxes.top * draws.cropped)[chosen],
            left=(draws.boxes.left * draws.cropped)[chosen],
            height=draws.boxes.height.where(draws.cropped, whole)[chosen],
            width=draws.boxes.width.where(draws.cropped, whole)[chosen],
        )
        patches[chosen] = resized_crop(patches[chosen], boxes, (self.patch_size, self.patch_size), triangle)
        patches.addcmul_(noise, self.sigma * draws.noisy[:, None, None, None].to(noise))
        patches = torch.where(draws.flipped[:, None, None, None], patches.flip(3), patches)
        return like(images, self._join(patches.clamp_(0, 1), images.shape))

    def _cut(self, images: Tensor) -> Tensor:
        """Give the patches (P, C, size, size), a copy."""
        count, channels, height, width = images.shape
        size = self.patch_size
        grid = images.view(count, channels, height // size, size, width // size, size).permute(0, 2, 4, 1, 3, 5)
        return grid.reshape(-1, channels, size, size).clone()

    def _join(self, patches: Tensor, shape: torch.Size) -> Tensor:
        count, channels, height, width = shape
        size = self.patch_size
        grid = patches.view(count, height // size, width // size, channels, size, size).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape(shape)
