"""Convolutions, residual blocks, head and body of a network, found by type and structure and not by name."""

import torch
from torch import Tensor, nn

from robust_augs._random import integers, permutation

Convolution = nn.Conv2d | nn.ConvTranspose2d
Block = tuple[nn.Conv2d, nn.Conv2d]


def convolutions(module: nn.Module) -> list[Convolution]:
    """The convolutions of `module`, in the order in which it registers them.

    Transposed convolutions count where they are in one group, since else they have no axis of output filters.

    Raises:
        ValueError: if the weight of one is computed from others, so that an edit would not last.
    """
    found: list[Convolution] = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d) or (isinstance(layer, nn.ConvTranspose2d) and layer.groups == 1):
            if not isinstance(layer._parameters.get("weight"), nn.Parameter):
                raise ValueError(
                    f"the weight of the convolution {name!r} is computed from other parameters, which would undo every "
                    "edit: remove its parametrisation (weight or spectral norm) first"
                )
            found.append(layer)
    return found


def filters(layer: Convolution) -> Tensor:
    """A view of the weight of `layer` whose first dimension are the filters, one for each output channel."""
    return layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight


def weight_and_bias(layer: Convolution) -> list[Tensor]:
    """The filters of `layer`, and its bias if it has one."""
    return [filters(layer)] if layer.bias is None else [filters(layer), layer.bias]


def residual_blocks(body: nn.Module) -> list[Block]:
    """First and last 3x3 convolution of each child of `body` that has at least two of them."""
    blocks: list[Block] = []
    for child in body.children():
        square = [c for c in convolutions(child) if isinstance(c, nn.Conv2d) and c.kernel_size == (3, 3)]
        if len(square) >= 2:
            blocks.append((square[0], square[-1]))
    return blocks


def find_body(network: nn.Module) -> str:
    """The name of the nn.Sequential or nn.ModuleList that has the most residual blocks.

    Raises:
        ValueError: if there is none with three children, two of them residual blocks.
    """
    best, most = "", 0
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(residual_blocks(module)) > most:
            best, most = name, len(residual_blocks(module))
    if most == 0:
        raise ValueError(
            f"no nn.Sequential of residual blocks (with two 3x3 convolutions each) in {type(network).__name__}: "
            'name the module that holds them, body="..."'
        )
    check_body(network, best)
    return best


def check_body(network: nn.Module, name: str) -> None:
    """Refuse a body that is too short for the edits, which need two residual blocks and a third layer to skip."""
    body = submodule(network, name)
    blocks, children = len(residual_blocks(body)), len(list(body.children()))
    if blocks < 2 or children < 3:
        raise ValueError(
            f"the body {name!r} must have at least three layers, two of them residual blocks with two 3x3 convolutions "
            f'each, got {children} and {blocks}: name another with body="...", or take a deeper network'
        )


def find_head(network: nn.Module, body: str) -> str:
    """The name of the last module with a convolution that the parent of `body` registers before it.

    Raises:
        ValueError: if there is none.
    """
    path, _, own = body.rpartition(".")
    head = None
    for name, module in submodule(network, path).named_children() if own else ():
        if name == own:
            break
        if convolutions(module):
            head = name
    if head is None:
        raise ValueError(
            f"no module with a convolution is registered before the body {body!r}: name the one whose output goes into "
            'the body, head="..."'
        )
    return f"{path}.{head}" if path else head


def submodule(network: nn.Module, name: str) -> nn.Module:
    """The module called `name` in `network`, or an error that says which there are."""
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(child for child, _ in network.named_children())
        raise ValueError(f"{type(network).__name__} has no module {name!r}; it has {known or 'none'}") from error


def draw_below(count: int, generator: torch.Generator | None) -> int:
    """Draw one whole number from {0, ..., count - 1}."""
    return int(integers((1,), 0, count - 1, generator, "cpu"))


def draw_some(count: int, total: int, generator: torch.Generator | None) -> Tensor:
    """Draw `count` different numbers from {0, ..., total - 1}, or all of them where there are fewer."""
    return permutation(total, generator, "cpu")[:count]
