"""Augmentation of the batches of a data loader, timm's among them."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from robust_augs.per_image import Augmentation


class AugmentedLoader:
    """Go through a loader's batches (images, labels) and augment the images where they are, e.g. on the GPU.

    For timm, build the loader without its mean/std step, which belongs inside the model (robust_models.Normalize):
    `timm.data.create_loader(..., mean=(0, 0, 0), std=(1, 1, 1))`; its images then lie in [0, 1]. Attributes that
    training scripts look at (`dataset`, `sampler`, `batch_sampler`, `mixup_enabled`) are read from the loader.

    Args:
        loader: gives batches of images (N, C, H, W), floats in [0, 1] or uint8, and labels (N, ...).
        augmentation: a callable on batches of images alone, e.g. `AugMix.imagenet`, that keeps their size where there
            are several splits. `CrossStyle` and `AugMax`, which take labels, belong into the training loop.
        splits: 1 gives the augmented images alone. More give, as timm's `--aug-splits` does for a Jensen-Shannon loss,
            the clean images and then splits - 1 independent augmentations of them in one batch (splits * N, C, H, W),
            with the labels repeated.
        generator: where all draws come from; None takes torch's default generator of the images' device.

    Raises:
        ValueError: if `splits` is not at least 1.

    Examples:
        >>> from robust_augs import PatchGaussian
        >>> batches = [(torch.rand(4, 3, 32, 32), torch.arange(4))]
        >>> images, labels = next(iter(AugmentedLoader(batches, PatchGaussian.cifar, splits=3)))
        >>> images.shape, labels.tolist()
        (torch.Size([12, 3, 32, 32]), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3])
    """

    def __init__(
        self,
        loader: Iterable[tuple[Tensor, Tensor]],
        augmentation: Augmentation,
        *,
        splits: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        if splits < 1:
            raise ValueError(f"splits must be at least 1, got {splits}")
        self.loader = loader
        self.augmentation = augmentation
        self.splits = splits
        self.generator = generator

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.loader:
            if self.splits == 1:
                yield self._augmented(images), labels
            else:
                views = [images, *(self._augmented(images) for _ in range(self.splits - 1))]
                yield torch.cat(views), torch.cat([labels] * self.splits)

    @property
    def mixup_enabled(self) -> bool:
        """Whether timm's loader mixes the images, which its training script switches off at some epoch."""
        return bool(self.loader.mixup_enabled)  # type: ignore[attr-defined]  # timm's loaders have it

    @mixup_enabled.setter
    def mixup_enabled(self, enabled: bool) -> None:
        self.loader.mixup_enabled = enabled  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def _augmented(self, images: Tensor) -> Tensor:
        return self.augmentation(images, generator=self.generator)
