"""Styles of paintings, kept as the statistics that style transfer needs."""

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.functional import InterpolationMode, pil_to_tensor, resized_crop

from robust_augs._files import files_below, read_image, write_whole
from robust_augs._frozen import frozen, network_input
from robust_augs._images import as_float, check_images

Encoder = Callable[[Tensor], Tensor]


def channel_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (N, C) of features (N, C, H, W) over space, at least in float32.

    The variance is the unbiased one plus 1e-5, as in the published code of AdaIN. That of a single position is 0.
    """
    floats = as_float(features)
    mean = floats.mean((2, 3), keepdim=True)
    positions = features.shape[2] * features.shape[3]
    variance = (floats - mean).square().sum((2, 3)) / max(1, positions - 1)
    return mean[..., 0, 0], (variance + 1e-5).sqrt()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StyleBank:
    """The styles of many paintings as means and standard deviations of their features.

    That is all that `StyleTransfer` takes from a painting: 4 kB for each at VGG-19's 512 channels, so the 79,395
    paintings of Stylized-ImageNet need 325 MB.

    Args:
        mean: mean of each feature channel over space, (M, C) for M styles.
        std: its standard deviation, the root of the unbiased variance plus 1e-5, (M, C).

    Raises:
        ValueError: if the shapes differ, there is no style, or a value is not finite or a standard deviation not
            above 0.
    """

    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if self.mean.ndim != 2 or self.mean.shape != self.std.shape or 0 in self.mean.shape:
            raise ValueError(
                f"mean and std must both have shape (styles, channels), got {tuple(self.mean.shape)} and "
                f"{tuple(self.std.shape)}"
            )
        if not (bool(self.mean.isfinite().all()) and bool(self.std.isfinite().all()) and bool((self.std > 0).all())):
            raise ValueError("mean and std must be finite, and std above 0: does the encoder return NaN?")

    def __repr__(self) -> str:
        return f"StyleBank({len(self)} styles of {self.mean.shape[1]} channels)"

    def __len__(self) -> int:
        """The number of styles."""
        return len(self.mean)

    @classmethod
    @torch.no_grad()
    def encode(cls, encoder: Encoder, paintings: Iterable[Tensor]) -> "StyleBank":
        """Take the styles of `paintings`, an iterable of batches (N, C, H, W), floats in [0, 1] or uint8.

        The batches may differ in size; the encoder is used in eval mode, where its parameters are, and left as it was.

        Raises:
            TypeError: if a batch is not a tensor of floats or uint8.
            ValueError: if there is no painting, or a batch is not one of images.
        """
        statistics: list[tuple[Tensor, Tensor]] = []
        with frozen(encoder):
            for batch in paintings:
                check_images(batch)
                mean, std = channel_statistics(encoder(network_input(encoder, batch)))
                statistics.append((mean.cpu(), std.cpu()))
        if not statistics:
            raise ValueError("a bank needs at least one painting, got none")
        return cls(mean=torch.cat([mean for mean, _ in statistics]), std=torch.cat([std for _, std in statistics]))

    @classmethod
    def from_folder(cls, encoder: Encoder, folder: str | Path, *, side: int = 224) -> "StyleBank":
        """Take the styles of all images in `folder` and below, in the order of their paths; links are followed.

        As for Stylized-ImageNet, the largest square in the middle of each is brought to `side` pixels (Lanczos).
        Differs from there: paintings smaller than that are enlarged, not left out.

        Raises:
            FileNotFoundError: if there is no such folder, or no image in it.
        """
        return cls.encode(encoder, (_square(image, side) for image in _read_all(Path(folder))))

    def save(self, path: str | Path) -> None:
        """Write the bank to `path`, whole or not at all, as tensors that `torch.load(..., weights_only=True)` reads."""
        content = io.BytesIO()
        torch.save({"mean": self.mean.cpu(), "std": self.std.cpu()}, content)
        write_whole(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "StyleBank":
        """Read a bank that `save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no bank of styles at {path}: StyleBank.from_folder(...).save(...) writes one")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or set(content) != {"mean", "std"}:
            raise ValueError(f"{path} is not a bank of styles: it must hold the tensors mean and std")
        return cls(mean=content["mean"], std=content["std"])


def _read_all(folder: Path) -> Iterator[Any]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of paintings at {folder}")
    paths = [path for path in files_below(folder) if path.suffix.lower() in IMG_EXTENSIONS]
    if not paths:
        raise FileNotFoundError(f"no image in {folder}: expected files that end in {', '.join(IMG_EXTENSIONS)}")
    yield from map(read_image, paths)


def _square(image: Any, side: int) -> Tensor:
    """The largest square in the middle of a PIL image, with `side` pixels a side, as uint8 (1, 3, side, side)."""
    length = min(image.size)
    left, top = (image.width - length) // 2, (image.height - length) // 2
    square = resized_crop(image, top, left, length, length, [side, side], InterpolationMode.LANCZOS)
    pixels: Tensor = pil_to_tensor(square)
    return pixels.unsqueeze(0)
