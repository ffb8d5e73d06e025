"""DeepAugment's edits of a compressive autoencoder."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_augs.deepaugment.autoencoder_weights import edit_weights
from robust_augs.deepaugment.code_edits import CODE_EDITS, scale_bits
from robust_augs.deepaugment.kernels import uniform_like
from robust_augs.deepaugment.layers import Convolution, convolutions, draw_below, submodule


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """A network from images in [0, 1] to a code in [-1, 1] and back, whose copies are edited.

    Args:
        network: the network; it stays as it is.
        encoder: name of its module from images (N, 3, H, W) to codes (N, K, h, w).
        decoder: name of its module from codes to images.
        binarise: draw each number c of the code to be 1 with probability (1 + c) / 2, else -1, before it is decoded.
    """

    network: nn.Module
    encoder: str
    decoder: str
    binarise: bool = True

    def layers(self, network: nn.Module) -> list[Convolution]:
        """The convolutions that are edited: the encoder's last, which makes the code, and those of the decoder.

        Raises:
            ValueError: if the encoder has none, or the decoder fewer than three.
        """
        encoding = convolutions(submodule(network, self.encoder))
        decoding = convolutions(submodule(network, self.decoder))
        if not encoding or len(decoding) < 3:
            raise ValueError(
                f"the encoder {self.encoder!r} must have a convolution and the decoder {self.decoder!r} three, "
                f'got {len(encoding)} and {len(decoding)}: name the modules, encoder="...", decoder="..."'
            )
        return [encoding[-1], *decoding]

    def edit(self, generator: torch.Generator | None) -> nn.Module:
        """A copy of the network in evaluation mode, with edited weights."""
        edited = copy.deepcopy(self.network).eval().requires_grad_(False)
        edit_weights(self.layers(edited), generator)
        return edited

    def distort(self, edited: nn.Module, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Pass `images` (N, 3, H, W) in [0, 1] through the edited copy, with an edited code."""
        code: Tensor = submodule(edited, self.encoder)(images)
        # The last of nine acts on the bits instead: before they are drawn it would do little more than round the code.
        choices = (*CODE_EDITS.values(), None)
        edit_code = choices[draw_below(len(choices), generator)]
        if edit_code is not None:
            code = edit_code(code, generator)
        bits = (1 + code) / 2
        if self.binarise:
            bits = (uniform_like(bits, generator) <= bits).to(bits.dtype)
        if edit_code is None:
            bits = scale_bits(bits, generator)
        decoded: Tensor = submodule(edited, self.decoder)(2 * bits - 1)
        return decoded
