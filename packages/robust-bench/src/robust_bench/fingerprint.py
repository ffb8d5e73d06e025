"""What an evaluation depends on, in a few words that change when it does."""

import hashlib
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from robust_bench._checks import Model


def model_hash(model: Model) -> str:
    """The sha256 of a module: how it prints, and all parameters and buffers with names, dtypes and shapes.

    Other callables must say who they are in a text `fingerprint`, or be functions of a module.

    Raises:
        TypeError: if the model cannot be recognised again.

    Examples:
        >>> model_hash(nn.Identity()) == model_hash(nn.Identity()) != model_hash(nn.Flatten())
        True
        >>> model_hash(nn.functional.softmax)
        'torch.nn.functional.softmax'
    """
    own = getattr(model, "fingerprint", None)
    if isinstance(own, str):
        return own
    if not isinstance(model, nn.Module):
        return function_name(model, "the model")
    found = hashlib.sha256(f"{type(model).__module__}.{type(model).__qualname__}\n{without_addresses(model)}".encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        _add(found, name, tensor.detach())
    return found.hexdigest()


def data_hash(data: Dataset[Any]) -> str:
    """What a data set says of itself in a text `fingerprint`, else a sha256 of what it holds.

    Of tensors all numbers count; of others their type, length and 16 of their items.
    """
    own = getattr(data, "fingerprint", None)
    if isinstance(own, str):
        return own
    found = hashlib.sha256(type(data).__qualname__.encode())
    if type(data) is TensorDataset:
        for number, tensor in enumerate(data.tensors):
            _add(found, str(number), tensor)
        return found.hexdigest()
    size = len(data)  # type: ignore[arg-type]  # only sized data sets come here
    found.update(str(size).encode())
    for index in sorted({size * part // 16 for part in range(16)} if size else ()):
        try:
            item = data[index]
        except (OSError, ValueError) as error:  # the evaluation stops at it, or skips it
            found.update(f"{index}: {type(error).__name__}".encode())
            continue
        for number, value in enumerate(item):
            _add(found, f"{index}/{number}", torch.as_tensor(value))
    return found.hexdigest()


def function_name(function: Any, what: str) -> str:
    """Where a function can be found again, as "package.module.name".

    Raises:
        TypeError: if it is a lambda, a function inside another one, or an object.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if name is None or "<" in name:
        raise TypeError(
            f"{what} is {name or type(function).__name__}, which a resumed run could not recognise: make it a function "
            "of a module or a torch.nn.Module, give it a text `fingerprint`, or leave `out` out"
        )
    return f"{module}.{name}"


def without_addresses(value: object) -> str:
    """How a value prints, without the addresses of objects, which are others in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _add(found: Any, name: str, tensor: Tensor) -> None:
    tensor = tensor.cpu().contiguous()
    found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
    if tensor.numel():
        found.update(tensor.flatten().view(torch.uint8).numpy())
