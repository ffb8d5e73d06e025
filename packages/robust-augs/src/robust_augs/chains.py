"""Chains of random operations, one after the other: what AugMix, AugMax and APR-S share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_augs._random import integers, uniform
from robust_augs.operations import operate

LONGEST = 3  # of the chains whose lengths are drawn


@dataclass(frozen=True, kw_only=True)
class ChainDraws:
    """What chains of operations draw, all (N, width, steps).

    The operations as positions in the list of names, int64, -1 where a chain has ended; their strengths; and their
    signs, 1 or -1. They stay in the host's memory, which decides what is computed; the device does not wait for it.
    """

    operation: Tensor
    strength: Tensor
    sign: Tensor

    def __getitem__(self, images: slice | Tensor) -> "ChainDraws":
        """The draws of some of the images."""
        return ChainDraws(operation=self.operation[images], strength=self.strength[images], sign=self.sign[images])


def check_chains(severity: float, width: int, depth: int) -> None:
    """Refuse settings of chains that mean nothing."""
    if not 0.1 <= severity <= 10:
        raise ValueError(f"severity must lie in [0.1, 10], got {severity}")
    check_mixture(width, depth)


def check_mixture(width: int, depth: int) -> None:
    """Refuse numbers of chains, or of steps in them, that mean nothing."""
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if depth < 1 and depth != -1:
        raise ValueError(f"depth must be at least 1, or -1 for a random one of 1 to {LONGEST}, got {depth}")


def sample_chains(
    count: int,
    *,
    width: int,
    depth: int,
    severity: float,
    operations: int,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> ChainDraws:
    """Draw `width` chains for each of `count` images.

    Args:
        count: N.
        width: chains per image.
        depth: operations per chain; -1 draws 1, 2 or 3 for each chain.
        severity: strengths are uniform in [0.1, severity).
        operations: how many operations there are to choose from, each equally likely.
        generator: where all draws come from; None takes the default generator of `device`.
        device: where draws are made without a generator.
    """
    home = generator.device if generator else device
    shape = (count, width, LONGEST if depth == -1 else depth)
    lengths = integers((count, width, 1), 1, LONGEST, generator, home) if depth == -1 else depth
    operation = integers(shape, 0, operations - 1, generator, home)
    running = torch.arange(shape[2], device=home) < lengths
    strength = uniform(shape, generator, home) * (severity - 0.1) + 0.1
    sign = integers(shape, 0, 1, generator, home) * 2 - 1
    return ChainDraws(operation=torch.where(running, operation, -1).cpu(), strength=strength.cpu(), sign=sign.cpu())


def apply_chains(levels: Tensor, draws: ChainDraws, names: Sequence[str]) -> Tensor:
    """Run the chains on images `levels` (N, C, H, W) on the scale 0..255, see `operate`: (N, width, C, H, W).

    At every step the chains are sorted by operation, so that each operation runs once, on all chains that drew it.
    """
    count, width, steps = draws.operation.shape
    operation, strength, sign = (x.flatten(0, 1) for x in (draws.operation, draws.strength, draws.sign))
    position = torch.arange(count).repeat_interleave(width)  # where the state of each chain lies in `levels`
    for step in range(steps):
        order = operation[:, step].argsort(stable=True)
        sizes = (operation[:, step] + 1).bincount(minlength=len(names) + 1).tolist()
        levels = levels.index_select(0, position[order].to(levels.device))
        groups = zip(names, torch.split(levels, sizes)[1:], torch.split(order, sizes)[1:], strict=True)
        for name, group, members in groups:  # the chains that have ended come first, and stay
            if len(members):
                group.copy_(operate(name, group, strength[members, step], sign[members, step]))
        position = order.argsort()
    return levels.index_select(0, position.to(levels.device)).view(count, width, *levels.shape[1:])
