"""A data set together with its stylised copy."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from robust_augs._files import files_below, read_image


def image_pairs(clean: Path, stylised: Path) -> tuple[list[str], list[tuple[Path, Path, int]]]:
    """The classes of a folder, and of each image in order: its path, that of its stylised copy, and its class.

    Raises:
        FileNotFoundError: if there is no such folder, or a class without an image.
        ValueError: if two images would have the same copy.
    """
    if not clean.is_dir():
        raise FileNotFoundError(f"no folder of images at {clean}")
    folder = ImageFolder(clean)
    originals: dict[Path, Path] = {}
    pairs = []
    for name, label in folder.samples:
        original = Path(name)
        copy = stylised / original.relative_to(clean).with_suffix(".png")
        if copy in originals:
            raise ValueError(f"{originals[copy]} and {original} would share the copy {copy}: rename one")
        originals[copy] = original
        pairs.append((original, copy, label))
    return folder.classes, pairs


class StylisedFolder(Dataset[tuple[Any, int]]):
    """The images of a folder and their stylised copies, one next to the other.

    Geirhos et al., "ImageNet-trained CNNs are biased towards texture; increasing shape bias improves accuracy and
    robustness", ICLR 2019, arXiv:1811.12231: training on ImageNet and Stylized-ImageNet together. `stylise_folder`
    writes the copies: `<class>/<name>.png` beside `<class>/<name>.JPEG`.

    Args:
        clean: folder with one folder of images per class, as `torchvision.datasets.ImageFolder` takes it.
        stylised: folder with a copy of each.
        mode: "both" has every image twice, first all clean ones, then all copies, so an epoch is twice as long;
            "random" has every image once, clean or stylised with probability 1/2, drawn from (seed, epoch, index).
        transform: what is done with an image (RGB, of PIL) before it is returned; None returns it as it is.
        seed: of the random choice.

    Attributes:
        classes: the names of the classes, in the order of their indices.

    Raises:
        FileNotFoundError: if a folder is missing, or an image without copy; it says how many and which.
        ValueError: if `mode` is another, or two images would have the same copy.
    """

    classes: list[str]

    def __init__(
        self,
        clean: str | Path,
        stylised: str | Path,
        mode: Literal["both", "random"] = "both",
        *,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
    ) -> None:
        if mode not in ("both", "random"):
            raise ValueError(f'mode must be "both" or "random", got {mode!r}')
        self.classes, self._pairs = image_pairs(Path(clean), Path(stylised))
        present = set(files_below(Path(stylised)))
        missing = [copy for _, copy, _ in self._pairs if copy not in present]
        if missing:
            some = ", ".join(str(path) for path in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise FileNotFoundError(
                f"{len(missing)} of {len(self._pairs)} images of {clean} have no stylised copy, {some}: "
                "stylise_folder(...) writes those that are missing"
            )
        self.mode = mode
        self.transform = transform
        self.seed = seed
        # In shared memory, so that workers which outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def targets(self) -> list[int]:
        """The class index of every sample."""
        labels = [label for _, _, label in self._pairs]
        return labels * 2 if self.mode == "both" else labels

    def set_epoch(self, epoch: int) -> None:
        """Draw anew in mode "random": the choice depends on (seed, epoch, index) alone. Call it before each epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """The number of samples: images in mode "random", twice as many in mode "both"."""
        return len(self._pairs) * (2 if self.mode == "both" else 1)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """The image at `index`, transformed, and its class index.

        Raises:
            IndexError: if `index` is not below the length.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)}, got {index}")
        index %= len(self)
        original, copy, label = self._pairs[index % len(self._pairs)]
        image = read_image(copy if self._takes_copy(index) else original)
        return (image if self.transform is None else self.transform(image)), label

    def _takes_copy(self, index: int) -> bool:
        if self.mode == "both":
            return index >= len(self._pairs)
        return random.Random(f"{self.seed} {int(self._epoch)} {index}").random() < 0.5
