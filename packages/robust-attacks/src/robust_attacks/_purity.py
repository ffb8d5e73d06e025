"""The promise that a call changes nothing that it was given."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robust_attacks._checks import Model
from robust_attacks.random import key_of


@contextlib.contextmanager
def pristine(model: Model, images: Tensor, seed: int) -> Iterator[Model]:
    """Lend out a model for gradient computations and put everything back, also after an exception.

    Inside, gradients are on (whatever the caller's mode) and torch's global random states are seeded from `seed`,
    so that a model with dropout in training mode gives the same twice. Afterwards these are as before:
    the training flag of every module; `requires_grad` and `.grad` of every parameter; every buffer, bit for bit; the
    random states of the CPU and of the CUDA devices of images and model; the grad mode. The mode of the model (train or
    eval) is left as the caller chose it. Only the modules of a `torch.nn.Module` can be seen and guarded, or of one
    whose bound method is the model.

    Args:
        model: images to logits.
        images: the batch, for its device.
        seed: of the caller's `ImageRandom`.

    Yields:
        The model to call: a DistributedDataParallel wrapper is taken off, because its hooks would talk to other ranks.
    """
    owner = getattr(model, "__self__", model)
    if isinstance(model, DistributedDataParallel):
        model = owner = model.module
    memory = _Memory.of(owner) if isinstance(owner, nn.Module) else None
    devices = {images.device}
    if memory is not None:
        devices |= {parameter.device for parameter, _, _ in memory.parameters}
    try:
        with torch.inference_mode(False), torch.enable_grad(), _seeded(devices, seed):
            yield model
    finally:
        if memory is not None:
            memory.restore()


@contextlib.contextmanager
def _seeded(devices: set[torch.device], seed: int) -> Iterator[None]:
    cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
    low, high = key_of(seed, "model")
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would seed every CUDA device, also those that were not forked.
        torch.default_generator.manual_seed(low | high << 32)
        for index in cuda:
            torch.cuda.default_generators[index].manual_seed(low | high << 32)
        yield


@dataclass(frozen=True)
class _Memory:
    """What a call must leave as it found it in a module."""

    modes: list[tuple[nn.Module, bool]]
    parameters: list[tuple[nn.Parameter, bool, Tensor | None]]
    buffers: list[tuple[nn.Module, dict[str, Tensor | None], dict[str, Tensor]]]

    @classmethod
    def of(cls, model: nn.Module) -> "_Memory":
        modules = list(model.modules())
        memory = cls(
            modes=[(module, module.training) for module in modules],
            parameters=[(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
            buffers=[
                (
                    module,
                    dict(module._buffers),
                    {name: buffer.detach().clone() for name, buffer in module._buffers.items() if buffer is not None},
                )
                for module in modules
                if module._buffers
            ],
        )
        for parameter, _, gradient in memory.parameters:
            if gradient is not None:
                parameter.grad = None  # out of reach of a model that calls backward() itself
        return memory

    def restore(self) -> None:
        for module, training in self.modes:
            module.training = training
        for parameter, requires_grad, gradient in self.parameters:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not gradient:
                parameter.grad = gradient
        for module, buffers, values in self.buffers:
            module._buffers.clear()
            module._buffers.update(buffers)
            for name, value in values.items():
                _put_back(module._buffers[name], value)


def _put_back(buffer: Tensor | None, value: Tensor) -> None:
    """Give a buffer its old value, without touching one that has it: an autograd graph may hold on to it."""
    if buffer is not None and not torch.equal(buffer, value):
        with torch.inference_mode(buffer.is_inference()), torch.no_grad():
            buffer.copy_(value)
