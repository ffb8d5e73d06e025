"""The mean/std step of networks that have it inside by design."""

from collections.abc import Sequence

import torch

from robust_models.normalize import Normalize

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)


class BuiltInNormalize(Normalize):
    """The step `(images - mean) / std` as a part of the architecture: its values are not in the `state_dict`.

    It is a `Normalize`, so that `get_normalization` finds it and `NormalizedModel` refuses to normalise twice.

    Args:
        in_chans: channels of the images.
        mean: one value per channel, in units of [0, 1] pixels; None takes those of CIFAR-10, or where there are not
            three channels, their average for each.
        std: one positive value per channel; None as for `mean`.

    Raises:
        TypeError: if one of the two is a single number, or holds something else than numbers.
        ValueError: if they do not have one value per channel, or are no mean and std.
    """

    def __init__(self, in_chans: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> None:
        mean = _per_channel(CIFAR10_MEAN, in_chans) if mean is None else mean
        std = _per_channel(CIFAR10_STD, in_chans) if std is None else std
        super().__init__(mean, std)
        if self.mean.shape[1] != in_chans:
            raise ValueError(f"mean and std need one value for each of {in_chans} channels, got {list(mean)}")
        self._values = (tuple(mean), tuple(std))
        self.register_buffer("mean", self.mean, persistent=False)
        self.register_buffer("std", self.std, persistent=False)

    def init_non_persistent_buffers(self) -> None:
        """Set mean and std again: what timm calls after a model built on the meta device was given memory."""
        for buffer, values in zip((self.mean, self.std), self._values, strict=True):
            buffer.copy_(torch.tensor(values, dtype=buffer.dtype).view(buffer.shape))


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if channels == len(values) else (sum(values) / len(values),) * channels
