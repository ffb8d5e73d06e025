"""What an evaluation depends on, in a few words that change when it does."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from robust_bench._checks import Model


def model_hash(model: Model) -> str:
    """The sha256 of a module's parameters and buffers with their names, dtypes and shapes; of others only their name.

    Examples:
        >>> model_hash(nn.Identity())[:12], model_hash(len)
        ('e3b0c44298fc', 'not a module: len')
    """
    if not isinstance(model, nn.Module):
        return f"not a module: {getattr(model, '__name__', type(model).__name__)}"
    found = hashlib.sha256()
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            _add(found, name, value.detach())
        else:
            found.update(f"{name}:{value!r}".encode())
    return found.hexdigest()


def data_hash(data: Dataset[Any]) -> str:
    """What a data set says of itself in `fingerprint`, else the sha256 of its tensors, or of its type and length."""
    own = getattr(data, "fingerprint", None)
    if isinstance(own, str):
        return own
    found = hashlib.sha256(type(data).__qualname__.encode())
    if type(data) is TensorDataset:
        for number, tensor in enumerate(data.tensors):
            _add(found, str(number), tensor)
    else:
        found.update(str(len(data)).encode())  # type: ignore[arg-type]  # only sized data sets come here
    return found.hexdigest()


def _add(found: Any, name: str, tensor: Tensor) -> None:
    tensor = tensor.cpu().contiguous()
    found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
    if tensor.numel():
        found.update(tensor.flatten().view(torch.uint8).numpy())
