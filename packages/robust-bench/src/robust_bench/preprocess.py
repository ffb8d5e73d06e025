"""From an image file to what a model takes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize the shorter side to `size / crop_share`, then cut the centre `size` x `size`.

    Args:
        size: side of the square that the model takes, in pixels.
        crop_share: side of the cut over the resized shorter side, in (0, 1]; 0.875 is the customary 224 from 256.
        interpolation: "bilinear" or "bicubic", with antialiasing, as Pillow does it.

    Raises:
        ValueError: if a value is not as said.
    """

    size: int = 224
    crop_share: float = 0.875
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if not 0.0 < self.crop_share <= 1.0:
            raise ValueError(f"crop_share must lie in (0, 1], e.g. 0.875, got {self.crop_share}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation must be 'bilinear' or 'bicubic', got {self.interpolation!r}")

    @property
    def settings(self) -> dict[str, Any]:
        """Give the values, and the steps in words."""
        resized = int(self.size / self.crop_share)
        return {**asdict(self), "steps": f"Resize({resized}, {self.interpolation}), CenterCrop({self.size})"}

    def transform(self) -> Callable[[Any], Tensor]:
        """Make the function from a Pillow image to a uint8 tensor (C, size, size), through timm."""
        from timm.data.transforms_factory import create_transform

        return create_transform(  # type: ignore[no-any-return]
            input_size=(3, self.size, self.size),
            interpolation=self.interpolation,
            crop_pct=self.crop_share,
            normalize=False,
        )


@dataclass(frozen=True, kw_only=True)
class AsStored:
    """Leave images as their files have them; only a model of another input size gets one direct resize.

    The files of ImageNet-C, -P, Stylized-ImageNet and the like have their final size: a second resize would soften the
    corruptions.

    Args:
        stored: side of the files' square, in pixels.
        size: side that the model takes; None means the files'.

    Raises:
        ValueError: if a size is not positive; and for an image of another size than `stored` when it is taken.
    """

    stored: int
    size: int | None = None

    def __post_init__(self) -> None:
        for name in ("stored", "size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 pixel, got {value}")

    @property
    def settings(self) -> dict[str, Any]:
        """Give the sizes, and the steps in words."""
        final = self.size or self.stored
        steps = "none" if final == self.stored else f"Resize({final} from {self.stored}, bilinear, antialiased)"
        return {"stored": self.stored, "size": final, "steps": steps}

    def transform(self) -> Callable[[Any], Tensor]:
        """Make the function from a Pillow image to a uint8 tensor (C, size, size)."""
        return self

    def __call__(self, image: Any) -> Tensor:
        """Check the size of a Pillow image, resize where needed, and make it a uint8 tensor (C, size, size)."""
        import numpy as np
        import torch
        from PIL import Image

        if image.size != (self.stored, self.stored):
            raise ValueError(
                f"expected {self.stored} x {self.stored} pixels, got {image.size[0]} x {image.size[1]}: these files "
                "must not have been resized"
            )
        if self.size not in (None, self.stored):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()


def declared(model: object) -> Preprocess | None:
    """Give the evaluation transform that a timm model declares, also inside a wrapper; None where there is none."""
    if not isinstance(model, nn.Module):
        return None
    for module in model.modules():
        config = getattr(module, "pretrained_cfg", None)
        if isinstance(config, Mapping) and config.get("input_size"):
            mode = str(config.get("interpolation", "bilinear"))
            return Preprocess(
                size=int(config["input_size"][-1]),
                crop_share=float(config.get("crop_pct") or 0.875),
                interpolation=mode if mode in ("bilinear", "bicubic") else "bilinear",
            )
    return None
