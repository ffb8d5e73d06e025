"""LP-ReLU: a ReLU that rises less where activations are large."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LPReLU(nn.Module):
    """0 below 0, slope 1 up to the first threshold, and from each threshold on its own slope; continuous.

    Hossain et al., "Robust Image Classification Using a Low-Pass Activation Function and DCT Augmentation", IEEE Access
    2021, arXiv:2007.09453. The authors have two versions, `LPReLU.v1` (the default) and `LPReLU.v2`. Their file for the
    second jumps at its thresholds, 5 + 0.05 x and then 5.4 + 0.02 x; this one does not.

    Args:
        thresholds: positive and rising, in units of the activations.
        slopes: behind each threshold, as many.
        learnable: train both; they are in the state dict then.

    Raises:
        ValueError: if the two differ in length or are empty, or the thresholds are not positive and rising.

    Examples:
        >>> LPReLU()(torch.tensor([-1.0, 5.0, 10.0, 30.0])).tolist()
        [0.0, 5.0, 10.0, 11.0]
    """

    thresholds: Tensor
    slopes: Tensor

    def __init__(
        self, thresholds: Sequence[float] = (10.0,), slopes: Sequence[float] = (0.05,), learnable: bool = False
    ) -> None:
        super().__init__()
        edges = [0.0, *thresholds]
        rising = all(low < high for low, high in itertools.pairwise(edges))
        if len(thresholds) != len(slopes) or not thresholds or not rising:
            raise ValueError(
                "LPReLU needs positive, rising thresholds and as many slopes, got "
                f"thresholds={tuple(thresholds)}, slopes={tuple(slopes)}"
            )
        for name, values in (("thresholds", thresholds), ("slopes", slopes)):
            tensor = torch.tensor(values, dtype=torch.get_default_dtype())
            if learnable:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor, persistent=False)

    @classmethod
    def v1(cls, learnable: bool = False) -> "LPReLU":
        """Slope 1 up to 10, then 0.05."""
        return cls((10.0,), (0.05,), learnable)

    @classmethod
    def v2(cls, learnable: bool = False) -> "LPReLU":
        """Slope 1 up to 5, 0.05 up to 8, then 0.02."""
        return cls((5.0, 8.0), (0.05, 0.02), learnable)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        # A sum of what lies in each segment: no large numbers cancel, as they would in x minus what is cut off.
        y = torch.minimum(x.relu(), self.thresholds[0])
        for index, slope in enumerate(self.slopes):
            above = (x - self.thresholds[index]).relu()
            if index + 1 < len(self.thresholds):
                above = torch.minimum(above, self.thresholds[index + 1] - self.thresholds[index])
            y = y + slope * above
        return y

    def extra_repr(self) -> str:
        """The settings, where they can be read."""
        if self.slopes.is_meta:
            return f"segments={len(self.slopes)}"
        thresholds, slopes = (
            [round(value, 4) for value in each.tolist()] for each in (self.thresholds, self.slopes)
        )  # fmt: skip
        return f"thresholds={thresholds}, slopes={slopes}, learnable={isinstance(self.slopes, nn.Parameter)}"
