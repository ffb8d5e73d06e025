"""What is counted, told and warned about while one change is fitted to many images."""

import warnings
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """How far a fit has come.

    Args:
        number: of the epoch that has just ended, from 1.
        epochs: how many there will be.
        loss: mean of the losses of the images under the change that each of them met.
        success: share of the images that it won: misclassified ones, or for a `targeted` loss those on target.
    """

    number: int
    epochs: int
    loss: float
    success: float


class Tally:
    """What the passes of a fit add up; on the device, so that only the end of an epoch waits for it.

    Args:
        epochs: how many there will be.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs, self._number = epochs, 0
        self._seen, self._broken, self._moved = 0, 0, False
        self._clear()

    def _clear(self) -> None:
        self._images = 0
        self._loss: Tensor | float = 0.0
        self._won: Tensor | int = 0
        self._broken_now: Tensor | int = 0
        self._moved_now: Tensor | bool = False

    def add(self, losses: Tensor, won: Tensor, broken: Tensor, step: Tensor) -> None:
        """Count a pass.

        Args:
            losses: of its images, (n,); those that are not finite count as nothing.
            won: which of them the attacker has won, bool (n,).
            broken: which of them took no part, since logits or gradients were not finite, bool (n,).
            step: where the change goes, of any shape; zero if there was no gradient.
        """
        self._images += len(losses)
        self._loss = self._loss + losses.detach().double().nan_to_num(posinf=0.0, neginf=0.0).sum()
        self._won = self._won + won.sum()
        self._broken_now = self._broken_now + broken.sum()
        self._moved_now = self._moved_now | step.any()

    def close(self) -> Epoch:
        """End an epoch, and sum it up.

        Raises:
            ValueError: if it had no images.
        """
        self._number += 1
        if not self._images:
            raise ValueError(f"there are no images to fit to in epoch {self._number}: the batches are empty")
        loss, success = float(self._loss) / self._images, float(self._won) / self._images
        self._seen += self._images
        self._broken += int(self._broken_now)
        self._moved |= bool(self._moved_now)
        self._clear()
        return Epoch(number=self._number, epochs=self._epochs, loss=loss, success=success)

    def warn(self) -> None:
        """Tell what was wrong with the model; to be called by `fit`, so that it points at the line that called it."""
        if not self._moved:
            warnings.warn(
                "the fit had no gradient to follow, so its start is all it found: look for torch.no_grad, detach or a "
                "step function in the model, or losses that all lie above the ceiling",
                RuntimeWarning,
                stacklevel=3,
            )
        if self._broken:
            warnings.warn(
                f"logits or gradients of {self._broken} of {self._seen} images (all epochs together) were not finite, "
                "so these images took no part: look for overflow, 0 / 0, log(0) or sqrt(0) in the model",
                RuntimeWarning,
                stacklevel=3,
            )
