"""Where to compute."""

from collections.abc import Sequence

import torch
from robust_bench.world import local_device
from torch import Tensor

from robust_train.errors import SetupError


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """The device that was asked for, or a GPU where there is one: under torchrun the one of this process.

    Raises:
        SetupError: if there is no such device here, or it is none of a CPU and an NVIDIA or AMD GPU.

    Examples:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if device is None:
        return local_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        place = local_device(torch.device(device))
    except RuntimeError as error:
        raise SetupError(f"no device is called {device!r}: use cpu, cuda or cuda:N") from error
    if place.type not in ("cpu", "cuda"):
        raise SetupError(
            f"device {place} is not supported, only cpu and cuda: the promise of exact resume is tested there"
        )
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise SetupError(f"there is no {place} here ({torch.cuda.device_count()} GPUs were found): use device cpu")
    return place


def send(batch: Sequence[Tensor], device: torch.device, channels_last: bool) -> list[Tensor]:
    """The tensors of a batch on the device, images in the memory layout that is wanted."""
    moved = [tensor.to(device, non_blocking=True) for tensor in batch]
    return [t.contiguous(memory_format=torch.channels_last) if channels_last and t.ndim == 4 else t for t in moved]
