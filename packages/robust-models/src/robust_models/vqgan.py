"""VQGAN: images to codes and back, for discrete adversarial training."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from robust_models.vector_quantizer import VectorQuantizer
from robust_models.vqgan_layers import Decoder, Encoder


class VQGAN(nn.Module):
    """Encode images as the nearest codes of a codebook, and decode these: an image-to-image quantiser.

    Esser et al., "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021, arXiv:2012.09841, without the
    discriminator, which only its own training needs. Discrete adversarial training (Mao et al., NeurIPS 2022,
    arXiv:2209.07735) passes images through a frozen one: `model.eval().requires_grad_(False)`. Nothing is downloaded:
    `load_weights(model, path)` reads a published file.

    Args:
        widths: channels of the levels, from the finest to the coarsest, multiples of 32; n levels give cells of
            2^(n - 1) pixels.
        latent_width: channels between encoder and codebook, and between codebook and decoder.
        codes: vectors in the codebook.
        code_width: width of a vector.
        in_chans: channels of the images.
        straight_through: let the gradient pass the codebook as if encoder and code agreed; without it, the output of
            the model has no gradient by its input.
    """

    def __init__(
        self,
        widths: Sequence[int],
        latent_width: int,
        codes: int,
        code_width: int,
        in_chans: int = 3,
        straight_through: bool = False,
    ) -> None:
        super().__init__()
        self.cell = 2 ** (len(widths) - 1)
        self.encoder = Encoder(widths, latent_width, in_chans)
        self.decoder = Decoder(widths, latent_width, in_chans)
        self.quantize = VectorQuantizer(codes, code_width, straight_through=straight_through)
        self.quant_conv = nn.Conv2d(latent_width, code_width, 1)
        self.post_quant_conv = nn.Conv2d(code_width, latent_width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return `images` (N, C, H, W) in [0, 1] as their codes tell them, in the same shape and range.

        Raises:
            ValueError: if height or width is not a multiple of `cell`.
        """
        return self._decode(self.quantize(self._encode(images)))

    def code_indices(self, images: Tensor) -> Tensor:
        """Return the codes (N, H / cell, W / cell) of `images` (N, C, H, W) in [0, 1], numbers in [0, codes).

        Raises:
            ValueError: if height or width is not a multiple of `cell`.
        """
        return self.quantize.indices(self._encode(images))

    def decode(self, indices: Tensor) -> Tensor:
        """Return the images (N, C, H, W) in [0, 1] of codes (N, H / cell, W / cell)."""
        return self._decode(self.quantize.vectors(indices))

    def _encode(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.cell or width % self.cell:
            raise ValueError(
                f"height and width must be multiples of {self.cell} pixels, got {height} x {width}: resize or pad them"
            )
        return self.quant_conv(self.encoder(2 * images - 1))  # type: ignore[no-any-return]

    def _decode(self, vectors: Tensor) -> Tensor:
        images: Tensor = self.decoder(self.post_quant_conv(vectors))
        return (images.clamp(-1, 1) + 1) / 2


def vqgan_f16_1024() -> VQGAN:
    """The VQGAN of ImageNet with 1,024 codes for cells of 16 x 16 pixels: 72,141,699 parameters, not loaded."""
    return VQGAN((128, 128, 256, 256, 512), latent_width=256, codes=1024, code_width=256)


def vqgan_f8_16384() -> VQGAN:
    """The VQGAN of OpenImages with 16,384 codes for cells of 8 x 8 pixels: 67,717,295 parameters, not loaded."""
    return VQGAN((128, 256, 256, 512), latent_width=4, codes=16384, code_width=4)


def checkpoint_filter(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:  # noqa: ARG001
    """Drop what a published file holds of the training loss: the discriminator and a perceptual network."""
    return {name: value for name, value in state_dict.items() if not name.startswith("loss.")}
