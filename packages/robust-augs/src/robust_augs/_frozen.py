"""Other people's networks, used without leaving a trace in them."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from robust_augs._images import as_float


@contextlib.contextmanager
def frozen(*networks: Any) -> Iterator[None]:
    """Put networks into eval mode and their parameters out of the graph; every mode and flag is given back at the end.

    In eval mode buffers do not move, and what is computed inside never reaches the `.grad` of a parameter. Plain
    functions among the networks are left alone.
    """
    modules = [module for network in networks if isinstance(network, nn.Module) for module in network.modules()]
    modes = [(module, module.training) for module in modules]
    flags = [(parameter, parameter.requires_grad) for module in modules for parameter in module.parameters(False)]
    try:
        for module, _ in modes:
            module.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


def network_input(network: Any, images: Tensor) -> Tensor:
    """Images as floats in the dtype and on the device of a network's parameters; where it has none, `as_float`."""
    floats = as_float(images)
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return floats if parameter is None else floats.to(parameter)
