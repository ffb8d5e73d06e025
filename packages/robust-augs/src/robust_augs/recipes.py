"""Published training transforms, put together from torchvision's and those of this package.

What torchvision has is not written again: these functions name settings and their sources. Each gives a transform of
single images for a data set that ends in floats in [0, 1], but for `mixup_cutmix`, which takes batches. Those of
torchvision draw from the global generators of torch, which a `DataLoader` seeds for every worker.
"""

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from robust_augs._images import check_share
from robust_augs.apr import APRSingle
from robust_augs.augmix import AugMix
from robust_augs.per_image import PerImage


def cifar() -> v2.Transform:
    """Pad by 4 pixels, cut 32 x 32 anywhere, flip: He et al., CVPR 2016, arXiv:1512.03385, section 4.2."""
    return v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), *_floats()])


def cifar_augmix() -> v2.Transform:
    """Crop and flip, then AugMix: Hendrycks et al., ICLR 2020, arXiv:1912.02781, section 4."""
    return v2.Compose(
        [v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=4), *_floats(), PerImage(AugMix.cifar)],
    )


def cifar_apr() -> v2.Transform:
    """Crop, then APR-S, then flip: Chen et al., ICCV 2021, arXiv:2108.08487. On batches, APRPair goes with it."""
    return v2.Compose(
        [v2.RandomCrop(32, padding=4), PerImage(APRSingle()), v2.RandomHorizontalFlip(), *_floats()],
    )


def imagenet(size: int = 224, color_jitter: float = 0.0) -> v2.Transform:
    """Cut a box of 8 to 100 % of the area, resize and flip it: Szegedy et al., CVPR 2015, arXiv:1409.4842, section 6.

    Args:
        size: side of the result in pixels.
        color_jitter: strength of torchvision's `ColorJitter` on brightness, contrast and saturation, 0.4 in many
            training scripts. It overlaps with ImageNet-C.
    """
    jitter = [v2.ColorJitter(color_jitter, color_jitter, color_jitter)] if color_jitter else []
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *jitter, *_floats()])


def imagenet_augmix(size: int = 224) -> v2.Transform:
    """Crop and flip, then AugMix at the severity of the published ImageNet script: arXiv:1912.02781."""
    return v2.Compose(
        [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *_floats(), PerImage(AugMix.imagenet)],
    )


def deit(size: int = 224) -> v2.Transform:
    """Crop and flip, RandAugment, random erasing: Touvron et al., ICML 2021, arXiv:2012.12877, Table 9.

    RandAugment is torchvision's, with two operations of magnitude 9 of 31; that of timm, which the paper took, varies
    the magnitude and spans other ranges. It overlaps with ImageNet-C. MixUp and CutMix come on batches, with
    `mixup_cutmix`.
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, interpolation=InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(num_ops=2, magnitude=9, interpolation=InterpolationMode.BICUBIC),
            *_floats(),
            v2.RandomErasing(p=0.25, value="random"),
            v2.Lambda(_clipped, tv_tensors.Image),  # the noise of the erased boxes is normal
        ],
    )


def mixup_cutmix(num_classes: int, mixup: float = 0.8, cutmix: float = 1.0, cutmix_share: float = 0.5) -> v2.Transform:
    """Mix the images of a batch, by MixUp or by CutMix: (images, labels) -> (images, probability labels).

    Zhang et al., "mixup", ICLR 2018, arXiv:1710.09412; Yun et al., "CutMix", ICCV 2019, arXiv:1905.04899; together as
    in Touvron et al., ICML 2021, arXiv:2012.12877, Table 9. One draw serves the whole batch.

    Args:
        num_classes: of the labels.
        mixup: alpha of MixUp's Beta(alpha, alpha), more than 0.
        cutmix: alpha of CutMix's, more than 0.
        cutmix_share: of the batches that CutMix gets; 0 is MixUp alone, 1 CutMix alone.

    Raises:
        ValueError: if a setting is out of range.
    """
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if not alpha > 0:
            raise ValueError(f"{name} must be more than 0, got {alpha}: cutmix_share switches one of the two off")
    check_share("cutmix_share", cutmix_share)
    mixing = [v2.MixUp(alpha=mixup, num_classes=num_classes), v2.CutMix(alpha=cutmix, num_classes=num_classes)]
    return v2.RandomChoice(mixing, p=[1 - cutmix_share, cutmix_share])


def _floats() -> list[v2.Transform]:
    """From pictures or 8-bit tensors to floats in [0, 1]."""
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]


def _clipped(image: tv_tensors.Image) -> Any:
    return tv_tensors.wrap(image.clamp(0, 1), like=image)
