"""Training on the images as they are."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from robust_train.objectives.objective import Context, Objective, check_smoothing


@dataclass(frozen=True, kw_only=True)
class Standard(Objective):
    """The mean cross-entropy of the images.

    Args:
        label_smoothing: share of the label that is spread over all classes, in [0, 1).

    Examples:
        >>> import torch
        >>> loss, metrics = Standard()(torch.nn.Flatten(), torch.zeros(4, 1, 1, 2), torch.tensor([0, 1, 0, 1]))
        >>> round(loss.item(), 4), metrics["accuracy"].item()
        (0.6931, 2)
    """

    label_smoothing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StandardSettings:
    """The mean cross-entropy of the images.

    Args:
        name: "standard".
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
    """

    attacks: ClassVar[bool] = False

    name: Literal["standard"]
    label_smoothing: float

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)

    def build(self, _: Context) -> Standard:
        """The objective."""
        return Standard(label_smoothing=self.label_smoothing)
