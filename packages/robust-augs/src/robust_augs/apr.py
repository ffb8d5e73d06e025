"""Amplitude-phase recombination."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_augs._draws import block_size
from robust_augs._images import as_float, check_images, check_share, like
from robust_augs._levels import as_levels
from robust_augs._random import permutation, uniform
from robust_augs.chains import ChainDraws, apply_chains, check_chains, sample_chains
from robust_augs.operations import OPERATIONS

CHANNELS_AND_SPACE = (-3, -2, -1)
NUMBERS = 12  # temporary ones for each of an image's values, while images are recombined


@dataclass(frozen=True, kw_only=True)
class PairDraws:
    """What `APRPair` draws: which images are recombined, (N,) bool, and whose amplitude they take, (N,) int64."""

    recombined: Tensor
    partner: Tensor


@dataclass(frozen=True, kw_only=True)
class APRPair:
    """Give images the Fourier amplitudes of other images and let them keep their own phase (APR-P).

    Chen et al., "Amplitude-Phase Recombination: Rethinking Robustness of Convolutional Neural Networks in Frequency
    Domain", ICCV 2021, arXiv:2108.08487, section 3.2: with the Fourier transform over channels and space together,

        y = real(F^-1(|F(partner)| * exp(i * phase(F(x))))).

    The class follows the phase, so the labels of the images stay as they are; the published loss is
    CE(images) + CE(recombined). Where F(x) is 0 its phase counts as 0.

    Differs from the published code: the decision is drawn per image, not per batch (`per_batch=True` for that; the
    constants below have it), and images are always in [0, 1], where the published ImageNet run had normalised them.

    Args:
        probability: of an image (or a whole batch) to be recombined.
        per_batch: decide once for all images of a batch.
        clip: bring the result back to [0, 1]. The default is False, because the published code does not clip: the
            result of float images then leaves [0, 1] by a little, which a model can take, but other augmentations and
            attacks refuse. Use True in front of those. 8-bit images are always clipped, since they hold nothing else.

    Attributes:
        cifar: the published settings on CIFAR: probability 0.6 per batch.
        imagenet: the published settings on ImageNet: probability 0.5 per batch.

    Examples:
        >>> images = torch.rand(8, 3, 32, 32)
        >>> APRPair()(images, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])
    """

    probability: float = 0.6
    per_batch: bool = False
    clip: bool = False

    cifar: ClassVar["APRPair"]
    imagenet: ClassVar["APRPair"]

    def __post_init__(self) -> None:
        check_share("probability", self.probability)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Recombine `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

        Args:
            images: the batch. Partners are a permutation of it, so an image may be its own (the only image of a
                batch always is) and then stays as it is up to rounding. It is not changed.
            generator: where all draws come from; None takes torch's default generator of the images' device.

        Raises:
            TypeError: if `images` is not a tensor of floats or uint8.
            ValueError: if `images` has another shape, or values that are not finite or outside [0, 1].
        """
        check_images(images)
        return self.apply(images, self.sample(images.shape, generator, device=images.device))

    def sample(
        self, shape: torch.Size, generator: torch.Generator | None = None, *, device: torch.device | str = "cpu"
    ) -> PairDraws:
        """Draw for a batch of `shape` (N, C, H, W); the partners are a permutation of the batch."""
        count = shape[0]
        chance = uniform((1 if self.per_batch else count,), generator, device).expand(count)
        return PairDraws(recombined=chance < self.probability, partner=permutation(count, generator, device))

    @torch.no_grad()
    def apply(self, images: Tensor, draws: PairDraws) -> Tensor:
        """Recombine `images` as drawn; a pure function of its arguments.

        Only the chosen images are transformed back, so the host waits for the device once, to learn how many those
        are. Without the choice a batch on the CPU would take 1.3 to 1.9 times as long at the published probabilities.
        """
        chosen = draws.recombined.nonzero().squeeze(1)
        result = images.clone()
        if len(chosen) == 0:
            return result
        spectra = Spectra.of(as_float(images))
        for some in torch.split(chosen, block_size(NUMBERS * images.shape[1:].numel(), images.device)):
            mixed = spectra.recombine(draws.partner[some], some)
            result[some] = like(images, mixed.clamp(0, 1) if self.clip else mixed)
        return result


APRPair.cifar = APRPair(probability=0.6, per_batch=True)
APRPair.imagenet = APRPair(probability=0.5, per_batch=True)


@dataclass(frozen=True, kw_only=True)
class SingleDraws:
    """What `APRSingle` draws.

    Its two operations; which images are recombined, (N,) bool; and which of those take the amplitude of the second
    view and the phase of the first, (N,) bool, instead of the reverse.
    """

    first: ChainDraws
    second: ChainDraws
    recombined: Tensor
    backwards: Tensor


@dataclass(frozen=True, kw_only=True)
class APRSingle:
    """Give images the Fourier amplitudes of augmented views of themselves, or such a view their amplitudes (APR-S).

    Chen et al., "Amplitude-Phase Recombination: Rethinking Robustness of Convolutional Neural Networks in Frequency
    Domain", ICCV 2021, arXiv:2108.08487, section 3.2. A first random operation of AugMix changes the image. With
    probability 1/2 that is all; otherwise a second operation makes a view of the result, and the amplitude of one of
    the two, chosen at random, is combined with the phase of the other. APR-SP, the paper's best, is this on every
    image and then `APRPair` on the batch. In the published recipe it stands after the random crop and before the flip.

    Differs from the published code: that code writes the recombined image to 8 bits without clipping, so that levels
    beyond the range wrap around, to black just above white; here they are clipped unless `wrap` is set.

    Args:
        severity: the largest strength of an operation, in [0.1, 10], as in `AugMix`.
        wrap: cut off the fractions of recombined levels and take them modulo 256, as the published code does.
        quantize: round to 8 bits after each operation as Pillow does, and so as published.

    Attributes:
        cifar: the published settings on CIFAR, without the wrapping: severity 3.
        imagenet: the published settings on ImageNet, the same.

    Raises:
        ValueError: if `severity` is out of its range.

    Examples:
        >>> images = torch.rand(8, 3, 32, 32)
        >>> APRSingle()(images, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])
    """

    severity: float = 3.0
    wrap: bool = False
    quantize: bool = True

    cifar: ClassVar["APRSingle"]
    imagenet: ClassVar["APRSingle"]

    def __post_init__(self) -> None:
        check_chains(self.severity, width=1, depth=1)

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Augment `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

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
    ) -> SingleDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        first, second = (
            sample_chains(
                shape[0],
                width=1,
                depth=1,
                severity=self.severity,
                operations=len(OPERATIONS),
                generator=generator,
                device=device,
            )
            for _ in range(2)
        )
        recombined, backwards = (uniform((shape[0],), generator, device).cpu() < 0.5 for _ in range(2))
        return SingleDraws(first=first, second=second, recombined=recombined, backwards=backwards)

    @torch.no_grad()
    def apply(self, images: Tensor, draws: SingleDraws) -> Tensor:
        """Augment `images` as drawn; a pure function of its arguments."""
        levels = apply_chains(as_levels(images, quantize=self.quantize), draws.first, OPERATIONS)[:, 0]
        floats = torch.promote_types(images.dtype, torch.float32)
        bytes_stay = levels.dtype == images.dtype == torch.uint8
        result = levels.clone() if bytes_stay else like(images, levels.to(floats) / 255)
        chosen = draws.recombined.nonzero().squeeze(1)
        count = len(chosen)
        if count == 0:
            return result
        once = levels.index_select(0, chosen.to(levels.device))
        twice = apply_chains(once, draws.second[chosen], OPERATIONS)[:, 0]
        row, backwards = torch.arange(count), draws.backwards[chosen]
        amplitude, phase = ((row + count * second).to(levels.device) for second in (backwards, ~backwards))
        mixed = Spectra.of(torch.cat([once, twice]).to(floats)).recombine(amplitude, phase)
        mixed = mixed.trunc().remainder(256) if self.wrap else mixed.clamp(0, 255)
        result[chosen.to(levels.device)] = like(images, mixed / 255)
        return result


APRSingle.cifar = APRSingle(severity=3.0)
APRSingle.imagenet = APRSingle(severity=3.0)


@dataclass(frozen=True)
class Spectra:
    """Fourier transforms of real images, over channels and space together.

    Args:
        values: complex (N, C, H, W // 2 + 1), never 0: a tiny number is added to all, which gives 0 the phase 0.
        size: their absolute values.
        shape: of the images, (C, H, W).
    """

    values: Tensor
    size: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, images: Tensor) -> "Spectra":
        """Transform float images (N, C, H, W)."""
        tiny = torch.finfo(images.dtype).tiny ** 0.49  # its square, which the absolute value needs, is no 0
        values = torch.fft.rfftn(images, dim=CHANNELS_AND_SPACE).add_(tiny)
        return cls(values, values.abs(), tuple(images.shape[1:]))

    def recombine(self, amplitude: Tensor, phase: Tensor) -> Tensor:
        """Give the images numbered `phase` (K,) the amplitudes of those numbered `amplitude` (K,).

        The direction of each complex number takes neither angles nor exponentials.
        """
        scale = self.size.index_select(0, amplitude).div_(self.size.index_select(0, phase))
        mixed = self.values.index_select(0, phase).mul_(scale)
        images: Tensor = torch.fft.irfftn(mixed, s=self.shape, dim=CHANNELS_AND_SPACE)
        return images
