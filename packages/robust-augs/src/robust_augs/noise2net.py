"""Noise2Net, the online half of DeepAugment: random image-to-image networks."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from robust_augs._images import as_float, check_images, check_share, like
from robust_augs._random import integers, permutation, uniform

BLOCKS, SCALES, WIDTH = 4, 4, 16
IMAGENET_STD = (0.229, 0.224, 0.225)
CACHED = 2**21  # numbers in the features of the images that a CPU works on together


@dataclass(frozen=True, kw_only=True)
class NetworkDraws:
    """What `Noise2Net` draws for the M images that get noise, one network each, of four blocks.

    Attributes:
        chosen: which images of the batch these are, (M,) int64.
        eps: weight of each block, (M,).
        entrance: 1x1 convolutions from C channels to four scales of 16, (M, 4, 64, C).
        dilation: of the three inner convolutions, (M, 4, 3) int64; 0 stands for a kernel of size 1.
        inner: their kernels, (M, 4, 3, 16, 16, 3, 3); of a kernel of size 1 only the centre is used.
        exit: 1x1 convolutions from the four scales back to C channels, (M, 4, C, 64).
    """

    chosen: Tensor
    eps: Tensor
    entrance: Tensor
    dilation: Tensor
    inner: Tensor
    exit: Tensor


@dataclass(frozen=True, kw_only=True)
class Noise2Net:
    """Pass a share of the images through small residual networks with random weights, a new network for every image.

    Hendrycks et al., "The Many Faces of Robustness: A Critical Analysis of Out-of-Distribution Generalization",
    ICCV 2021, arXiv:2006.16241, appendix on DeepAugment and Noise2Net. Four times x <- x + eps * block(x), where the
    block is that of a Res2Net: a 1x1 convolution to four scales of 16 channels; the first three of them convolved in a
    cascade, each added to the outcome before it, with a kernel of size 1 or 3 and a dilation of 1, 2 or 3; the fourth
    passed through; a 1x1 convolution back. Batch normalisation with the statistics of the one image follows every
    convolution, ReLU all but the last. Weights are drawn as torch initialises convolutions; the normalisation takes
    away their biases, so there are none.

    Differs from the published code: which images of the batch, eps, kernel sizes and dilations are drawn per image and
    call, where the published training takes the first half of the batch, draws eps once per batch and the sizes once
    per run; and the result is clipped to [0, 1] (`clip=False` for the published images, which leave the range).

    Args:
        eps: the least and the largest weight of a block; each image draws its own between them.
        share: of the images in a batch that get noise. Of N images it is share * N, rounded up or down at random so
            that the share is right on average, also for batches of one.
        space: the units that eps has. "normalised": images divided by the standard deviation of ImageNet's channels,
            as published (images of other than three channels take the mean of the three). "unit": images in [0, 1],
            where the same eps is a change more than four times as large. The mean, which normalisation also takes off,
            has no effect on a block.
        clip: bring the result back to [0, 1]. 8-bit images are always clipped, since they hold nothing else.

    Attributes:
        imagenet: the published settings on ImageNet, but for the draws per image: without clipping.

    Raises:
        ValueError: if `eps` are not two finite numbers of at least 0 in order, `share` is outside [0, 1], or `space` is
            another word.

    Examples:
        >>> images = torch.rand(8, 3, 32, 32)
        >>> noisy = Noise2Net()(images, generator=torch.Generator().manual_seed(0))
        >>> int((noisy != images).flatten(1).any(1).sum())
        4
    """

    eps: tuple[float, float] = (0.375, 0.75)
    share: float = 0.5
    space: Literal["normalised", "unit"] = "normalised"
    clip: bool = True

    imagenet: ClassVar["Noise2Net"]

    def __post_init__(self) -> None:
        check_share("share", self.share)
        eps: tuple[float, ...] = tuple(self.eps)
        if len(eps) != 2 or not 0 <= eps[0] <= eps[1] < math.inf:
            raise ValueError(f"eps must be the least and the largest weight, such as (0.375, 0.75), got {eps}")
        object.__setattr__(self, "eps", eps)
        if self.space not in ("normalised", "unit"):
            raise ValueError(f'space must be "normalised" or "unit", got {self.space!r}')

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Add the networks' noise to `images` (N, C, H, W), floats in [0, 1] or uint8; the same shape, dtype come back.

        Args:
            images: the batch; it is not changed.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape, or values that are not finite or outside [0, 1].
        """
        check_images(images)
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> NetworkDraws:
        """Draw for a batch of `shape` (N, C, H, W): which images, and a network for each of them."""
        count, channels = shape[:2]
        whole = math.floor(self.share * count)
        rest = self.share * count - whole
        # Only a share that does not divide the batch makes the host wait for this number.
        noisy = whole + int(rest > 0 and bool(uniform((1,), generator, device) < rest))
        chosen = permutation(count, generator, device)[:noisy]
        low, high = self.eps
        pointwise = integers((noisy, BLOCKS, SCALES - 1), 0, 1, generator, device) == 0
        dilation = integers((noisy, BLOCKS, SCALES - 1), 1, 3, generator, device).masked_fill(pointwise, 0)
        # torch's default for convolutions: U(-b, b) with b = 1 / sqrt(input channels * kernel area).
        bound = torch.where(pointwise, 1 / math.sqrt(WIDTH), 1 / math.sqrt(9 * WIDTH))

        def weights(*size: int) -> Tensor:
            return uniform((noisy, *size), generator, device) * 2 - 1

        return NetworkDraws(
            chosen=chosen.to(device),
            eps=low + (high - low) * uniform((noisy,), generator, device),
            entrance=weights(BLOCKS, SCALES * WIDTH, channels) / math.sqrt(channels),
            dilation=dilation,
            inner=weights(BLOCKS, SCALES - 1, WIDTH, WIDTH, 3, 3) * bound[..., None, None, None, None],
            exit=weights(BLOCKS, channels, SCALES * WIDTH) / math.sqrt(SCALES * WIDTH),
        )

    @torch.no_grad()
    def apply(self, images: Tensor, draws: NetworkDraws) -> Tensor:
        """Add the noise of the drawn networks to `images`; a pure function of its arguments.

        The host waits for the device once, to learn how many images share a dilation. On the CPU few images are worked
        on at a time: features beyond the caches would halve the speed at 224 pixels.
        """
        result = images.clone()
        area = images.shape[2] * images.shape[3]
        # One pixel is its own mean, so that its normalised value, and every block, is 0.
        if area > 1:
            together = max(1, CACHED // (WIDTH * area)) if images.device.type == "cpu" else max(1, len(images))
            for first in range(0, len(draws.chosen), together):
                part = NetworkDraws(**{name: value[first : first + together] for name, value in vars(draws).items()})
                floats = as_float(images[part.chosen])
                noisy = floats + self._change(floats, part)
                result[part.chosen] = like(images, noisy.clamp(0, 1) if self.clip else noisy)
        return result

    def _change(self, images: Tensor, draws: NetworkDraws) -> Tensor:
        """What the four blocks add to each of the images, each with its own network."""
        std = self._std(images)
        eps = draws.eps.to(images.dtype).view(-1, 1, 1, 1)
        entrance, inner, exits = (w.to(images.dtype) for w in (draws.entrance, draws.inner, draws.exit))
        change = torch.zeros_like(images)
        for b, groups in enumerate(_by_dilation(draws.dilation)):
            change += eps * _block(images / std + change, entrance[:, b], inner[:, b], exits[:, b], groups)
        return std * change

    def _std(self, images: Tensor) -> Tensor:
        std = images.new_tensor(IMAGENET_STD if self.space == "normalised" else (1.0,)).view(1, -1, 1, 1)
        return std if std.shape[1] in (1, images.shape[1]) else std.mean(dim=1, keepdim=True)


Noise2Net.imagenet = Noise2Net(space="normalised", clip=False)


def _by_dilation(dilation: Tensor) -> list[list[tuple[Tensor, ...]]]:
    """For each block and inner convolution: which images have kernels of size 1, dilation 1, 2 and 3."""
    order = dilation.argsort(dim=0)
    counts = torch.stack([(dilation == kind).sum(dim=0) for kind in range(4)], dim=-1).tolist()
    return [[torch.split(order[:, b, c], counts[b][c]) for c in range(SCALES - 1)] for b in range(BLOCKS)]


def _block(images: Tensor, entrance: Tensor, inner: Tensor, exits: Tensor, groups: list[tuple[Tensor, ...]]) -> Tensor:
    """One block for every image: its own 1x1 convolutions, cascade of `inner` convolutions, and normalisations."""
    pixels = images.flatten(2)
    centred = pixels - pixels.mean(dim=2, keepdim=True)
    covariance = centred @ centred.mT / pixels.shape[2]
    # The variance behind a 1x1 convolution follows from the covariance before it, which has far fewer channels.
    variance = (entrance @ covariance * entrance).sum(dim=2, keepdim=True)
    scales = ((variance + 1e-5).rsqrt() * entrance).chunk(SCALES, dim=1)
    *ways_out, last_out = exits.chunk(SCALES, dim=2)
    result = last_out @ (scales[-1] @ centred).relu_()
    carried = torch.zeros_like(images[:, :1])
    for scale, way_out, kernels, group in zip(scales[:-1], ways_out, inner.unbind(dim=1), groups, strict=True):
        carried = (scale @ centred).relu_().view(-1, WIDTH, *images.shape[2:]) + carried
        carried = F.instance_norm(_convolve(carried, kernels, group)).relu_()
        result.baddbmm_(way_out, carried.flatten(2))
    return F.instance_norm(result.view_as(images))


def _convolve(features: Tensor, kernels: Tensor, group: tuple[Tensor, ...]) -> Tensor:
    """Convolve every image with its own kernels, in one grouped convolution for all images of a dilation."""
    result = torch.empty_like(features)
    for dilation, images in enumerate(group):
        if len(images) == 0:
            continue
        part, own = features[images], kernels[images]
        if dilation == 0:
            result[images] = (own[..., 1, 1] @ part.flatten(2)).view_as(part)
        else:
            folded = part.flatten(0, 1).unsqueeze(0)
            spread = F.conv2d(folded, own.flatten(0, 1), padding=dilation, dilation=dilation, groups=len(images))
            result[images] = spread.view_as(part)
    return result
