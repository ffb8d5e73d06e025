"""Run a model in eval mode and leave it as it was."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

Model = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, K); often a torch.nn.Module. Normalisation is a layer inside it."""


@contextlib.contextmanager
def evaluating(model: Model, device: torch.device) -> Iterator[None]:
    """Put `model` into eval mode and gradients on; afterwards modes, buffers and random states are as before.

    Parameters need no care: gradients are taken with `torch.autograd.grad`, which fills no `.grad`.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module.named_buffers(recurse=False)
    ]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad():
        try:
            if isinstance(model, nn.Module):
                model.eval()
            yield
        finally:
            for module, training in zip(modules, modes, strict=True):
                module.training = training
            with torch.no_grad():
                for module, name, buffer, before in buffers:
                    module._buffers[name] = buffer  # a forward pass may have put another tensor in its place
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)


def logits_of(model: Model, images: Tensor) -> Tensor:
    """Logits (N, K) of `images`, checked.

    Raises:
        TypeError: if the model returns something else than a float tensor.
        ValueError: if it has not one row of at least two finite logits per image.
    """
    logits: object = model(images)
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        what = f"{logits.dtype} tensor" if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"the model must return logits (N, K) as a float tensor, it returned a {what}")
    if logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        raise ValueError(
            f"the model must return logits (N, K) with K >= 2 for {len(images)} images, it returned shape "
            f"{tuple(logits.shape)}"
        )
    if not logits.isfinite().all():
        raise ValueError("the model returned logits that are NaN or infinite: look at its weights")
    return logits
