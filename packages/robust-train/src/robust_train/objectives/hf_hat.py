"""HAT, high-frequency: small perturbations on top of clean images, for transformers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from robust_attacks import ImageRandom
from torch import Tensor, nn

from robust_train.objectives.divergence import kl_divergence
from robust_train.objectives.objective import Context, Metrics, Objective, check_smoothing, correct, cross_entropy
from robust_train.perturb import FULL, Strength, attack_mode
from robust_train.settings import BatchNorm
from robust_train.settings.attack import check_eps
from robust_train.settings.require import require, require_not_negative


@dataclass(kw_only=True)
class HighFrequencyHAT(Objective):
    """The mean over images of a clean loss plus those at `iterations - 1` perturbations of growing length.

    Bai, Yuan, Xia, Yan, Li, Liu, "Improving vision transformers by revisiting high-frequency components", ECCV 2022,
    arXiv:2204.00993. With S = (KL(p0 || p) + KL(p || p0)) / 2, p0 the prediction at x without a gradient, the losses
    are CE + kl_weight S at x, and (ce_weight CE + kl_weight S) / (iterations - 1) at each x + delta, where delta starts
    at zero and climbs the loss of its iteration by steps of the gradient's sign. The aim is accuracy, also under
    distribution shift: eps is 2/255 at most.

    The authors' code uses the backward pass that moves the weights for delta too: 1 + 3 `iterations` passes, 10 for the
    published 3. Here delta is computed first, from input gradients alone, so that the losses can be evaluated again on
    the same images: 3 `iterations` + 2 passes for p0, and 2 (`iterations` - 1) for delta, 15 in all. All views
    are one forward pass, whose memory `accumulate` divides. Masks of dropout and stochastic depth are drawn anew for
    delta. Their code adds delta to normalised images (mean and std 0.5) and does not clip: eps = 1/255, step = 0.5/255
    and box = False are the same here.

    Args:
        eps: largest change of a pixel, in units of [0, 1] pixels, in (0, 1].
        step: of delta, in the same units, > 0.
        iterations: passes over each image, the clean one among them, >= 2.
        ce_weight: of the cross-entropies at perturbed images, >= 0.
        kl_weight: of S, >= 0.
        box: keep perturbed images in [0, 1].
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
        batch_norm: the model's mode for delta, see `robust_train.perturb.attack_mode`; in training mode as published.
        adversarial_updates: after so many updates it trains on the clean images alone; None never does. Published: the
            first 200 of 300 epochs.

    Attributes:
        updates: how many were done.
    """

    eps: float = 2 / 255
    step: float = 1 / 255
    iterations: int = 3
    ce_weight: float = 3.0
    kl_weight: float = 0.01
    box: bool = True
    label_smoothing: float = 0.0
    batch_norm: BatchNorm = "train"
    adversarial_updates: int | None = None
    updates: int = field(default=0, init=False, compare=False)

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom | None = None,  # noqa: ARG002 - nothing is random
        *,
        strength: Strength = FULL,
    ) -> Tensor:
        """Make x, x + delta_1, ... (N, iterations, C, H, W) of `images` (N, C, H, W) in [0, 1], or hand them back."""
        if self.adversarial_updates is not None and self.updates >= self.adversarial_updates:
            return images
        eps, step = self.eps * strength.radius, self.step * strength.step
        views = [images]
        with attack_mode(model, self.batch_norm), torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                reference = model(images)
            for index in range(self.iterations - 1):
                gradient = self._gradient(model, views[-1], reference, labels, index)
                delta = (views[-1] + step * gradient.sign() - images).clamp(-eps, eps)
                view = images + delta
                views.append(view.clamp(0, 1) if self.box else view)
        return torch.stack(views, dim=1)

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy`, `adversarial_accuracy` and `divergence` of the last view."""
        if perturbed.ndim == images.ndim:
            return super().losses(model, images, perturbed, labels)
        with torch.no_grad():
            reference = model(images)
        views = model(perturbed.flatten(0, 1)).unflatten(0, perturbed.shape[:2]).unbind(1)
        losses = [self._loss(logits, reference, labels, index) for index, logits in enumerate(views)]
        metrics = {
            "accuracy": correct(views[0], labels),
            "adversarial_accuracy": correct(views[-1], labels),
            "divergence": _symmetric(reference, views[-1]).detach().sum(),
        }
        return torch.stack(losses).sum(0), metrics

    def learn(self, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Count the update."""
        del parts
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """The number of updates."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the number of updates of `state_dict`."""
        self.updates = state_dict["updates"]

    def _loss(self, logits: Tensor, reference: Tensor, labels: Tensor, index: int) -> Tensor:
        """The losses (N,) of a view, the first of which is clean."""
        entropy = cross_entropy(logits, labels, self.label_smoothing)
        divergence = self.kl_weight * _symmetric(reference, logits)
        return entropy + divergence if index == 0 else (self.ce_weight * entropy + divergence) / (self.iterations - 1)

    @torch.enable_grad()
    def _gradient(self, model: nn.Module, images: Tensor, reference: Tensor, labels: Tensor, index: int) -> Tensor:
        """The gradient of the summed losses of a view with respect to it; NaN counts as zero."""
        leaf = images.detach().requires_grad_()
        total = self._loss(model(leaf), reference, labels, index).sum()
        return torch.autograd.grad(total, leaf)[0].nan_to_num(nan=0.0)


def _symmetric(reference: Tensor, logits: Tensor) -> Tensor:
    return (kl_divergence(reference, logits) + kl_divergence(logits, reference)) / 2


@dataclass(frozen=True, kw_only=True)
class HighFrequencyHATSettings:
    """Small perturbations on top of clean images: Bai et al., ECCV 2022, arXiv:2204.00993. The recipe has no attack.

    Args:
        name: "hf_hat".
        eps: largest change of a pixel, in units of [0, 1] pixels.
        step: of the perturbation, in the same units.
        iterations: passes over each image, the clean one among them, at least 2.
        ce_weight: of the cross-entropies at perturbed images, at least 0.
        kl_weight: of the symmetric divergence from the clean prediction, at least 0.
        box: keep perturbed images in [0, 1].
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
        batch_norm: mode of the model while the perturbation is computed, see `robust_train.perturb`.
        adversarial_updates: after so many updates it trains on the clean images alone; null never does.
    """

    attacks: ClassVar[bool] = False

    name: Literal["hf_hat"]
    eps: float
    step: float
    iterations: int
    ce_weight: float
    kl_weight: float
    box: bool
    label_smoothing: float
    batch_norm: BatchNorm
    adversarial_updates: int | None

    def __post_init__(self) -> None:
        check_eps("Linf", self.eps)
        require(self.step > 0, f"step must be positive, got {self.step}")
        require(self.iterations >= 2, f"iterations must be at least 2, got {self.iterations}")
        require_not_negative(self, "ce_weight", "kl_weight")
        check_smoothing(self.label_smoothing)
        limit = self.adversarial_updates
        require(limit is None or limit >= 0, f"adversarial_updates must not be negative, got {limit}")

    def build(self, _: Context) -> HighFrequencyHAT:
        """The objective."""
        return HighFrequencyHAT(
            eps=self.eps,
            step=self.step,
            iterations=self.iterations,
            ce_weight=self.ce_weight,
            kl_weight=self.kl_weight,
            box=self.box,
            label_smoothing=self.label_smoothing,
            batch_norm=self.batch_norm,
            adversarial_updates=self.adversarial_updates,
        )
