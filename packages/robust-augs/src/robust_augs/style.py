"""Style transfer by adaptive instance normalisation."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from robust_augs._fit import fit
from robust_augs._frozen import frozen, network_input
from robust_augs._images import as_float, check_images, check_share, like
from robust_augs._random import integers, permutation
from robust_augs.style_bank import StyleBank, channel_statistics


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Give content features the mean and standard deviation of style features, per image and channel over space.

    Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", ICCV 2017,
    arXiv:1703.06868, equation 8: std(style) * (content - mean(content)) / std(content) + mean(style), where std is
    the root of the unbiased variance plus 1e-5, as in the published code. Half precision is computed in float32.

    Args:
        content: features (N, C, H, W).
        style: features (N, C, h, w), or (1, C, h, w) for one style for all.

    Raises:
        ValueError: if a tensor has another number of dimensions, or the shapes do not match.
    """
    if content.ndim != 4 or style.ndim != 4 or style.shape[1] != content.shape[1]:
        raise ValueError(
            f"content and style must be features (N, C, H, W) of equally many channels, got {tuple(content.shape)} "
            f"and {tuple(style.shape)}: encode both with one network"
        )
    if len(style) not in (1, len(content)):
        raise ValueError(f"one style for each of {len(content)} images, or one for all, is needed, got {len(style)}")
    return _restyle(content, *channel_statistics(style))


def _restyle(content: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Content features (N, C, H, W) with the given statistics (N, C)."""
    own_mean, own_std = (value[..., None, None] for value in channel_statistics(content))
    target_mean, target_std = mean[..., None, None], std[..., None, None]
    return (target_std * ((as_float(content) - own_mean) / own_std) + target_mean).to(content.dtype)


@dataclass(frozen=True, kw_only=True)
class StyleDraws:
    """What `StyleTransfer` draws: whose style each image takes, (N,) int64, a place in the bank or in the batch."""

    style: Tensor


@dataclass(frozen=True)
class StyleTransfer:
    """Repaint images in the style of paintings, or of each other, and let them keep their content.

    Huang and Belongie, ICCV 2017, arXiv:1703.06868 (AdaIN), equations 8 and 14: with f the features of the image and
    g = adain(f, features of the style), the result is decoder(alpha * g + (1 - alpha) * f), clipped to [0, 1]. Used as
    an augmentation by Geirhos et al., "ImageNet-trained CNNs are biased towards texture", ICLR 2019, arXiv:1811.12231
    (alpha 1, paintings; see `stylise_folder`) and by Li et al., ICLR 2021 (alpha 0.5, other images; see `CrossStyle`).

    The networks are yours; nothing is downloaded. As published, the encoder is VGG-19 up to relu4_1 and the decoder its
    mirror image. They are computed in eval mode, in the dtype of the encoder's parameters, and left as they were.

    A decoder may round the sides of an image: what is too long is cut off at the bottom and on the right, what is too
    short is stretched (bilinear).

    Args:
        encoder: images (N, C, H, W) in [0, 1] -> features.
        decoder: features -> images. Sides may differ from the images' by less than half of these.
        alpha: how much of the style is taken, from 0 (decoder(encoder(images))) to 1.
        styles: the paintings, as a bank of their statistics; None takes the styles from a permutation of the batch.

    Raises:
        ValueError: if `alpha` is outside [0, 1].

    Examples:
        >>> swap_colours = StyleTransfer(torch.nn.Identity(), torch.nn.Identity())
        >>> swap_colours(torch.rand(8, 3, 32, 32), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])
    """

    encoder: Callable[[Tensor], Tensor]
    decoder: Callable[[Tensor], Tensor]
    _: KW_ONLY
    alpha: float = 1.0
    styles: StyleBank | None = None

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Repaint `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

        Args:
            images: the batch; it is not changed, and no gradient flows.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape, or values that are not finite or outside [0, 1]; if the bank has
                another number of channels than the features; if the decoder returns other than images of such a size.
        """
        check_images(images)
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> StyleDraws:
        """Draw for a batch of `shape` (N, C, H, W): a style of the bank for each image, or a permutation."""
        if self.styles is not None:
            return StyleDraws(style=integers((shape[0],), 0, len(self.styles) - 1, generator, device))
        return StyleDraws(style=permutation(shape[0], generator, device))

    @torch.no_grad()
    def apply(self, images: Tensor, draws: StyleDraws) -> Tensor:
        """Repaint `images` as drawn; a pure function of its arguments."""
        with frozen(self.encoder, self.decoder):
            features = self.encoder(network_input(self.encoder, images))
            mean, std = self._statistics(features, draws.style)
            painted = self.decoder(torch.lerp(features, _restyle(features, mean, std), self.alpha))
        return like(images, fit(painted, images).clamp(0, 1))

    def _statistics(self, features: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (N, C) of the drawn styles."""
        if self.styles is None:
            mean, std = channel_statistics(features)
            places = style.to(mean.device)
            return mean[places], std[places]
        if self.styles.mean.shape[1] != features.shape[1]:
            raise ValueError(
                f"styles have {self.styles.mean.shape[1]} channels, but the encoder's features {features.shape[1]}: "
                "make the bank with this encoder, StyleBank.encode(encoder, paintings)"
            )
        places = style.to(self.styles.mean.device)
        return self.styles.mean[places].to(features.device), self.styles.std[places].to(features.device)
