"""The grid of square patches that an image is cut into."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks.random import ImageRandom


@dataclass(frozen=True)
class Patches:
    """A grid of `rows` x `columns` square patches of side `size`, numbered row by row as a vision transformer does."""

    size: int
    rows: int
    columns: int

    @classmethod
    def of(cls, attack: str, images: Tensor, size: int) -> "Patches":
        """The grid of images (N, C, H, W).

        Raises:
            ValueError: if the sides of the images are no multiples of the patch size.
        """
        height, width = images.shape[2:]
        if height % size or width % size:
            raise ValueError(
                f"{attack}: images of {height} x {width} pixels do not divide into patches of {size} x {size}: "
                "choose a patch_size that divides both sides, or resize or pad the images first"
            )
        return cls(size, height // size, width // size)

    @property
    def count(self) -> int:
        """How many patches an image has."""
        return self.rows * self.columns

    def mask(self, chosen: Tensor) -> Tensor:
        """The pixels of the patches with the numbers `chosen` (N, n): bool (N, 1, H, W)."""
        cells = torch.zeros(len(chosen), self.count, dtype=torch.bool, device=chosen.device).scatter(1, chosen, True)
        grid = cells.reshape(-1, 1, self.rows, self.columns)
        return grid.repeat_interleave(self.size, dim=2).repeat_interleave(self.size, dim=3)

    def sums(self, values: Tensor) -> Tensor:
        """The sum of `values` (N, C, H, W) over every patch, (N, count)."""
        split = values.reshape(len(values), -1, self.rows, self.size, self.columns, self.size)
        return split.sum(dim=(1, 3, 5)).flatten(1)

    def share(self, attack: str, share: float) -> int:
        """How many patches a share of them is, rounded to the nearest number.

        Raises:
            ValueError: if that is none.
        """
        number = round(share * self.count)
        if not number:
            raise ValueError(
                f"{attack}: a share of {share:g} of {self.count} patches of {self.size} x {self.size} pixels rounds "
                "to none: choose a smaller patch_size or a larger share"
            )
        return number


def random_patches(attack: str, images: Tensor, random: ImageRandom, size: int, share: float) -> Tensor:
    """A share of the patches of every image, uniformly without replacement: their pixels, bool (N, 1, H, W).

    The choice depends on seed, id, grid and share alone, so that everything that is done to random patches is done to
    the same ones. Draws: `patches/random`.

    Raises:
        ValueError: if the sides of the images are no multiples of the patch size, or the share rounds to no patch.
    """
    grid = Patches.of(attack, images, size)
    return grid.mask(random.choice("patches/random", grid.count, grid.share(attack, share)))
