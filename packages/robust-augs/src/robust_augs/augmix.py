"""AugMix."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robust_augs._images import as_float, check_images, like
from robust_augs._levels import as_levels
from robust_augs._random import beta, dirichlet
from robust_augs.chains import ChainDraws, apply_chains, check_chains, sample_chains
from robust_augs.operations import OPERATIONS, OVERLAPPING

# How many values are worked on at a time on a CPU: what its caches hold need not come from memory again and again.
CHAINED_AT_A_TIME = 2**21
MIXED_AT_A_TIME = 2**19


@dataclass(frozen=True, kw_only=True)
class MixDraws:
    """What `AugMix` draws: its chains, their weights (N, width) of sum 1, and their share m (N,) of the result."""

    chains: ChainDraws
    weights: Tensor
    share: Tensor


@dataclass(frozen=True, kw_only=True)
class AugMix:
    """Mix images with several chains of random operations on themselves.

    Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020,
    arXiv:1912.02781, algorithm 1: with w ~ Dirichlet(alpha, ..., alpha) and m ~ Beta(alpha, alpha),

        y = (1 - m) x + m sum_i w_i chain_i(x),

    where each chain applies 1 to 3 operations of random strength. Crop and flip before; normalise after, in the model.
    For consistency over several views see `jensen_shannon`.

    Differs from the published code: images are worked on as a batch, grouped by operation. Everything is drawn for each
    image as there, but not by the same random numbers.

    Args:
        severity: the largest strength of an operation, in [0.1, 10]; strengths are uniform in [0.1, severity).
        width: number of chains.
        depth: operations per chain; -1 draws 1, 2 or 3 for each chain.
        alpha: of both distributions, more than 0.
        all_ops: draw from color, contrast, brightness and sharpness as well. They overlap with ImageNet-C, whose score
            then says less about robustness to the unforeseen. For grey and RGB images.
        quantize: round to 8 bits after every operation as Pillow does, and so as published. Without it operations work
            on floats, which is a little slower.

    Attributes:
        cifar: the published settings on CIFAR: severity 3.
        imagenet: the published settings on ImageNet: severity 1.

    Raises:
        ValueError: if a setting is out of its range.

    Examples:
        >>> images = torch.rand(8, 3, 32, 32)
        >>> AugMix(severity=3)(images, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])
    """

    severity: float = 3.0
    width: int = 3
    depth: int = -1
    alpha: float = 1.0
    all_ops: bool = False
    quantize: bool = True

    cifar: ClassVar["AugMix"]
    imagenet: ClassVar["AugMix"]

    def __post_init__(self) -> None:
        check_chains(self.severity, self.width, self.depth)
        if not self.alpha > 0:
            raise ValueError(f"alpha must be more than 0, got {self.alpha}")

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of the operations to draw from."""
        return OPERATIONS + OVERLAPPING if self.all_ops else OPERATIONS

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
    ) -> MixDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        count = shape[0]
        weights = dirichlet((count, self.width), self.alpha, generator, device)
        share = beta((count,), self.alpha, self.alpha, generator, device)
        chains = sample_chains(
            count,
            width=self.width,
            depth=self.depth,
            severity=self.severity,
            operations=len(self.operations),
            generator=generator,
            device=device,
        )
        return MixDraws(chains=chains, weights=weights, share=share)

    @torch.no_grad()
    def apply(self, images: Tensor, draws: MixDraws) -> Tensor:
        """Augment `images` as drawn; a pure function of its arguments."""
        result = torch.empty_like(images)
        for part in _parts(images, CHAINED_AT_A_TIME):
            chosen, weights, share = images[part], draws.weights[part], draws.share[part]
            levels = apply_chains(as_levels(chosen, quantize=self.quantize), draws.chains[part], self.operations)
            for few in _parts(chosen, MIXED_AT_A_TIME):
                mixed = mix(as_float(chosen[few]), levels[few], weights[few], share[few])
                result[part][few] = like(images, mixed)
        return result


AugMix.cifar = AugMix(severity=3.0)
AugMix.imagenet = AugMix(severity=1.0)


def mix(images: Tensor, levels: Tensor, weights: Tensor, share: Tensor) -> Tensor:
    """Average images (N, C, H, W) in [0, 1] with their chains, levels (N, width, C, H, W) on the scale 0..255.

    Args:
        images: x.
        levels: the chains of each image.
        weights: (N, width), the weights of the chains.
        share: (N,), the weight m of all chains together.
    """
    mixed = images * (1 - share).view(-1, 1, 1, 1)
    for chain, weight in zip(levels.unbind(1), (share[:, None] * weights / 255).unbind(1), strict=True):
        mixed.addcmul_(chain.to(mixed.dtype), weight.view(-1, 1, 1, 1))
    return mixed.clamp(0, 1)  # an average lies there, but for the rounding of the weights


def _parts(images: Tensor, values: int) -> Iterator[slice]:
    """Slices of a batch that hold about so many values on a CPU; elsewhere the whole batch."""
    whole = max(1, len(images))
    size = max(1, values // images.shape[1:].numel()) if images.device.type == "cpu" else whole
    return (slice(start, start + size) for start in range(0, len(images), size))
