"""From an image file to what a model takes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize the shorter side to `size / crop_share`, then cut the centre `size` x `size`.

    Args:
        size: side of the square that the model takes, in pixels.
        crop_share: side of the cut over the resized shorter side, in (0, 1]; 0.875 is the customary 224 from 256.
        interpolation: "bilinear", "bicubic", "nearest" or "lanczos", with antialiasing, as Pillow does it.
        crop_mode: "center"; "squash" resizes both sides, so that the proportions change; "border" resizes the longer
            side and fills the rest. As timm means them.

    Raises:
        ValueError: if a value is not as said.
    """

    size: int = 224
    crop_share: float = 0.875
    interpolation: str = "bilinear"
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if not 0.0 < self.crop_share <= 1.0:
            raise ValueError(f"crop_share must lie in (0, 1], e.g. 0.875, got {self.crop_share}")
        for name, choices in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    @property
    def settings(self) -> dict[str, Any]:
        """Give the values, and the steps in words."""
        resized = int(self.size / self.crop_share)
        known = asdict(self)
        if self.crop_mode == "center":
            del known["crop_mode"]
        way = "" if self.crop_mode == "center" else f", {self.crop_mode}"
        return {**known, "steps": f"Resize({resized}, {self.interpolation}{way}), CenterCrop({self.size})"}

    def transform(self) -> Callable[[Any], Tensor]:
        """Make the function from a Pillow image to a uint8 tensor (C, size, size), through timm."""
        from timm.data.transforms_factory import create_transform

        return create_transform(  # type: ignore[no-any-return]
            input_size=(3, self.size, self.size),
            interpolation=self.interpolation,
            crop_pct=self.crop_share,
            crop_mode=self.crop_mode,
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
        advice: for who has files of another size.

    Raises:
        ValueError: if a size is not positive; and for an image of another size than `stored` when it is taken.
    """

    stored: int
    size: int | None = None
    advice: str = field(default="these files must not have been resized", repr=False, compare=False)

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
                f"expected {self.stored} x {self.stored} pixels, got {image.size[0]} x {image.size[1]}: {self.advice}"
            )
        if self.size not in (None, self.stored):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()


def declared(model: object, *, test_size: bool = False) -> Preprocess | None:
    """Give the evaluation transform that a timm model declares, also inside a wrapper; None where there is none.

    Args:
        model: the model.
        test_size: take the size at which timm evaluates it, where it declares one beside that of training.

    Raises:
        ValueError: if the model takes images that are not square, or are resized in an unknown way.
    """
    if not isinstance(model, nn.Module):
        return None
    for module in model.modules():
        config = getattr(module, "pretrained_cfg", None)
        if isinstance(config, Mapping) and config.get("input_size"):
            known = dict(config)
            if test_size:
                known |= {
                    name: known[test]
                    for name, test in (("input_size", "test_input_size"), ("crop_pct", "test_crop_pct"))
                    if known.get(test)
                }
            height, width = known["input_size"][-2:]
            if height != width:
                raise ValueError(f"the model takes images of {height} x {width}, and only square ones can be cut here")
            return Preprocess(
                size=int(width),
                crop_share=float(known.get("crop_pct") or 0.875),
                interpolation=str(known.get("interpolation") or "bilinear"),
                crop_mode=str(known.get("crop_mode") or "center"),
            )
    return None
