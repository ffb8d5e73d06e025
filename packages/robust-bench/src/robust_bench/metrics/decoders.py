"""How much a model depends on the software that decodes and resizes its images (ImageNet-S)."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DecoderScore:
    """Accuracy over combinations of decoder and resizer.

    Args:
        mean: mean accuracy over the cells, a fraction.
        deviation: population standard deviation over the cells, a fraction.
        cells: what the score was taken over. It is part of the score: another list gives other numbers.
    """

    mean: float
    deviation: float
    cells: tuple[Hashable, ...]


def decoder_score(accuracies: Mapping[Any, float]) -> DecoderScore:
    """Give the mean and the population standard deviation of a model's accuracy over decoders and resizers.

    Tang et al., "RobustART: Benchmarking Robustness on Architecture Design and Training Techniques",
    arXiv:2109.05211 (ImageNet-S). The deviation divides by the number of cells, not by one less. Published numbers
    are over 33 cells: 3 decoders with 11 resizers each.

    Args:
        accuracies: for every cell, e.g. ("pil", "bilinear"), the top-1 accuracy, a fraction.

    Returns:
        Mean, deviation and the list of cells.

    Raises:
        ValueError: if there is no cell, or an accuracy is no fraction.

    Examples:
        >>> score = decoder_score({("pil", "bilinear"): 0.75, ("opencv", "bilinear"): 0.25})
        >>> score.mean, score.deviation
        (0.5, 0.25)
    """
    if not accuracies:
        raise ValueError("accuracies is empty: give at least one cell")
    for cell, accuracy in accuracies.items():
        if not 0.0 <= accuracy <= 1.0:
            raise ValueError(f"the accuracy of {cell!r} must be a fraction in [0, 1], got {accuracy}: not per cent")
    values = np.asarray(list(accuracies.values()), dtype=np.float64)
    mean = math.fsum(values) / len(values)
    return DecoderScore(mean, math.sqrt(math.fsum((values - mean) ** 2) / len(values)), tuple(accuracies))
