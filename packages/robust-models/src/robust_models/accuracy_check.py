"""Does a model of the zoo reach its printed accuracy on images of the user?"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn

_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
_Z = 2.5758293035489004  # two-sided 99 %


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What was counted.

    Attributes:
        images: how many were classified.
        correct: how many of them correctly.
        printed: the accuracy that its authors print, in percent; None if there is none.
    """

    images: int
    correct: int
    printed: float | None

    @property
    def measured(self) -> float:
        """In percent."""
        return 100 * self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Where the accuracy on all images lies with 99 % confidence, in percent.

        Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
        """
        share, spread = self.correct / self.images, _Z**2 / self.images
        centre = (share + spread / 2) / (1 + spread)
        half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / self.images + spread / 4 / self.images)
        low = 100 * (centre - half) if self.correct else 0.0
        return low, 100 * (centre + half) if self.correct < self.images else 100.0

    @property
    def agrees(self) -> bool | None:
        """Whether the printed accuracy lies in the interval; None if nothing is printed."""
        low, high = self.interval
        return None if self.printed is None else low <= self.printed <= high


def labelled_images(folder: Path, num_classes: int) -> list[tuple[Path, int]]:
    """Return the images of a folder that has one folder per class, each with its label.

    Folders called like the classes of ImageNet (`n01440764`) are those classes, and some of them suffice. Otherwise
    there must be one folder per class, in the order of their names (of their numbers, if they are called 0, 1, ...).

    Raises:
        FileNotFoundError: if there is no such folder, or no image in it.
        ValueError: if the folders do not tell the classes.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: give one that has a folder of images per class")
    classes = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: _order(path.name))
    imagenet: Any = ImageNetInfo()
    synsets = {name: label for label, name in enumerate(imagenet.label_names())}
    if num_classes == len(synsets) and classes and all(path.name in synsets for path in classes):
        labels = [synsets[path.name] for path in classes]
    elif len(classes) == num_classes:
        labels = list(range(num_classes))
    else:
        raise ValueError(
            f"{folder} has {len(classes)} folders and the model {num_classes} classes: "
            "give one folder of images per class, in the order of the classes"
        )
    found = [
        (image, label)
        for path, label in zip(classes, labels, strict=True)
        for image in sorted(path.rglob("*"))
        if image.suffix.lower() in _IMAGES
    ]
    if not found:
        raise FileNotFoundError(f"the folders of {folder} have no images ({', '.join(sorted(_IMAGES))})")
    return found


def measure(
    model: nn.Module,
    transform: Callable[[Any], Tensor],
    images: list[tuple[Path, int]],
    *,
    printed: float | None = None,
    limit: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
) -> Accuracy:
    """Classify `limit` of the images, drawn without repetition by `seed`, and count the correct answers.

    Args:
        model: takes images (N, 3, H, W) in [0, 1] on the device of its parameters.
        transform: a PIL image in, a tensor (3, H, W) out, see `build_transform`.
        images: paths with labels.
        printed: the accuracy to compare with, in percent.
        limit: how many images to take; all if there are fewer.
        batch_size: images at once.
        seed: of the draw.
    """
    chosen = random.Random(seed).sample(images, min(limit, len(images)))
    device = next(model.parameters()).device
    correct = 0
    for start in range(0, len(chosen), batch_size):
        batch = chosen[start : start + batch_size]
        pixels = torch.stack([transform(_opened(path)) for path, _ in batch]).to(device)
        with torch.inference_mode():
            answers = model(pixels).argmax(1).tolist()
        correct += sum(answer == label for answer, (_, label) in zip(answers, batch, strict=True))
    return Accuracy(images=len(chosen), correct=correct, printed=printed)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)
