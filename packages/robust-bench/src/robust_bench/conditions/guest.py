"""Models that help in the evaluation of another one."""

import copy
import itertools
from collections.abc import Mapping

import torch
from torch import nn

from robust_bench._checks import Model


class Guests(dict[tuple[str, torch.device], Model]):
    """Models by name and device, in eval mode: copies of those that are given, made when they are first needed.

    A model that is in eval mode and on the device is used as it is; what is given is never changed.
    """

    def of(self, models: Mapping[str, Model], device: torch.device) -> dict[str, Model]:
        """Give the models for images on a device."""
        for name, model in models.items():
            if (name, device) not in self:
                self[name, device] = _ready(model, device)
        return {name: self[name, device] for name in models}


def _ready(model: Model, device: torch.device) -> Model:
    if not isinstance(model, nn.Module):
        return model
    elsewhere = any(tensor.device != device for tensor in itertools.chain(model.parameters(), model.buffers()))
    if elsewhere or any(module.training for module in model.modules()):
        return copy.deepcopy(model).to(device).eval()
    return model
