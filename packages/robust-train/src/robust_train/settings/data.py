"""On which images."""

from dataclasses import dataclass
from typing import Literal

from robust_train.settings.require import require


@dataclass(frozen=True, kw_only=True)
class DigitsData:
    """The training part of the embedded digits: 1,347 images of 1 x 8 x 8, 10 classes.

    Args:
        name: "digits".
        held_out: share of the training images that is kept for validation, in (0, 0.5].
        drop_last: leave out the images that do not fill the last batch of an epoch.
    """

    name: Literal["digits"]
    held_out: float
    drop_last: bool

    def __post_init__(self) -> None:
        require(0 < self.held_out <= 0.5, f"held_out must lie in (0, 0.5], got {self.held_out}")


@dataclass(frozen=True, kw_only=True)
class FolderData:
    """A folder of images, `<class>/<image>`, or one that holds such a folder as `train`.

    Args:
        name: "folder".
        held_out: share of the training images that is kept for validation, in (0, 0.5].
        drop_last: leave out the images that do not fill the last batch of an epoch.
        size: height and width of the images that the model sees, in pixels.
        scale: smallest and largest share of the area that a random resized crop takes, in (0, 1].
        flip: probability of a horizontal flip, in [0, 1].
        color_jitter: strength of changes in brightness, contrast and saturation; 0 for none.
        crop: share of the image that the centre crop of the validation takes, in (0, 1].
        interpolation: how images are resized.
    """

    name: Literal["folder"]
    held_out: float
    drop_last: bool
    size: int
    scale: tuple[float, float]
    flip: float
    color_jitter: float
    crop: float
    interpolation: Literal["bilinear", "bicubic"]

    def __post_init__(self) -> None:
        require(0 < self.held_out <= 0.5, f"held_out must lie in (0, 0.5], got {self.held_out}")
        require(self.size >= 1, f"size must be at least 1 pixel, got {self.size}")
        low, high = self.scale
        require(0 < low <= high <= 1, f"scale must be two shares 0 < low <= high <= 1, got {list(self.scale)}")
        require(0 <= self.flip <= 1, f"flip must be a probability, got {self.flip}")
        require(self.color_jitter >= 0, f"color_jitter must not be negative, got {self.color_jitter}")
        require(0 < self.crop <= 1, f"crop must lie in (0, 1], got {self.crop}")
