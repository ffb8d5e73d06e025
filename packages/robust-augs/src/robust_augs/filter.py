"""Random small convolutions: the spectral transform of PRIME."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from robust_augs._draws import in_blocks
from robust_augs._images import as_float, check_images, like
from robust_augs._random import normal, uniform


@dataclass(frozen=True, kw_only=True)
class FilterDraws:
    """What `RandomFilter` draws: one sigma per image (N,) and the standard normals of its kernel (N, size, size)."""

    sigma: Tensor
    normals: Tensor


@dataclass(frozen=True, kw_only=True)
class RandomFilter:
    """Convolve each image with a random kernel around the identity.

    Modas et al., "PRIME: A Few Primitives Can Boost Robustness to Common Corruptions", ECCV 2022, arXiv:2112.13547:
    the kernel is sigma * z + delta with z ~ N(0, 1) per entry and sigma ~ U(0, sigma_max), the same for all channels;
    zeros around the image, the result clipped to [0, 1], NaN replaced by 1.

    Differs from the published code: sigma is drawn per image, not per batch, and delta lies in the centre of the
    kernel. There it lies one entry further along both axes, which moves the image by a pixel.

    Args:
        size: side of the kernel, odd and at least 3.
        sigma_max: highest standard deviation of the kernel's entries, at least 0. 4 is published for all datasets.
        upstream_shift: put delta where the published code has it.

    Raises:
        ValueError: if a setting is out of its range.

    Examples:
        >>> images = torch.rand(4, 3, 32, 32)
        >>> torch.equal(RandomFilter(sigma_max=0.0)(images), images)
        True
    """

    size: int = 3
    sigma_max: float = 4.0
    upstream_shift: bool = False

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 != 1:
            raise ValueError(f"size must be odd and at least 3, got {self.size}")
        if not (math.isfinite(self.sigma_max) and self.sigma_max >= 0):
            raise ValueError(f"sigma_max must be a finite number of at least 0, got {self.sigma_max}")

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Filter `images` (N, C, H, W), floats in [0, 1] or uint8; same shape, dtype and device come back.

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
    ) -> FilterDraws:
        """Draw for a batch of `shape` (N, C, H, W)."""
        sigma = uniform((shape[0],), generator, device) * self.sigma_max
        return FilterDraws(sigma=sigma, normals=normal((shape[0], self.size, self.size), generator, device))

    @torch.no_grad()
    def apply(self, images: Tensor, draws: FilterDraws) -> Tensor:
        """Filter `images` as drawn; a pure function of its arguments."""
        if len(images) == 0:  # a convolution of no groups is refused
            return images.clone()
        return in_blocks(self._convolve, images, draws, numbers=3 * images.shape[1:].numel())

    def _convolve(self, images: Tensor, draws: FilterDraws) -> Tensor:
        floats = as_float(images)
        kernels = draws.sigma.view(-1, 1, 1) * draws.normals
        centre = self.size // 2 + self.upstream_shift
        kernels[:, centre, centre] += 1
        # One grouped convolution: every channel of every image is a group with a kernel of its own.
        count, channels, height, width = images.shape
        stacked = floats.reshape(1, count * channels, height, width)
        weights = kernels.to(floats.dtype).repeat_interleave(channels, dim=0).unsqueeze(1)
        filtered = conv2d(stacked, weights, padding=self.size // 2, groups=count * channels).view_as(floats)
        return like(images, filtered.clamp_(0, 1).nan_to_num_(nan=1.0))
