"""Short names for large things, to tell whether a checkpoint belongs to a run."""

import re
from typing import Any

import torch
from torch import Tensor, nn

_CHUNK = 1 << 20
_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number


def describe(settings: Any) -> str:
    """How settings print, without the addresses of functions, which change from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(settings))


def digest(tensor: Tensor) -> str:
    """A checksum of shape, dtype and every byte, made where the tensor is; not cryptographic."""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    total = 0
    for start in range(0, len(data), _CHUNK):
        piece = data[start : start + _CHUNK].to(torch.int64)
        place = torch.arange(start + 1, start + 1 + len(piece), device=piece.device)
        mixed = (piece + 1) * (place * _GOLDEN)
        mixed = (mixed ^ (mixed >> 29)) * _GOLDEN
        total = (total + int((mixed ^ (mixed >> 32)).sum())) % 2**64
    return f"{tensor.dtype} {tuple(tensor.shape)} {total:016x}"


def digest_model(model: Any) -> str:
    """A checksum of all parameters and buffers of a module (or of the one whose method the model is)."""
    owner = getattr(model, "__self__", model)
    if not isinstance(owner, nn.Module):
        return "unknown"  # a plain function shows nothing that could be compared
    every = {**owner.state_dict(), **dict(owner.named_buffers())}  # the latter also where they are not saved
    tensors = [(name, value) for name, value in every.items() if isinstance(value, Tensor)]
    numbers = [int(digest(value)[-16:], 16) * (2 * index + 1) for index, (_, value) in enumerate(tensors)]
    return f"{type(owner).__name__}, {len(tensors)} tensors, {sum(numbers) % 2**64:016x}"
