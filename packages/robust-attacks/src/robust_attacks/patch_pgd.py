"""PGD restricted to random patches of the image."""

from dataclasses import dataclass

from torch import Tensor

from robust_attacks._checks import Model, check_call
from robust_attacks._patches import random_patches
from robust_attacks._settings import check_count, check_loss, check_number, check_step_size, check_threat
from robust_attacks.losses import Loss, cross_entropy
from robust_attacks.masked import Masked
from robust_attacks.pgd import PGD
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Linf, Threat

_THREAT = Linf(eps=8 / 255)


@dataclass(frozen=True, kw_only=True)
class PatchPGD:
    """PGD that may change a few random patches of an image and nothing else.

    The probe of Figure 1 in Guo, Stutz, Schiele, "Improving robustness of vision transformers by reducing sensitivity
    to patch corruptions" (RSPC), CVPR 2023: a tenth of the 16 x 16 patches, chosen uniformly. The authors' released
    code does not contain it, so eps and steps are settings here and not theirs. `NoisyPatches` and
    `OccludedPatches` do to the same patches what it is compared with, and `patch_sensitivity` reports all three.

    For patches of your own choice, `PGD(threat=Masked(threat=..., mask=...))` is the same attack. Costs what `PGD`
    costs: `steps` forward and backward passes in one run.

    Args:
        threat: what may be done to the pixels of the patches.
        patch_size: side of the patches in pixels; it must divide both sides of the images.
        share: share of the patches that may change, in (0, 1], rounded to the nearest number of patches.
        steps: gradient steps, >= 1.
        step_size: length of a step in the threat's norm, in pixel units; None means `2.5 * eps / steps`.
        random_start: start from a uniform point of the threat rather than from the image.
        restarts: how many runs an image gets at most, 1..256, all of them in the same patches.
        loss: what to increase: logits (N, K), labels (N,) -> losses (N,).
        coordinates: for L1, how many pixels a step moves at most; None means a hundredth of those in the patches.
        eot: for models that randomise, over how many draws gradients and logits are averaged, >= 1.

    Examples:
        >>> import torch
        >>> from robust_attacks import ImageRandom, Linf
        >>> model = lambda images: torch.stack((images.sum(dim=(1, 2, 3)), 1 - images[:, 0, 0, 0]), dim=1)
        >>> attack = PatchPGD(threat=Linf(eps=0.1), patch_size=2, share=0.25)
        >>> images = torch.full((1, 1, 4, 4), 0.5)
        >>> (attack(model, images, torch.tensor([0]), random=ImageRandom(seed=0)) != images).sum()
        tensor(4)
    """

    threat: Threat = _THREAT
    patch_size: int = 16
    share: float = 0.1
    steps: int = 10
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    loss: Loss = cross_entropy
    coordinates: int | None = None
    eot: int = 1

    def __post_init__(self) -> None:
        check_threat("PatchPGD", self.threat)
        check_count("PatchPGD", "patch_size", self.patch_size)
        check_number("PatchPGD", "share", self.share, most=1, open_below=True)
        check_count("PatchPGD", "steps", self.steps)
        check_step_size("PatchPGD", self.step_size, default="2.5 * eps / steps")
        check_count("PatchPGD", "restarts", self.restarts, most=256)
        check_loss("PatchPGD", self.loss)
        if self.coordinates is not None:
            check_count("PatchPGD", "coordinates", self.coordinates)
        check_count("PatchPGD", "eot", self.eot)
        if self.restarts > 1 and not self.random_start:
            raise ValueError("PatchPGD: restarts without random_start would repeat the same run: set random_start=True")

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, random: ImageRandom | None = None) -> Tensor:
        """Perturb images and hand back new ones; nothing that is given changes.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: float32 or float64 (N, C, H, W) in [0, 1], H and W multiples of `patch_size`.
            labels: true classes, or targets for a `targeted` loss, int64 (N,).
            random: the images' random streams; None draws one seed from torch's CPU generator.

        Raises:
            TypeError: if images, labels, `random` or logits are of a wrong type.
            ValueError: if their shapes or values are wrong, or the images do not divide into patches.

        Warns:
            RuntimeWarning: if there was no gradient to follow, or logits or gradients of images were not finite.
        """
        random = check_call(self.threat, images, labels, random)
        mask = self.mask(images, random)
        pixels = int(mask[:1].sum()) * images.shape[1]
        attack = PGD(
            threat=Masked(threat=self.threat, mask=mask),
            steps=self.steps,
            step_size=self.step_size,
            random_start=self.random_start,
            restarts=self.restarts,
            loss=self.loss,
            coordinates=self.coordinates or max(1, pixels // 100),
            eot=self.eot,
        )
        return attack(model, images, labels, random=random)

    def mask(self, images: Tensor, random: ImageRandom) -> Tensor:
        """The pixels that the attack may change with these random streams, bool (N, 1, H, W).

        Raises:
            ValueError: if the images do not divide into patches, or the share rounds to no patch.
        """
        return random_patches("PatchPGD", images, random.of(images), self.patch_size, self.share)
