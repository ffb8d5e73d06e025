"""A model and the global random states as a call finds them, and leaves them."""

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robust_bench._checks import Model


def device_of(model: Model) -> torch.device:
    """Where a model's parameters are, else its buffers; the CPU for one that has none."""
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Give torch, Python and NumPy (where it is loaded) back the global random states that they had before."""
    numpy: Any = sys.modules.get("numpy")
    states = random.getstate(), None if numpy is None else numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(states[0])
        if numpy is not None:
            numpy.random.set_state(states[1])


@contextlib.contextmanager
def ready(model: Model, device: torch.device) -> Iterator[None]:
    """Lend the model: in eval mode and on the device inside the block, as it was after it, with its buffers."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    home = device_of(model)
    try:
        model.eval()
        if home != device:
            model.to(device)
        yield
    finally:
        if home != device:
            model.to(home)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                same = module._buffers.get(name) is buffer and torch.equal(buffer.cpu(), before.cpu())
                module._buffers[name] = buffer if same else _refilled(buffer, before)


def _refilled(buffer: Tensor, before: Tensor) -> Tensor:
    """A buffer with its content of before; a new one where it cannot be written to, as one that is expanded."""
    try:
        return buffer.copy_(before)
    except RuntimeError:
        return before
