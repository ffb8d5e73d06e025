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
    the training flag of every module; `requires_grad` and `.grad` of every parameter; every buffer (the model works on
    copies, so that no autograd graph that holds on to a buffer is disturbed); the random states of the CPU and of the
    CUDA devices of images and model; the grad mode. The mode of the model (train or
    eval) is left as the caller chose it. Only the modules of a `torch.nn.Module` can be seen and guarded, or of one
    whose bound method is the model.

    Args:
        model: images to logits.
        images: the batch, for its device.
        seed: of the caller's `ImageRandom`.

    Raises:
        RuntimeError: if the model was made under `torch.inference_mode`, so that nothing can be differentiated.

    Yields:
        The model to call: a DistributedDataParallel wrapper is taken off, because its hooks would talk to other ranks.
    """
    owner = getattr(model, "__self__", model)
    if isinstance(model, DistributedDataParallel):
        model = owner = model.module
    with torch.inference_mode(False), torch.enable_grad():
        memory = _Memory.of(owner) if isinstance(owner, nn.Module) else _Memory([], [], [])
        devices = {images.device} | {parameter.device for parameter, _, _ in memory.parameters}
        try:
            memory.lend()
            with seeded(devices, seed):
                yield model
        finally:
            memory.restore()


@contextlib.contextmanager
def seeded(devices: set[torch.device], seed: int) -> Iterator[None]:
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
    buffers: list[tuple[nn.Module, dict[str, Tensor | None], set[str]]]

    @classmethod
    def of(cls, model: nn.Module) -> "_Memory":
        modules, parameters = list(model.modules()), list(model.parameters())
        if any(parameter.is_inference() for parameter in parameters):
            raise RuntimeError(
                "the model was made under torch.inference_mode, so its parameters cannot take part in a gradient: "
                "make or load it outside (torch.no_grad is fine), or attack copy.deepcopy(model), made outside"
            )
        return cls(
            modes=[(module, module.training) for module in modules],
            parameters=[(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters],
            buffers=[
                (module, dict(module._buffers.items()), set(module._non_persistent_buffers_set)) for module in modules
            ],
        )

    def lend(self) -> None:
        """Put gradients out of reach of a model that calls backward() itself, and copies in the place of buffers."""
        for parameter, _, gradient in self.parameters:
            if gradient is not None:
                parameter.grad = None
        copies: dict[Tensor, Tensor] = {}  # by identity: a buffer that two modules share stays shared
        for module, buffers, _ in self.buffers:
            for name, buffer in buffers.items():
                if buffer is not None:
                    if buffer not in copies:
                        copies[buffer] = buffer.detach().clone()
                    module._buffers[name] = copies[buffer]

    def restore(self) -> None:
        """Put back the very tensors that were there."""
        for module, training in self.modes:
            module.training = training
        for parameter, requires_grad, gradient in self.parameters:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)
            if parameter.grad is not gradient:
                parameter.grad = gradient
        for module, buffers, hidden in self.buffers:
            for name in module._buffers.keys() - buffers.keys():
                del module._buffers[name]
            for name, buffer in buffers.items():
                module._buffers[name] = buffer
            module._non_persistent_buffers_set = hidden
