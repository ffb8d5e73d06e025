"""Batch augmentations in the pipeline of a data set, image by image."""

from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional


class Augmentation(Protocol):
    """Takes a batch (N, C, H, W) and gives one."""

    def __call__(self, images: Tensor, /, *, generator: torch.Generator | None = None) -> Tensor:
        """Augment, with all draws from the generator."""
        ...


def _is_plain(given: Any) -> bool:
    return isinstance(given, Tensor) and not isinstance(given, tv_tensors.TVTensor)


class PerImage(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Use an augmentation of batches as a transform of `torchvision.transforms.v2`, one image at a time.

    It stands in a `v2.Compose`, as the `transform` of a data set, or in timm's pipelines, and takes images as those
    transforms do: a picture of Pillow, an `Image` tensor or a plain tensor (C, H, W), with or without labels beside it;
    the same kind comes back. Draws come from torch's default generator, which a `DataLoader` seeds anew for every
    worker and epoch. On whole batches the augmentation itself is faster.

    `APRPair`, which mixes the images of a batch, does nothing to a single one; `CrossStyle` and `AugMax` take labels:
    use those on batches.

    Args:
        augmentation: e.g. `AugMix.imagenet`. Its images are floats in [0, 1] or uint8, so it comes before the mean/std
            step.

    Examples:
        >>> import torch
        >>> from robust_augs import PatchGaussian
        >>> transform = v2.Compose([v2.RandomHorizontalFlip(), PerImage(PatchGaussian.cifar)])
        >>> transform(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    _transformed_types = (tv_tensors.Image, Image.Image, _is_plain)

    def __init__(self, augmentation: Augmentation) -> None:
        super().__init__()
        self.augmentation = augmentation

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ARG002 -- torchvision's signature
        """Augment one image."""
        if isinstance(inpt, Image.Image):
            if inpt.mode not in ("L", "RGB"):
                raise ValueError(
                    f"pictures must be of mode 'RGB' or 'L', got {inpt.mode!r}: image.convert('RGB') first"
                )
            return functional.to_pil_image(self.augmentation(functional.pil_to_tensor(inpt)[None])[0])
        changed = self.augmentation(inpt.as_subclass(Tensor)[None])[0]
        return tv_tensors.wrap(changed, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else changed

    def extra_repr(self) -> str:
        """Name the augmentation."""
        return repr(self.augmentation)
