"""How much the attention of a transformer changes when some patches are occluded."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from robust_attacks import ImageRandom, OccludedPatches
from torch import Tensor, nn

from robust_bench._checks import Model, check_logits
from robust_bench.records import Records
from robust_bench.warning import EvaluationWarning

SIMILARITY = "attention_similarity"
"""The further column of the mean cosine similarity over all heads of all layers."""

LAYERS = "attention_layers"
"""The further column of how many layers that is over."""


@dataclass(frozen=True, kw_only=True)
class AttentionSimilarity:
    """Compare the attention maps of every image with those of the same image under one mask of occluded patches.

    Guo, Stutz & Schiele (RSPC), CVPR 2023, Figures 2, 4 and 5: for every layer and head the cosine similarity of the
    two maps, tokens x tokens, flattened; its mean over heads and layers is one number per image. Layers without
    attention between tokens are left out, and an `EvaluationWarning` names them. The mask is the first of `Occluded`;
    prediction, confidence and whether it is right are those of the occluded image.

    Args:
        patch_size: side of the patches in pixels; it must divide both sides of the images.
        share: share of the patches that are replaced by noise, in (0, 1].

    Raises:
        ValueError: if a setting is out of range; when images are looked at, if they do not divide into patches, or the
            model has no attention between tokens.
        TypeError: when images are looked at, if the model is no module.
    """

    patch_size: int = 16
    share: float = 0.1
    only_right: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._occlude  # noqa: B018 -- its own checks

    @property
    def label(self) -> str:
        """Name the share of the patches and their size."""
        return f"{100 * self.share:g} % of patches of {self.patch_size} px occluded, one mask"

    @property
    def settings(self) -> dict[str, Any]:
        """Give the arguments, and what is compared."""
        compared = "cosine of flattened softmax weights, mean over heads and layers"
        return {
            "kind": "attention",
            "patch_size": self.patch_size,
            "share": self.share,
            "masks": 1,
            "compared": compared,
        }

    def change(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Tensor:
        """Occlude images."""
        return self._occlude(model, images, labels, random=random)

    def measure(self, model: Model, images: Tensor, labels: Tensor, random: ImageRandom, /) -> Records:
        """Compare the attention of clean and occluded images.

        Raises:
            TypeError: if the model is no module.
            ValueError: if it has no attention between tokens, or the images do not divide into patches.
        """
        from robust_models.attention_similarity import attention_similarity  # timm takes seconds to load

        if not isinstance(model, nn.Module):
            raise TypeError(
                f"attention is read inside a torch.nn.Module, got {type(model).__name__}: evaluate the model itself"
            )
        occluded = self.change(model, images, labels, random)
        with torch.no_grad():
            found = attention_similarity(model, images, occluded)
        if found.left_out:
            listed = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
            warnings.warn(f"attention similarity leaves layers out ({listed})", EvaluationWarning, stacklevel=2)
        logits = check_logits(found.logits, images, labels).float()
        layers = torch.full((len(images),), len(found.layers), dtype=torch.int64)
        return Records.of(logits, labels, more={SIMILARITY: found.mean, LAYERS: layers})

    @property
    def _occlude(self) -> OccludedPatches:
        return OccludedPatches(patch_size=self.patch_size, share=self.share)
