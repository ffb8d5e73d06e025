"""The 16 entry-level classes in which people and models are compared, and a model's decision among them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from robust_bench.metrics._columns import Values, matrix

ENTRY_LEVEL_CLASSES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "airplane": (404,),
        "bear": (294, 295, 296, 297),
        "bicycle": (444, 671),
        "bird": (
            8, *range(10, 17), *range(18, 21), *range(22, 25), *range(80, 84), *range(87, 97), *range(98, 101),
            *range(127, 134), *range(135, 146),
        ),
        "boat": (472, 554, 625, 814, 914),
        "bottle": (440, 720, 737, 898, 899, 901, 907),
        "car": (436, 511, 817),
        "cat": (281, 282, 283, 284, 285, 286),
        "chair": (423, 559, 765, 857),
        "clock": (409, 530, 892),
        "dog": (
            *range(152, 192), *range(193, 204), *range(205, 227), *range(228, 242), *range(243, 251),
            *range(252, 258), 259, *range(261, 264), *range(265, 269),
        ),
        "elephant": (385, 386),
        "keyboard": (508, 878),
        "knife": (499,),
        "oven": (766,),
        "truck": (555, 569, 656, 675, 717, 734, 864, 867),
    }
)  # fmt: skip
"""ImageNet class indices of every entry-level class, 207 in all; the classes are in alphabetical order.

Geirhos et al., "Generalisation in humans and deep neural networks", NeurIPS 2018, arXiv:1808.08750.
"""

_NAMES = tuple(ENTRY_LEVEL_CLASSES)
_INDICES = np.concatenate([np.asarray(indices) for indices in ENTRY_LEVEL_CLASSES.values()])
_SIZES = np.asarray([len(indices) for indices in ENTRY_LEVEL_CLASSES.values()])
_STARTS = np.cumsum(_SIZES) - _SIZES


def decide(logits: Values, aggregation: Literal["mean", "max"] = "mean") -> list[str]:
    """Name the entry-level class that an ImageNet model sees in every image.

    Geirhos et al., "Partial success in closing the gap between human and machine vision", NeurIPS 2021,
    arXiv:2106.07411 (the mean); "ImageNet-trained CNNs are biased towards texture", ICLR 2019, arXiv:1811.12231 (the
    maximum). The two decide differently (a ResNet-50 has a shape bias of 0.214 or 0.221), so a comparison keeps to
    one of them.

    Args:
        logits: (N, 1000) finite logits over ImageNet's classes in their usual order.
        aggregation: "mean" takes the softmax over all 1000 classes and decides for the entry-level class of the
            largest mean probability; "max" decides for the class of the largest of the 207 logits. Among equals the
            first in alphabetical order wins.

    Returns:
        N names, keys of `ENTRY_LEVEL_CLASSES`.

    Raises:
        TypeError: if `logits` is not numbers.
        ValueError: if they are not (N, 1000) and finite, or the aggregation is unknown.

    Examples:
        >>> logits = np.zeros((1, 1000))
        >>> logits[0, 151:269] = 2.0  # dogs and more
        >>> logits[0, 404] = 1.0
        >>> decide(logits)
        ['dog']
    """
    if aggregation not in ("mean", "max"):
        raise ValueError(f"aggregation must be 'mean' or 'max', got {aggregation!r}")
    found = matrix("logits", logits)
    if found.shape[1] != 1000:
        raise ValueError(
            f"logits must have the 1000 columns of ImageNet, got {found.shape[1]}: entry-level classes are defined for "
            "its class indices only"
        )
    chosen = found[:, _INDICES]
    if aggregation == "max":
        classes = np.searchsorted(_STARTS, np.argmax(chosen, axis=1), side="right") - 1
    else:
        # The denominator of the softmax is common to all classes. Without it nothing underflows, and ties stay exact.
        likely = np.exp(chosen - chosen.max(axis=1, keepdims=True))
        classes = np.argmax(np.add.reduceat(likely, _STARTS, axis=1) / _SIZES, axis=1)
    return [_NAMES[index] for index in classes]
