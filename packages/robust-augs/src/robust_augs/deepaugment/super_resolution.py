"""DeepAugment's edits of a super-resolution network."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_augs.deepaugment.activation_edits import edited_activations
from robust_augs.deepaugment.layers import residual_blocks, submodule
from robust_augs.deepaugment.super_resolution_weights import edit_weights


@dataclass(frozen=True, kw_only=True)
class SuperResolution:
    """A network from images with values 0..255 to larger ones, whose copies are edited.

    Args:
        network: the network; it stays as it is.
        head: name of the module whose output goes into the body, and round it.
        body: name of the module whose children are residual blocks.
    """

    network: nn.Module
    head: str
    body: str

    def edit(self, generator: torch.Generator | None) -> nn.Module:
        """A copy of the network in evaluation mode, with edited weights."""
        edited = copy.deepcopy(self.network).eval().requires_grad_(False)
        edit_weights(residual_blocks(submodule(edited, self.body)), generator)
        return edited

    def distort(self, edited: nn.Module, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Pass `images` (N, 3, H, W) in [0, 1] through the edited copy, with edited activations."""
        head, body = submodule(edited, self.head), submodule(edited, self.body)
        with edited_activations(head, body, generator):
            enlarged: Tensor = edited(images * 255)
        return enlarged / 255
