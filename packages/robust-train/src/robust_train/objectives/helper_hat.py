"""HAT, helper-based: TRADES, and helper images beyond the attacked ones, labelled by a standard model."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from robust_models import create_model, load_weights
from torch import Tensor, nn

from robust_train.errors import SetupError
from robust_train.objectives.objective import Context, Metrics, check_smoothing, correct, cross_entropy
from robust_train.objectives.trades import TRADES
from robust_train.perturb import attack_mode
from robust_train.settings.require import require_not_negative


@dataclass(frozen=True, kw_only=True)
class HelperHAT(TRADES):
    """The mean of CE(x, y) + beta KL(p(x) || p(x')) + gamma CE(x + reach (x' - x), y').

    Rade, Moosavi-Dezfooli, "Reducing excessive margin to achieve a better accuracy vs. robustness trade-off", ICLR
    2022, OpenReview Azh9QBQ4tR7. x' is attacked as in TRADES; y' is what a fixed model, trained without attacks,
    predicts at x'. The helper images x + reach (x' - x) are not cut to the box, as in the authors' code.

    A step costs a step of TRADES, a forward pass of the standard model and 3 passes over the helper images: 2 K + 11
    for K steps. The standard model is called in eval mode, and nothing is differentiated there.

    Args:
        attack: makes the images; its loss is replaced by the divergence, see `TRADES`.
        batch_norm: the model's mode during the attack, see `robust_train.perturb.attack_mode`.
        precision: dtype of automatic mixed precision in the attack; None computes it in the dtype of the weights.
        beta: weight of the divergence, >= 0; 2.5 in the paper for CIFAR-10.
        label_smoothing: share of the label that is spread over all classes in the clean loss, in [0, 1).
        reference_batch_norm: see `TRADES`.
        gamma: weight of the helper images, >= 0; 0.5 in the paper.
        reach: how far beyond x' they lie, h in the paper, >= 0: 1 is x' itself, 2 in the paper.
        standard: images to logits (N, K); if it is a module, it moves to the device of the images.
    """

    standard: Callable[[Tensor], Tensor]
    beta: float = 2.5
    gamma: float = 0.5
    reach: float = 2.0

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums of `TRADES` and `helper_accuracy`."""
        targets = self._predicted(perturbed)
        losses, metrics = super().losses(model, images, perturbed, labels)
        logits = model(images + self.reach * (perturbed - images))
        metrics["helper_accuracy"] = correct(logits, targets)
        return losses + self.gamma * cross_entropy(logits, targets), metrics

    def _predicted(self, images: Tensor) -> Tensor:
        """What the standard model says, int64 (N,)."""
        mode: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if isinstance(self.standard, nn.Module):
            mode = attack_mode(self.standard.to(images.device), "eval")
        with mode, torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            return self.standard(images).argmax(1)


@dataclass(frozen=True, kw_only=True)
class HelperHATSettings:
    """TRADES and helper images beyond the attacked ones: Rade and Moosavi-Dezfooli, ICLR 2022.

    Args:
        name: "helper_hat".
        beta: weight of the divergence, at least 0; 2.5 in the paper for CIFAR-10.
        label_smoothing: share of the label that is spread over all classes in the clean loss, in [0, 1).
        reference_batch_norm: pass the clean images twice, as the code of TRADES does.
        gamma: weight of the helper images, at least 0; 0.5 in the paper.
        reach: how far beyond x' they lie, h in the paper, at least 0; 2 in the paper.
        standard_model: name of the standard model, for `robust_models.create_model`; its classes and channels are those
            of the recipe's model.
        standard_img_size: for models that are tied to an image size; None leaves the model's own.
        standard_weights: file of its weights, as `robust-train run` exports them: `<out>/model.safetensors`.
    """

    attacks: ClassVar[bool] = True

    name: Literal["helper_hat"]
    beta: float
    label_smoothing: float
    reference_batch_norm: bool
    gamma: float
    reach: float
    standard_model: str
    standard_img_size: int | None
    standard_weights: str

    def __post_init__(self) -> None:
        require_not_negative(self, "beta", "gamma", "reach")
        check_smoothing(self.label_smoothing)

    def build(self, context: Context) -> HelperHAT:
        """The objective.

        Raises:
            SetupError: if there is no such model or file of weights, or they do not go together.
        """
        try:
            standard = create_model(
                self.standard_model,
                num_classes=context.classes,
                in_chans=context.shape[0],
                img_size=self.standard_img_size,
            )
            load_weights(standard, self.standard_weights)
        except (ValueError, FileNotFoundError) as error:
            raise SetupError(
                f"the standard model of helper_hat cannot be loaded: {error}; train it with a recipe whose objective "
                "is standard, and set objective.standard_weights to its model.safetensors"
            ) from error
        return HelperHAT(
            **context.attacking(),
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            reference_batch_norm=self.reference_batch_norm,
            gamma=self.gamma,
            reach=self.reach,
            standard=standard,
        )
