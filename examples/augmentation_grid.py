"""Every augmentation on three photographs: the picture in the README of robust-augs.

`nox -s grid -- --out docs/images/augmentations.jpg` draws scikit-image's astronaut, cat and coffee (public domain or
CC0). No weights are at hand here, so what needs a network gets a plain one: the style methods work on the pixels
themselves, DeepAugment edits a network that would copy its input, and AugMax and the adversarial noise have networks of
random weights.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from robust_augs import (
    PRIME,
    AdversarialNoise,
    APRPair,
    APRSingle,
    AugMax,
    AugMix,
    CrossStyle,
    DeepAugment,
    Diffeomorphism,
    GaussianNoise,
    Noise2Net,
    PatchGaussian,
    PatchOcclusion,
    Patchwise,
    RandomColor,
    RandomFilter,
    RandomStyle,
    StyleTransfer,
    ThreeAugment,
)
from skimage import data
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

SIDE, TILE, GAP, LETTERS, MARGIN = 224, 112, 4, 15, 118
VIEWS = 2  # draws of each photograph
COLUMNS = 2  # of the list of augmentations, side by side


def photographs() -> Tensor:
    """The three, uint8 (3, 3, 224, 224)."""
    given = (data.astronaut(), data.chelsea(), data.coffee())
    pictures = [Image.fromarray(picture).convert("RGB") for picture in given]
    squares = [ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.BICUBIC) for picture in pictures]
    return torch.stack([functional.pil_to_tensor(square) for square in squares])


class Residual(nn.Module):
    """A block that adds nothing to its input until its weights are edited."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = copying(width, width, 3)
        self.second = copying(width, width, 3)
        nn.init.zeros_(self.second.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) to those of the same shape."""
        return features + self.second(torch.relu(self.first(features)))


def copying(channels: int, filters: int, size: int) -> nn.Conv2d:
    """A convolution that copies its input, channel by channel."""
    layer = nn.Conv2d(channels, filters, size, padding=size // 2)
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # there is one
    return layer


class Copier(nn.Module):
    """The form of a super-resolution network that gives back its input."""

    def __init__(self, copies: int = 8, blocks: int = 16) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 3 * copies, 3, padding=1)
        self.body = nn.Sequential(*(Residual(3 * copies) for _ in range(blocks)))
        self.tail = nn.Conv2d(3 * copies, 3, 3, padding=1)
        spread = torch.zeros(3 * copies, 3, 3, 3)
        spread[:, :, 1, 1] = torch.eye(3).repeat(copies, 1)  # every colour in several features, which are averaged
        with torch.no_grad():
            self.head.weight.copy_(spread)
            self.tail.weight.copy_(spread.transpose(0, 1) / copies)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) to the same."""
        features = self.head(images)
        return self.tail(self.body(features))


def tones(images: Tensor) -> Tensor:
    """Mean and standard deviation of every colour, (N, 6)."""
    return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


def toned(images: Tensor, embedding: Tensor) -> Tensor:
    """Images with the mean and standard deviation of an embedding."""
    (mean, deviation), (own, spread) = (
        both.view(len(images), 2, 3, 1, 1).unbind(1) for both in (embedding, tones(images))
    )
    return mean + (images - own) * deviation / spread


def augmentations() -> dict[str, Callable[[Tensor, torch.Generator], Tensor]]:
    """By name: from images to as many of the same size."""
    torch.manual_seed(0)  # of the networks
    same = nn.Identity()
    classifier = nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    labels = torch.arange(3)
    plain = {
        "AugMix": AugMix.cifar,
        "APRSingle": APRSingle(),
        "APRPair": APRPair(probability=1.0, clip=True),
        "PRIME": PRIME.imagenet,
        "Diffeomorphism": Diffeomorphism.imagenet,
        "RandomColor": RandomColor.imagenet,
        "RandomFilter": RandomFilter(),
        "Noise2Net": Noise2Net(share=1.0),
        "RandomStyle": RandomStyle(toned, tones, torch.tensor([0.5] * 3 + [0.25] * 3), 0.02 * torch.eye(6)),
        "StyleTransfer": StyleTransfer(same, same),
        "GaussianNoise": GaussianNoise.multiple,
        "PatchGaussian": PatchGaussian.imagenet,
        "Patchwise": Patchwise(probability=0.5),
        "PatchOcclusion": PatchOcclusion(),
        "ThreeAugment": ThreeAugment.resized,
    }
    out: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
        name: lambda images, generator, one=one: one(images, generator=generator)  # type: ignore[misc]
        for name, one in plain.items()
    }
    augmax, cross = AugMax(), CrossStyle(StyleTransfer(same, same), num_classes=3)
    edited = DeepAugment.edsr(Copier(), probability=1.0)
    out["AugMax"] = lambda images, generator: augmax(classifier, images.float() / 255, labels, generator=generator)
    out["CrossStyle"] = lambda images, generator: cross(images, labels, generator=generator)[0]
    out["DeepAugment"] = lambda images, generator: edited.distort(images, generator=generator)
    adversarial = AdversarialNoise(eps=135.0)
    out["AdversarialNoise"] = lambda images, generator: adversarial(images, generator=generator)
    return dict(sorted(out.items(), key=lambda item: item[0].lower()))


def tile(image: Tensor) -> Image.Image:
    """A picture from uint8, or floats in [0, 1]."""
    levels = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return functional.to_pil_image(levels).resize((TILE, TILE), Image.Resampling.LANCZOS)


def row(name: str, views: Sequence[Tensor], font: ImageFont.FreeTypeFont) -> Image.Image:
    """A name and the tiles of all photographs, each under all draws."""
    count = len(views) * len(views[0])
    strip = Image.new("RGB", (MARGIN + count * (TILE + GAP), TILE + GAP), "white")
    ImageDraw.Draw(strip).text((0, TILE // 2), name, (25, 25, 30), font, anchor="lm")
    for place in range(count):
        photograph, view = divmod(place, len(views))
        strip.paste(tile(views[view][photograph]), (MARGIN + place * (TILE + GAP), 0))
    return strip


def main() -> None:
    """Augment, and save the picture."""
    parser = argparse.ArgumentParser(description="Draw every augmentation on three photographs.")
    parser.add_argument("--out", type=Path, default=Path("runs/augmentations.jpg"), help="the picture")
    given = parser.parse_args()
    images, font = photographs(), ImageFont.load_default(LETTERS)
    rows = [row("clean", [images] * VIEWS, font)]
    for name, augment in augmentations().items():
        generator = torch.Generator().manual_seed(6)
        rows.append(row(name, [augment(images, generator) for _ in range(VIEWS)], font))
    tall = math.ceil(len(rows) / COLUMNS)
    wide, high = rows[0].size
    sheet = Image.new("RGB", (COLUMNS * (wide + 4 * GAP), tall * high + GAP), "white")
    for place, strip in enumerate(rows):
        column, line = divmod(place, tall)
        sheet.paste(strip, (GAP + column * (wide + 4 * GAP), GAP + line * high))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(given.out, quality=80, progressive=True, optimize=True)
    print(given.out)


if __name__ == "__main__":
    main()
