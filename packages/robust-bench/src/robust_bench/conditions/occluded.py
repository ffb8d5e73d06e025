"""Images of which some patches are replaced by noise."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from robust_attacks import ImageRandom, OccludedPatches
from torch import Tensor, nn
from torch.nn import functional

from robust_bench._checks import Model, check_logits
from robust_bench.conditions.reseeded import reseeded
from robust_bench.records import Records

_BITS = 62  # of a column: a signed 64-bit integer stays positive


def mask_column(number: int) -> str:
    """Name a further column of 62 bits each, counted from 0: bit k % 62 of column k // 62 belongs to mask k."""
    return f"right_{number}"


def right_per_mask(more: Mapping[str, npt.NDArray[Any]], masks: int) -> npt.NDArray[np.bool_]:
    """Read from the further columns whether each image was right under each mask, (n, masks).

    Examples:
        >>> right_per_mask({"right_0": np.array([0b101, 0b010])}, 3).tolist()
        [[True, False, True], [False, True, False]]
    """
    columns = [more[mask_column(mask // _BITS)].astype(np.int64) >> mask % _BITS & 1 for mask in range(masks)]
    return np.stack(columns, axis=1).astype(np.bool_)


@dataclass(frozen=True, kw_only=True)
class Occluded:
    """Look at every image under many masks, each of which replaces random patches by uniform noise.

    Guo, Stutz & Schiele, "Improving Robustness of Vision Transformers by Reducing Sensitivity to Patch Corruptions"
    (RSPC), CVPR 2023, equation 1 and Figure 2: x' = M x + (1 - M) u with u uniform per pixel and channel in [0, 1].
    Patches and noise of a mask belong to (seed, image, mask), so every model sees the same. An image counts as right
    when it is right under all masks; prediction and confidence are those under the mask of the largest loss.

    Args:
        patch_size: side of the patches in pixels; it must divide both sides of the images.
        share: share of the patches that are replaced, in (0, 1], rounded to the nearest number: 20 of 196 for 0.1.
        masks: how many (K).
        noise: "pixels", uniform in [0, 1] there, or "normalized", uniform in [0, 1] behind the model's mean/std step,
            as in the training code that was released.

    Raises:
        ValueError: if a setting is out of range; when images are changed, if they do not divide into patches, or the
            model has no mean/std step inside where one is needed.
    """

    patch_size: int = 16
    share: float = 0.1
    masks: int = 100
    noise: Literal["pixels", "normalized"] = "pixels"
    only_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.masks < 1:
            raise ValueError(f"masks must be at least 1, got {self.masks}")
        if self.noise not in ("pixels", "normalized"):
            raise ValueError(f"noise must be 'pixels' or 'normalized', got {self.noise!r}")
        self._occlude  # noqa: B018 -- its own checks

    @property
    def label(self) -> str:
        """Name the share of the patches, their size and the masks."""
        return f"{100 * self.share:g} % of patches of {self.patch_size} px occluded, worst of {self.masks} masks"

    @property
    def settings(self) -> dict[str, Any]:
        """Give the arguments."""
        return {"kind": "occlusion", **dataclasses.asdict(self)}

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /, mask: int = 0) -> Tensor:
        """Occlude images by the mask of a number, counted from 0.

        Raises:
            ValueError: if the images do not divide into patches, or the model has no mean/std step where one is needed.
        """
        random = reseeded(random, mask)
        if self.noise == "pixels":
            return self._occlude(model, images, labels, random=random)
        from robust_models import get_normalization  # timm takes seconds to load

        known = get_normalization(model) if isinstance(model, nn.Module) else None
        if known is None:
            raise ValueError("noise='normalized' needs a model with robust_models.Normalize inside: use noise='pixels'")
        mean, std = (torch.tensor(values, dtype=images.dtype, device=images.device)[:, None, None] for values in known)
        drawn = self._occlude(model, torch.zeros_like(images), labels, random=random)
        inside = drawn == self._occlude(model, torch.ones_like(images), labels, random=random)
        return torch.where(inside, (mean + std * drawn).clamp(0.0, 1.0), images)

    def measure(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Records:
        """Look at images under every mask.

        Raises:
            ValueError: if the images do not divide into patches.
        """
        columns = [torch.zeros_like(labels) for _ in range(-(-self.masks // _BITS))]
        everywhere = torch.ones_like(labels, dtype=torch.bool)
        largest = torch.full((len(labels),), -torch.inf, device=labels.device)
        predictions, confidences = torch.zeros_like(labels), torch.zeros_like(largest)
        for mask in range(self.masks):
            with torch.no_grad():
                shown = self.change(model, images, labels, random, mask)
                logits = check_logits(model(shown), images, labels).float()
            confidence, prediction = logits.softmax(dim=1).max(dim=1)
            losses = functional.cross_entropy(logits, labels, reduction="none")
            right = prediction == labels
            columns[mask // _BITS] |= right.long() << mask % _BITS
            everywhere &= right
            worse = losses > largest
            largest = torch.where(worse, losses, largest)
            predictions = torch.where(worse, prediction, predictions)
            confidences = torch.where(worse, confidence, confidences)
        return Records(
            predictions=predictions.cpu(),
            confidences=confidences.cpu(),
            right=everywhere.cpu(),
            more={mask_column(number): column.cpu() for number, column in enumerate(columns)},
        )

    @property
    def _occlude(self) -> OccludedPatches:
        return OccludedPatches(patch_size=self.patch_size, share=self.share)
