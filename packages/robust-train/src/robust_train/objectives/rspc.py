"""Reducing sensitivity to patch corruptions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from robust_attacks import ImageRandom
from robust_models.features import block_outputs
from robust_models.normalize import find_normalize
from torch import Tensor, distributed, nn

from robust_train.objectives.mask_network import LossWeights, MaskNetwork
from robust_train.objectives.objective import Context, Metrics, Objective, correct, cross_entropy, widened
from robust_train.objectives.opponent import Opponent
from robust_train.perturb import FULL, Strength
from robust_train.seeds import derive
from robust_train.settings import require


@dataclass(kw_only=True, eq=False)
class RSPC(Objective):
    """The cross-entropy of clean images, and how far the features move where the worst patches are hidden.

    Guo, Stutz, Schiele, "Improving Robustness of Vision Transformers by Reducing Sensitivity to Patch Corruptions",
    CVPR 2023: a `MaskNetwork` C chooses patches, which uniform noise u takes the place of,

        x' = M x + (1 - M) u,    loss = CE(z(x), y) + 0.005 sum_b mean (f_b(x') - f_b(x))^2 / (n + 0.0001),

    over the n blocks of the model. The model descends the loss, also through the features of the clean images, and C
    ascends it, by an SGD of its own. One forward and backward pass of twice the images gives both gradients.

    The published code clips C's gradient to norm 5 without taking the loss scale off, which is up to 2^16, so it nearly
    always has norm 5: `c_gradient="normalise"`. Here every limit is for gradients without the loss scale. With an
    optimizer of two passes C climbs the mean of both. Over several processes C's gradient is averaged.

    Differs from the published code: equal scores do not change how many patches are hidden.

    Args:
        shape: (channels, height, width) of an image.
        patch: side of a patch in pixels; the model's own in the paper, 16.
        share: rho, see `MaskNetwork`, in [0, 1).
        weight: of the features' term, at least 0, 0.005 in the paper.
        noise_space: what u is in: "normalised" as published, or "pixel". The former is mean + std u in pixels, cut to
            [0, 1].
        c_gradient: "normalise" gives C's gradient norm 5; "raw" limits its norm to 5.
        c_lr: learning rate of C, 1e-4 in the paper; momentum 0.9 with Nesterov.
        c_weight_decay: of C, 0.05 in the paper.
        blocks: regular expression of the names of the modules whose outputs are compared; None takes the blocks of the
            model, see `robust_models.features.block_outputs`.
    """

    shape: tuple[int, int, int]
    patch: int = 16
    share: float = 0.1
    weight: float = 5e-3
    noise_space: Literal["normalised", "pixel"] = "normalised"
    c_gradient: Literal["normalise", "raw"] = "normalise"
    c_lr: float = 1e-4
    c_weight_decay: float = 0.05
    blocks: str | None = None

    NORM: ClassVar[float] = 5.0

    _network: MaskNetwork = field(init=False, repr=False)
    _opponent: Opponent = field(init=False, repr=False)
    _differentiated: int = field(init=False, repr=False, default=0)
    _begun: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        self._network = MaskNetwork(self.shape, patch=self.patch, share=self.share)
        decay = self.c_weight_decay
        sgd = torch.optim.SGD(self._network.parameters(), lr=self.c_lr, momentum=0.9, nesterov=True, weight_decay=decay)
        self._opponent = Opponent(self._network, sgd)

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,  # noqa: ARG002
        random: ImageRandom | None = None,
        *,
        strength: Strength = FULL,  # noqa: ARG002
    ) -> Tensor:
        """The noise u (N, C, H, W) in pixels that takes the place of patches; `losses` chooses which."""
        random = ImageRandom.fresh(len(images), images.device) if random is None else random.of(images)
        if not self._begun:
            self._network.reset_parameters(torch.Generator().manual_seed(derive(random.seed, "rspc")))
            self._begun = True
        noise = random.uniform("rspc/noise", images.shape[1:]).to(images)
        normalize = find_normalize(model) if self.noise_space == "normalised" else None
        return noise if normalize is None else normalize.mean.to(noise) + normalize.std.to(noise) * noise

    def losses(self, model: nn.Module, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,), and the sums `accuracy` of the clean images and `alignment` of the features."""
        self._opponent.follow(images)
        weights = LossWeights(self._count)
        with torch.autocast(images.device.type, enabled=False):
            kept = self._network(images, weights)
            hidden = (kept * images + (1 - kept) * perturbed).clamp(0, 1)
        found = block_outputs(model, torch.cat([hidden, images]), pattern=self.blocks)
        clean = found.logits.chunk(2)[1]
        distances = [_distances(output) for output in found.outputs.values()]
        alignment = torch.stack(distances).sum(0) / (len(distances) + 1e-4)
        losses = cross_entropy(clean, labels) + self.weight * alignment
        weights.watch(losses)
        return losses, {"accuracy": correct(clean, labels), "alignment": alignment.detach().sum()}

    def learn(self, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Let C climb along the gradient that the update has left in it."""
        weights = list(self._network.parameters())
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        images = torch.tensor(float(self._differentiated), device=parts[0][0].device)
        if distributed.is_available() and distributed.is_initialized():
            for sums in (*gradients, images):
                distributed.all_reduce(sums)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
        norm = norm / images
        factor = self.NORM / norm if self.c_gradient == "normalise" else (self.NORM / norm).clamp(max=1)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = -(factor * gradient / images).nan_to_num(nan=0.0)
        self._opponent.optimizer.step()
        self._opponent.optimizer.zero_grad()
        self._differentiated = 0

    def state_dict(self) -> dict[str, Any]:
        """C and its optimizer."""
        return {**self._opponent.state_dict(), "begun": self._begun}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._opponent.load_state_dict(state_dict)
        self._begun = state_dict["begun"]

    def _count(self, images: int) -> None:
        self._differentiated += images


def _distances(output: Tensor) -> Tensor:
    """Mean squared differences (N,) between the halves of what left a block (2N, ...), in float32 at least."""
    hidden, clean = widened(output).chunk(2)
    return (hidden - clean).square().flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class RSPCSettings:
    """The cross-entropy of clean images, and how far the features move where the worst patches are hidden.

    Args:
        name: "rspc".
        patch: side of a patch in pixels; the model's own in the paper, 16.
        share: rho, in [0, 1): of n patches, floor(rho (n - 1)) + 1 are hidden; 0.1 in the paper.
        weight: of the features' term, 0.005 in the paper.
        noise_space: what the noise is uniform in, "normalised" as published, or "pixel".
        c_gradient: "normalise" gives the mask network's gradient norm 5, as published; "raw" limits its norm to 5.
        c_lr: learning rate of the mask network, 1e-4 in the paper.
        c_weight_decay: of the mask network, 0.05 in the paper.
        blocks: regular expression of the names of the modules whose outputs are compared; null takes the model's
            blocks.
    """

    attacks: ClassVar[bool] = False

    name: Literal["rspc"]
    patch: int
    share: float
    weight: float
    noise_space: Literal["normalised", "pixel"]
    c_gradient: Literal["normalise", "raw"]
    c_lr: float
    c_weight_decay: float
    blocks: str | None

    def __post_init__(self) -> None:
        require(0 <= self.share < 1, f"share must lie in [0, 1), got {self.share}")
        for setting in ("patch", "c_lr"):
            number = getattr(self, setting)
            require(number > 0, f"{setting} must be positive, got {number}")
        for setting in ("weight", "c_weight_decay"):
            number = getattr(self, setting)
            require(number >= 0, f"{setting} must not be negative, got {number}")

    def build(self, context: Context) -> RSPC:
        """The objective."""
        return RSPC(
            shape=context.shape,
            patch=self.patch,
            share=self.share,
            weight=self.weight,
            noise_space=self.noise_space,
            c_gradient=self.c_gradient,
            c_lr=self.c_lr,
            c_weight_decay=self.c_weight_decay,
            blocks=self.blocks,
        )
