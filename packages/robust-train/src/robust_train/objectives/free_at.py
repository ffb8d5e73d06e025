"""Free adversarial training: one backward pass moves the weights and the perturbation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from robust_attacks import ImageRandom
from torch import Tensor, nn

from robust_train.objectives.objective import Context, Metrics, Objective
from robust_train.perturb import FULL, Strength
from robust_train.settings.attack import check_eps
from robust_train.settings.require import require


@dataclass(kw_only=True)
class FreeAT(Objective):
    """The mean cross-entropy at clip(x + delta), whose own backward pass moves delta for the next replay.

    Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor, Goldstein, "Adversarial training for free!", NeurIPS
    2019, arXiv:1904.12843, algorithm 1. Every batch is used for `replays` updates. There is one delta for every place
    in a batch, zero at first; it stays from batch to batch, and those that a short batch does not reach stay as they
    are. After each update it moves by eps times the sign of the gradient and is cut to [-eps, eps].

    An update costs 3 passes, as in ordinary training. Divide the epochs by `replays` to keep the cost of a run. The
    model is in training mode throughout, since attack and update are one pass.

    The gradient is that at the network's input, inside of the box. The authors' code differentiates the clipping too,
    so there the delta of a pixel rests as long as it points out of the box. Optimizers of several passes
    (`sharpness`) move delta by the last one.

    Call `learn` after every update, as the loop does; the places are the ids of the random numbers, or 0..N-1.

    Args:
        eps: radius of the Linf ball, in units of [0, 1] pixels, in (0, 1]; also the step.
        replays: how many updates in a row a batch is used for, m in the paper, >= 1.

    Attributes:
        delta: of every place in a batch, (places, C, H, W), None before the first batch.
    """

    accuracy: ClassVar[str] = "adversarial_accuracy"

    eps: float
    replays: int = 8
    delta: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _places: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    def perturb(
        self,
        model: nn.Module,  # noqa: ARG002 - it was attacked by the last backward pass
        images: Tensor,
        labels: Tensor,  # noqa: ARG002
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,  # noqa: ARG002
    ) -> Tensor:
        """Add the delta of their places to `images` (N, C, H, W) in [0, 1]; the backward pass leaves a gradient there.

        Args:
            model: not used.
            images: (N, C, H, W) in [0, 1].
            labels: not used.
            random: its ids are the places in the batch; None means 0..N-1.
            strength: not used: there is no attack to warm up.
        """
        ids = None if random is None else random.ids
        places = torch.arange(len(images), device=images.device) if ids is None else ids.to(images.device)
        count = int(places.max()) + 1
        if self.delta is None or len(self.delta) < count:
            grown = images.new_zeros(count, *images.shape[1:])
            if self.delta is not None:
                grown[: len(self.delta)] = self.delta
            self.delta = grown
        self.delta = self.delta.to(images)
        self._places.append(places)
        return (images + self.delta[places]).clamp(0, 1).requires_grad_()

    def losses(
        self,
        model: nn.Module,
        images: Tensor,
        perturbed: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """The cross-entropies (N,) of `perturbed`, and the sum `adversarial_accuracy`."""
        if perturbed.is_leaf:
            perturbed.grad = None  # that of an earlier pass over the same images
        return super().losses(model, images, perturbed, labels)

    @torch.no_grad()
    def learn(self, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Move delta by the gradients that the update left at the perturbed images."""
        for (_, perturbed, _), places in zip(parts, self._places[-len(parts) :], strict=True):
            if self.delta is None or perturbed.grad is None:
                raise RuntimeError("FreeAT learns from a backward pass over what `perturb` gave: run it before `learn`")
            step = self.eps * perturbed.grad.nan_to_num(nan=0.0).sign()
            self.delta[places] = (self.delta[places] + step).clamp(-self.eps, self.eps)
        self._places.clear()

    def state_dict(self) -> dict[str, Any]:
        """The delta."""
        return {"delta": self.delta}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the delta of `state_dict`."""
        self.delta = state_dict["delta"]


@dataclass(frozen=True, kw_only=True)
class FreeATSettings:
    """One backward pass moves weights and perturbation: Shafahi et al., NeurIPS 2019, arXiv:1904.12843.

    The recipe has no attack.

    Args:
        name: "free_at".
        eps: radius of the Linf ball, in units of [0, 1] pixels; also the step.
        replays: how many updates in a row a batch is used for, m in the paper, at least 1. An epoch counts a batch
            once, and so do log_every and checkpoint_every.
    """

    attacks: ClassVar[bool] = False

    name: Literal["free_at"]
    eps: float
    replays: int

    def __post_init__(self) -> None:
        check_eps("Linf", self.eps)
        require(self.replays >= 1, f"replays must be at least 1, got {self.replays}")

    def build(self, _: Context) -> FreeAT:
        """The objective."""
        return FreeAT(eps=self.eps, replays=self.replays)
