"""How mixtures of weights are chosen: by accuracy on images that are kept apart for that."""

import math
from collections.abc import Callable

from torch import Tensor

HeldOutAccuracy = Callable[[dict[str, Tensor]], float]
"""Loads a state dict into the model and measures it on a held-out split, never on a test set: larger is better.

It may not change the tensors that it is given.
"""


def measure(accuracy: HeldOutAccuracy, state: dict[str, Tensor], of: str) -> float:
    """The accuracy of `state`.

    Raises:
        ValueError: if it is not finite; `of` says in the message whose it is.
    """
    value = float(accuracy(state))
    if not math.isfinite(value):
        raise ValueError(f"the held-out accuracy of {of} is {value}")
    return value
