"""Random smooth deformations: the diffeomorphisms of PRIME."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from robust_augs._draws import block_size, in_blocks
from robust_augs._images import as_float, check_images, like
from robust_augs._random import beta, integers, normal

GROUP = 32  # images whose numbers of modes round up to the same multiple of this share one pair of matrix products


@dataclass(frozen=True, kw_only=True)
class DiffeomorphismDraws:
    """What `Diffeomorphism` draws.

    Args:
        cut: (N,) int64, the highest frequency of the field.
        temperature: (N,), the variance of its coefficients.
        displacement: (N, 2, H, W) in pixels, along x and along y: pixel (x, y) of the result is taken from
            (x - dx, y - dy).
    """

    cut: Tensor
    temperature: Tensor
    displacement: Tensor


@dataclass(frozen=True, kw_only=True)
class Diffeomorphism:
    """Deform square images by smooth random fields that vanish on the border.

    Modas et al., "PRIME: A Few Primitives Can Boost Robustness to Common Corruptions", ECCV 2022, arXiv:2112.13547;
    the fields are those of Petrini et al., "Relative stability toward diffeomorphisms indicates performance in deep
    nets", NeurIPS 2021, arXiv:2105.02468. On an image of side n, with u and v from 0 to 1 across it, both components
    of the displacement are independent fields

        n * sqrt(T) * sum_{i,j} c_ij * sin(pi * i * u) * sin(pi * j * v),  c_ij ~ N(0, 1) / r,  r = sqrt(i^2 + j^2),

    over i, j >= 1 with r < cut + 1/2. The cut is that of a Beta(1/2, 1/2) between `cut_min` and a number uniform in
    {cut_min + 1, ..., cut_max}; T that of another one between T1 = 1 / (pi * n^2 * ln(cut)), at which the typical
    displacement is half a pixel, and max(T1, 4 / (pi^3 * cut^2 * ln(cut))), up to which the deformation stays
    invertible. Images are sampled bilinearly, at coordinates clamped to the image.

    Differs from the published code: cut, temperature and field are drawn per image, not per batch. Modes that the
    pixels cannot tell apart (sin(pi * i * u) and that of 2 * (n - 1) +- i) are drawn as one, with the sum of their
    variances, which has the same distribution at every pixel.

    Args:
        cut_min: lowest cut, at least 2.
        cut_max: highest cut, more than `cut_min`.

    Attributes:
        cifar: the published settings on CIFAR: cuts up to 100.
        imagenet: the published settings on ImageNet, the default: cuts up to 500.

    Raises:
        ValueError: if the cuts are not in this order.

    Examples:
        >>> images = torch.rand(4, 3, 32, 32)
        >>> deformed = Diffeomorphism.cifar(images, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(deformed[:, :, 0], images[:, :, 0], atol=1e-4)  # the border stays in place
        True
    """

    cut_min: int = 2
    cut_max: int = 500

    cifar: ClassVar["Diffeomorphism"]
    imagenet: ClassVar["Diffeomorphism"]

    def __post_init__(self) -> None:
        if not 2 <= self.cut_min < self.cut_max:
            raise ValueError(f"cuts must have 2 <= cut_min < cut_max, got {self.cut_min} and {self.cut_max}")

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Deform `images` (N, C, H, H), floats in [0, 1] or uint8; same shape, dtype and device come back.

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
    ) -> DiffeomorphismDraws:
        """Draw for a batch of `shape` (N, C, H, H).

        The images are grouped by their numbers of modes, so the host waits here for a device that it draws on.

        Raises:
            ValueError: if the images are not square.
        """
        count, _, height, width = shape
        if height != width:
            raise ValueError(
                f"Diffeomorphism is for square images only, got {height} x {width}: crop or resize them first, or use "
                "PRIME with primitives that leave it out"
            )
        top = integers((count,), self.cut_min + 1, self.cut_max, generator, device)
        span = beta((count,), 0.5, 0.5, generator, device)
        # A Beta(1/2, 1/2) is often so close to 1 that it rounds to it; the minimum keeps such a cut in range.
        cut = torch.minimum((span * (top + 1 - self.cut_min) + self.cut_min).long(), top)
        low, high = temperature_range(cut, height)
        temperature = low + beta((count,), 0.5, 0.5, generator, device) * (high - low)

        displacement = torch.zeros(count, 2, height, height, device=device)
        if height > 2 and count:
            groups = (cut.clamp(max=height - 2) + GROUP - 1) // GROUP  # beyond that the pixels tell no modes apart
            sines = sine_matrix(height, device)
            for group in torch.unique(groups).tolist():
                size = min(group * GROUP, height - 2)
                rows = (groups == group).nonzero().squeeze(1)
                for some in rows.split(block_size(8 * size * height, device)):
                    normals = normal((len(some), size, 2, size), generator, device)
                    scale = height * temperature[some].sqrt().view(-1, 1, 1) * deviations(cut[some], size, height)
                    fields = synthesise(normals.mul_(scale.unsqueeze(2)), sines[:, :size])
                    displacement.index_copy_(0, some, fields)
        return DiffeomorphismDraws(cut=cut, temperature=temperature, displacement=displacement)

    @torch.no_grad()
    def apply(self, images: Tensor, draws: DiffeomorphismDraws) -> Tensor:
        """Deform `images` as drawn; a pure function of its arguments."""
        return in_blocks(_deform, images, draws, numbers=2 * images.shape[1:].numel())


Diffeomorphism.cifar = Diffeomorphism(cut_max=100)
Diffeomorphism.imagenet = Diffeomorphism(cut_max=500)


def temperature_range(cut: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The temperatures from half a pixel of typical displacement up to the loss of invertibility, float32."""
    log = cut.double().log()
    low = 1 / (math.pi * side**2 * log)
    high = 4 / (math.pi**3 * cut**2 * log)
    return low.float(), torch.maximum(low, high).float()


def deviations(cut: Tensor, size: int, side: int) -> Tensor:
    """Standard deviations (N, size, size) of the coefficients with indices 1, ..., `size` on `side` points, at T = 1.

    On `side` points sin(pi * i * u) has period 2 * (side - 1) in i and is odd, so a mode beyond `side` - 2 is, up to
    its sign, one of these or zero, and adds its variance there.
    """
    top = max(size, int(cut.max())) if size == side - 2 else size
    i = torch.arange(1, top + 1, dtype=torch.float32, device=cut.device)
    square = i[:, None] ** 2 + i**2
    inside = square < ((cut + 0.5) ** 2).view(-1, 1, 1)
    if top == size:
        return torch.where(inside, square.rsqrt(), 0.0)
    variance = torch.where(inside, 1 / square, 0.0)
    for _ in range(2):  # along both axes
        variance = _fold(variance, side).transpose(1, 2)
    return variance.sqrt()


def _fold(variance: Tensor, side: int) -> Tensor:
    """Add up what belongs to the same sine on `side` points: (N, top, K) -> (N, side - 2, K)."""
    first, *others = torch.split(variance, side - 1, dim=1)  # the last of each is the sine that vanishes on all points
    folded = first[:, : side - 2].clone()
    for number, other in enumerate(others):
        length = min(other.shape[1], side - 2)
        if number % 2:
            folded[:, :length] += other[:, :length]
        else:
            folded[:, side - 2 - length :] += other[:, :length].flip(1)
    return folded


def sine_matrix(side: int, device: torch.device | str) -> Tensor:
    """sin(pi * i * u) at `side` points u from 0 to 1 for i = 1, ..., side - 2: (side, side - 2)."""
    point, wave = torch.arange(side, device=device), torch.arange(1, side - 1, device=device)
    # Whole numbers keep the argument exact, and leave only a period of different sines.
    period = (torch.arange(2 * (side - 1), device=device).double() * (math.pi / (side - 1))).sin().float()
    return period[torch.outer(point, wave) % (2 * (side - 1))]


def synthesise(coefficients: Tensor, sines: Tensor) -> Tensor:
    """Sum the sine series of `coefficients` (N, j, component, i), j along y and i along x: (N, component, H, W).

    Args:
        coefficients: as many along i and j as `sines` has columns.
        sines: (H, i), the same along both axes.
    """
    count, size, components, _ = coefficients.shape
    side = len(sines)
    columns = sines @ coefficients.reshape(count, size, components * size)
    return (columns.view(-1, size) @ sines.T).view(count, side, components, side).transpose(1, 2)


def _deform(images: Tensor, draws: DiffeomorphismDraws) -> Tensor:
    floats = as_float(images)
    side = images.shape[-1]
    line = torch.linspace(-1, 1, side, dtype=floats.dtype, device=floats.device)
    identity = torch.stack(torch.meshgrid(line, line, indexing="xy"))
    unit = 2 / max(side - 1, 1)  # a pixel, where the image goes from -1 to 1
    source = torch.sub(identity, draws.displacement.to(floats.dtype), alpha=unit).permute(0, 2, 3, 1)
    return like(images, grid_sample(floats, source, padding_mode="border", align_corners=True))
