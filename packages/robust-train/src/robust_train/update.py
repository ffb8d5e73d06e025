"""One update of the weights: the passes over a batch, and the optimizer's step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from robust_optim import ESAM, TwoPass
from robust_optim.distributed import no_sync
from torch import Tensor, nn
from torch.optim import Optimizer

from robust_train.objectives import Metrics, Objective

Part = tuple[Tensor, Tensor, Tensor]
"""Images, what the objective made of them, and labels."""


class Losses(nn.Module):
    """Model and objective as one module, which is what a wrapper for several processes is put around.

    Args:
        model: what is trained.
        objective: gives the losses.
    """

    objective: Objective

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.__dict__["objective"] = (
            objective  # not a part: its own weights, if it has some, are not trained with these
        )

    def forward(self, images: Tensor, perturbed: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """The losses (N,) and the metrics, with their sum as `loss`."""
        losses, metrics = self.objective.losses(self.model, images, perturbed, labels)
        return losses, {"loss": losses.detach().sum(), **metrics}


@dataclass(kw_only=True)
class Passes:
    """The forward and backward passes of an update over the parts of a batch.

    Attributes:
        module: a `Losses`, or a wrapper around one.
        optimizer: whose gradients are cleared.
        scaler: of the loss.
        precision: dtype of automatic mixed precision, or None.
        parts: of the batch.
        images: by which the sum of the losses is divided: those of the batch, or with several processes, whose
            gradients are averaged, the batch's over the number of processes.
        metrics: of the first pass, at the weights before the step.
    """

    module: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    precision: torch.dtype | None
    parts: Sequence[Part]
    images: float
    metrics: Metrics = field(default_factory=dict)

    def closure(self) -> Tensor:
        """Clear the gradients, and run all parts forward and backward; the mean loss comes back."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.parts[0][0].device)
        sums: Metrics = {}
        for part in self.parts:
            with no_sync(None if part is self.parts[-1] else self.module):
                losses, metrics = self._forward(part)
                loss = losses.sum() / self.images
                torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
            sums = {name: sums[name] + value if sums else value for name, value in metrics.items()}
        self.metrics = self.metrics or sums
        return total

    def losses(self, subset: Tensor | None = None) -> Tensor:
        """The loss of every image, or of some, without a backward pass."""
        (part,) = self.parts
        images, perturbed, labels = part
        if subset is not None:
            images, perturbed, labels = images[subset], perturbed[subset], labels[subset]
        losses, metrics = self._forward((images, perturbed, labels))
        self.metrics = self.metrics or metrics
        return losses

    def step(self, clip: float | None) -> None:
        """Let the optimizer step, in as many passes as it takes, with the norm of the gradient at most `clip`.

        The optimizers of robust-optim have the scaler and the clipping themselves.
        """
        if isinstance(self.optimizer, ESAM):
            self.optimizer.step(self.losses)
        elif isinstance(self.optimizer, TwoPass):
            self.optimizer.step(self.closure)
        else:
            self.closure()
            if clip is not None:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.module.parameters(), clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def _forward(self, part: Part) -> tuple[Tensor, Metrics]:
        # Every pass opens its own autocast: inside one long autocast, weights that were changed would not be seen.
        with torch.autocast(part[0].device.type, self.precision, enabled=self.precision is not None):
            losses, metrics = self.module(*part)
        return losses, metrics
