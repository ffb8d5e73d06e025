"""How much a model depends on single patches: accuracy and confidence under what is done to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks._checks import Model, check_call, check_labels, check_logits
from robust_attacks._purity import pristine
from robust_attacks.losses import predicted
from robust_attacks.patch_noise import NoisyPatches, OccludedPatches
from robust_attacks.patch_pgd import PatchPGD
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueClass:
    """How a model takes images: which are right, and how sure it is of the true class.

    Args:
        correct: whether the true class is predicted, bool (N,); never where logits are not finite.
        confidence: softmax probability of the true class, float64 (N,); NaN where logits are not finite.
    """

    correct: Tensor
    confidence: Tensor

    @property
    def accuracy(self) -> float:
        """The fraction of images that are right; NaN without images."""
        return float(self.correct.double().mean())

    @property
    def mean_confidence(self) -> float:
        """The mean probability of the true class; NaN without images."""
        return float(self.confidence.mean())

    def __repr__(self) -> str:
        numbers = f"accuracy={self.accuracy:.4f}, mean_confidence={self.mean_confidence:.4f}"
        return f"TrueClass({numbers}, {len(self)} images)"

    def __len__(self) -> int:
        return len(self.correct)


def patch_sensitivity(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    changes: Mapping[str, Callable[..., Tensor]] | None = None,
    random: ImageRandom | None = None,
) -> dict[str, TrueClass]:
    """Accuracy and confidence of the true class when nothing, and when something is done to random patches.

    Figure 1 of Guo, Stutz, Schiele (RSPC), CVPR 2023. With the same `patch_size` and `share` all changes meet the same
    patches. Accuracies are over all images; nothing is excluded.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K).
        images: float32 or float64 (N, C, H, W) in [0, 1], sides multiples of the patch size.
        labels: true classes, int64 (N,).
        changes: name to attack; None means `{"attack": PatchPGD(), "noise": NoisyPatches(), "occlusion":
            OccludedPatches()}`.
        random: the images' random streams; None draws one seed from torch's CPU generator.

    Returns:
        `"clean"` and every name in `changes`, in this order.

    Raises:
        TypeError: if images, labels, `random` or logits are of a wrong type.
        ValueError: if their shapes or values are wrong, or the images do not divide into patches.

    Examples:
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 8 - images.sum(dim=(1, 2, 3))), dim=1)
        >>> images, labels = torch.full((2, 1, 4, 4), 0.3), torch.tensor([0, 0])
        >>> changes = {"attack": PatchPGD(threat=Linf(eps=1.0), patch_size=2, share=0.5)}
        >>> patch_sensitivity(model, images, labels, changes=changes, random=ImageRandom(seed=0))["attack"].accuracy
        0.0
    """
    if changes is None:
        changes = {"attack": PatchPGD(), "noise": NoisyPatches(), "occlusion": OccludedPatches()}
    if "clean" in changes:
        raise ValueError('patch_sensitivity: "clean" is the name of the images as they are: give the change another')
    random = check_call(Linf(eps=1.0), images, labels, random)
    results = {"clean": _judged(model, images, labels, random)}
    for name, change in changes.items():
        results[name] = _judged(model, change(model, images, labels, random=random), labels, random)
    return results


def _judged(model: Model, images: Tensor, labels: Tensor, random: ImageRandom) -> TrueClass:
    """One forward pass."""
    with pristine(model, images, random.seed) as model, torch.no_grad():
        logits = model(images.detach().clone())
        check_logits(logits, images)
        check_labels(labels, images, classes=logits.shape[1])
        finite = logits.isfinite().all(dim=1)
        confidence = logits.double().softmax(dim=1).gather(1, labels[:, None])[:, 0]
        return TrueClass(
            correct=finite & (predicted(logits) == labels), confidence=torch.where(finite, confidence, torch.nan)
        )
