"""The edits of the activations of a super-resolution network, before its body and within it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from robust_augs.deepaugment.kernels import random_mask, random_signs
from robust_augs.deepaugment.layers import draw_below

Edit = Callable[[Tensor, torch.Generator | None], Tensor]


@contextmanager
def edited_activations(head: nn.Module, body: nn.Module, generator: torch.Generator | None) -> Iterator[None]:
    """While this context lasts, edit what comes out of `head` and what passes through the children of `body`.

    One of the edits of `BEFORE`, and one of `WITHIN`, are drawn on entry, each with equal probability: `skip` leaves
    out up to three children of the body, from the third on; the others change what comes out of its fifth child (or,
    of a shorter body, its last but one).
    """
    children = list(body.children())
    before = list(BEFORE.values())[draw_below(len(BEFORE), generator)]
    within = list(WITHIN.values())[draw_below(len(WITHIN), generator)]
    hooks = [head.register_forward_hook(_after(before, generator))]
    if within is None:
        places = {2 + draw_below(len(children) - 2, generator) for _ in range(3)}
        hooks += [children[place].register_forward_hook(_skip) for place in sorted(places)]
    else:
        hooks.append(children[min(5, len(children) - 1) - 1].register_forward_hook(_after(within, generator)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _after(edit: Edit, generator: torch.Generator | None) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda _module, _inputs, output: edit(output, generator)


def _skip(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if inputs[0].shape != output.shape:
        raise ValueError(
            f"a layer of the body cannot be skipped: {type(module).__name__} turns {tuple(inputs[0].shape)} into "
            f'{tuple(output.shape)}; name a body whose layers keep the shape, body="..."'
        )
    return inputs[0]


def swap_channels(features: Tensor, generator: torch.Generator | None) -> Tensor:
    """Swap five random pairs of channels."""
    order = list(range(features.shape[1]))
    for _ in range(5):
        first, second = (draw_below(len(order), generator) for _ in range(2))
        order[first], order[second] = order[second], order[first]
    return features[:, order]


def keep_most(features: Tensor, generator: torch.Generator | None) -> Tensor:
    """Set a random 5% of the activations to zero."""
    return features * random_mask(features, generator, kept=0.95)


def flip_few_signs(features: Tensor, generator: torch.Generator | None) -> Tensor:
    """Negate a random 2.5% of the activations."""
    return features * random_signs(features, generator, negative=0.025)


def leave(features: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: ARG001
    """Change nothing."""
    return features


def negate(features: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: ARG001
    """Negate all activations."""
    return -features


def activate(features: Tensor, generator: torch.Generator | None) -> Tensor:
    """Apply ReLU, with probability 1/3, or GELU."""
    return features.relu() if draw_below(3, generator) == 0 else F.gelu(features)


def flip(features: Tensor, generator: torch.Generator | None) -> Tensor:
    """Reverse the channels together with the rows, with probability 1/3, or the columns."""
    return features.flip((1, 2) if draw_below(3, generator) == 0 else (1, 3))


BEFORE: dict[str, Edit] = {edit.__name__: edit for edit in (swap_channels, keep_most, flip_few_signs, leave)}
WITHIN: dict[str, Edit | None] = {"negate": negate, "activate": activate, "flip": flip, "skip": None, "leave": leave}
