"""3-Augment."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from robust_augs._images import as_float, check_images, like, those
from robust_augs._random import integers, uniform
from robust_augs._resample import ATTEMPTS, Boxes, cubic, random_boxes, resized_crop

CHANGES = ("greyscale", "solarize", "blur")
"""Of which every image gets exactly one."""

_LUMA = (0.299, 0.587, 0.114)
_PADDING = 4  # pixels of the simple crop, on every side
_THRESHOLD = 128 / 255
_BLUR_RADIUS = (0.1, 2.0)
_REACH = math.ceil(4 * _BLUR_RADIUS[1])  # pixels: beyond four standard deviations the kernel is cut


@dataclass(frozen=True, kw_only=True)
class ThreeAugmentDraws:
    """What `ThreeAugment` draws, (N,) each: how images are cropped, and the rest per image.

    `boxes` are those of the resized crop, or places in the padded image of the simple one; `flipped` bool; `change` the
    index into `CHANGES`; `sigma` of the blur in pixels; `factors` (N, 3) of brightness, contrast and saturation; and
    `order` (N, 3), in which they come.
    """

    boxes: Boxes
    flipped: Tensor
    change: Tensor
    sigma: Tensor
    factors: Tensor
    order: Tensor


@dataclass(frozen=True, kw_only=True)
class ThreeAugment:
    """Crop, flip, then one of greyscale, solarization and blur, then jitter of the colours.

    Touvron, Cord & Jegou, "DeiT III: Revenge of the ViT", ECCV 2022, arXiv:2204.07118, section 3.2. The blur is a true
    Gaussian with replicated borders, where the published code has Pillow's approximation by boxes, whose `radius` is
    the standard deviation as well. Brightness, contrast and saturation come in an order of their own per image, as in
    torchvision's `ColorJitter`. Results are clipped to [0, 1] after the crop and after each of the three.

    Overlaps with ImageNet-C in blur, brightness and contrast.

    Args:
        size: side of the result in pixels.
        crop: "resized" cuts a box of 8 to 100 % of the area and resizes it (bicubic); "simple" resizes the short side
            to `size`, pads 4 pixels by reflection and cuts a square anywhere.
        jitter: brightness, contrast and saturation are scaled by U(1 - jitter, 1 + jitter); 0 leaves them.

    Attributes:
        resized: the published settings with the resized crop, for ImageNet-1k.
        simple: those with the simple crop, for ImageNet-21k.

    Raises:
        ValueError: if a setting is out of range.

    Examples:
        >>> images = torch.rand(4, 3, 40, 32)
        >>> ThreeAugment(size=24)(images, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 24, 24])
    """

    size: int = 224
    crop: Literal["resized", "simple"] = "resized"
    jitter: float = 0.3

    resized: ClassVar["ThreeAugment"]
    simple: ClassVar["ThreeAugment"]

    def __post_init__(self) -> None:
        if self.crop not in ("resized", "simple"):
            raise ValueError(f"crop must be 'resized' or 'simple', got {self.crop!r}")
        if self.size <= _PADDING:
            raise ValueError(f"size must be more than {_PADDING} pixels, got {self.size}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must lie in [0, 1], got {self.jitter}")

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Augment `images` (N, 3, H, W), floats in [0, 1] or uint8; (N, 3, size, size) of that dtype comes back.

        Args:
            images: the batch; it is not changed.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape or no three channels, or values that are not finite or outside
                [0, 1].
        """
        check_images(images)
        if images.shape[1] != 3:
            raise ValueError(f"ThreeAugment needs images with three colours, got {tuple(images.shape)}")
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> ThreeAugmentDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        count, height, width = shape[0], *shape[2:]
        if self.crop == "resized":
            uniforms = uniform((count, 2 * ATTEMPTS + 2), generator, device)
            boxes = random_boxes(uniforms, height, width, (0.08, 1.0), (3 / 4, 4 / 3))
        else:
            boxes = self._squares(count, *self._padded(height, width), generator, device)
        flip, sigma, *factors = uniform((5, count), generator, device)
        low, high = _BLUR_RADIUS
        return ThreeAugmentDraws(
            boxes=boxes,
            flipped=flip < 0.5,
            change=integers((count,), 0, len(CHANGES) - 1, generator, device),
            sigma=low + (high - low) * sigma,
            factors=1 + self.jitter * (2 * torch.stack(factors, dim=1) - 1),
            order=uniform((count, 3), generator, device).argsort(dim=1),
        )

    @torch.no_grad()
    def apply(self, images: Tensor, draws: ThreeAugmentDraws) -> Tensor:
        """Augment `images` as drawn; a pure function of its arguments."""
        floats = self._cropped(as_float(images), draws.boxes).clamp_(0, 1)
        floats = torch.where(draws.flipped[:, None, None, None], floats.flip(3), floats)
        is_grey, is_solarized, is_blurred = (draws.change == change for change in range(len(CHANGES)))
        blurred = those(is_blurred)
        floats[blurred] = blur(floats[blurred], draws.sigma.where(is_blurred, 0)[blurred])
        solarized = is_solarized[:, None, None, None] & (floats >= _THRESHOLD)
        floats = torch.where(solarized, 1 - floats, torch.where(is_grey[:, None, None, None], grey(floats), floats))
        for place in range(3):
            floats = _jitter(floats, draws.order[:, place], draws.factors.gather(1, draws.order)[:, place])
        return like(images, floats)

    def _padded(self, height: int, width: int) -> tuple[int, int]:
        """Give the sides of the image that the simple crop cuts from."""
        short = min(height, width)
        return tuple(int(self.size * side / short) + 2 * _PADDING for side in (height, width))  # type: ignore[return-value]

    def _squares(
        self, count: int, height: int, width: int, generator: torch.Generator | None, device: torch.device | str
    ) -> Boxes:
        side = torch.full((count,), self.size, device=device)
        return Boxes(
            top=integers((count,), 0, height - self.size, generator, device),
            left=integers((count,), 0, width - self.size, generator, device),
            height=side,
            width=side,
        )

    def _cropped(self, images: Tensor, boxes: Boxes) -> Tensor:
        if self.crop == "simple":
            height, width = (side - 2 * _PADDING for side in self._padded(*images.shape[2:]))
            resized = functional.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp_(0, 1)
            images = functional.pad(resized, [_PADDING] * 4, mode="reflect")
        return resized_crop(images, boxes, (self.size, self.size), cubic)


ThreeAugment.resized = ThreeAugment(crop="resized")
ThreeAugment.simple = ThreeAugment(crop="simple")


def grey(images: Tensor) -> Tensor:
    """The luma (ITU-R BT.601) of images (N, 3, H, W), (N, 1, H, W)."""
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)
    return torch.einsum("nchw,c->nhw", images, weights)[:, None]


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Smooth every image (N, C, H, W) by a Gaussian with its own sigma (N,) of 0 to 2 pixels; borders are replicated.

    A sigma of 0 leaves an image as it is. On a CPU products with matrices are faster than convolutions of single
    channels.
    """
    rows, columns = (_smoothing(sigma.to(images.dtype), length)[:, None] for length in images.shape[2:])
    return torch.matmul(torch.matmul(rows, images), columns.mT)


def _smoothing(sigma: Tensor, length: int) -> Tensor:
    """Give the matrices (N, length, length) that smooth an axis."""
    steps = torch.arange(-_REACH, length + _REACH, device=sigma.device) - torch.arange(
        length, device=sigma.device
    ).unsqueeze(1)
    weights = torch.exp(-0.5 * (steps / sigma.clamp(min=1e-3)[:, None, None]) ** 2) * (steps.abs() <= _REACH)
    inner = weights[:, :, _REACH:-_REACH].clone()
    inner[:, :, 0] += weights[:, :, :_REACH].sum(dim=2)
    inner[:, :, -1] += weights[:, :, -_REACH:].sum(dim=2)
    return inner / inner.sum(dim=2, keepdim=True)


def _jitter(images: Tensor, which: Tensor, factors: Tensor) -> Tensor:
    """Blend every image with black, with its mean grey or with its grey image, by 0, 1 or 2 of `which`."""
    which, factors = which[:, None, None, None], factors[:, None, None, None].to(images)
    luma = grey(images)
    other = torch.where(which == 0, 0, torch.where(which == 1, luma.mean(dim=(2, 3), keepdim=True), luma))
    return torch.lerp(other.expand_as(images), images, factors.expand_as(images)).clamp_(0, 1)
